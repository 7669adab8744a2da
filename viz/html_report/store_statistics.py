"""Numbers of a label store, read scene by scene: what there is, how sure it is, how right.

Only voxels that a sensor observed are counted: nothing may use a label elsewhere.

Legend: X Y Z voxels, K classes, R rings of distance, L levels of confidence, T frames of a scene.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.catalogue import Benchmark
from datasets.errors import SceneError
from datasets.frames import Frame, SceneSource
from datasets.labels.store import FrameLabels, LabelStore, MaskBit, StoreHeader
from datasets.metrics.confusion import RangeBins
from datasets.taxonomy import IGNORE_ID

RINGS = RangeBins()
OBSERVED = MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthFolder:
    """Ground truth to compare a store with. Picklable.

    Attributes:
        root: folder of the truth, as in ``Benchmark.labels``.
        source: the log whose frames are labelled.
    """

    benchmark: Benchmark
    root: Path
    source: SceneSource


class ObjectNumbers:
    """The objects of a scene: class of most of their voxels, and in how many frames they are.

    Streaming over frames.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self._votes: dict[int, Counts] = {}
        self._frames: Counter[int] = Counter()

    def update(self, semantics: NDArray[np.uint8], instances: NDArray[np.uint16]) -> None:
        """Add a frame's labels (X, Y, Z); voxels of number 0 are of no object."""
        inside = (instances > 0) & (semantics < self.n_classes)
        ids, place = np.unique(instances[inside], return_inverse=True)
        votes = np.zeros((len(ids), self.n_classes), np.int64)
        np.add.at(votes, (place, semantics[inside]), 1)
        for number, row in zip(ids.tolist(), votes, strict=True):
            self._votes[number] = self._votes.get(number, 0) + row
            self._frames[number] += 1

    def by_class(self) -> dict[int, list[int]]:
        """Class id -> frames of each object."""
        out: dict[int, list[int]] = defaultdict(list)
        for number, votes in self._votes.items():
            out[int(votes.argmax())].append(self._frames[number])
        return dict(out)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneNumbers:
    """Attributes:
    labels: (L, 2) observed voxels by level and whether they are trusted.
    scored, right: those whose truth the benchmark scores, and the right ones; 0 without truth.
    lidar, camera: observed by LiDAR, seen by a camera; ignored: observed, but of no class.
    doubt: (T,) share of a frame's observed voxels that is wrong by their own confidence.
    wrong: (T,) share of its scored ones that is; NaN without truth.
    objects: class id -> frames of each object; None where the store numbers none.
    """

    scene_id: str
    tokens: tuple[str, ...]
    labels: Counts
    scored: int
    right: int
    lidar: int
    camera: int
    ignored: int
    doubt: Shares
    wrong: Shares
    objects: dict[int, list[int]] | None = None

    @property
    def worst_frame(self) -> int:
        """The frame with the most errors: true ones where the truth is known, else expected."""
        finite = np.isfinite(self.wrong)
        return int(np.where(finite, self.wrong, -1.0 if finite.any() else self.doubt).argmax())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoreNumbers:
    """Sums over scenes. Scenes that cannot be read have no part in them.

    Attributes:
        labels: (K, R, L, 2) observed voxels by class, ring, level and whether they are trusted.
        scored, right: the same of those whose truth the benchmark scores, and of the right ones;
            all 0 without truth.
        damaged: scene id -> why it cannot be read.
        truth_damaged: scene id -> why its truth cannot.
    """

    header: StoreHeader
    scenes: tuple[SceneNumbers, ...]
    damaged: dict[str, str]
    truth_damaged: dict[str, str]
    labels: Counts
    scored: Counts
    right: Counts

    @property
    def frames(self) -> int:
        return sum(len(scene.tokens) for scene in self.scenes)

    @property
    def voxels(self) -> int:
        """All of the grid, of all frames."""
        return self.frames * self.header.grid.n_voxels

    @property
    def occupied(self) -> NDArray[np.bool_]:
        """(K,) every class but free space."""
        taxonomy = self.header.taxonomy
        return np.asarray(np.arange(taxonomy.n_classes) != taxonomy.free_id)

    @property
    def levels(self) -> Shares:
        """(L,) P(label is right)."""
        return np.asarray(self.header.levels, np.float64)


def expected_wrong(labels: Counts, levels: Shares) -> float:
    """Share of voxels (..., L) that is wrong by their confidence; NaN without any."""
    per_level = labels.reshape(-1, len(levels)).sum(0)
    return share((per_level * (1 - levels)).sum(), per_level.sum())


def share(part: float | np.integer[Any], whole: float | np.integer[Any]) -> float:
    """NaN of nothing."""
    return float(part) / float(whole) if whole else float("nan")


def store_numbers(
    store: LabelStore,
    truth: TruthFolder | None = None,
    *,
    on_frame: Callable[[], object] = lambda: None,
) -> StoreNumbers:
    """Read the whole store, one frame in memory at a time."""
    header = store.header
    shape = (header.taxonomy.n_classes, len(RINGS.names), len(header.levels), 2)
    total, scored, right = (np.zeros(shape, np.int64) for _ in range(3))
    committed, unreadable = store.looked_at()
    damaged = {scene_id: str(error) for scene_id, error in unreadable.items()}
    scenes, truth_damaged = [], {}
    for scene_id in committed:
        frames, bad = _true_frames(truth, scene_id)
        try:
            numbers, counts, bad_truth = _scene_numbers(store, scene_id, truth, frames, on_frame)
        except (SceneError, KeyError, TypeError, ValueError) as error:
            # attributes that were altered by hand raise anything
            named = isinstance(error, SceneError)
            damaged[scene_id] = str(error) if named else f"{type(error).__name__}: {error}"
            continue
        if bad := bad or bad_truth:
            truth_damaged[scene_id] = bad
        scenes.append(numbers)
        for sums, part in zip((total, scored, right), counts, strict=True):
            sums += part
    return StoreNumbers(
        header=header,
        scenes=tuple(scenes),
        damaged=damaged,
        truth_damaged=truth_damaged,
        labels=total,
        scored=scored,
        right=right,
    )


def _true_frames(truth: TruthFolder | None, scene_id: str) -> tuple[dict[str, Frame], str]:
    """The log's frames that have a truth file, by token; and why the log cannot tell."""
    if truth is None:
        return {}, ""
    path, root, source = truth.benchmark.path, truth.root, truth.source
    try:
        frames = source.scene(scene_id).frames
        return {f.token: f for f in frames if path(root, source, f).is_file()}, ""
    except SceneError as error:
        return {}, str(error)
    except KeyError:
        return {}, ""  # the truth is of other scenes


def _scene_numbers(
    store: LabelStore,
    scene_id: str,
    truth: TruthFolder | None,
    true_frames: dict[str, Frame],
    on_frame: Callable[[], object],
) -> tuple[SceneNumbers, tuple[Counts, Counts, Counts], str]:
    """A scene's numbers, its part in the sums, and why its truth is damaged.

    Raises whatever the store's data do.
    """
    header, scene, bad = store.header, store.scene(scene_id), ""
    rings, levels = RINGS.of(header.grid), np.asarray(header.levels)
    shape = (header.taxonomy.n_classes, len(RINGS.names), len(levels), 2)
    total, scored, right = (np.zeros(shape, np.int64) for _ in range(3))
    lidar = camera = ignored = 0
    doubt, wrong = np.full((2, len(scene)), np.nan)
    objects, numbered = ObjectNumbers(header.taxonomy.n_classes), False
    for k in range(len(scene)):
        labels = scene.frame(k)
        observed = (labels.mask & OBSERVED) > 0
        labeled = observed & (labels.semantics != IGNORE_ID)
        cells = _cells(labels, rings, header)
        counts = _counted(cells[labeled], shape)
        total += counts
        lidar += int(np.count_nonzero(labels.mask & MaskBit.LIDAR_OBSERVED))
        camera += int(np.count_nonzero(labels.mask & MaskBit.CAMERA_VISIBLE))
        ignored += int(observed.sum()) - int(labeled.sum())
        if labels.instances is not None:
            numbered = True
            objects.update(labels.semantics, labels.instances)
        doubt[k] = expected_wrong(counts.sum(3), levels)
        if truth is not None and labels.token in true_frames:
            try:
                true = truth.benchmark.labels(truth.root, truth.source, true_frames[labels.token])
            except SceneError as error:
                bad = bad or str(error)
            else:
                judged = labeled & true.scored()
                good = judged & (labels.semantics == true.semantics)
                n, n_good = _counted(cells[judged], shape), _counted(cells[good], shape)
                scored, right = scored + n, right + n_good
                wrong[k] = share(n.sum() - n_good.sum(), n.sum())
        on_frame()
    numbers = SceneNumbers(
        scene_id=scene_id,
        tokens=scene.frame_tokens,
        labels=total.sum((0, 1)),
        scored=int(scored.sum()),
        right=int(right.sum()),
        lidar=lidar,
        camera=camera,
        ignored=ignored,
        doubt=np.nan_to_num(doubt),
        wrong=wrong,
        objects=objects.by_class() if numbered else None,
    )
    return numbers, (total, scored, right), bad


def _cells(labels: FrameLabels, rings: NDArray[np.uint8], header: StoreHeader) -> NDArray[np.int32]:
    """(X, Y, Z) place of each voxel in a flat (K, R, L, 2) histogram; meaningless where ignored.

    Raises:
        SceneError: a class or a level that the header does not know.
    """
    K, L = header.taxonomy.n_classes, len(header.levels)
    ids = labels.semantics[labels.semantics != IGNORE_ID]
    for name, values, n in (("class id", ids, K), ("level", labels.confidence, L)):
        if values.size and (top := int(values.max())) >= n:
            rule = f"{name} {top} is unknown to the header"
            raise SceneError(where="the store", frame=labels.token, rule=rule)
    trusted = (labels.mask & MaskBit.TRUSTED) > 0
    cells = labels.semantics.astype(np.int32) * len(RINGS.names) + rings
    return np.asarray((cells * L + labels.confidence) * 2 + trusted, np.int32)


def _counted(cells: NDArray[np.int32], shape: tuple[int, ...]) -> Counts:
    return np.bincount(cells, minlength=int(np.prod(shape))).reshape(shape)
