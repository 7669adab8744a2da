"""What is done to whole label stores: describe, verify, compare, merge, tidy, export.

Legend: X Y Z voxels, K classes, R rings of distance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from datasets.atomic_groups import PARTIAL
from datasets.benchmarks.catalogue import Benchmark, voxels_in_words
from datasets.benchmarks.truth import Truth
from datasets.bounded_files import parsing
from datasets.errors import AutolabelError, SceneError, SetupError, UnreadableError
from datasets.frames import SceneSource
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, inverse
from datasets.label_store import QUARANTINE, SCENES, FrameLabels, LabelStore, MaskBit
from datasets.log_identity import labelled_scene
from datasets.places import Where
from datasets.printable import printable
from datasets.review_counts import ReviewCounts, carry_over, count_reviews
from datasets.review_painting import distrusted, painted
from datasets.reviews import Reviews, Stroke
from datasets.store_header import difference
from datasets.taxonomy import IGNORE_ID, Taxonomy

A = TypeVar("A")
B = TypeVar("B")
_Mended = tuple[str, dict[str, tuple[Stroke, ...]], frozenset[str]]
"""A scene's id, the strokes of its frames, and the tokens of those that were rejected."""
RINGS_M = (20.0, 40.0)
"""Distances from the vehicle that part a store's comparison into rings."""
SAME_PLACE_M, SAME_PLACE_RAD = 1e-3, 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """Attributes:
    bytes_: of all files of committed scenes.
    trusted_by_class: K counts.
    inputs_sha256: of the fingerprints of the scenes that were labelled, in order of their ids.
    reviews: what people said of them.
    """

    scenes: int
    frames: int
    voxels: int
    trusted: int
    trusted_by_class: tuple[int, ...]
    bytes_: int
    quarantined: dict[str, str]
    inputs_sha256: str
    reviews: ReviewCounts


def info(store: LabelStore) -> StoreInfo:
    """Counts from the scenes' attributes and the reviews; no voxel is read. Raises
    ``UnreadableError`` where they are damaged."""
    frames = voxels = trusted = size = 0
    by_class = np.zeros(store.header.taxonomy.n_classes, np.int64)
    inputs = hashlib.sha256()
    for scene_id, attributes in (there := store.committed()).items():
        try:
            with parsing():
                counts = attributes["counts"]
                frames, voxels = frames + int(counts["frames"]), voxels + int(counts["voxels"])
                trusted += int(counts["trusted"])
                by_class += np.asarray(counts["trusted_by_class"], np.int64)
                inputs.update(f"{scene_id} {attributes['inputs']}\n".encode())
        except ValueError as error:
            where = f"label store {store.place}: scene {scene_id}"
            raise UnreadableError(f"{where}: its counts are damaged: {error}") from error
    for key, n in store.place.files(SCENES):
        size += n if key.split("/")[0] in there else 0
    return StoreInfo(
        scenes=len(there),
        frames=frames,
        voxels=voxels,
        trusted=trusted,
        trusted_by_class=tuple(int(n) for n in by_class),
        bytes_=size,
        quarantined={s: note["reason"] for s, note in store.quarantined().items()},
        inputs_sha256=inputs.hexdigest(),
        reviews=count_reviews(Reviews(store)),
    )


def verify(
    where: Where, *, workers: int = 1, on_scene: Callable[[], None] = lambda: None
) -> dict[str, str]:
    """Read every committed scene and compare its checksums: scene id -> what is wrong.

    Raises:
        SetupError: the store cannot be opened.
    """
    store = LabelStore.open(where)
    committed, unreadable = store.looked_at()
    scenes = sorted(committed.keys() | unreadable.keys())
    found = _spread(partial(_verify_scene, where), scenes, workers, on_scene)
    return {scene: why for scene, why in zip(scenes, found, strict=True) if why}


def _verify_scene(where: Where, scene_id: str) -> str:
    try:
        LabelStore.open(where).scene(scene_id).verify()
    except (SceneError, UnreadableError, KeyError) as error:
        return str(error)
    return ""


def leftovers(store: LabelStore) -> list[str]:
    """Keys that no reader looks at: scenes without a commit marker, folders of killed writers,
    and notes on scenes that were set aside and have labels since.

    Raises:
        UnreadableError: a scene cannot be read, so nobody knows what is left over.
    """
    at = store.place
    there = set(store.scene_ids())
    found = [f"{SCENES}/{name}" for name in at.names(SCENES) if name not in there]
    found += [f"{QUARANTINE}/{name}" for name in at.names(QUARANTINE) if name in there]
    return found + ([PARTIAL] if PARTIAL in (at.top() or []) else [])


def prune(store: LabelStore) -> list[str]:
    """Remove the leftovers; gives their keys. No job must be at work on the store. Raises as
    ``leftovers``, before anything is removed."""
    found = leftovers(store)
    for key in found:
        store.place.remove(key)
    return found


@dataclass(slots=True, kw_only=True)
class Difference:
    """Labels of the same frames in two stores.

    Attributes:
        only_a, only_b: scenes that the other one lacks.
        frames: compared.
        confusion: (R + 1, K, K) voxels by ring, class in a and class in b, of those that a sensor
            observed according to either.
        trusted: (2, 2) of these voxels: in a or not, in b or not.
        unmatched: frames that the other one lacks.
        elsewhere: frames whose grids lie at other places, which no comparison of voxels can mend.
    """

    taxonomy: Taxonomy
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    frames: int
    confusion: NDArray[np.int64]
    trusted: NDArray[np.int64]
    unmatched: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether both hold the same frames, and all of them the same labels and trust."""
        apart = self.only_a or self.only_b or self.unmatched or self.elsewhere or self.differ
        return self.frames > 0 and not apart and not self.trusted[[0, 1], [1, 0]].any()

    @property
    def differ(self) -> int:
        """Voxels of another class."""
        total = self.confusion.sum(0)
        return int(total.sum() - np.trace(total))

    def iou(self, ring: int | None = None) -> NDArray[np.float64]:
        """(K,) agreement of each class, NaN where neither has it; of all rings or of one."""
        counts = self.confusion.sum(0) if ring is None else self.confusion[ring]
        both = counts.diagonal().astype(float)
        either = counts.sum(0) + counts.sum(1) - both
        return np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)


def diff(
    a: LabelStore, b: LabelStore, *, on_scene: Callable[[], None] = lambda: None
) -> Difference:
    """Compare two stores frame by frame; frames whose grids lie elsewhere are left out and named.

    Raises:
        SetupError: other voxels or classes.
        SceneError: a scene cannot be read.
    """
    ours, theirs = ((h.grid, h.taxonomy, h.frame) for h in (a.header, b.header))
    if ours != theirs:
        raise SetupError(
            f"{a.place} has {voxels_in_words(*ours)}, {b.place} has {voxels_in_words(*theirs)}"
        )
    taxonomy, rings = a.header.taxonomy, ring_of(a.header.grid)
    K, R = taxonomy.n_classes, len(RINGS_M) + 1
    ids_a, ids_b = set(a.scene_ids()), set(b.scene_ids())
    found = Difference(
        taxonomy=taxonomy,
        only_a=tuple(sorted(ids_a - ids_b)),
        only_b=tuple(sorted(ids_b - ids_a)),
        frames=0,
        confusion=np.zeros((R, K, K), np.int64),
        trusted=np.zeros((2, 2), np.int64),
    )
    seen = np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE)
    for scene_id in sorted(ids_a & ids_b):
        one, other = a.scene(scene_id), b.scene(scene_id)
        for token in sorted(set(one.frame_tokens) ^ set(other.frame_tokens)):
            found.unmatched.append(f"{scene_id} {token}")
        for k, token in enumerate(one.frame_tokens):
            if token not in other.frame_tokens:
                continue
            there = other.index_of(token)
            if apart := _apart(one.T_global_grid[k], other.T_global_grid[there]):
                found.elsewhere.append(f"{scene_id} {token}: {apart}")
                continue
            x, y = one.frame(k), other.frame(there)
            known = (x.semantics < K) & (y.semantics < K) & ((x.mask | y.mask) & seen > 0)
            index = (rings[known].astype(np.int64) * K + x.semantics[known]) * K
            index += y.semantics[known]
            found.confusion += np.bincount(index, minlength=R * K * K).reshape(R, K, K)
            trust = [(labels.mask[known] & MaskBit.TRUSTED > 0) for labels in (x, y)]
            found.trusted += np.bincount(trust[0] * 2 + trust[1], minlength=4).reshape(2, 2)
            found.frames += 1
        on_scene()
    return found


def _apart(a: Transform, b: Transform) -> str:
    """How far apart two poses of a grid are; empty for the same place."""
    if np.array_equal(a, b):
        return ""
    step = inverse(a) @ b
    away_m = float(np.linalg.norm(step[:3, 3]))
    turn_rad = float(np.arccos(np.clip((np.trace(step[:3, :3]) - 1) / 2, -1, 1)))
    if away_m <= SAME_PLACE_M and turn_rad <= SAME_PLACE_RAD:
        return ""
    return f"{away_m:.3f} m and {np.degrees(turn_rad):.2f} degrees apart"


def ring_of(grid: VoxelGrid) -> NDArray[np.uint8]:
    """(X, Y, Z) ring of each voxel by its centre's distance in the plane."""
    X, Y, Z = grid.shape
    cells = np.stack(np.meshgrid(np.arange(X), np.arange(Y), [0], indexing="ij"), -1)
    distance = np.linalg.norm(grid.centers(cells)[..., :2], axis=-1)
    return np.broadcast_to(np.digitize(distance, RINGS_M).astype(np.uint8), (X, Y, Z))


def merge(
    stores: Sequence[LabelStore], out: Where, *, on_scene: Callable[[], None] = lambda: None
) -> LabelStore:
    """One store of the scenes of several that one job made in parts, with the reviews of them all.
    It goes on where it ended.

    Raises:
        SetupError: they are of different jobs, or two have different labels of one scene.
        SceneError: a scene cannot be read, or is not what was written.
    """
    first = stores[0]
    owner: dict[str, LabelStore] = {}
    for store in stores:
        if store.header.run_id != first.header.run_id:
            what = difference(first.header, store.header)
            raise SetupError(f"{store.place}: of another job than {first.place} ({what})")
        for scene_id in store.scene_ids():
            other = owner.setdefault(scene_id, store)
            sums = [s.scene(scene_id).attributes["sha256"] for s in (store, other)]
            if sums[0] != sums[1]:
                raise SetupError(f"{store.place}, {other.place}: other labels of scene {scene_id}")
    merged = LabelStore.open_or_create(out, first.header)
    for scene_id, store in sorted(owner.items()):
        if scene_id not in merged:
            scene = store.scene(scene_id)
            inputs, sums = scene.attributes["inputs"], scene.attributes["sha256"]
            with merged.writer(scene_id, len(scene), inputs=inputs, expect=sums) as writer:
                for k in range(len(scene)):
                    writer.append(scene.frame(k))
        on_scene()
    carry_over(stores, merged)
    return merged


def export(
    where: Where,
    benchmark: Benchmark,
    source: SceneSource,
    out: Path,
    *,
    workers: int = 1,
    use_reviews: bool = True,
    on_scene: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Write every frame of a store as the benchmark's label file, scenes in parallel.

    Only trusted voxels count: the masks hold them alone, and where the format has no masks all
    others that a sensor observed are 255. What no sensor observed, and nobody painted, is free.

    Args:
        source: the log, for the names of the files.
        use_reviews: apply the strokes, and trust no voxel of a rejected frame.

    Returns:
        Scene id -> why it could not be exported.

    Raises:
        SetupError: the store has other voxels or classes, or no flow where the format wants it.
    """
    store = LabelStore.open(where)
    header = store.header
    benchmark.require(f"label store {where}", header.grid, header.taxonomy, header.frame)
    if benchmark.write is None:
        raise SetupError(f"benchmark {benchmark.name} has no files of its own to write")
    if benchmark.name == "openocc_flow" and not header.flow:
        raise SetupError(f"label store {where}: has no flow, which {benchmark.name} wants")
    scenes = store.scene_ids()
    reviews = Reviews(store) if use_reviews else None
    if reviews is not None:
        reviews.require_whole()
    mended = [
        (one, {}, frozenset[str]())
        if reviews is None
        else (one, reviews.strokes(one), reviews.rejected(one))
        for one in scenes
    ]
    work = partial(_export_scene, where, benchmark, source, out)
    found = _spread(work, mended, workers, on_scene)
    return {scene: why for scene, why in zip(scenes, found, strict=True) if why}


def _export_scene(
    where: Where, benchmark: Benchmark, source: SceneSource, out: Path, mended: _Mended
) -> str:
    assert benchmark.write is not None
    scene_id, strokes, rejected = mended
    try:
        store = LabelStore.open(where)
        stored, scene = labelled_scene(store, scene_id, source)
        for frame in scene.frames:
            path = benchmark.path(out, source, frame)
            labels = stored.frame(stored.index_of(frame.token))
            if frame.token in strokes:
                labels = painted(labels, strokes[frame.token], store.header)
            if frame.token in rejected:
                labels = distrusted(labels)
            benchmark.write(path, as_truth(labels, benchmark))
    except (AutolabelError, KeyError) as error:
        return str(error)
    return ""


def as_truth(labels: FrameLabels, benchmark: Benchmark) -> Truth:
    """Labels in the layers that the benchmark's files have."""
    trusted = (labels.mask & MaskBit.TRUSTED) > 0
    lidar = (labels.mask & MaskBit.LIDAR_OBSERVED) > 0
    camera = (labels.mask & MaskBit.CAMERA_VISIBLE) > 0
    free = np.uint8(benchmark.taxonomy.free_id)
    truth = Truth(
        grid=benchmark.grid,
        taxonomy=benchmark.taxonomy,
        semantics=np.where(lidar | camera | trusted, labels.semantics, free),
    )
    if benchmark.mask is None:
        ignored = (lidar | camera) & ~trusted
        flow = None if labels.flow is None else np.nan_to_num(labels.flow.astype(np.float32))
        semantics = np.where(ignored, np.uint8(IGNORE_ID), truth.semantics)
        return replace(truth, semantics=semantics, flow=flow)
    if benchmark.mask == "observed":
        return replace(truth, mask_lidar=trusted)
    return replace(truth, mask_lidar=lidar & trusted, mask_camera=camera & trusted)


def sharing(licence: str) -> str:
    """What whoever passes labels on must know of the licence that they inherit; one line."""
    licence = printable(licence)
    if "CC0" in licence:
        return f"licence of the labels: {licence}; they may be shared"
    if "Waymo" in licence:
        return (
            f"licence of the labels: {licence}. They are derived from data that must not be passed "
            "on: DO NOT SHARE them outside of that agreement"
        )
    return (
        f"licence of the labels: {licence}. They inherit it from the log: share them only as it "
        "allows"
    )


def _spread(
    work: Callable[[A], B], items: Iterable[A], workers: int, on_each: Callable[[], None]
) -> Iterator[B]:
    """``map`` over processes, in order."""
    if workers <= 1:
        for item in items:
            yield work(item)
            on_each()
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for result in pool.map(work, items):
            yield result
            on_each()
