"""Frames from a nuScenes root, through nuscenes-devkit.

Format: nuScenes v1.0 (13 JSON tables, ``samples/`` and ``sweeps/``). A scene id is the scene's
name. Every pose chain goes through the global frame with the ego pose of its own timestamp:
``T_ego_sensor = inv(T_global_ego(key)) T_global_ego(sensor) T_ego_sensor(calibration)``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nuscenes.nuscenes import NuScenes
from nuscenes.utils.splits import create_splits_scenes

from datasets.annotations import Annotations, Box, annotated_frames
from datasets.errors import SceneError, SetupError
from datasets.files.bounded_files import parsing, read_bytes, refuse_zeros, regular_size
from datasets.files.json_files import read_json_file
from datasets.frames import CameraView, Frame, LidarSweep, Scene
from datasets.geometry.transforms import Transform, from_quaternion, inverse
from datasets.names import below, check_scene, check_token
from datasets.plausibility import check_units
from datasets.returns import DroppedReturns, ReturnTally, measuring
from datasets.sources.pictures import MAX_PIXELS
from datasets.sources.point_files import MAX_POINTS
from datasets.sources.scene_files import read_picture, scene_fingerprint
from datasets.splits import PUBLISHED_SHARE, Labelled, divide, scenes_named
from datasets.storage.remote_path import remote_or_local, with_local_files
from datasets.taxonomy import OCC3D_NUSCENES, Taxonomy

CAMERA_ORDER = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)
LIDAR = "LIDAR_TOP"
MAX_AZIMUTH_GAP_DEG = 20
"""A spinning LiDAR's turn has no wider gap: the ground answers everywhere. Nor has a sweep of any
LiDAR a gap so much wider than its other sweeps."""
COMPARED_SWEEPS = 9
"""Sweeps of a sensor that tell what azimuths it sees."""

OCC3D_NAMES = {
    "noise": "others",
    "animal": "others",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.personal_mobility": "others",
    "human.pedestrian.police_officer": "pedestrian",
    "human.pedestrian.stroller": "others",
    "human.pedestrian.wheelchair": "others",
    "movable_object.barrier": "barrier",
    "movable_object.debris": "others",
    "movable_object.pushable_pullable": "others",
    "movable_object.trafficcone": "traffic_cone",
    "static_object.bicycle_rack": "others",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.emergency.ambulance": "others",
    "vehicle.emergency.police": "others",
    "vehicle.motorcycle": "motorcycle",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
    "flat.driveable_surface": "driveable_surface",
    "flat.other": "other_flat",
    "flat.sidewalk": "sidewalk",
    "flat.terrain": "terrain",
    "static.manmade": "manmade",
    "static.other": "others",
    "static.vegetation": "vegetation",
    "vehicle.ego": "others",
}
"""The 32 categories of nuScenes and nuScenes-lidarseg as the classes of Occ3D-nuScenes."""


MAX_TABLE_BYTES = 256 << 20
"""Of a table; nuScenes has tables of gigabytes of three kinds only."""
LARGE_TABLES = ("ego_pose", "sample_annotation", "sample_data")
MAX_LARGE_TABLE_BYTES = 8 << 30
MAX_TIME_US = 2**62
_DAMAGED = (ValueError, TypeError, OverflowError, AttributeError, IndexError)
"""What rows raise whose values are of a wrong kind, or too large."""
UNREAD_TABLES = ("lidarseg.json", "panoptic.json")
"""The devkit would count the files of these two, of which a remote log has no copies."""


class NuScenesSource:
    """An ``AnnotatedSource`` over a nuScenes root.

    Args:
        root: the folder that holds ``v1.0-*``, ``samples`` and ``sweeps``.
        version: table folder; found by itself when there is only one.
        past_sweeps, future_sweeps: at most so many neighbours of a key sweep; fewer where the
            chain ends or files are missing.
        splits: scene names of further splits (they win over the official ones).
        labelled: which training scenes ``labeled`` names; ``unlabeled`` is the rest. None: what
            ``splits`` says, or else the published 20 %.
        refuse_impossible: scenes whose units cannot be raise ``SceneError``
            (``datasets.plausibility``), as every command asks for through ``open_source``.
        name, licence: of the log; the licence goes into every store made from it.

    Raises:
        SetupError: no such folder, no or several table folders, tables that do not load.
    """

    taxonomy: Taxonomy = OCC3D_NUSCENES

    def __init__(
        self,
        root: Path,
        *,
        past_sweeps: int,
        future_sweeps: int = 0,
        version: str | None = None,
        splits: Mapping[str, Sequence[str]] | None = None,
        labelled: Labelled | None = None,
        refuse_impossible: bool = False,
        name: str = "nuscenes",
        licence: str = "CC BY-NC-SA 4.0 (nuScenes terms of use): non-commercial",
    ) -> None:
        self.name, self.licence = name, licence
        self.root = remote_or_local(root)
        self.past_sweeps, self.future_sweeps = past_sweeps, future_sweeps
        self.refuse_impossible = refuse_impossible
        self.version = _version(self.root, version)
        self._tokens: dict[str, tuple[str, str]] = {}  # of a frame's scene and key sweep
        self._annotated: dict[str, frozenset[str]] = {}  # by scene token
        self._scenes: dict[str, dict[str, Any]] = self._named_scenes()
        self._splits = self._known_splits(splits or {}, labelled)

    @functools.cached_property
    def returns(self) -> ReturnTally:
        """What was left out of the point files read so far."""
        return ReturnTally()

    @functools.cached_property
    def _tables(self) -> Any:
        try:
            tables = with_local_files(self.root / self.version, but=UNREAD_TABLES)
            with_local_files(self.root / "maps")  # the devkit wants to see them
            for path in tables.glob("*.json"):
                large = path.stem in LARGE_TABLES
                limit = MAX_LARGE_TABLE_BYTES if large else MAX_TABLE_BYTES
                regular_size(path, limit, "MAX_TABLE_BYTES")
                refuse_zeros(path)
            with parsing():
                return NuScenes(tables.name, dataroot=str(tables.parent), verbose=False)
        except (OSError, ValueError) as error:
            raise SetupError(f"{self.root / self.version}: tables do not load: {error}") from error

    def _named_scenes(self) -> dict[str, dict[str, Any]]:
        try:
            with parsing(SetupError):
                return {str(s["name"]): s for s in self._tables.scene if s["token"]}
        except ValueError as error:
            path = self.root / self.version / "scene.json"
            raise SetupError(f"{path}: a row lacks {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        # data loader workers read files by path; the tables are loaded again if asked for
        return {k: v for k, v in self.__dict__.items() if k != "_tables"}

    def _known_splits(
        self, extra: Mapping[str, Sequence[str]], labelled: Labelled | None
    ) -> dict[str, tuple[str, ...]]:
        present = self._scenes.keys()
        splits = {"all": tuple(sorted(present))}
        for name, scenes in create_splits_scenes().items():
            if in_log := tuple(s for s in scenes if s in present):
                splits[name] = in_log
        splits.update({name: tuple(scenes) for name, scenes in extra.items()})
        if labelled is not None or "labeled" not in splits:
            train = splits.get("train", splits["all"])
            tokens = {name: str(self._scenes[name]["token"]) for name in train}
            share = PUBLISHED_SHARE if labelled is None else labelled
            splits["labeled"], splits["unlabeled"] = divide(tokens, share)
        return splits

    def scene_ids(self, split: str) -> tuple[str, ...]:
        """Scene names of a split: ``all``, an official split, ``labeled``, ``unlabeled``, or
        scene names separated by commas."""
        return scenes_named(split, self._splits, self._scenes, where=self.root)

    def n_frames(self, scene_id: str) -> int:
        record = self._scenes[scene_id]
        check_scene(scene_id, where=f"{self.root / self.version}/scene.json")
        try:
            if not 0 <= (count := int(record["nbr_samples"])) <= len(self._tables.sample):
                raise ValueError("nbr_samples is not in 0..the rows of sample.json")
            return count
        except (KeyError, *_DAMAGED) as error:
            raise SceneError(
                where=f"scene {scene_id}", rule=f"damaged row of scene.json: {error!r}"
            ) from error

    def scene(self, scene_id: str) -> Scene:
        record = self._scenes[scene_id]
        check_scene(scene_id, where=f"{self.root / self.version}/scene.json")
        frames = []
        if not isinstance(token := record.get("first_sample_token"), str):
            raise SceneError(where=f"scene {scene_id}", rule="scene.json lacks first_sample_token")
        visited = set[str]()
        while token:
            try:
                sample = self._tables.get("sample", token)
                _check_link(token, visited, "sample.json", '"next"')
                if sample["scene_token"] != record["token"]:
                    rule = 'it is of another scene: a link "next" leads out of this one'
                    raise SceneError(where="sample.json", frame=token, rule=rule)
                frames.append(self._frame(scene_id, sample))
                next_token = sample["next"]
            except SceneError as error:
                raise SceneError(
                    where=f"scene {scene_id}: {error.where}",
                    frame=token,
                    rule=f"{error.rule} [{error.frame}]",
                ) from error
            except KeyError as error:
                raise SceneError(
                    where=f"scene {scene_id}", frame=token, rule=f"broken table link {error}"
                ) from error
            except _DAMAGED as error:
                raise SceneError(
                    where=f"scene {scene_id}", frame=token, rule=f"damaged table row: {error}"
                ) from error
            token = next_token
        scene = Scene(scene_id=scene_id, frames=tuple(frames))
        if self.refuse_impossible:
            check_units(scene)
        return scene

    def _frame(self, scene_id: str, sample: dict[str, Any]) -> Frame:
        check_token(sample["token"], where="sample.json")
        self._remember(sample)
        data: dict[str, str] = sample["data"]
        records = {channel: self._tables.get("sample_data", t) for channel, t in data.items()}
        cameras = [c for c in CAMERA_ORDER if c in records]
        cameras += sorted(
            c for c, r in records.items() if r["sensor_modality"] == "camera" and c not in cameras
        )
        for channel in records:
            channel.encode("utf-8")  # a sensor's name goes into hashes and files
        lidars = {c: r for c, r in records.items() if r["sensor_modality"] == "lidar"}
        key_channel = _key_lidar(lidars)
        key = lidars.get(key_channel)
        reference = key or (records[cameras[0]] if cameras else None)
        if reference is None:
            raise SceneError(where=scene_id, rule="the frame has neither camera nor LiDAR")
        T_global_ego = self._ego_pose(reference)
        T_ego_global = inverse(T_global_ego)
        return Frame(
            scene_id=scene_id,
            token=sample["token"],
            timestamp_us=_time_us(reference),
            T_global_ego=T_global_ego,
            cameras=tuple(self._camera(c, records[c], T_ego_global) for c in cameras),
            lidar=self._sweep(key, T_ego_global) if key else None,
            companions=tuple(
                self._sweep(record, T_ego_global)
                for channel, record in sorted(lidars.items())
                if channel != key_channel
            ),
            past_sweeps=self._neighbours(lidars, "prev", self.past_sweeps, T_ego_global),
            future_sweeps=self._neighbours(lidars, "next", self.future_sweeps, T_ego_global),
        )

    def _neighbours(
        self, keys: Mapping[str, dict[str, Any]], link: str, limit: int, T_ego_global: Transform
    ) -> tuple[LidarSweep, ...]:
        """Of every LiDAR so many, the nearest in time first."""
        sweeps: list[LidarSweep] = []
        for _, key in sorted(keys.items()):
            own: list[LidarSweep] = []
            token, visited = key[link], {key["token"]}
            while token and len(own) < limit:
                record = self._tables.get("sample_data", token)
                _check_link(token, visited, "sample_data.json", f'"{link}"')
                if self._place_of(record) != self._place_of(key):
                    rule = (
                        f'it is of another scene or sensor: a link "{link}" leads out of the chain'
                    )
                    raise SceneError(where="sample_data.json", frame=token, rule=rule)
                if self._file(record).is_file():
                    own.append(self._sweep(record, T_ego_global))
                token = record[link]
            sweeps += own
        if len(keys) > 1:
            sweeps.sort(key=lambda sweep: sweep.timestamp_us, reverse=link == "prev")
        return tuple(sweeps)

    def _place_of(self, record: dict[str, Any]) -> tuple[str, str]:
        """Scene and sensor of a row of ``sample_data``."""
        sample = self._tables.get("sample", record["sample_token"])
        return str(sample["scene_token"]), str(record["channel"])

    def _file(self, record: dict[str, Any]) -> Path:
        return below(self.root, record["filename"], where="sample_data.json")

    def _sweep(self, record: dict[str, Any], T_ego_global: Transform) -> LidarSweep:
        T_ego_vehicle = T_ego_global @ self._ego_pose(record)
        return LidarSweep(
            path=self._file(record),
            timestamp_us=_time_us(record),
            T_ego_lidar=T_ego_vehicle @ self._calibration(record)[0],
            lidar=record["channel"],
            T_ego_vehicle=T_ego_vehicle,
        )

    def _camera(self, name: str, record: dict[str, Any], T_ego_global: Transform) -> CameraView:
        T_vehicle_camera, intrinsics = self._calibration(record)
        T_ego_vehicle = T_ego_global @ self._ego_pose(record)
        return CameraView(
            name=name,
            path=self._file(record),
            timestamp_us=_time_us(record),
            width=_pixels(record, "width"),
            height=_pixels(record, "height"),
            intrinsics=intrinsics,
            T_ego_camera=T_ego_vehicle @ T_vehicle_camera,
            T_ego_vehicle=T_ego_vehicle,
        )

    def _ego_pose(self, record: dict[str, Any]) -> Transform:
        pose = self._tables.get("ego_pose", record["ego_pose_token"])
        return _pose(pose, table="ego_pose.json")

    def _calibration(self, record: dict[str, Any]) -> tuple[Transform, NDArray[np.float64]]:
        sensor = self._tables.get("calibrated_sensor", record["calibrated_sensor_token"])
        intrinsics = np.array(sensor["camera_intrinsic"], np.float64)
        return _pose(sensor, table="calibrated_sensor.json"), intrinsics

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        return read_picture(view, stated_by="sample_data.json")

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        points, valid, dropped = _read_points(sweep.path)
        points = points[valid] if dropped.dropped else points
        self.returns.put(sweep, dropped)
        _check_azimuths(points, sweep.path)
        return points

    def read_all_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        points, _, _ = _read_points(sweep.path)
        return np.asarray(points[np.isfinite(points).all(axis=1)])

    def scene_and_lidar_token(self, frame: Frame) -> tuple[str, str]:
        """Tokens of a frame's ``scene`` and of its key sweep's ``sample_data`` row.

        Raises:
            KeyError: the frame is not of this log, or has no LiDAR.
        """
        if frame.token not in self._tokens:
            self._remember(self._tables.get("sample", frame.token))
        return self._tokens[frame.token]

    def _remember(self, sample: dict[str, Any]) -> None:
        """So that data loader workers need no table for frames that were opened before."""
        if channels := self._lidars(sample):
            tokens = str(sample["scene_token"]), channels[0][1]
            self._tokens[sample["token"]] = tokens

    def _lidars(self, sample: dict[str, Any]) -> list[tuple[str, str]]:
        """Channel and ``sample_data`` token of each LiDAR, the key LiDAR first."""
        data: dict[str, str] = sample["data"]
        names = [
            channel
            for channel, token in data.items()
            if self._tables.get("sample_data", token)["sensor_modality"] == "lidar"
        ]
        key = _key_lidar(names)
        return [(name, str(data[name])) for name in sorted(names, key=lambda n: (n != key, n))]

    def annotations(self, frame: Frame) -> Annotations:
        """Boxes of a key-frame and, where the log has nuScenes-lidarseg, the classes of its points.

        Format: ``sample_annotation.json`` (global boxes, sizes as width, length, height) and
        ``lidarseg/*/<token>_lidarseg.bin``, one uint8 ``category.index`` per point of the key
        sweep. A track is an instance token. No frame of the test split has either.

        Raises:
            SceneError: a row is damaged, a category is unknown, or the classes do not fit the
                points.
        """
        try:
            sample = self._tables.get("sample", frame.token)
            T_ego_global = inverse(frame.T_global_ego)
            boxes = tuple(self._box(token, T_ego_global) for token in sample["anns"])
            classes = [self._point_classes(token) for _, token in self._lidars(sample)]
            return Annotations(
                boxes=boxes,
                point_classes=classes[0] if classes else None,
                companion_classes=tuple(classes[1:]),
                annotated=bool(boxes)
                or frame.token in self._annotated_samples(sample["scene_token"]),
            )
        except SceneError as error:
            frame_text = f" [{error.frame}]" if error.frame else ""
            raise SceneError(
                where=f"scene {frame.scene_id}: {error.where}",
                frame=frame.token,
                rule=f"{error.rule}{frame_text}",
            ) from error
        except KeyError as error:
            raise SceneError(
                where=f"scene {frame.scene_id}",
                frame=frame.token,
                rule=f"broken table link {error} in its annotations",
            ) from error
        except _DAMAGED as error:
            raise SceneError(
                where=f"scene {frame.scene_id}",
                frame=frame.token,
                rule=f"damaged row of its annotations: {error}",
            ) from error

    def _annotated_samples(self, scene_token: str) -> frozenset[str]:
        """Samples that somebody annotated: the tables do not tell them from empty ones."""
        if scene_token not in self._annotated:
            tokens: list[str] = []
            tracks: list[set[str]] = []
            token = self._tables.get("scene", scene_token)["first_sample_token"]
            while token and len(tokens) < len(self._tables.sample):
                sample = self._tables.get("sample", token)
                rows = (self._tables.get("sample_annotation", ann) for ann in sample["anns"])
                tokens.append(token)
                tracks.append({row["instance_token"] for row in rows})
                token = sample["next"]
            looked_at = zip(tokens, annotated_frames(tracks), strict=True)
            self._annotated[scene_token] = frozenset(t for t, yes in looked_at if yes)
        return self._annotated[scene_token]

    def _box(self, token: str, T_ego_global: Transform) -> Box:
        row = self._tables.get("sample_annotation", token)
        width, length, height = (float(v) for v in row["size"])
        return Box(
            track=row["instance_token"],
            class_id=_class_of(row["category_name"]),
            T_ego_box=T_ego_global @ _pose(row, table="sample_annotation.json"),
            size_m=(length, width, height),
        )

    @functools.cached_property
    def _lidarseg(self) -> dict[str, str]:
        """Name of the class file of every marked sweep, by the token of its ``sample_data``."""
        table = self.root / self.version / "lidarseg.json"
        if not table.exists():
            return {}
        try:
            rows = read_json_file(table, limit=MAX_TABLE_BYTES)
            with parsing():
                return {str(row["sample_data_token"]): str(row["filename"]) for row in rows}
        except (OSError, ValueError) as error:
            raise SceneError(where=str(table), rule=f"cannot be read: {error}") from error

    def _point_classes(self, key: str) -> NDArray[np.uint8] | None:
        """Of the points of ``read_points``, in their order."""
        if key not in self._lidarseg:
            return None
        path = below(self.root, self._lidarseg[key], where="lidarseg.json")
        points = self._file(self._tables.get("sample_data", key))
        try:
            marks = np.frombuffer(read_bytes(path, MAX_POINTS, "MAX_POINTS"), np.uint8)
        except (OSError, ValueError) as error:
            raise SceneError(where=str(path), rule=f"cannot be read: {error}") from None
        _, valid, _ = _read_points(points)
        if len(marks) != len(valid):
            raise SceneError(
                where=str(path),
                rule=f"{len(marks)} classes for {len(valid)} points of {points.name}",
            )
        used, inverse_of = np.unique(marks, return_inverse=True)
        names = {int(row["index"]): row["name"] for row in self._tables.category}
        unknown = [int(i) for i in used if int(i) not in names]
        if unknown:
            raise SceneError(
                where=str(path), rule=f"class {unknown[0]} is no index of category.json"
            )
        table = np.array([_class_of(names[int(i)]) for i in used], np.uint8)
        return np.asarray(table[inverse_of][valid], np.uint8)

    def fingerprint(self, scene_id: str) -> str:
        return scene_fingerprint(self.scene(scene_id))


def _version(root: Path, named: str | None) -> str:
    """The table folder that is named, or the only one."""
    if not root.is_dir():
        raise SetupError(f"{root}: no such folder (expected a nuScenes root)")
    if named is not None and (root / named / "scene.json").is_file():
        return named
    versions = sorted(p.parent.name for p in root.glob("v1.0-*/scene.json"))
    if not versions:
        raise SetupError(f"{root}: no table folder v1.0-* (expected a nuScenes root)")
    have = ", ".join(versions)
    if named is not None:
        raise SetupError(f"{root}: no tables {named}; --version can be {have}")
    if len(versions) > 1:
        raise SetupError(f"{root}: has the tables {have}; name one with --version")
    return versions[0]


def _read_points(
    path: Path,
) -> tuple[NDArray[np.float32], NDArray[np.bool_], DroppedReturns]:
    """All N points (N, 4) of a file, which of them measure something, and what the others are."""
    try:
        raw = np.frombuffer(read_bytes(path, 20 * MAX_POINTS, "MAX_POINTS"), np.uint8)
    except (OSError, ValueError) as error:
        raise SceneError(where=str(path), rule=f"cannot be read: {error}") from None
    if raw.size == 0 or raw.size % 20:
        raise SceneError(
            where=str(path),
            rule=f"truncated: {raw.size} bytes is no positive multiple of 20 "
            "(x, y, z, intensity, ring as float32)",
        )
    points = raw.view("<f4").reshape(-1, 5)[:, :4].astype(np.float32)
    return points, *measuring(points, str(path))


def _key_lidar(channels: Iterable[str]) -> str:
    """LIDAR_TOP, or the first by name of a vehicle that has none of that name."""
    names = sorted(channels)
    return LIDAR if LIDAR in names or not names else names[0]


def _check_link(token: str, seen: set[str], table: str, links: str) -> None:
    """Raise ``SceneError`` for a token that the chain was at before; note it as seen."""
    if token in seen:
        raise SceneError(where=table, frame=token, rule=f"the chain of {links} links goes round")
    seen.add(token)


def _time_us(record: dict[str, Any]) -> int:
    if not abs(time_us := int(record["timestamp"])) < MAX_TIME_US:
        rule = "its timestamp is no time in microseconds"
        raise SceneError(where="sample_data.json", frame=str(record["token"]), rule=rule)
    return time_us


def _pixels(record: dict[str, Any], side: str) -> int:
    if not 0 < (pixels := int(record[side])) <= MAX_PIXELS:
        rule = f"{side} must be 1..{MAX_PIXELS} pixels (MAX_PIXELS)"
        raise SceneError(where="sample_data.json", frame=str(record["token"]), rule=rule)
    return pixels


def _pose(record: dict[str, Any], *, table: str) -> Transform:
    try:
        return from_quaternion(record["rotation"], record["translation"])
    except _DAMAGED as error:
        raise SceneError(where=table, frame=str(record["token"]), rule=str(error)) from error


def _class_of(category: str) -> int:
    if category not in OCC3D_NAMES:
        raise SceneError(where="category.json", rule=f"unknown category {category!r}")
    return OCC3D_NUSCENES.id_of(OCC3D_NAMES[category])


def _check_azimuths(points: NDArray[np.float32], path: Path) -> None:
    """Refuse a file that ends early, where that can be told.

    A cut file lacks azimuths, and so does a whole one of a LiDAR that looks ahead only. So its gap
    is compared with those of the sensor's other sweeps, which lie in the same folder. A cut file
    stays unnoticed where the folder has no other, where most of them are cut alike, or where the
    cut takes less than ``MAX_AZIMUTH_GAP_DEG``.

    Raises:
        SceneError: the gap is wider than usual.
    """
    gap = _azimuth_gap_deg(points)
    if gap <= MAX_AZIMUTH_GAP_DEG:
        return
    others = [g for name, g in _gaps_deg(path.parent).items() if name != path.name]
    if others and gap > (usual := int(np.median(others))) + MAX_AZIMUTH_GAP_DEG:
        raise SceneError(
            where=str(path),
            rule=f"truncated: no return over {gap} degrees of azimuth ({len(points)} points), in "
            f"other sweeps of {path.parent.name} over {usual}",
        )


def _azimuth_gap_deg(points: NDArray[np.float32]) -> int:
    """The widest run of whole degrees of azimuth without a return."""
    degrees = np.degrees(np.arctan2(points[:, 1], points[:, 0])).astype(np.int64) % 360
    occupied_deg = np.flatnonzero(np.bincount(degrees, minlength=360))
    return int(np.diff(np.append(occupied_deg, occupied_deg[0] + 360)).max())


@functools.lru_cache(maxsize=64)
def _gaps_deg(folder: Path) -> dict[str, int]:
    """Azimuth gaps of sweeps spread over a folder, by file name; only of files that can be read."""
    try:
        paths = sorted(p for p in folder.iterdir() if p.name.endswith(".bin"))
    except OSError:
        return {}
    gaps = {}
    for path in paths[:: max(1, len(paths) // COMPARED_SWEEPS)]:
        try:
            raw = np.frombuffer(read_bytes(path, 20 * MAX_POINTS, "MAX_POINTS"), np.uint8)
        except (OSError, ValueError):
            continue
        if raw.size and raw.size % 20 == 0:
            points = raw.view("<f4").reshape(-1, 5)
            points = points[np.isfinite(points[:, :2]).all(axis=1)]
            if len(points):
                gaps[path.name] = _azimuth_gap_deg(points)
    return gaps
