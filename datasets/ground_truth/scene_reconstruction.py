"""Occupancy labels of a whole drive from its LiDAR, boxes and point classes.

The recipe of Occ3D (arXiv 2304.14365) as far as these give it, scene by scene:

1. Every return of every key sweep, of the other LiDARs' sweeps of its moment and of its past
   sweeps is placed in the global frame, by the mounting of its own LiDAR. Returns from the vehicle
   itself are left out, rays included.
2. Points in a box (grown to the sides and upwards by a margin; a marked point of the surroundings,
   such as road under a car, stays out of it) are gathered per track in the box's own frame and
   put back at the box's pose in the labeled key-frame (``datasets.tracks``). A key-frame that
   nobody annotated has the boxes of its annotated neighbours, moved evenly; where it does not lie
   between two of them near in time it is left out, sweeps included. A scene without any annotation
   is taken as it is. All other points are static. Marked points of something that can move but has
   no box leave a trail if gathered, so they count in their own key-frame only.
3. A point that nobody marked takes the class of the nearest marked static point within
   ``radius_m``. A voxel's class is that of most of its points; a track's points have the class of
   their box. A voxel whose points have no class is occupied and 255, do not score.
4. Rays of every sweep tell which voxels they passed. A voxel with points is occupied; without
   points but passed it is free; all others are unknown.
5. Holes between the beams are closed, within unknown voxels only: those of flat ground up to four
   voxels wide along each horizontal axis, those within another class up to two voxels wide.
6. A voxel is camera-visible where a camera of the frame sees it through these labels and it is
   known.

Unlike Occ3D there is no mesh and no refinement by pictures.

Legend: N points, B boxes, X Y Z voxels.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_closing, distance_transform_edt
from scipy.spatial import cKDTree

from datasets.annotations import AnnotatedSource, Annotations, Box
from datasets.errors import SceneError
from datasets.frames import Frame, LidarSweep, Scene, in_box
from datasets.geometry.compiled import compiled
from datasets.geometry.grid import Triple, VoxelGrid
from datasets.geometry.raycast import lidar_evidence
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.ground_truth.pose_correction import (
    PoseCorrection,
    estimate_correction,
    no_correction,
    surface_thickness,
)
from datasets.taxonomy import IGNORE_ID, Taxonomy
from datasets.tracks import BEYOND_TRACK_US, Track, TrackPoint, tracks_of
from datasets.visibility import camera_mask

FLAT_NAMES = ("driveable_surface", "other_flat", "sidewalk", "terrain", "road", "walkable")
FLAT_GAP, OTHER_GAP = (5, 5, 3), (3, 3, 3)
MAX_ANNOTATION_GAP_US = 2_000_000
"""Boxes are moved from one annotated key-frame to the next if they are no farther apart."""
_STATIC, _ALONE = -1, -2


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelBuildingConfig:
    """How labels are built.

    Attributes:
        correct_heights: register the key-frames first (``datasets.ground_truth.pose_correction``).
        box_margin_m: what boxes are grown by to the sides and upwards.
        radius_m: how far the class of a marked point reaches.
        vehicle_m: lower and upper corner of the vehicle itself, ego frame; None: as the log states
            (``Frame.vehicle_m``).
        close_holes: fill holes between the beams.

    Raises:
        ValueError: a value is out of range.
    """

    correct_heights: bool = True
    box_margin_m: float = 0.1
    radius_m: float = 0.8
    vehicle_m: tuple[Triple, Triple] | None = None
    close_holes: bool = True

    def __post_init__(self) -> None:
        if self.box_margin_m < 0 or self.radius_m < 0:
            raise ValueError(f"lengths must not be negative: {self}")
        if self.vehicle_m is not None and not np.less(*self.vehicle_m).all():
            raise ValueError(f"the vehicle's corners are not in order: {self.vehicle_m}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltLabels:
    """Labels of one key-frame.

    Attributes:
        semantics: (X, Y, Z) uint8 class ids of the source's taxonomy; free where nothing was
            seen, 255 where there is something of unknown class.
        hits: (X, Y, Z) uint8 points that lie in the voxel at this moment, up to 255.
        passes: (X, Y, Z) uint8 rays that crossed it at any moment, up to 255.
        mask_lidar: (X, Y, Z) bool, known: occupied or passed.
        mask_camera: (X, Y, Z) bool, known and seen by a camera of the frame.
    """

    semantics: NDArray[np.uint8]
    hits: NDArray[np.uint8]
    passes: NDArray[np.uint8]
    mask_lidar: NDArray[np.bool_]
    mask_camera: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReturns:
    """Returns of one LiDAR sweep.

    Attributes:
        token: of the key-frame whose moment this is; None between key-frames.
        is_key: the key sweep itself.
        T_log: the vehicle at that time, as the log has it.
        T_global_vehicle: the same, corrected.
        origin: (3,) the sensor, vehicle frame.
        points: (N, 3) float32, vehicle frame.
        classes: (N,) uint8, 255 where not marked.
        owners: (N,) int32, a track's number, ``_STATIC`` or ``_ALONE``.
    """

    token: str | None
    is_key: bool
    timestamp_us: int
    T_log: Transform
    T_global_vehicle: Transform
    origin: NDArray[np.float64]
    points: NDArray[np.float32]
    classes: NDArray[np.uint8]
    owners: NDArray[np.int32]


class SceneReconstruction:
    """A drive, gathered. Build it once, then ask for the labels of its key-frames.

    Args:
        hold_out: tokens of key-frames whose returns are not used at all (neither points nor
            rays, nor for the heights); their boxes are.
        progress: called once per key-frame that has been read.

    Attributes:
        correction: what was added to the poses.
        bad_frames: token and reason of each key-frame that could not be read. The others are
            labeled without it.

    Raises:
        SceneError: no key-frame can be read.
    """

    def __init__(
        self,
        scene: Scene,
        source: AnnotatedSource,
        config: LabelBuildingConfig,
        *,
        hold_out: Sequence[str] = (),
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        self.taxonomy: Taxonomy = source.taxonomy
        self.bad_frames: dict[str, str] = {}
        self._config = config
        self._frames: dict[str, Frame] = {}
        self._marks: dict[str, Annotations] = {}
        turns: list[SweepReturns] = []
        used_sweeps: set[_Identity] = set()
        for frame in scene.frames:
            try:
                marks = source.annotations(frame)
                own = list(_sweep_returns(source, frame, marks, config, used_sweeps))
            except SceneError as error:
                self.bad_frames[frame.token] = str(error)
            else:
                self._frames[frame.token], self._marks[frame.token] = frame, marks
                if frame.token not in hold_out:
                    turns += own
                used_sweeps |= {_identity(sweep) for sweep in (*frame.moment, *frame.past_sweeps)}
            used_sweeps |= {_identity(sweep) for sweep in frame.moment}
            progress()
        turns = self._covered(turns)
        if not turns:
            reason = next(iter(self.bad_frames.values()), "all are held out")
            raise SceneError(
                where=f"scene {scene.scene_id}", rule=f"no key-frame is left: {reason}"
            )
        self._tracks = self._follow({t: f.T_global_ego for t, f in self._frames.items()})
        self.correction = self._register(turns) if config.correct_heights else _none(turns)
        self._poses = {
            token: self.correction.corrected(frame.T_global_ego, frame.timestamp_us)
            for token, frame in self._frames.items()
        }
        self._tracks = self._follow(self._poses)
        self._turns = _spread_classes([self._owned(turn) for turn in turns], config.radius_m)
        self._objects = self._gather()

    @property
    def annotated(self) -> bool:
        """Whether anybody annotated objects in this scene; without it, all is taken for static."""
        return any(marks.annotated for marks in self._marks.values())

    def _covered(self, turns: list[SweepReturns]) -> list[SweepReturns]:
        """Those of moments at which the boxes are known; takes the other key-frames out."""
        times = sorted(
            self._frames[t].timestamp_us for t, marks in self._marks.items() if marks.annotated
        )
        if not times:
            return turns

        def between(us: int) -> bool:
            k = bisect.bisect_left(times, us)
            if k < len(times) and times[k] == us:
                return True
            return 0 < k < len(times) and times[k] - times[k - 1] <= MAX_ANNOTATION_GAP_US

        for token, marks in list(self._marks.items()):
            if not marks.annotated and not between(self._frames[token].timestamp_us):
                self.bad_frames[token] = (
                    "nobody annotated it, and it does not lie between annotated key-frames at most "
                    f"{MAX_ANNOTATION_GAP_US * 1e-6:g} s apart, so nobody knows where its objects "
                    "are"
                )
                del self._frames[token], self._marks[token]
        return [
            turn
            for turn in turns
            if (turn.token is None or turn.token in self._marks)
            and (
                between(turn.timestamp_us)
                or 0 < times[0] - turn.timestamp_us <= BEYOND_TRACK_US
                or turn.token is not None
            )
        ]

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Every key-frame that can be labeled, held out or not."""
        return tuple(self._frames.values())

    def _register(self, turns: Sequence[SweepReturns]) -> PoseCorrection:
        clouds, keys = [], [turn for turn in turns if turn.is_key]
        for turn in keys:
            inside = np.zeros(len(turn.points), bool)
            for _, box in self._boxes_at(turn.token, turn.timestamp_us, turn.T_log):
                inside |= box.contains(turn.points, margin_m=self._config.box_margin_m)
            clouds.append(turn.points[~inside])
        return estimate_correction(
            clouds, [turn.T_log for turn in keys], [turn.timestamp_us for turn in keys]
        )

    def _follow(self, poses: Mapping[str, Transform]) -> list[Track]:
        """Every track in time order, under given poses of the key-frames."""
        return tracks_of(
            TrackPoint(
                token=token,
                at_us=self._frames[token].timestamp_us,
                T_global_box=poses[token] @ box.T_ego_box,
                box=box,
            )
            for token, marks in self._marks.items()
            for box in marks.boxes
        )

    def _boxes_at(
        self, token: str | None, at_us: int, T_global_vehicle: Transform
    ) -> list[tuple[int, Box]]:
        """Boxes of a moment in its vehicle frame, each with the place of its track."""
        if token is not None and token in self._marks:
            frame, marks = self._frames[token], self._marks[token]
            if marks.annotated and frame.timestamp_us == at_us:
                numbers = {
                    p.box.track: n
                    for n, track in enumerate(self._tracks)
                    for p in track.points
                    if p.token == token
                }
                return [(numbers[box.track], box) for box in marks.boxes]
        T_vehicle_global = inverse(T_global_vehicle)
        return [
            (n, replace(track.points[0].box, T_ego_box=T_vehicle_global @ pose))
            for n, track in enumerate(self._tracks)
            if (pose := track.at(at_us)) is not None
        ]

    def _owned(self, turn: SweepReturns) -> SweepReturns:
        """The turn under its corrected pose, with the owner of each point."""
        T_global_vehicle = self.correction.corrected(turn.T_log, turn.timestamp_us)
        boxes = self._boxes_at(turn.token, turn.timestamp_us, T_global_vehicle)
        owners = np.full(len(turn.points), _STATIC, np.int32)
        _own(
            turn.points,
            np.array([inverse(box.T_ego_box) for _, box in boxes]).reshape(-1, 4, 4),
            np.array([box.size_m for _, box in boxes]).reshape(-1, 3) / 2,
            np.array([n for n, _ in boxes], np.int32),
            self._config.box_margin_m,
            owners,
        )
        marked = turn.classes != IGNORE_ID
        owners[marked & ~np.isin(turn.classes, self.taxonomy.foreground)] = _STATIC
        owners[(owners == _STATIC) & np.isin(turn.classes, self.taxonomy.dynamic)] = _ALONE
        return replace(turn, T_global_vehicle=T_global_vehicle, owners=owners)

    def _gather(self) -> dict[int, NDArray[np.float32]]:
        """Points (N, 3) of every track in its box's frame."""
        parts: dict[int, list[NDArray[np.float32]]] = {}
        for turn in self._turns:
            for n in np.unique(turn.owners[turn.owners >= 0]):
                pose = self._tracks[n].at(turn.timestamp_us)
                assert pose is not None
                T_box_vehicle = inverse(pose) @ turn.T_global_vehicle
                own = apply(T_box_vehicle, turn.points[turn.owners == n])
                parts.setdefault(int(n), []).append(own.astype(np.float32))
        return {n: np.concatenate(points) for n, points in parts.items()}

    def labels(self, token: str, grid: VoxelGrid) -> BuiltLabels:
        """Labels of a key-frame on a grid in its ego frame.

        Raises:
            KeyError: the key-frame is bad or not of this scene.
        """
        frame = self._frames[token]
        T_ego_global = inverse(self._poses[token])
        lo, size = np.asarray(grid.min_m), np.asarray(grid.size_m)
        score = np.zeros((*grid.shape, self.taxonomy.n_classes + 1), np.uint16)
        scratch, passes = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, np.uint8)
        for turn in self._turns:
            T = T_ego_global @ turn.T_global_vehicle
            wanted = (_STATIC, _ALONE) if turn.token == token else (_STATIC, _STATIC)
            _vote(turn.points, turn.classes, turn.owners, wanted, T, lo, size, score)
            ends = apply(T, turn.points)
            lidar_evidence(apply(T, turn.origin), ends, grid, onto=(scratch, passes))
        for n, box in self._boxes_at(token, frame.timestamp_us, self._poses[token]):
            own = self._objects.get(n)
            if own is not None:
                classes = np.full(len(own), box.class_id, np.uint8)
                owners = np.full(len(own), _STATIC, np.int32)
                _vote(own, classes, owners, (_STATIC, _STATIC), box.T_ego_box, lo, size, score)
        hits, semantics = np.zeros(grid.shape, np.uint8), np.empty(grid.shape, np.uint8)
        _winner(score, self.taxonomy.free_id, hits, semantics)
        if self._config.close_holes:
            close_holes(semantics, passes > 0, self.taxonomy)
        occupied = semantics != self.taxonomy.free_id
        observed = occupied | (passes > 0)
        return BuiltLabels(
            semantics=semantics,
            hits=hits,
            passes=passes,
            mask_lidar=observed,
            mask_camera=camera_mask(occupied, grid, frame.cameras) & observed,
        )

    def ground_thickness(self, *, corrected: bool = True) -> float:
        """How thick the marked flat ground of all key sweeps lies (``surface_thickness``), metres,
        within 40 m of the middle key-frame in its ego frame; NaN where nothing is marked.

        Args:
            corrected: under the corrected poses instead of the log's.
        """
        keys = [turn for turn in self._turns if turn.is_key]
        poses = [turn.T_global_vehicle if corrected else turn.T_log for turn in keys]
        T_ego_global, parts = inverse(poses[len(keys) // 2]), []
        for turn, T in zip(keys, poses, strict=True):
            flat = np.isin(turn.classes, flat_ids(self.taxonomy))
            parts.append(apply(T_ego_global @ T, turn.points[flat]))
        points = np.concatenate(parts)
        return surface_thickness(points[(np.abs(points[:, :2]) < 40).all(axis=1)])


def key_returns(
    source: AnnotatedSource, frame: Frame, config: LabelBuildingConfig
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Points (N, 3) of a frame's moment in the ego frame, without those of the vehicle itself, and
    the class of each, 255 where nobody marked it.

    Raises:
        SceneError: a file is bad or its marks do not fit.
    """
    points, classes = [], []
    for turn in _sweep_returns(source, frame, source.annotations(frame), config, set()):
        if turn.token is None:
            break  # the moment comes first
        T_ego_vehicle = inverse(frame.T_global_ego) @ turn.T_log
        points.append(apply(T_ego_vehicle, turn.points).astype(np.float32))
        classes.append(turn.classes)
    return np.concatenate(points), np.concatenate(classes)


def flat_ids(taxonomy: Taxonomy) -> tuple[int, ...]:
    """Class ids of flat ground."""
    return tuple(i for i, name in enumerate(taxonomy.names) if name in FLAT_NAMES)


def close_holes(
    semantics: NDArray[np.uint8],  # (X, Y, Z), changed in place
    passed: NDArray[np.bool_],  # (X, Y, Z)
    taxonomy: Taxonomy,
) -> None:
    """Fill holes between the beams, within voxels that are free and that no ray passed.

    Flat ground: morphological closing by 5 x 5 x 3 voxels, the class that of the nearest flat
    voxel. Every other class by itself: closing by 3 x 3 x 3.
    """
    unknown = (semantics == taxonomy.free_id) & ~passed
    ground = flat_ids(taxonomy)
    present = [int(i) for i in np.unique(semantics) if i not in (*ground, taxonomy.free_id)]
    flat = np.isin(semantics, ground)
    holes = binary_closing(flat, np.ones(FLAT_GAP, bool)) & unknown
    if holes.any():
        nearest = distance_transform_edt(~flat, return_distances=False, return_indices=True)
        semantics[holes] = semantics[tuple(nearest[:, holes])]
    for i in present:
        holes = binary_closing(semantics == i, np.ones(OTHER_GAP, bool)) & unknown
        semantics[holes & (semantics == taxonomy.free_id)] = i


def _none(turns: Sequence[SweepReturns]) -> PoseCorrection:
    return no_correction([turn.timestamp_us for turn in turns if turn.is_key])


_Identity = tuple[str, str, int]


def _identity(sweep: LidarSweep) -> _Identity:
    """Tells the sweeps of a scene apart: several LiDARs may measure at one time."""
    return str(sweep.path), sweep.lidar, sweep.timestamp_us


def _sweep_returns(
    source: AnnotatedSource,
    frame: Frame,
    marks: Annotations,
    config: LabelBuildingConfig,
    used_sweeps: Collection[_Identity],
) -> Iterator[SweepReturns]:
    """The sweeps of a frame's moment and those past sweeps that no earlier frame had."""
    if frame.lidar is None:
        raise SceneError(where=f"scene {frame.scene_id}", frame=frame.token, rule="it has no LiDAR")
    vehicle_m = config.vehicle_m or frame.vehicle_m
    marked = dict(zip(map(id, frame.companions), marks.companion_classes, strict=False)) | {
        id(frame.lidar): marks.point_classes
    }
    for i, sweep in enumerate((*frame.moment, *frame.past_sweeps)):
        of_moment = i < len(frame.moment)
        if i and _identity(sweep) in used_sweeps:
            continue
        points = source.read_points(sweep)[:, :3]
        classes = marked.get(id(sweep))
        if classes is None:
            classes = np.full(len(points), IGNORE_ID, np.uint8)
        elif len(classes) != len(points):
            raise SceneError(
                where=f"scene {frame.scene_id}",
                frame=frame.token,
                rule=f"{len(classes)} point classes for {len(points)} points",
            )
        T_ego_vehicle = frame.vehicle_at(sweep)
        T_vehicle_lidar = inverse(T_ego_vehicle) @ sweep.T_ego_lidar
        placed = apply(T_vehicle_lidar, points)
        outside_vehicle = ~in_box(placed, vehicle_m)
        T_log = frame.T_global_ego @ T_ego_vehicle
        yield SweepReturns(
            token=frame.token if of_moment else None,
            is_key=i == 0,
            timestamp_us=sweep.timestamp_us if i else frame.timestamp_us,
            T_log=T_log,
            T_global_vehicle=T_log,
            origin=T_vehicle_lidar[:3, 3],
            points=placed[outside_vehicle].astype(np.float32),
            classes=classes[outside_vehicle],
            owners=np.empty(0, np.int32),
        )


def _spread_classes(turns: list[SweepReturns], radius_m: float) -> list[SweepReturns]:
    """Unmarked static points get the class of the nearest marked one within a radius."""
    origin = turns[0].T_global_vehicle[:3, 3]

    def placed(turn: SweepReturns, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        return apply(turn.T_global_vehicle, turn.points[chosen]) - origin

    static = [(t, t.owners == _STATIC, t.classes != IGNORE_ID) for t in turns]
    labeled = np.concatenate([placed(t, s & m) for t, s, m in static])
    if not len(labeled) or all((m | ~s).all() for _, s, m in static):
        return turns
    known_classes = np.concatenate([t.classes[s & m] for t, s, m in static])
    tree = cKDTree(labeled)
    out = []
    for turn, is_static, marked in static:
        asked = is_static & ~marked
        _, nearest = tree.query(placed(turn, asked), distance_upper_bound=radius_m)
        classes = turn.classes.copy()
        classes[asked] = np.append(known_classes, IGNORE_ID)[nearest]
        out.append(replace(turn, classes=classes))
    return out


@compiled
def _own(points: Any, T: Any, half: Any, numbers: Any, margin: float, owners: Any) -> None:
    """Number of the first box that holds each point. ``T`` (B, 4, 4): vehicle to box."""
    for r in range(points.shape[0]):
        x, y, z = points[r, 0], points[r, 1], points[r, 2]
        for b in range(T.shape[0]):
            u = T[b, 0, 0] * x + T[b, 0, 1] * y + T[b, 0, 2] * z + T[b, 0, 3]
            if abs(u) > half[b, 0] + margin:
                continue
            v = T[b, 1, 0] * x + T[b, 1, 1] * y + T[b, 1, 2] * z + T[b, 1, 3]
            w = T[b, 2, 0] * x + T[b, 2, 1] * y + T[b, 2, 2] * z + T[b, 2, 3]
            if abs(v) <= half[b, 1] + margin and -half[b, 2] <= w <= half[b, 2] + margin:
                owners[r] = numbers[b]
                break


@compiled
def _vote(
    points: Any, classes: Any, owners: Any, wanted: Any, T: Any, lo: Any, size: Any, score: Any
) -> None:
    """Count points of wanted owners per voxel and class; the last class is for unmarked ones."""
    nx, ny, nz, n = score.shape
    for r in range(points.shape[0]):
        if owners[r] != wanted[0] and owners[r] != wanted[1]:
            continue
        x, y, z = points[r, 0], points[r, 1], points[r, 2]
        i = int(np.floor((T[0, 0] * x + T[0, 1] * y + T[0, 2] * z + T[0, 3] - lo[0]) / size[0]))
        if i < 0 or i >= nx:
            continue
        j = int(np.floor((T[1, 0] * x + T[1, 1] * y + T[1, 2] * z + T[1, 3] - lo[1]) / size[1]))
        if j < 0 or j >= ny:
            continue
        k = int(np.floor((T[2, 0] * x + T[2, 1] * y + T[2, 2] * z + T[2, 3] - lo[2]) / size[2]))
        if k < 0 or k >= nz:
            continue
        c = min(classes[r], n - 1)
        if score[i, j, k, c] < 65535:
            score[i, j, k, c] += 1


@compiled
def _winner(score: Any, free: int, hits: Any, semantics: Any) -> None:
    """The class of most points of each voxel: the lowest of equals; 255 if all are unmarked."""
    nx, ny, nz, n = score.shape
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                total, best, winner = 0, 0, free
                for c in range(n - 1):
                    total += score[i, j, k, c]
                    if score[i, j, k, c] > best:
                        best, winner = score[i, j, k, c], c
                total += score[i, j, k, n - 1]
                if total > 0 and best == 0:
                    winner = 255
                hits[i, j, k] = min(total, 255)
                semantics[i, j, k] = winner
