"""Frames from the Waymo Open Dataset, TFRecord (v1) or Parquet (v2).

A scene is one run segment. Layout: any of the folders ``training``, ``validation``, ``testing``
under the root, or the root itself; in it either ``*.tfrecord`` files, whose scene id is the name
without ``segment-`` and ``_with_camera_labels``, or v2's component folders
(``vehicle_pose/SCENE.parquet`` ...).

Geometry: the ego frame is Waymo's vehicle frame at the frame's pose, which belongs to about the
middle of the LiDAR turn. ``T_ego_camera = inv(T_global_vehicle(frame)) T_global_vehicle(middle of
the picture) T_vehicle_camera``. Each of the five lasers has a sweep of its own, with the axes of
the vehicle and the origin at the laser; TOP's is the key sweep, the others are its companions.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from datasets.annotations import Annotations, annotated_frames
from datasets.errors import SceneError, SetupError
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from datasets.geometry.transforms import Transform, inverse
from datasets.names import check_scene, check_token
from datasets.plausibility import check_units
from datasets.returns import ReturnTally, measuring
from datasets.sources.pictures import decode_picture
from datasets.sources.waymo.cameras import (
    RecordedView,
    capture_time_s,
    pose_at_capture,
    straightened,
    with_our_axes,
)
from datasets.sources.waymo.classes import decode_panoptic, occ3d_of_segments
from datasets.sources.waymo.components import Components
from datasets.sources.waymo.frame_records import FrameRecords
from datasets.sources.waymo.range_images import LaserPoints, points_of
from datasets.sources.waymo.recording import (
    CAMERAS,
    RecordedFrame,
    Recording,
    Shot,
    laser_name,
)
from datasets.splits import PUBLISHED_SHARE, Labelled, divide, scenes_named
from datasets.storage.remote_path import remote_or_local
from datasets.taxonomy import OCC3D_WAYMO

VEHICLE_M = ((-1.4, -1.2, -0.5), (4.3, 1.2, 2.4))
"""Waymo's Chrysler Pacifica or Jaguar I-Pace with its sensors, vehicle frame."""
SPLITS = {"training": "train", "validation": "val", "testing": "test"}
"""Waymo's folders and our names of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedSweep(LidarSweep):
    """A turn of one laser inside a file that holds many.

    Attributes:
        scene_id: whose file it is.
        record: number of the frame in the file.
        laser: ``LaserName``.
        T_global_vehicle: the frame's pose.
        origin_m: (3,) of the sweep's axes, in the vehicle frame of the turn.
    """

    scene_id: str
    record: int
    laser: int
    T_global_vehicle: Transform
    origin_m: NDArray[np.float64]


class WaymoSource:
    """An ``AnnotatedSource`` over a folder of the Waymo Open Dataset.

    Args:
        root: see the module's docstring.
        past_sweeps, future_sweeps: at most so many neighbours of a frame's turn, 0.1 s apart.
        labelled: which training scenes ``labeled`` names; ``unlabeled`` is the rest. None: 20 %.
        refuse_impossible: scenes whose units cannot be raise ``SceneError``
            (``datasets.plausibility``), as every command asks for through ``open_source``.
        straighten: take the lens distortion out of the pictures. Without it they are as stored,
            and the intrinsic matrix is wrong by up to some 25 pixels in the corners.
        no_label_zones: keep the points in Waymo's no-label zones. They are as real as others,
            only their objects have no boxes.

    Raises:
        SetupError: no such folder, or no scene in it.
    """

    name = "waymo"
    licence = "Waymo Dataset License Agreement for Non-Commercial Use: non-commercial"
    taxonomy = OCC3D_WAYMO

    def __init__(
        self,
        root: Path,
        *,
        past_sweeps: int = 0,
        future_sweeps: int = 0,
        labelled: Labelled | None = None,
        refuse_impossible: bool = False,
        straighten: bool = True,
        no_label_zones: bool = True,
    ) -> None:
        self.root = remote_or_local(root)
        self.past_sweeps, self.future_sweeps = past_sweeps, future_sweeps
        self.refuse_impossible = refuse_impossible
        self.straighten, self.no_label_zones = straighten, no_label_zones
        self._places: dict[str, Path] = {}  # a TFRecord file, or a folder of components
        self._splits: dict[str, tuple[str, ...]] = {}
        for folder in (self.root, *(self.root / name for name in SPLITS)):
            places = _scenes_in(folder)
            if repeated := sorted(places.keys() & self._places.keys()):
                raise SetupError(f"{folder}: scenes that another folder has too: {repeated[0]} ...")
            self._places |= places
            if folder != self.root and places:
                self._splits[SPLITS[folder.name]] = self._splits[folder.name] = tuple(places)
        if not self._places:
            raise SetupError(
                f"{self.root}: neither *.tfrecord files nor vehicle_pose/*.parquet, here or in "
                f"{', '.join(SPLITS)}"
            )
        self._splits["all"] = tuple(self._places)
        train = self._splits.get("train", () if labelled is None else self._splits["all"])
        if train:
            share = PUBLISHED_SHARE if labelled is None else labelled
            labeled, unlabeled = divide({scene: scene for scene in train}, share)
            self._splits |= {"labeled": labeled, "unlabeled": unlabeled}
        self._latest: tuple[str, Recording] | None = None
        self._turn: tuple[tuple[str, int], LaserPoints] | None = None
        self.returns = ReturnTally()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_latest": None, "_turn": None}  # workers open files themselves

    def scene_ids(self, split: str) -> tuple[str, ...]:
        """Scenes of ``all``, ``train``, ``val``, ``test`` (or their folders' names),
        ``labeled``, ``unlabeled``, or scene ids separated by commas."""
        return scenes_named(split, self._splits, self._places, where=self.root)

    def _recording(self, scene_id: str) -> Recording:
        latest = self._latest
        if latest is None or latest[0] != scene_id:
            place = self._places[scene_id]
            check_scene(scene_id, where=str(place))
            is_file = place.suffix == ".tfrecord"
            latest = scene_id, FrameRecords(place) if is_file else Components(place, scene_id)
            self._latest = latest
        return latest[1]

    def n_frames(self, scene_id: str) -> int:
        return self._recording(scene_id).n_frames()

    def scene(self, scene_id: str) -> Scene:
        recording = self._recording(scene_id)
        recorded = recording.frames()
        path = recording.laser_path()
        sweeps = [self._sweeps(scene_id, k, frame, path) for k, frame in enumerate(recorded)]
        scene = Scene(
            scene_id=scene_id,
            frames=tuple(
                self._frame(scene_id, recording.picture_path(), recorded, sweeps, k)
                for k in range(len(recorded))
            ),
        )
        if self.refuse_impossible:
            check_units(scene)
        return scene

    def _sweeps(
        self, scene_id: str, k: int, frame: RecordedFrame, path: Path
    ) -> tuple[RecordedSweep, ...]:
        """Of each laser, TOP first; none where the frame has no returns."""
        out = []
        for laser, T_vehicle_laser in sorted(frame.T_vehicle_lasers.items()):
            T_ego_lidar = np.eye(4)
            T_ego_lidar[:3, 3] = T_vehicle_laser[:3, 3]
            out.append(
                RecordedSweep(
                    path=path,
                    timestamp_us=frame.timestamp_us,
                    T_ego_lidar=T_ego_lidar,
                    lidar=laser_name(laser),
                    T_ego_vehicle=np.eye(4),
                    scene_id=scene_id,
                    record=k,
                    laser=laser,
                    T_global_vehicle=frame.T_global_vehicle,
                    origin_m=T_vehicle_laser[:3, 3],
                )
            )
        return tuple(out)

    def _frame(
        self,
        scene_id: str,
        path: Path,
        recorded: Sequence[RecordedFrame],
        sweeps: Sequence[tuple[RecordedSweep, ...]],
        k: int,
    ) -> Frame:
        frame = recorded[k]
        token = f"{frame.context}_{frame.timestamp_us}"
        check_token(token, where=str(path))
        T_ego_global = inverse(frame.T_global_vehicle)
        past, future = sweeps[:k][::-1], sweeps[k + 1 :]
        return Frame(
            scene_id=scene_id,
            token=token,
            timestamp_us=frame.timestamp_us,
            T_global_ego=frame.T_global_vehicle,
            cameras=tuple(
                _view(scene_id, path, k, shot, T_ego_global, token) for shot in frame.shots
            ),
            lidar=sweeps[k][0] if sweeps[k] else None,
            companions=sweeps[k][1:],
            past_sweeps=_seen_from(T_ego_global, past[: self.past_sweeps]),
            future_sweeps=_seen_from(T_ego_global, future[: self.future_sweeps]),
            vehicle_m=VEHICLE_M,
        )

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        view = _ours(view, RecordedView)
        stored = self._recording(view.scene_id).picture(view.record, view.calibration.name)
        pixels = decode_picture(
            io.BytesIO(stored),
            size=(view.width, view.height),
            stated_by="its calibration",
            where=f"{view.path}: {view.name}",
            frame=f"record {view.record}",
        )
        if not self.straighten:
            return pixels
        try:
            return straightened(pixels, view.calibration)
        except SceneError as error:
            location, frame = f"{view.path}: {error.where}", f"record {view.record}"
            raise SceneError(where=location, frame=frame, rule=error.rule) from error

    def laser_points(self, sweep: LidarSweep) -> LaserPoints:
        """All that is recorded of a laser's points in a turn, elongation included, in the vehicle
        frame of the turn. ``read_points`` gives the same points in the same order."""
        sweep = _ours(sweep, RecordedSweep)
        points = self._all_points(sweep)
        points = points.chosen(points.laser == sweep.laser)
        if not self.no_label_zones:
            points = points.chosen(~points.in_no_label_zone)
        measured = np.c_[points.xyz_m - sweep.origin_m, points.intensity, points.elongation]
        valid, dropped = measuring(
            measured, f"{sweep.path}: record {sweep.record}, laser {sweep.lidar}"
        )
        self.returns.put(sweep, dropped)
        return points if valid.all() else points.chosen(valid)

    def _all_points(self, sweep: RecordedSweep) -> LaserPoints:
        """Of every laser; the lasers of one turn are asked for one after the other."""
        key, turn = (sweep.scene_id, sweep.record), self._turn
        if turn is None or turn[0] != key:
            try:
                images = self._recording(sweep.scene_id).lasers(sweep.record)
                if not images:
                    raise SceneError(where="lasers", rule="there is no range image")
                turn = key, points_of(images, sweep.T_global_vehicle)
            except SceneError as error:
                if error.frame:
                    raise
                raise SceneError(
                    where=f"{sweep.path}: {error.where}",
                    frame=f"record {sweep.record}",
                    rule=error.rule,
                ) from error
            self._turn = turn
        return turn[1]

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        """(N, 4): the vehicle's axes, origin at the laser, both returns.

        The intensity is as recorded: mostly 0..1, but without an upper bound, so not 0..255.
        """
        return np.ascontiguousarray(self.read_points_and_elongation(sweep)[:, :4])

    def read_points_and_elongation(self, sweep: LidarSweep) -> NDArray[np.float32]:
        points = self.laser_points(sweep)
        out = np.empty((len(points.xyz_m), 5), np.float32)
        out[:, :3] = points.xyz_m - _ours(sweep, RecordedSweep).origin_m
        out[:, 3] = points.intensity
        out[:, 4] = points.elongation
        return out

    def number_of(self, frame: Frame) -> int:
        """A frame's place in its scene, from 0. Raises ``SceneError`` where it has no sensor."""
        for part in (frame.lidar, *frame.cameras):
            if isinstance(part, (RecordedSweep, RecordedView)):
                return part.record
        raise SceneError(where=frame.scene_id, frame=frame.token, rule="it has no sensor's data")

    def annotations(self, frame: Frame) -> Annotations:
        """Boxes; and point classes where the turn has segmentation labels (only TOP's have)."""
        recording, number = self._recording(frame.scene_id), self.number_of(frame)
        boxes = recording.boxes(number)
        classes = None
        if frame.lidar is not None:
            segments = self.laser_points(frame.lidar).segment
            if segments.any():
                classes = occ3d_of_segments()[segments]
        try:
            return Annotations(
                boxes=boxes,
                point_classes=classes,
                annotated=bool(boxes) or annotated_frames(recording.tracks())[number],
            )
        except SceneError as error:
            raise SceneError(
                where=f"{recording.laser_path()}: {error.where}",
                frame=frame.token,
                rule=error.rule,
            ) from None

    def panoptic(self, view: CameraView) -> tuple[NDArray[np.uint8], NDArray[np.uint16]] | None:
        """Class (``PANOPTIC_CLASSES``) and instance of each stored pixel; None: not labeled.

        Labels belong to the stored picture, whose lens distortion ``read_image`` takes out.
        """
        view = _ours(view, RecordedView)
        label = self._recording(view.scene_id).panoptic(view.record, view.calibration.name)
        return None if label is None else decode_panoptic(*label)

    def fingerprint(self, scene_id: str) -> str:
        digest = hashlib.sha256(self._recording(scene_id).fingerprint())
        # labels are not made from future sweeps: stores of before have the 0
        options = (self.past_sweeps, 0, self.straighten, self.no_label_zones)
        digest.update(repr(options).encode())
        return digest.hexdigest()


def _seen_from(
    T_ego_global: Transform, turns: Sequence[tuple[RecordedSweep, ...]]
) -> tuple[RecordedSweep, ...]:
    out = []
    for sweep in itertools.chain.from_iterable(turns):
        T_ego_vehicle = T_ego_global @ sweep.T_global_vehicle
        T_ego_lidar = T_ego_vehicle @ sweep.T_ego_lidar
        out.append(replace(sweep, T_ego_lidar=T_ego_lidar, T_ego_vehicle=T_ego_vehicle))
    return tuple(out)


def _view(
    scene_id: str, path: Path, record: int, shot: Shot, T_ego_global: Transform, token: str
) -> RecordedView:
    camera = shot.calibration
    (f_u, f_v), (c_u, c_v) = camera.focal_px, camera.centre_px
    try:
        T_ego_vehicle = T_ego_global @ pose_at_capture(shot)
        return RecordedView(
            name=CAMERAS[camera.name - 1],
            path=path,
            timestamp_us=round(capture_time_s(shot) * 1e6),
            width=camera.width,
            height=camera.height,
            intrinsics=np.array([[f_u, 0, c_u], [0, f_v, c_v], [0, 0, 1]]),
            T_ego_camera=T_ego_vehicle @ with_our_axes(camera.T_vehicle_camera),
            T_ego_vehicle=T_ego_vehicle,
            scene_id=scene_id,
            record=record,
            calibration=camera,
        )
    except SceneError as error:
        raise SceneError(where=f"{path}: {error.where}", frame=token, rule=error.rule) from error


def _scenes_in(folder: Path) -> dict[str, Path]:
    """Scene ids of a folder, sorted, and where each is."""
    records = {
        path.stem.removeprefix("segment-").removesuffix("_with_camera_labels"): path
        for path in folder.glob("*.tfrecord")
    }
    components = {path.stem: folder for path in folder.glob("vehicle_pose/*.parquet")}
    return dict(sorted((components | records).items()))


Kind = TypeVar("Kind")


def _ours(thing: object, kind: type[Kind]) -> Kind:
    if not isinstance(thing, kind):
        raise ValueError(f"not of a Waymo scene: {thing}")
    return thing
