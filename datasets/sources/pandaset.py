"""PandaSet sequences turned into scenes of a folder log (see ``datasets.sources.folder``).

What is read, for a sequence NNN: camera pictures, ``poses.json``, ``intrinsics.json`` and
``timestamps.json`` and the LiDAR's ``poses.json`` as published; points and their classes from
``NNN_compact/lidar/FF.npz``: ``xyz_cm`` (3, N) int16 centimetres in the frame of the LiDAR pose,
``intensity``, ``sensor`` (0: Pandar64) and ``semseg`` (class 1..42, 0: none) (N,) uint8,
``timestamp`` in seconds; cuboids from ``NNN/annotations/cuboids_csv/FF.csv``, the published table
as CSV. The published ``.pkl.gz`` files are pickles, which this program never opens: export them.

Frames. PandaSet's poses belong to a frame with x right, y forward, z up; its origin is taken for
the middle of the rear axle, above the road. The vehicle frame here has the same origin, lowered to
the road (a plane through the road points within 8 m), and X forward, Y left; the pose frame's tilt
is kept. Sweeps hold the Pandar64's points only: the forward-looking PandarGT sees from elsewhere,
and a sweep has one place where its rays begin. The Pandar64's place follows from the published
static extrinsics of the cameras. Points were published as brought to their sweep's time.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.label_files import write_npz
from datasets.errors import SceneError, SetupError
from datasets.files.bounded_files import npz_member, open_npz, parsing, read_bytes, regular_size
from datasets.files.json_files import json_text, write_json
from datasets.files.replacing import write_text
from datasets.geometry.transforms import (
    Transform,
    apply,
    from_quaternion,
    from_yaw,
    inverse,
    to_quaternion,
)
from datasets.names import check_scene
from datasets.sources.pictures import MAX_PICTURE_BYTES, picture_size
from datasets.sources.strict_json import Record, read_json, read_record
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES

LICENCE = "CC BY 4.0 (PandaSet by Hesai and Scale AI, their terms of use)"
PANDAR64_IN_POSE_M = (0.0, 0.80, 1.86)
ROAD = (7, 8, 9, 10)
KeyFrames = Literal["image", "sweep"]
ROAD_NEAR_M = 8.0
MAX_TIME_S = 1e12
MAX_CUBOIDS_BYTES = 16 << 20
"""Of a frame's table of cuboids: two hundred bytes for each of some hundred."""
_CLASSES = {
    1: ("Smoke", None),
    2: ("Exhaust", None),
    3: ("Spray or rain", None),
    4: ("Reflection", None),
    5: ("Vegetation", "vegetation"),
    6: ("Ground", "other_flat"),
    7: ("Road", "driveable_surface"),
    8: ("Lane Line Marking", "driveable_surface"),
    9: ("Stop Line Marking", "driveable_surface"),
    10: ("Other Road Marking", "driveable_surface"),
    11: ("Sidewalk", "sidewalk"),
    12: ("Driveway", "driveable_surface"),
    13: ("Car", "car"),
    14: ("Pickup Truck", "truck"),
    15: ("Medium-sized Truck", "truck"),
    16: ("Semi-truck", "truck"),
    17: ("Towed Object", "trailer"),
    18: ("Motorcycle", "motorcycle"),
    19: ("Other Vehicle - Construction Vehicle", "construction_vehicle"),
    20: ("Other Vehicle - Uncommon", "others"),
    21: ("Other Vehicle - Pedicab", "others"),
    22: ("Emergency Vehicle", "others"),
    23: ("Bus", "bus"),
    24: ("Personal Mobility Device", "others"),
    25: ("Motorized Scooter", "motorcycle"),
    26: ("Bicycle", "bicycle"),
    27: ("Train", "others"),
    28: ("Trolley", "others"),
    29: ("Tram / Subway", "others"),
    30: ("Pedestrian", "pedestrian"),
    31: ("Pedestrian with Object", "pedestrian"),
    32: ("Animals - Bird", "others"),
    33: ("Animals - Other", "others"),
    34: ("Pylons", "traffic_cone"),
    35: ("Road Barriers", "manmade"),
    36: ("Signs", "manmade"),
    37: ("Cones", "traffic_cone"),
    38: ("Construction Signs", "manmade"),
    39: ("Temporary Construction Barriers", "barrier"),
    40: ("Rolling Containers", "others"),
    41: ("Building", "manmade"),
    42: ("Other Static Object", "manmade"),
}
"""PandaSet's class id: its name and the Occ3D-nuScenes class, as nuScenes defines its classes.

Smoke, exhaust, spray and mirror images are no surface: nobody says what is there.
"""
NAMES = dict(_CLASSES.values())


def class_table() -> NDArray[np.uint8]:
    """(256,) uint8: Occ3D-nuScenes id of each PandaSet class, 255 where there is none."""
    table = np.full(256, IGNORE_ID, np.uint8)
    for number, (_, class_name) in _CLASSES.items():
        if class_name is not None:
            table[number] = OCC3D_NUSCENES.id_of(class_name)
    return table


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Camera:
    width: int
    height: int
    intrinsics: NDArray[np.float64]
    poses: list[Transform]  # T_world_camera
    times_us: list[int]


class PandasetSequence:
    """One sequence on disk.

    Args:
        root: the folder that holds ``NNN`` and ``NNN_compact``.
        name: NNN.
        part: first and last frame of a part of the sequence; None: all of it.
        key: which frames are key-frames: those with an ``image``, or every ``sweep``.

    Raises:
        SetupError: the sequence or its exported points, or frames of this part, are not there.
        SceneError: a file is damaged, or the name cannot be a scene id.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        part: tuple[int, int] | None = None,
        key: KeyFrames = "image",
    ) -> None:
        self.name, self.folder, self.key = name, root / name, key
        self.scene_id = name if part is None else f"{name}-{part[0]:02d}-{part[1]:02d}"
        check_scene(self.scene_id, where=str(root))
        self.points_folder = root / f"{name}_compact" / "lidar"
        self.frames = sorted(int(p.stem) for p in self.points_folder.glob("[0-9]*.npz"))
        if not self.frames:
            raise SetupError(
                f"{self.points_folder}: no exported points FF.npz (the published .pkl.gz are "
                "pickles, which are not opened; see datasets/sources/pandaset.py)"
            )
        if part is not None:
            self.frames = [i for i in self.frames if part[0] <= i <= part[1]]
            if not self.frames:
                raise SetupError(f"{self.points_folder}: no frame from {part[0]} to {part[1]}")
        self.T_world_pose = self._poses("lidar")
        self.cameras = {
            folder.name: self._camera(folder.name)
            for folder in sorted(self.folder.glob("camera/*"))
            if any(folder.glob("*.jpg"))
        }
        lists: dict[str, Sequence[object]] = {"lidar/poses.json": self.T_world_pose}
        for camera, data in self.cameras.items():
            lists[f"camera/{camera}/poses.json"] = data.poses
            lists[f"camera/{camera}/timestamps.json"] = data.times_us
        for file, values in lists.items():
            if len(values) <= self.frames[-1]:
                raise SceneError(where=f"{name}/{file}", rule=f"no frame {self.frames[-1]}")
        self.ground_z_m = self._ground_height()
        T_pose_vehicle = from_yaw(np.pi / 2, [0, 0, self.ground_z_m])
        self.T_world_vehicle = [T @ T_pose_vehicle for T in self.T_world_pose]
        self.T_vehicle_lidar = np.eye(4)
        self.T_vehicle_lidar[:3, 3] = apply(inverse(T_pose_vehicle), np.array(PANDAR64_IN_POSE_M))

    @property
    def key_frames(self) -> list[int]:
        """Frames with points, and with at least one image or all of them."""
        if self.key == "sweep":
            return list(self.frames)
        return [i for i in self.frames if any(self._picture(c, i).exists() for c in self.cameras)]

    def write_sweep(self, frame: int, scene: Path) -> None:
        """A frame's Pandar64 points and classes, and its pictures, into a scene's folder."""
        xyz_m, intensity, semseg = self._points(frame)
        points = np.empty((len(xyz_m), 4), np.float32)
        points[:, :3] = apply(inverse(self.T_vehicle_lidar), self._to_vehicle(xyz_m))
        points[:, 3] = intensity
        target = scene / _sweep_file(frame)
        write_npz(target, {"points": points, "classes": class_table()[semseg]})
        for name in self.cameras:
            if (picture := self._picture(name, frame)).exists():
                (scene / name).mkdir(exist_ok=True)
                try:
                    regular_size(picture, MAX_PICTURE_BYTES, "MAX_PICTURE_BYTES")
                    shutil.copyfile(picture, scene / name / picture.name)
                except (OSError, ValueError) as error:
                    rule = f"cannot be copied: {error}"
                    raise SceneError(where=str(picture), rule=rule) from error

    def write_scene(self, scene: Path) -> dict[str, str]:
        """The scene's JSON, once its sweeps are there.

        Returns:
            Key-frames whose cuboids are damaged, and why. They are written as not annotated, like
            those without a table of cuboids.
        """
        mounts = {name: self._mount(camera) for name, camera in self.cameras.items()}
        cameras = {
            name: {
                "width": camera.width,
                "height": camera.height,
                "intrinsics": camera.intrinsics.tolist(),
                "T_vehicle_camera": _pose_json(mounts[name]),
            }
            for name, camera in self.cameras.items()
        }
        sweeps = [
            {
                "file": _sweep_file(i),
                "lidar": "pandar64",
                "timestamp_us": self._time_us(i),
                "T_global_vehicle": _pose_json(self.T_world_vehicle[i]),
            }
            for i in self.frames
        ]
        frames = [
            {
                "token": _token(self.name, i),
                "sweep": _sweep_file(i),
                "cameras": [
                    {
                        "camera": name,
                        "file": f"{name}/{i:02d}.jpg",
                        "timestamp_us": camera.times_us[i],
                        "T_global_vehicle": _pose_json(camera.poses[i] @ inverse(mounts[name])),
                    }
                    for name, camera in self.cameras.items()
                    if self._picture(name, i).exists()
                ],
            }
            for i in self.key_frames
        ]
        boxes, damaged = {}, {}
        for i in self.key_frames:
            token = _token(self.name, i)
            try:
                own = self._boxes(i)
            except SceneError as error:
                damaged[token] = str(error)
            else:
                if own is not None:
                    boxes[token] = own
        write_text(scene / "annotations.json", json_text({"frames": boxes}))
        lidars = {"pandar64": {"T_vehicle_lidar": _pose_json(self.T_vehicle_lidar)}}
        document = {"cameras": cameras, "lidars": lidars, "sweeps": sweeps, "frames": frames}
        write_text(scene / "scene.json", json_text(document))
        return damaged

    def _picture(self, camera: str, frame: int) -> Path:
        return self.folder / "camera" / camera / f"{frame:02d}.jpg"

    def _time_us(self, frame: int) -> int:
        time_s = self._arrays(frame)["timestamp"]
        if time_s.shape != () or time_s.dtype.kind not in "iuf" or not abs(time_s) < MAX_TIME_S:
            location = str(self.points_folder / f"{frame:02d}.npz")
            raise SceneError(where=location, rule="needs timestamp, one number of seconds")
        return round(float(time_s) * 1e6)

    def _to_vehicle(self, xyz_pose_m: NDArray[np.float64]) -> NDArray[np.float64]:
        return apply(inverse(from_yaw(np.pi / 2, [0, 0, self.ground_z_m])), xyz_pose_m)

    def _mount(self, camera: _Camera) -> Transform:
        """``T_vehicle_camera``, taken where the vehicle moved least between LiDAR poses."""
        steps = [
            float(np.linalg.norm(b[:3, 3] - a[:3, 3]))
            for a, b in zip(self.T_world_vehicle, self.T_world_vehicle[1:], strict=False)
        ]
        slowest = 1 + int(np.argmin(steps))
        return inverse(self.T_world_vehicle[slowest]) @ camera.poses[slowest]

    def _ground_height(self) -> float:
        """Of the road below the pose frame's origin."""
        near = []
        for i in self.frames[:: max(1, len(self.frames) // 8)]:
            xyz_m, _, semseg = self._points(i)
            inside = (np.abs(xyz_m[:, :2]) < ROAD_NEAR_M).all(axis=1)
            near.append(xyz_m[inside & np.isin(semseg, ROAD)])
        road_m = np.concatenate(near)
        if len(road_m) < 3:
            raise SceneError(where=self.name, rule="no road points near the vehicle")
        plane = np.c_[road_m[:, :2], np.ones(len(road_m))]
        return float(np.linalg.lstsq(plane, road_m[:, 2], rcond=None)[0][2])

    def _points(
        self, frame: int
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.uint8]]:
        """Pandar64: (N, 3) metres in the pose frame, (N,) intensity and class."""
        arrays = self._arrays(frame)
        pandar64 = arrays["sensor"] == 0
        return (
            arrays["xyz_cm"].T[pandar64].astype(np.float64) / 100,
            arrays["intensity"][pandar64],
            arrays["semseg"][pandar64],
        )

    def _arrays(self, frame: int) -> dict[str, NDArray[Any]]:
        path = self.points_folder / f"{frame:02d}.npz"
        try:
            with parsing(), open_npz(path) as file:
                arrays = {
                    k: npz_member(file, k)
                    for k in ("xyz_cm", "intensity", "sensor", "semseg", "timestamp")
                }
        except (OSError, ValueError) as error:
            raise SceneError(where=str(path), rule=f"cannot be read: {error}") from None
        n = arrays["xyz_cm"].shape[-1] if arrays["xyz_cm"].ndim == 2 else -1
        flat = ("intensity", "sensor", "semseg")
        if (
            arrays["xyz_cm"].shape != (3, n)
            or arrays["xyz_cm"].dtype != np.int16
            or any(arrays[k].shape != (n,) or arrays[k].dtype != np.uint8 for k in flat)
        ):
            raise SceneError(
                where=str(path), rule=f"needs xyz_cm (3, N) int16 and {', '.join(flat)} (N,) uint8"
            )
        if (arrays["semseg"] > max(_CLASSES)).any():
            raise SceneError(where=str(path), rule=f"a class is not in 0..{max(_CLASSES)}")
        return arrays

    def _boxes(self, frame: int) -> list[dict[str, Any]] | None:
        """Cuboids of a frame; None where nobody drew any."""
        path = self.folder / "annotations" / "cuboids_csv" / f"{frame:02d}.csv"
        if not path.exists():
            return None
        try:
            text = read_bytes(path, MAX_CUBOIDS_BYTES, "MAX_CUBOIDS_BYTES").decode("utf-8")
        except (OSError, ValueError) as error:
            raise SceneError(where=str(path), rule=f"cannot be read: {error}") from None
        rows, n = csv.DictReader(io.StringIO(text, newline="")), -1
        boxes: list[dict[str, Any]] = []
        while True:
            n += 1
            try:
                if (row := next(rows, None)) is None:
                    return boxes
                twin = row["cuboids.sibling_id"] != "-" and row["cuboids.sensor_id"] == "1"
                class_name = NAMES[row["label"]]
                centre = [float(row[f"position.{axis}"]) for axis in "xyz"]
                # width, length, height; the yaw turns an object that looks along y
                width, length, height = (float(row[f"dimensions.{axis}"]) for axis in "xyz")
                T_world_box = from_yaw(float(row["yaw"]) + np.pi / 2, centre)
            except (KeyError, TypeError, ValueError, csv.Error) as error:
                raise SceneError(
                    where=str(path), frame=f"row {n}", rule=f"damaged or unknown: {error!r}"
                ) from None
            if class_name is not None and not twin:  # the PandarGT's twin of a Pandar64's cuboid
                boxes.append(
                    {
                        "track": row["uuid"],
                        "class": class_name,
                        "size_m": [length, width, height],
                        "T_global_box": _pose_json(T_world_box),
                    }
                )

    def _poses(self, sensor: str) -> list[Transform]:
        location = f"{self.name}/{sensor}/poses.json"
        poses = []
        for i, value in enumerate(_list(self.folder / sensor / "poses.json", location)):
            record = Record(value, where=location, at=str(i))
            heading, position = record.record("heading"), record.record("position")
            q = [heading.number(k) for k in "wxyz"]
            try:
                poses.append(from_quaternion(q, [position.number(k) for k in "xyz"]))
            except ValueError as error:
                raise record.error(str(error)) from None
        return poses

    def _camera(self, name: str) -> _Camera:
        location = f"{self.name}/camera/{name}/intrinsics.json"
        k = read_record(self.folder / "camera" / name / "intrinsics.json", location)
        fx, fy, cx, cy = (k.number(key) for key in ("fx", "fy", "cx", "cy"))
        location = f"{self.name}/camera/{name}/timestamps.json"
        times = _list(self.folder / "camera" / name / "timestamps.json", location)
        if not all(isinstance(t, (int, float)) and abs(t) < MAX_TIME_S for t in times):
            raise SceneError(where=location, rule=f"must be a list of seconds below {MAX_TIME_S:g}")
        width, height = picture_size(min((self.folder / "camera" / name).glob("*.jpg")))
        return _Camera(
            width=width,
            height=height,
            intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            poses=self._poses(f"camera/{name}"),
            times_us=[round(t * 1e6) for t in times],
        )


def write_log_file(out: Path) -> None:
    """The folder's ``log.json``; written last, it makes the log complete."""
    document = {"format": "autolabel-folder", "version": 1, "name": "pandaset", "licence": LICENCE}
    write_json(out / "log.json", document)


def _list(path: Path, where: str) -> list[Any]:
    value = read_json(path, where)
    if not isinstance(value, list):
        raise SceneError(where=where, rule="must be a list")
    return value


def _pose_json(T: Transform) -> dict[str, list[float]]:
    return {"rotation_wxyz": to_quaternion(T).tolist(), "translation_m": T[:3, 3].tolist()}


def _sweep_file(frame: int) -> str:
    return f"lidar/{frame:02d}.npz"


def _token(sequence: str, frame: int) -> str:
    return f"{sequence}-{frame:02d}"
