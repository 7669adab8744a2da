"""From a network's softmax to P(label is right), learnt on labelled scenes.

Several maps are fitted: the softmax at its word; one temperature (Guo et al., ICML 2017), on the
logit of the predicted class's probability; a temperature per class; isotonic regression of right
against raw confidence (Zadrozny and Elkan, KDD 2002) per predicted class, or per class and distance
from the vehicle. The one with the best proper score on scenes left out of the fit is taken
(``select_method``). Instead of the softmax the verdict of a meta classifier may be mapped so
(``meta_classifier``). Classes with few samples lean on the map of their group, occupied or free,
and rings on that of their class. A threshold on the result means the same for a car and for free
space.

Legend: V voxels, R rings of distance, K classes, B bins of raw confidence, L levels, S scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from autolabel.confidence.meta_classifier import MetaClassifier
from autolabel.refinement.temporal_fusion import Refiner
from datasets.geometry.compiled import compiled
from datasets.labels.calibration_record import ReliabilityCounts, method_label
from datasets.metrics.calibration import ConfidenceCounts
from datasets.metrics.confusion import RangeBins

N_BINS = 256
LOGIT_RANGE = (-4.0, 14.0)
"""Bins are uniform in logit(p), so they are fine near 1, where most voxels are."""

LEVELS = (
    *(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    *(0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 0.99, 0.995),
)
"""Where the levels that a store can express begin. What a level is worth is the mean of what was
found in it; the first also stands for voxels of which nothing is known, and is worth 0."""

PRIOR_SAMPLES = 200.0
"""Weight of the group's map in a class's map. Voxels of a frame are far from independent."""


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float64)


_EDGES_LOGIT = np.linspace(*LOGIT_RANGE, N_BINS + 1)
_INNER_EDGES = _sigmoid(_EDGES_LOGIT[1:-1]).astype(np.float32)
_LOWER_EDGES = _sigmoid(_EDGES_LOGIT[:-1])
BIN_CENTRES = _sigmoid((_EDGES_LOGIT[:-1] + _EDGES_LOGIT[1:]) / 2)
"""(B,) float64 raw confidence in the middle of each bin."""


def bin_of(raw_confidence: NDArray[Any]) -> NDArray[np.int64]:
    """Bin of each raw confidence, any shape.

    Raises:
        ValueError: a value is not in 0..1 (or NaN).
    """
    p = np.asarray(raw_confidence, np.float32, order="C")
    bins = np.empty(p.shape, np.int64)
    if not _look_up(p.ravel(), _INNER_EDGES, bins.ravel()):
        raise ValueError("raw confidence must lie in 0..1")
    return bins


@compiled
def _look_up(p: Any, edges: Any, bins: Any) -> bool:
    """``np.searchsorted(edges, p, side="right")`` of N_BINS - 1 edges, a power of two less one,
    without branches: four times as fast. Whether every value is in 0..1."""
    good = True
    for i in range(len(p)):
        value = p[i]
        good &= (value >= 0.0) & (value <= 1.0 + 1e-6)
        low, step = 0, N_BINS >> 1
        while step:
            low += step * (edges[low + step - 1] <= value)
            step >>= 1
        bins[i] = low
    return good


RINGS = RangeBins(edges_m=(12.0, 25.0))
"""Distances that have maps of their own, if that is better."""

Counts = NDArray[np.int64]
Method = Literal[
    "softmax", "temperature", "class temperature", "class", "class and range", "adapted"
]
FITTED: tuple[Method, ...] = tuple(m for m in get_args(Method) if m != "adapted")
"""Fitted from scratch; ``adapted`` begins with another calibration (``calibration.adapt``)."""
TEMPERATURES = np.exp(np.linspace(np.log(0.25), np.log(4.0), 49))
FOLDS = 5


class CalibrationHistogram(ConfidenceCounts):
    """Counts of voxels and of right ones per ring, predicted class and bin. Streaming, mergeable.

    Args:
        n_classes: K, free space included.
        free_id: the class that forms a group of its own; the last one unless told otherwise.

    Attributes:
        seen, right: (R * K, B) int64.
    """

    def __init__(self, n_classes: int, *, free_id: int | None = None) -> None:
        super().__init__(len(RINGS.names) * n_classes, N_BINS)
        free_id = n_classes - 1 if free_id is None else free_id
        if not 0 <= free_id < n_classes:
            raise ValueError(f"free id {free_id} is not in 0..{n_classes - 1}")
        self.free_id, self.n_classes = free_id, n_classes

    def update(
        self,
        raw_confidence: NDArray[Any],  # (V,) softmax value of the predicted class
        predicted: NDArray[Any],  # (V,) class ids
        correct: NDArray[np.bool_],  # (V,)
        ring: NDArray[Any] | int = 0,  # (V,) of ``RINGS``
    ) -> None:
        """Add voxels whose truth is known.

        Raises:
            ValueError: shapes differ, a class is unknown, or a confidence is not in 0..1.
        """
        if predicted.size and int(predicted.max()) >= self.n_classes:
            raise ValueError(f"a predicted class is not in 0..{self.n_classes - 1}")
        rows = predicted.astype(np.int64) + np.asarray(ring, np.int64) * self.n_classes
        self.count(bin_of(raw_confidence), rows, correct)

    def merge(self, other: CalibrationHistogram) -> None:
        """Add the counts of another part of the data."""
        if other.seen.shape != self.seen.shape or other.free_id != self.free_id:
            raise ValueError("the histograms are of different class lists")
        self.add(other)

    def by_ring(self) -> tuple[Counts, Counts]:
        """Voxels and right ones, (R, K, B) each."""
        shape = (-1, self.n_classes, N_BINS)
        return self.seen.reshape(shape), self.right.reshape(shape)

    def fit(self, method: Method = "class") -> Calibration:
        """The map of every class; with no sample at all, P(right) is taken for one half."""
        p = self.fitted(method)
        if (p == p[:1]).all():
            p = p[:1]
        counts = tuple(int(n) for n in self.by_ring()[0].sum((0, 2)))
        table, levels = fitted_tables(p, self.by_ring()[0])
        return Calibration(levels=levels, table=table, counts=counts, method=method)

    def fitted(self, method: Method) -> NDArray[np.float64]:
        """(R, K, B) P(label is right)."""
        seen, right = self.by_ring()
        shape = seen.shape
        if method == "softmax":
            return np.broadcast_to(BIN_CENTRES, shape)
        if method == "temperature":
            return np.broadcast_to(_tempered(seen.sum((0, 1)), right.sum((0, 1))), shape)
        ids = np.arange(self.n_classes)
        maps = np.empty(shape[1:])
        for group in (ids == self.free_id, ids != self.free_id):
            n, good = seen[:, group].sum((0, 1)), right[:, group].sum((0, 1))
            if method == "class temperature":
                pooled = _tempered(n, good)
            else:
                # one voxel of ignorance per bin, so that an empty bin is not taken for a sure one
                pooled = _isotonic((good + 0.5) / (n + 1.0), n + 1.0)
            prior = PRIOR_SAMPLES * (n + 1.0) / (n + 1.0).sum()
            for k in ids[group]:
                weight, hits = seen[:, k].sum(0) + prior, right[:, k].sum(0) + prior * pooled
                if method == "class temperature":
                    maps[k] = _tempered(weight, hits)
                else:
                    maps[k] = _isotonic(hits / weight, weight)
        if method != "class and range":
            return np.broadcast_to(maps, shape)
        prior_of_class = seen.sum(0) + 1.0
        prior_of_class *= PRIOR_SAMPLES / prior_of_class.sum(-1, keepdims=True)
        out = np.empty(shape)
        for r, k in np.ndindex(shape[:2]):
            weight = seen[r, k] + prior_of_class[k]
            out[r, k] = _isotonic((right[r, k] + prior_of_class[k] * maps[k]) / weight, weight)
        return out


def fitted_tables(
    p: NDArray[np.float64], seen: Counts
) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """Of maps (R, K, B) of P(label is right): the level of each bin, and what levels are worth.

    Args:
        seen: (R, K, B) voxels.
    """
    table = _level_of(p)
    return table, _means(table, p, seen)


def isotonic_maps(
    prior: NDArray[np.float64], seen: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rising maps (R, K, B) of counts that lean on a prior map with ``PRIOR_SAMPLES`` voxels, which
    are spread like the counts of the class."""
    spread = seen + seen.sum((0, 1), keepdims=True) / max(1.0, float(seen.sum())) + 1e-3
    weight = PRIOR_SAMPLES * spread / spread.sum(-1, keepdims=True)
    values = (right + weight * prior) / (seen + weight)
    out = np.empty_like(values)
    for r, k in np.ndindex(values.shape[:2]):
        out[r, k] = _isotonic(values[r, k], (seen + weight)[r, k])
    return np.asarray(out)


def _tempered(seen: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    """(B,) the raw confidence under the temperature with the best likelihood."""
    logit = (_EDGES_LOGIT[:-1] + _EDGES_LOGIT[1:]) / 2
    p = _sigmoid(logit[None, :] / TEMPERATURES[:, None]).clip(1e-6, 1 - 1e-6)
    loss = -(right * np.log(p) + (seen - right) * np.log1p(-p)).sum(-1)
    return np.asarray(p[loss.argmin()])


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScore:
    """Proper scores of a calibration method on scenes left out of its fit; less is better.

    Attributes:
        meta: whether it is the verdict of a meta classifier that is mapped, not the softmax.
        log_loss, brier: mean over occupied and over free voxels, each group counting one half.
    """

    method: Method
    log_loss: float
    brier: float
    meta: bool = False

    @property
    def name(self) -> str:
        return method_label(self.method, meta=self.meta)


def select_method(scenes: Sequence[CalibrationHistogram]) -> tuple[Calibration, Counts, Counts]:
    """The best calibration of the scenes, and what it is worth on scenes left out of its fit.

    Returns:
        The map with the least log loss over ``FOLDS`` folds of scenes (below two scenes the one per
        class), fitted on all; and per scene the voxels and the right ones (S, R, K, L) at
        each level that maps fitted on the other folds give them.

    Raises:
        ValueError: there is no scene.
    """
    if not scenes:
        raise ValueError("there is no scene to calibrate on")
    folds = min(FOLDS, len(scenes))
    total = _sum(scenes)
    if folds < 2:
        chosen: Method = "class"
        method_scores: tuple[MethodScore, ...] = ()
        complements = {0: total}
    else:
        parts = [_sum(scenes[f::folds]) for f in range(folds)]
        complements = {f: _sum([p for g, p in enumerate(parts) if g != f]) for f in range(folds)}
        method_scores = tuple(
            _scored(m, [(complements[f].fitted(m), parts[f]) for f in range(folds)]) for m in FITTED
        )
        chosen = min(method_scores, key=lambda c: c.log_loss).method
    calibration = total.fit(chosen)
    tables = {f: _level_of(h.fitted(chosen)) for f, h in complements.items()}
    R, K, _ = tables[0].shape
    seen = np.zeros((len(scenes), R, K, len(LEVELS)), np.int64)
    right = np.zeros_like(seen)
    for s, scene in enumerate(scenes):
        for out, counts in zip((seen, right), scene.by_ring(), strict=True):
            table = tables[s % folds]
            for r, k in np.ndindex(R, K):
                out[s, r, k] = np.bincount(table[r, k], counts[r, k], minlength=len(LEVELS))
    reliability = ReliabilityCounts(seen=seen.sum((0, 1)), right=right.sum((0, 1)))
    return replace(calibration, method_scores=method_scores, reliability=reliability), seen, right


def _sum(parts: Sequence[CalibrationHistogram]) -> CalibrationHistogram:
    total = CalibrationHistogram(parts[0].n_classes, free_id=parts[0].free_id)
    for part in parts:
        total.merge(part)
    return total


def _scored(
    method: Method, folds: Sequence[tuple[NDArray[np.float64], CalibrationHistogram]]
) -> MethodScore:
    losses = np.zeros((2, 2))
    for p, part in folds:
        seen, right = part.by_ring()
        wrong = seen - right
        sure = p.clip(1e-4, 1 - 1e-4)
        log = -(right * np.log(sure) + wrong * np.log1p(-sure))
        brier = right * (1 - p) ** 2 + wrong * p**2
        free = np.arange(part.n_classes) == part.free_id
        for g, group in enumerate((free, ~free)):
            n = max(1, int(seen[:, group].sum()))
            losses[:, g] += log[:, group].sum() / n, brier[:, group].sum() / n
    log_loss, brier_loss = (losses.mean(1) / len(folds)).tolist()
    return MethodScore(method=method, log_loss=log_loss, brier=brier_loss)


def _isotonic(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(isotonic_regression(values, weights=weights).x, np.float64)


def _level_of(p: NDArray[np.float64]) -> NDArray[np.uint8]:
    # a hair of tolerance: 0.7 computed as 0.6999999 is 0.7
    return (np.searchsorted(LEVELS, p + 1e-9, side="right") - 1).clip(0).astype(np.uint8)


def _means(
    table: NDArray[np.uint8],
    p: NDArray[np.float64],
    seen: Counts,  # (R, K, B)
) -> tuple[float, ...]:
    """What the levels are worth; of those that no map gives, the middle."""
    weight = seen + 1e-6  # of bins with no voxel, when all of a level's are
    table, p = np.broadcast_to(table, seen.shape), np.broadcast_to(p, seen.shape)
    n, total = np.zeros(len(LEVELS)), np.zeros(len(LEVELS))
    np.add.at(n, table, weight)
    np.add.at(total, table, weight * p)
    begin, end = np.asarray(LEVELS), np.asarray((*LEVELS[1:], 1.0))
    means = np.divide(total, n, out=(begin + end) / 2, where=n > 0)
    # a hair inside, so that levels rise
    return (0.0, *np.clip(means, begin, end - 1e-4).round(4)[1:].tolist())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """P(label is right) from raw confidence and predicted class.

    Attributes:
        levels: P(label is right) that each is worth, ascending.
        table: (R, K, B) uint8 index into the levels, never falling along B; R is 1, or a map for
            each of ``RINGS``.
        counts: voxels per predicted class that the maps were learnt from.
        min_free_rays: LiDAR rays that must pass a voxel predicted free, see ``FreeRayThreshold``; 0
            if that was not measured.
        method: how the maps were fitted; method_scores: how well each method did.
        reliability: at the levels that such maps give on scenes left out of their fit; None if that
            was not measured.
        occupancy: (K, L) voxels, and those whose truth is occupied or free as the label is; None
            if that was not measured.
        refiner: what other frames' predictions count for; None: every frame on its own.
        meta: whose verdict the raw confidence is; None: it is the softmax.

    Raises:
        ValueError: the table does not fit the levels or falls somewhere, the rays are negative, or
            the meta classifier knows other classes.
    """

    levels: tuple[float, ...]
    table: NDArray[np.uint8]
    counts: tuple[int, ...]
    min_free_rays: int = 0
    method: Method = "class"
    method_scores: tuple[MethodScore, ...] = ()
    reliability: ReliabilityCounts | None = None
    occupancy: ReliabilityCounts | None = None
    refiner: Refiner | None = None
    meta: MetaClassifier | None = None

    def __post_init__(self) -> None:
        v = np.asarray(self.levels)
        if v.size < 1 or not ((v >= 0) & (v <= 1)).all() or not (v[1:] > v[:-1]).all():
            raise ValueError(f"levels must be ascending values in 0..1: {self.levels}")
        shapes = [(n, len(self.counts), N_BINS) for n in (1, len(RINGS.names))]
        if self.table.dtype != np.uint8 or self.table.shape not in shapes:
            raise ValueError(f"table is {self.table.dtype} {self.table.shape}")
        if self.table.max() >= v.size or (self.table[..., 1:] < self.table[..., :-1]).any():
            raise ValueError("the table must rise along the bins and stay within the levels")
        if self.min_free_rays < 0:
            raise ValueError(f"a number of rays is not negative: {self.min_free_rays}")
        if self.meta is not None and self.meta.n_classes != len(self.counts):
            raise ValueError(
                f"a meta classifier of {self.meta.n_classes} classes for {len(self.counts)}"
            )

    @classmethod
    def uncalibrated(cls, n_classes: int) -> Calibration:
        """Takes the softmax at its word (rounded down): for a teacher never measured."""
        table = np.tile(_level_of(_LOWER_EDGES), (1, n_classes, 1))
        return cls(levels=LEVELS, table=table, counts=(0,) * n_classes, method="softmax")

    @property
    def free_share(self) -> NDArray[np.float64]:
        """(K, L) share of labels that say occupied where it is free, or the other way round; as
        far as it was not measured, all labels that are wrong."""
        wrong = np.broadcast_to(1 - np.asarray(self.levels), (len(self.counts), len(self.levels)))
        if self.occupancy is None:
            return wrong
        seen, right = self.occupancy.seen, self.occupancy.right
        return np.asarray((seen - right + PRIOR_SAMPLES * wrong) / (seen + PRIOR_SAMPLES))

    @property
    def is_measured(self) -> bool:
        """Whether it was learnt from data."""
        return any(self.counts)

    @property
    def method_name(self) -> str:
        """How confidence comes about, for people."""
        return method_label(self.method, meta=self.meta is not None)

    def levels_of(
        self,
        raw_confidence: NDArray[Any],
        predicted: NDArray[Any],
        ring: NDArray[Any] | int = 0,
    ) -> NDArray[np.uint8]:
        """Level index of each voxel; any shape, equal for all.

        Args:
            ring: of ``RINGS``; not looked at where the maps are the same at all distances.

        Raises:
            ValueError: a confidence is not in 0..1.
        """
        flat = predicted.astype(np.int64)
        if len(self.table) > 1:
            flat += np.asarray(ring, np.int64) * len(self.counts)
        flat *= N_BINS
        flat += bin_of(raw_confidence)
        return np.asarray(self.table.ravel()[flat], np.uint8)

    def by_level(self, counts: Counts) -> Counts:
        """(R, K, L) of counts (R * K, B) per ring, predicted class and bin."""
        shape = (len(RINGS.names), len(self.counts), N_BINS)
        table = np.broadcast_to(self.table, shape).astype(np.int64)
        rows = np.arange(shape[0] * shape[1]).reshape(*shape[:2], 1)
        flat = (rows * len(self.levels) + table).ravel()
        out = np.bincount(flat, counts.ravel(), minlength=rows.size * len(self.levels))
        return np.rint(out).astype(np.int64).reshape(*shape[:2], len(self.levels))

    def to_json(self) -> dict[str, Any]:
        """JSON values; of each map only the bins at which the level rises are kept."""
        ranks = np.arange(1, len(self.levels))
        optional: dict[str, Any] = {}
        if self.reliability is not None:
            optional["reliability"] = self.reliability.to_json()
        if self.occupancy is not None:
            optional["occupancy"] = self.occupancy.to_json()
        if self.method_scores:
            optional["choices"] = [
                {"method": c.method, "log_loss": round(c.log_loss, 6), "brier": round(c.brier, 6)}
                | ({"meta": True} if c.meta else {})
                for c in self.method_scores
            ]
        if self.refiner is not None:
            optional["refiner"] = self.refiner.to_json()
        if self.meta is not None:
            optional["meta"] = self.meta.to_json()
        maps = [[np.searchsorted(row, ranks).tolist() for row in ring] for ring in self.table]
        return {
            "bins": {"n": N_BINS, "logit_range": list(LOGIT_RANGE)},
            "levels": list(self.levels),
            "rises": maps if len(maps) > 1 else maps[0],
            "counts": list(self.counts),
            "free_passes": self.min_free_rays,
            **({"method": self.method} if self.method != "class" else {}),
            **optional,
        }

    def describe(self) -> dict[str, Any]:
        """As ``to_json``, for a store: what tells a large part from others stands in its place."""
        refiner = {} if self.refiner is None else {"refiner": self.refiner.describe()}
        return self.to_json() | refiner

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Calibration:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        if data["bins"] != {"n": N_BINS, "logit_range": list(LOGIT_RANGE)}:
            raise ValueError(f"other bins of raw confidence: {data['bins']}")
        levels = tuple(float(v) for v in data["levels"])
        rises = np.asarray(data["rises"], np.int64)
        rises = rises[None] if rises.ndim == 2 else rises
        if rises.ndim != 3 or rises.shape[2] != len(levels) - 1:
            raise ValueError(f"need {len(levels) - 1} rises per class")
        method = data.get("method", "class")
        if method not in get_args(Method):
            raise ValueError(f"unknown way to calibrate: {method!r}")
        bins = np.arange(N_BINS)[:, None]
        table = (bins >= rises[..., None, :]).sum(-1).astype(np.uint8)
        return cls(
            levels=levels,
            table=table,
            counts=tuple(int(n) for n in data["counts"]),
            min_free_rays=int(data.get("free_passes", 0)),
            method=method,
            method_scores=tuple(
                MethodScore(
                    method=c["method"],
                    log_loss=float(c["log_loss"]),
                    brier=float(c["brier"]),
                    meta=bool(c.get("meta", False)),
                )
                for c in data.get("choices", ())
            ),
            reliability=(
                ReliabilityCounts.from_json(data["reliability"]) if "reliability" in data else None
            ),
            occupancy=(
                ReliabilityCounts.from_json(data["occupancy"]) if "occupancy" in data else None
            ),
            refiner=Refiner.from_json(data["refiner"]) if "refiner" in data else None,
            meta=MetaClassifier.from_json(data["meta"]) if "meta" in data else None,
        )

    def summary(self) -> str:
        """One line for people: what it was learnt from, and what the top bin of softmax means."""
        if not self.is_measured:
            return "uncalibrated: the softmax is taken at its word"
        n_rare = sum(n < PRIOR_SAMPLES for n in self.counts)
        top = [self.levels[row.max()] for row in self.table[..., -1].T]
        return (
            f"calibrated ({self.method_name}) on {sum(self.counts):,} voxels; {n_rare} of "
            f"{len(self.counts)} classes have fewer than {PRIOR_SAMPLES:.0f} and lean on their "
            "group; "
            f"the surest labels are right with P >= {min(top)} to {max(top)} by class; free from "
            f"{self.min_free_rays} passing rays on"
        )
