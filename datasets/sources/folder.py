"""A user's own log as a plain folder: JSON, pictures and point files.

    LOG/
      log.json
      scenes/<scene id>/
        scene.json
        annotations.json        optional
        ...                     pictures and point files, wherever scene.json says

JSON is read strictly: a missing, unknown or doubled key, a wrong type or a number that is not
finite is an error that names file, place and rule. Paths are relative to the scene's folder and
stay in it. Times are whole microseconds of one clock, lengths metres, picture measures pixels.

The vehicle frame is X forward, Y left, Z up, its origin on the ground below the middle of the rear
axle. ``T_dst_src`` (POSE) takes coordinates in src to dst. It is ``{"rotation_wxyz": [w, x, y, z],
"translation_m": [x, y, z]}`` or a 4x4 matrix in nested lists.

**log.json**::

    {
      "format": "autolabel-folder", "version": 1,
      "name": "my-log",
      "licence": "ours, internal",
      "taxonomy": "occ3d-nuscenes",
      "splits": {"train": ["scene-a", "scene-c"], "labeled": ["scene-a"], "val": ["scene-b"]},
      "points": {"intensity_max": 255, "bin_columns": ["x", "y", "z", "intensity", "ring"]},
      "class_map": {"Van": "car", "Tram": "others", "7": "sidewalk", "8": null},
      "vehicle_m": [[-1.2, -1.1, -0.5], [3.6, 1.1, 2.2]]
    }

The licence goes into every store made from the log. All after it may be left out. ``taxonomy`` is
the class list of annotations (this is the default). ``intensity_max`` is the brightest
intensity in the point files (255), ``bin_columns`` what ``.bin`` files hold (the first four).
``class_map`` is for annotations in classes of one's own: what their names (of boxes) and their
numbers (of points) are in the taxonomy; null: points of no class. Where it holds a number, it holds
all of them. ``vehicle_m`` is the lower and upper corner of the vehicle itself in its own frame:
returns from inside are nothing of the world (the default is a car with a roof rack).
The split ``all`` is every folder of ``scenes/`` that has a scene.json. Where ``splits`` does not
name ``labeled``, it is the published draw of 20 % of ``train`` (else of all); ``unlabeled`` is the
rest.

**scene.json**::

    {
      "cameras": {"front": {"width": 1920, "height": 1080, "T_vehicle_camera": POSE,
                            "intrinsics": [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]}},
      "lidars": {"top": {"T_vehicle_lidar": POSE}},
      "sweeps": [{"file": "lidar/0001.npz", "lidar": "top", "timestamp_us": 1000,
                  "T_global_vehicle": POSE}],
      "frames": [{"token": "0001", "sweep": "lidar/0001.npz",
                  "cameras": [{"camera": "front", "file": "front/0001.jpg",
                               "timestamp_us": 1020}]}]
    }

Cameras look along z, x right, y down; pictures (JPEG, PNG, TIFF, WEBP, BMP) are without distortion.
Size and intrinsics hold for the upright picture: an EXIF orientation is applied, as viewers and
``cv2.imread`` do (datasets/sources/pictures.py). ``sweeps`` of each LiDAR stand in time order and
may come between the key-frames. Of several LiDARs, the sweep of each other one that lies nearest to
a key sweep in time, at most 0.05 s away, belongs to its key-frame. The points of a sweep are
brought to its timestamp and stand in the LiDAR's own frame, whose origin is where the rays begin. A
frame takes time and pose from its key ``sweep``; one without LiDAR states ``timestamp_us`` and
``T_global_vehicle`` itself. A camera entry may state its own ``T_global_vehicle``; else the poses
of sweeps and frames before and after are interpolated (at most 1 s apart; continued by at most 0.2
s, and no longer than they are apart, at the ends).

**Point files**: ``.npz`` with an array ``points`` (N, 4) float32 of x, y, z, intensity; ``.bin``,
rows of float32; ``.ply`` (ascii or binary little-endian) with vertex properties x, y, z, intensity.
Classes of points, uint8 ids of the taxonomy or 255: array ``classes`` (N,) in the ``.npz``, or
beside ``0001.bin`` a file ``0001.classes.npy``.

**annotations.json** holds boxes by frame token; X of the box is the object's front, the origin its
centre, ``size_m`` length, width, height. ``T_global_box`` may stand for ``T_vehicle_box``::

    {"frames": {"0001": [{"track": "7", "class": "car", "size_m": [4.5, 1.9, 1.6],
                          "T_vehicle_box": POSE}]}}

An empty list says that nothing is there. A key-frame that is not listed has not been annotated: its
boxes are those of the listed ones before and after it, moved evenly.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from datasets.annotations import Annotations, Box
from datasets.errors import SceneError, SetupError
from datasets.frames import VEHICLE_M, CameraView, Frame, LidarSweep, Scene
from datasets.geometry.transforms import Transform, inverse
from datasets.names import below, check_scene, fault_of_token
from datasets.plausibility import check_units
from datasets.returns import ReturnTally
from datasets.sources import point_files
from datasets.sources.point_files import PointFormat
from datasets.sources.scene_files import read_picture, scene_fingerprint
from datasets.sources.strict_json import Record, read_record
from datasets.splits import PUBLISHED_SHARE, Labelled, divide, scenes_named
from datasets.storage.remote_path import remote_or_local
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES, OCC3D_WAYMO, OPENOCC_FLOW, OPENOCCUPANCY

FORMAT, VERSION = "autolabel-folder", 1
TAXONOMIES = {t.name: t for t in (OCC3D_NUSCENES, OCC3D_WAYMO, OPENOCCUPANCY, OPENOCC_FLOW)}
MAX_POSE_GAP_US = 1_000_000
MAX_EXTRAPOLATION_US = 200_000
MOMENT_US = 50_000
"""A sweep of another LiDAR belongs to a key sweep that it is no farther away from."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Camera:
    width: int
    height: int
    intrinsics: NDArray[np.float64]
    T_vehicle_camera: Transform


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Sweep:
    path: Path
    timestamp_us: int
    T_global_vehicle: Transform
    lidar: str
    T_vehicle_lidar: Transform


class FolderSource:
    """An ``AnnotatedSource`` over a folder as the module describes it.

    Args:
        root: the folder that holds ``log.json``.
        past_sweeps, future_sweeps: at most so many neighbours of a key sweep.
        labelled: which training scenes ``labeled`` names; None: what the log's splits say, or else
            the published 20 %.
        refuse_impossible: scenes whose units cannot be raise ``SceneError``
            (``datasets.plausibility``), as every command asks for through ``open_source``.

    Raises:
        SetupError: no such folder, or ``log.json`` is not as described.
    """

    def __init__(
        self,
        root: Path,
        *,
        past_sweeps: int,
        future_sweeps: int = 0,
        labelled: Labelled | None = None,
        refuse_impossible: bool = False,
    ) -> None:
        self.root = remote_or_local(root)
        self.past_sweeps, self.future_sweeps = past_sweeps, future_sweeps
        self.refuse_impossible = refuse_impossible
        if not (self.root / "log.json").is_file():
            raise SetupError(f"{self.root}: no log.json (expected a folder log)")
        self._scene_ids = tuple(
            sorted(p.parent.name for p in self.root.glob("scenes/*/scene.json"))
        )
        try:
            self._read_log(labelled)
        except SceneError as error:
            raise SetupError(str(error)) from None
        self._boxes: tuple[str, dict[str, tuple[_GlobalBox, ...] | SceneError]] | None = None
        self.returns = ReturnTally()

    def _read_log(self, labelled: Labelled | None) -> None:
        log = read_record(self.root / "log.json", str(self.root / "log.json"))
        stated = log.take("format", str), log.take("version", int)
        if stated != (FORMAT, VERSION):
            raise log.error(f"format {stated[0]!r} version {stated[1]}, not {FORMAT!r} {VERSION}")
        self.name, self.licence = log.take("name", str), log.take("licence", str)
        name = log.take("taxonomy", str) if "taxonomy" in log else OCC3D_NUSCENES.name
        if name not in TAXONOMIES:
            raise log.error(f"unknown taxonomy {name!r}; known: {', '.join(TAXONOMIES)}")
        self.taxonomy = TAXONOMIES[name]
        self._form = PointFormat()
        if "points" in log:
            self._form = _point_format(log.record("points"))
        self._class_of = {name: i for i, name in enumerate(self.taxonomy.names)}
        self._point_class_of: dict[int, int] | None = None
        if "class_map" in log:
            self._read_class_map(log.record("class_map"))
        self._vehicle_m = VEHICLE_M
        if "vehicle_m" in log:
            low, high = log.numbers("vehicle_m", (2, 3)).tolist()
            if not np.less(low, high).all():
                raise log.error(f"'vehicle_m': its corners are not in order: {low}, {high}")
            self._vehicle_m = (low[0], low[1], low[2]), (high[0], high[1], high[2])
        self._splits = self._known_splits(log, labelled)
        log.done()

    def _read_class_map(self, table: Record) -> None:
        """Own names, for boxes, and own numbers, for points."""
        for own in table:
            class_name = table.take_or_null(own, str)
            if class_name is not None and class_name not in self.taxonomy.names:
                raise table.error(
                    f"{own!r}: unknown class {class_name!r}; known: "
                    f"{', '.join(self.taxonomy.names)}"
                )
            if own.isdecimal() and int(own) < IGNORE_ID:
                numbers = self._point_class_of = self._point_class_of or {}
                numbers[int(own)] = (
                    IGNORE_ID if class_name is None else self.taxonomy.id_of(class_name)
                )
            elif class_name is None:
                raise table.error(
                    f"{own!r}: a box needs a class; 'others' is one that nobody scores"
                    if "others" in self.taxonomy.names
                    else f"{own!r}: a box needs a class"
                )
            else:
                self._class_of[own] = self.taxonomy.id_of(class_name)

    def _known_splits(self, log: Record, labelled: Labelled | None) -> dict[str, tuple[str, ...]]:
        if not self._scene_ids:
            raise log.error("no scene: there is no scenes/*/scene.json beside it")
        splits_by_name = {"all": self._scene_ids}
        if "splits" in log:
            splits = log.record("splits")
            for name in splits:
                splits_by_name[name] = splits.texts(name)
                if unknown := sorted(set(splits_by_name[name]) - set(self._scene_ids)):
                    raise splits.error(f"{name!r} names scenes that are not there: {unknown[0]}")
                if len(set(splits_by_name[name])) < len(splits_by_name[name]):
                    raise splits.error(f"{name!r} names a scene twice")
        if labelled is None and "labeled" in splits_by_name:
            unlabeled = tuple(s for s in self._scene_ids if s not in splits_by_name["labeled"])
            splits_by_name.setdefault("unlabeled", unlabeled)
        else:
            share = PUBLISHED_SHARE if labelled is None else labelled
            train = splits_by_name.get("train", splits_by_name["all"])
            splits_by_name["labeled"], splits_by_name["unlabeled"] = divide(
                {s: s for s in train}, share
            )
        return splits_by_name

    def scene_ids(self, split: str) -> tuple[str, ...]:
        """Scene ids of a split: ``all``, one of log.json, ``labeled``, ``unlabeled``, or scene ids
        separated by commas."""
        return scenes_named(split, self._splits, self._scene_ids, where=self.root)

    def n_frames(self, scene_id: str) -> int:
        return sum(1 for _ in self._record(scene_id).records("frames", at="frame"))

    def _record(self, scene_id: str) -> Record:
        if scene_id not in self._scene_ids:
            raise KeyError(scene_id)
        check_scene(scene_id, where=str(self.root / "scenes"))
        path = self.root / "scenes" / scene_id / "scene.json"
        return read_record(path, f"scenes/{scene_id}/scene.json")

    def scene(self, scene_id: str) -> Scene:
        folder, data = self.root / "scenes" / scene_id, self._record(scene_id)
        cameras = {name: _camera(r) for name, r in _named(data, "cameras")}
        lidars = {name: _lidar(r) for name, r in _named(data, "lidars")}
        sweeps = _sweeps(data, folder, lidars)
        moments = [_Moment(r, sweeps) for r in data.records("frames", at="frame")]
        data.done()
        if not moments:
            raise data.error("it has no frame")
        tokens: set[str] = set()
        for moment in moments:
            if moment.token in tokens:
                raise moment.record.error("the token is that of another frame")
            tokens.add(moment.token)
        poses = {s.timestamp_us: s.T_global_vehicle for s in sweeps.values()}
        poses |= {m.timestamp_us: m.T_global_vehicle for m in moments}
        path = _Trajectory(poses)
        by_lidar: dict[str, list[_Sweep]] = {}
        for sweep in sweeps.values():
            by_lidar.setdefault(sweep.lidar, []).append(sweep)
        frames = tuple(self._frame(scene_id, folder, m, cameras, by_lidar, path) for m in moments)
        scene = Scene(scene_id=scene_id, frames=frames)
        if self.refuse_impossible:
            check_units(scene)
        return scene

    def _frame(
        self,
        scene_id: str,
        folder: Path,
        moment: _Moment,
        cameras: dict[str, _Camera],
        sweeps: Mapping[str, list[_Sweep]],
        path: _Trajectory,
    ) -> Frame:
        T_ego_global = inverse(moment.T_global_vehicle)
        views = tuple(
            _view(entry, folder, cameras, path, T_ego_global)
            for entry in moment.record.records("cameras", at=f"{moment.token}, camera")
        )
        moment.record.done()
        if len({view.name for view in views}) < len(views):
            raise moment.record.error("a camera occurs twice")
        neighbors = _Neighbours()
        if moment.sweep:
            neighbors = _Neighbours.of(
                moment.sweep, sweeps, past=self.past_sweeps, future=self.future_sweeps
            )
        return Frame(
            scene_id=scene_id,
            token=moment.token,
            timestamp_us=moment.timestamp_us,
            T_global_ego=moment.T_global_vehicle,
            cameras=views,
            lidar=_in_ego(moment.sweep, T_ego_global) if moment.sweep else None,
            companions=tuple(_in_ego(s, T_ego_global) for s in neighbors.companions),
            past_sweeps=tuple(_in_ego(s, T_ego_global) for s in neighbors.past),
            future_sweeps=tuple(_in_ego(s, T_ego_global) for s in neighbors.future),
            vehicle_m=self._vehicle_m,
        )

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        return read_picture(view, stated_by="scene.json")

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        points, _, dropped = point_files.read_points(sweep.path, self._form)
        self.returns.put(sweep, dropped)
        return points

    def annotations(self, frame: Frame) -> Annotations:
        """Boxes and point classes of a key-frame; none where the log has none."""
        if self._boxes is None or self._boxes[0] != frame.scene_id:
            self._boxes = frame.scene_id, self._read_boxes(frame.scene_id)
        marked = self._boxes[1].get(frame.token)
        if isinstance(marked, SceneError):
            raise marked
        T_ego_global = inverse(frame.T_global_ego)
        try:
            return Annotations(
                boxes=tuple(
                    Box(
                        track=b.track,
                        class_id=b.class_id,
                        T_ego_box=T_ego_global @ b.T_global_box,
                        size_m=b.size_m,
                    )
                    for b in marked or ()
                ),
                point_classes=None if frame.lidar is None else self._point_classes(frame.lidar),
                companion_classes=tuple(map(self._point_classes, frame.companions)),
                annotated=marked is not None,
            )
        except SceneError as error:
            if not error.where.startswith("track "):
                raise
            raise SceneError(
                where=f"scenes/{frame.scene_id}/annotations.json",
                frame=frame.token,
                rule=f"{error.where}: {error.rule}",
            ) from None

    def _point_classes(self, sweep: LidarSweep) -> NDArray[np.uint8] | None:
        """Of the points of ``read_points``, in their order."""
        _, valid, _ = point_files.read_points(sweep.path, self._form)
        classes = point_files.read_classes(
            sweep.path,
            n_points=len(valid),
            n_classes=self.taxonomy.n_classes,
            class_map=self._point_class_of,
        )
        return None if classes is None else classes[valid]

    def _read_boxes(self, scene_id: str) -> dict[str, tuple[_GlobalBox, ...] | SceneError]:
        """By frame; where a frame's are bad, what is wrong with them."""
        path = self.root / "scenes" / scene_id / "annotations.json"
        if not path.exists():
            return {}
        data = read_record(path, f"scenes/{scene_id}/annotations.json", constants=True)
        frames = data.record("frames")
        data.done()
        poses = {f.token: f.T_global_ego for f in self.scene(scene_id).frames}
        boxes: dict[str, tuple[_GlobalBox, ...] | SceneError] = {}
        for token in frames:
            if token not in poses:
                raise data.error(f"scene.json has no frame {token}")
            try:
                rows = frames.records(token, at=f"{token}, box")
                boxes[token] = tuple(_box(row, self._class_of, poses[token]) for row in rows)
            except SceneError as error:
                boxes[token] = error
        return boxes

    def fingerprint(self, scene_id: str) -> str:
        return scene_fingerprint(self.scene(scene_id))


class _Moment:
    """A key-frame: its time and pose are those of its sweep, or stated where it has none."""

    def __init__(self, record: Record, sweeps: dict[str, _Sweep]) -> None:
        self.record = record
        self.token = record.take("token", str)
        if fault := fault_of_token(self.token):
            raise record.error(fault)
        record.at = self.token
        self.sweep: _Sweep | None = None
        if "sweep" in record:
            name = record.take("sweep", str)
            if name not in sweeps:
                raise record.error(f"its sweep {name} is not among the sweeps")
            self.sweep = sweeps[name]
            self.timestamp_us = self.sweep.timestamp_us
            self.T_global_vehicle = self.sweep.T_global_vehicle
        else:
            self.timestamp_us = record.take("timestamp_us", int)
            self.T_global_vehicle = record.pose("T_global_vehicle")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _GlobalBox:
    track: str
    class_id: int
    T_global_box: Transform
    size_m: tuple[float, float, float]


class _Trajectory:
    """Where the vehicle was at times between the stated ones."""

    def __init__(self, poses: dict[int, Transform]) -> None:
        self.poses = poses
        self.times_us = np.array(sorted(poses), np.int64)

    def at(self, time_us: int) -> Transform | None:
        """The pose; None too far from the stated ones."""
        if time_us in self.poses:
            return self.poses[time_us]
        if len(self.times_us) < 2:
            return None
        i = int(np.clip(np.searchsorted(self.times_us, time_us), 1, len(self.times_us) - 1))
        a, b = int(self.times_us[i - 1]), int(self.times_us[i])
        outside = max(a - time_us, time_us - b)
        if b - a > MAX_POSE_GAP_US or outside > min(MAX_EXTRAPOLATION_US, b - a):
            return None
        T_a, T_b = self.poses[a], self.poses[b]
        share = (time_us - a) / (b - a)
        turn = Rotation.from_matrix(T_a[:3, :3].T @ T_b[:3, :3]).as_rotvec()
        T = np.eye(4)
        T[:3, :3] = T_a[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
        T[:3, 3] = T_a[:3, 3] + share * (T_b[:3, 3] - T_a[:3, 3])
        return T


def _named(data: Record, key: str) -> list[tuple[str, Record]]:
    group = data.record(key)
    return [(name, group.record(name, at=f"{key} {name}")) for name in group]


def _point_format(record: Record) -> PointFormat:
    default = PointFormat()
    top = record.number("intensity_max") if "intensity_max" in record else default.intensity_max
    columns = record.texts("bin_columns") if "bin_columns" in record else default.bin_columns
    record.done()
    try:
        return PointFormat(intensity_max=top, bin_columns=columns)
    except ValueError as error:
        raise record.error(str(error)) from None


def _camera(record: Record) -> _Camera:
    width, height = record.take("width", int), record.take("height", int)
    if min(width, height) < 1:
        raise record.error(f"width and height must be positive, are {width} x {height}")
    K = record.numbers("intrinsics", (3, 3))
    if K[0, 0] <= 0 or K[1, 1] <= 0 or (K[2] != [0, 0, 1]).any() or K[1, 0] != 0:
        raise record.error("'intrinsics' must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]], fx, fy > 0")
    T = record.pose("T_vehicle_camera")
    record.done()
    return _Camera(width=width, height=height, intrinsics=K, T_vehicle_camera=T)


def _lidar(record: Record) -> Transform:
    T = record.pose("T_vehicle_lidar")
    record.done()
    return T


def _box(record: Record, class_of: Mapping[str, int], T_global_vehicle: Transform) -> _GlobalBox:
    track, name = record.take("track", str), record.take("class", str)
    if name not in class_of:
        raise record.error(
            f"unknown class {name!r}; known: {', '.join(class_of)}; 'class_map' in log.json maps "
            "names of one's own"
        )
    if "T_global_box" in record:
        T_global_box = record.pose("T_global_box")
    else:
        T_global_box = T_global_vehicle @ record.pose("T_vehicle_box")
    length, width, height = record.numbers("size_m", (3,)).tolist()
    if min(length, width, height) <= 0:
        raise record.error(f"'size_m' must be positive, is {[length, width, height]}")
    record.done()
    return _GlobalBox(
        track=track,
        class_id=class_of[name],
        T_global_box=T_global_box,
        size_m=(length, width, height),
    )


def _sweeps(data: Record, folder: Path, lidars: dict[str, Transform]) -> dict[str, _Sweep]:
    sweeps: dict[str, _Sweep] = {}
    last_us: dict[str, int] = {}
    for record in data.records("sweeps", at="sweep"):
        name = record.take("file", str)
        path = _inside(folder, name, record)
        record.at = f"sweep {name}"
        if path.suffix not in point_files.SUFFIXES:
            raise record.error(f"a point file ends in {', '.join(point_files.SUFFIXES)}")
        if name in sweeps:
            raise record.error("it occurs twice")
        lidar = record.take("lidar", str)
        if lidar not in lidars:
            raise record.error(f"unknown lidar {lidar!r}")
        time_us = record.take("timestamp_us", int)
        if time_us < (last := last_us.get(lidar, time_us)):
            raise record.error(f"sweeps out of time order: {time_us} us after {last} us")
        last_us[lidar] = time_us
        sweeps[name] = _Sweep(
            path=path,
            timestamp_us=time_us,
            T_global_vehicle=record.pose("T_global_vehicle"),
            lidar=lidar,
            T_vehicle_lidar=lidars[lidar],
        )
        record.done()
    return sweeps


def _view(
    entry: Record,
    folder: Path,
    cameras: dict[str, _Camera],
    path: _Trajectory,
    T_ego_global: Transform,
) -> CameraView:
    name = entry.take("camera", str)
    if name not in cameras:
        raise entry.error(f"unknown camera {name!r}")
    camera = cameras[name]
    file = _inside(folder, entry.take("file", str), entry)
    time_us = entry.take("timestamp_us", int)
    stated = entry.pose("T_global_vehicle") if "T_global_vehicle" in entry else path.at(time_us)
    entry.done()
    if stated is None:
        raise entry.error(
            f"no vehicle pose near {time_us} us to interpolate; state its 'T_global_vehicle'"
        )
    T_ego_vehicle = T_ego_global @ stated
    return CameraView(
        name=name,
        path=file,
        timestamp_us=time_us,
        width=camera.width,
        height=camera.height,
        intrinsics=camera.intrinsics,
        T_ego_camera=T_ego_vehicle @ camera.T_vehicle_camera,
        T_ego_vehicle=T_ego_vehicle,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Neighbours:
    """Sweeps around a key sweep: those of its moment, past ones (newest first), future ones."""

    companions: tuple[_Sweep, ...] = ()
    past: tuple[_Sweep, ...] = ()
    future: tuple[_Sweep, ...] = ()

    @classmethod
    def of(
        cls, key: _Sweep, by_lidar: Mapping[str, list[_Sweep]], *, past: int, future: int
    ) -> _Neighbours:
        """``past`` and ``future`` sweeps of each LiDAR. Of the moment are the sweep of each other
        LiDAR that lies nearest in time, and those of the same time."""
        t = key.timestamp_us
        moment: list[_Sweep] = []
        before: list[_Sweep] = []
        after: list[_Sweep] = []
        for name, own in by_lidar.items():
            low = bisect_left(own, t, key=_time)
            high = bisect_right(own, t, key=_time)
            simultaneous = [s for s in own[low:high] if s is not key]
            if name != key.lidar and not simultaneous:
                beside = own[max(0, low - 1) : high + 1]
                nearest = min(beside, key=lambda s: abs(s.timestamp_us - t))
                if abs(nearest.timestamp_us - t) <= MOMENT_US:
                    simultaneous = [nearest]
            moment += simultaneous
            before += [s for s in own[max(0, low - past - 1) : low][::-1] if s not in simultaneous][
                :past
            ]
            after += [s for s in own[high : high + future + 1] if s not in simultaneous][:future]
        return cls(
            companions=tuple(sorted(moment, key=_time)),
            past=tuple(sorted(before, key=_time, reverse=True)),
            future=tuple(sorted(after, key=_time)),
        )


def _time(sweep: _Sweep) -> int:
    return sweep.timestamp_us


def _in_ego(sweep: _Sweep, T_ego_global: Transform) -> LidarSweep:
    T_ego_vehicle = T_ego_global @ sweep.T_global_vehicle
    return LidarSweep(
        path=sweep.path,
        timestamp_us=sweep.timestamp_us,
        T_ego_lidar=T_ego_vehicle @ sweep.T_vehicle_lidar,
        lidar=sweep.lidar,
        T_ego_vehicle=T_ego_vehicle,
    )


def _inside(folder: Path, name: str, record: Record) -> Path:
    try:
        return below(folder, name, where=record.where, called="the scene's folder")
    except SceneError as error:
        raise record.error(error.rule) from None
