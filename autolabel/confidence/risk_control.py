"""Risk control: thresholds under which few of the trusted voxels are wrong.

``control_risk`` looks for the lowest confidence from which on labels may be trusted, so that the
share of wrong voxels among the trusted ones of new scenes is at most ``max_error``, with a stated
confidence over the draw of the calibration scenes. The scheme is learn-then-test (Angelopoulos et
al., arXiv 2110.01052): levels are tested from the surest one downwards, each against the
hypothesis that its error is too large, and the first that cannot be rejected ends the search.
Voxels of a scene are far from independent, so scenes are counted. Free voxels are nine in ten and
easy, and the ground is most of what is occupied, so each group of classes has a threshold and a
bound of its own; occupied voxels together have one more. A group whose bound cannot be had is not
trusted at all, and that is said.

Two tests: ``t``, Student's t over scenes of wrong minus allowed voxels, corrected for skewness
(Hall, JRSS B 1992), takes sums over some scenes to be near normal. ``exact`` is valid for any
distribution of the scenes' shares of wrong voxels (betting, Waudby-Smith and Ramdas, JRSS B 2024);
it can never hold with fewer than ln(1 - confidence) / ln(1 - max_error) scenes. Two guards protect
the t test against unseen failures: one pseudo-scene as bad as the worst is added (as in conformal
risk control, Angelopoulos et al., arXiv 2208.02814), and there must be enough scenes that a kind of
scene with ``MOST_WRONG`` of its trusted voxels wrong, if frequent enough to break the bound, would
have been sampled.

Legend: S scenes, R rings of distance, K classes, L levels of confidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from datasets.errors import SetupError
from datasets.labels.calibration_record import GroupRiskBound, RiskBound, Test

Counts = NDArray[np.int64]
MIN_SCENES = 8
"""Fewer are no sample for the t test."""
MOST_WRONG = 0.25
"""Share of a scene's trusted voxels that may be wrong in kinds of scenes not yet seen."""
MIN_SHARE = 0.02
"""Levels that keep less than this share of a group's voxels are passed over: of so few voxels most
lie in few scenes, and keeping them is worth little."""
MAX_COUNTS = 32 << 20
"""Scenes x rings x classes x levels of counts in a file."""
NEVER = 255
"""Threshold of a class of which nothing is trusted."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CalibrationCounts:
    """Labels that could be trusted and how many are right, on scenes left out of the map's fit.

    Attributes:
        scene_ids: (S,).
        seen, right: (S, R, K, L) voxels and right ones.
        free_id: the class of free space.
        config_signature: JSON values of the configuration of these labels.
        unit: what a row is of; single frames where there are few scenes to adapt to.
        min_units: fewer are no sample for the t test.

    Raises:
        ValueError: the shapes do not fit, or more voxels are right than there are.
    """

    scene_ids: tuple[str, ...]
    seen: Counts
    right: Counts
    free_id: int
    config_signature: dict[str, Any] = field(default_factory=dict)
    unit: Literal["scenes", "frames"] = "scenes"
    min_units: int = MIN_SCENES

    def __post_init__(self) -> None:
        if self.seen.ndim != 4 or len(self.seen) != len(self.scene_ids):
            raise ValueError(f"counts of shape {self.seen.shape} for {len(self.scene_ids)} scenes")
        if self.right.shape != self.seen.shape or (self.right > self.seen).any():
            raise ValueError("more voxels are right than there are")

    def part(self, scenes: Sequence[int]) -> CalibrationCounts:
        """Of some of the scenes; one may occur several times."""
        take = list(scenes)
        ids = tuple(self.scene_ids[s] for s in take)
        return replace(self, scene_ids=ids, seen=self.seen[take], right=self.right[take])

    def to_json(self) -> dict[str, Any]:
        """JSON values; only what is not 0."""
        indices = np.flatnonzero(self.seen)
        return {
            "scenes": list(self.scene_ids),
            "shape": list(self.seen.shape),
            "free": self.free_id,
            "made_with": self.config_signature,
            **({} if self.unit == "scenes" else {"unit": self.unit}),
            **({} if self.min_units == MIN_SCENES else {"min_units": self.min_units}),
            "at": np.diff(indices, prepend=0).tolist(),
            "voxels": self.seen.ravel()[indices].tolist(),
            "right": self.right.ravel()[indices].tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CalibrationCounts:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        shape = tuple(int(n) for n in data["shape"])
        if math.prod(shape) > MAX_COUNTS:
            raise ValueError(f"counts of shape {shape}, more than the {MAX_COUNTS:,} of MAX_COUNTS")
        indices = np.cumsum(np.asarray(data["at"], np.int64))
        counts = []
        for name in ("voxels", "right"):
            flat = np.zeros(math.prod(shape), np.int64)
            if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < flat.size:
                raise ValueError("a count lies outside its shape")
            flat[indices] = np.asarray(data[name], np.int64)
            counts.append(flat.reshape(shape))
        ids = tuple(str(s) for s in data["scenes"])
        return cls(
            scene_ids=ids,
            seen=counts[0],
            right=counts[1],
            free_id=int(data["free"]),
            config_signature=dict(data["made_with"]),
            unit="frames" if data.get("unit") == "frames" else "scenes",
            min_units=max(3, int(data.get("min_units", MIN_SCENES))),
        )


def control_risk(
    counts: CalibrationCounts,
    levels: Sequence[float],  # (L,)
    groups: Mapping[str, Sequence[int]],
    *,
    max_error: float | Mapping[str, float],
    confidence: float = 0.9,
    test: Test = "t",
) -> RiskBound:
    """The lowest thresholds under which the bounds hold.

    Args:
        groups: class ids of each, ``free`` among them (``Taxonomy.class_groups``).
        max_error: one share for every group, or a share for each.

    Raises:
        SetupError: no bound on occupied voxels can be had; says how many scenes would do, if any.
        ValueError: an argument is out of range, or a group has no share.
    """
    allowed = dict.fromkeys(groups, max_error) if isinstance(max_error, float) else dict(max_error)
    if allowed.keys() != groups.keys() or not all(0 < e < 1 for e in allowed.values()):
        raise ValueError(f"max_error {max_error} for the groups {', '.join(groups)}")
    if not 0 < confidence < 1 or test not in get_args(Test):
        raise ValueError(f"confidence {confidence}, test {test}")
    lowest, refused = dict[str, int](), dict[str, str]()
    for name, ids in groups.items():
        seen, right = (of[:, :, list(ids)].sum((1, 2)) for of in (counts.seen, counts.right))
        try:
            lowest[name] = _lowest_level(seen, right, name, allowed[name], confidence, test, counts)
        except SetupError as error:
            refused[name] = str(error)
    occupied = {name: ids for name, ids in groups.items() if name != "free"}
    if not occupied.keys() & lowest.keys():
        raise SetupError(refused[max(occupied, key=lambda name: _size(counts, occupied[name]))])
    most = max(allowed[name] for name in occupied)
    lowest |= _together(counts, occupied, lowest, most, confidence, test)
    for name, level in tuple(lowest.items()):
        if not _size(counts, groups[name], level):
            del lowest[name]
            refused[name] = "none is left at the level that all occupied voxels together need"

    thresholds = np.full(counts.seen.shape[2], NEVER)
    for name, level in lowest.items():
        thresholds[list(groups[name])] = level
    kept_levels = np.arange(counts.seen.shape[3]) >= thresholds[:, None]  # (K, L)

    def bound(name: str, ids: Sequence[int], level: int | None) -> GroupRiskBound:
        total, kept, right = (
            (of[:, :, list(ids)] * keep[list(ids)]).sum((0, 2, 3))
            for of, keep in (
                (counts.seen, np.ones_like(kept_levels)),
                (counts.seen, kept_levels),
                (counts.right, kept_levels),
            )
        )
        return GroupRiskBound(
            max_error=allowed.get(name, most),
            threshold=None if level is None else float(levels[level]),
            error=None if name in refused else float(1 - right.sum() / kept.sum()),
            coverage=float(kept.sum() / max(1, total.sum())),
            coverage_by_ring=tuple((kept / np.maximum(total, 1)).tolist()),
            refused=refused.get(name, ""),
        )

    together = [k for ids in occupied.values() for k in ids]
    bounds = {"occupied": bound("occupied", together, None)}
    bounds |= {name: bound(name, ids, lowest.get(name)) for name, ids in groups.items()}
    seen, right = counts.seen.sum((0, 1)), counts.right.sum((0, 1))
    total, kept, kept_right = (
        seen.sum(1),
        (seen * kept_levels).sum(1),
        (right * kept_levels).sum(1),
    )
    return RiskBound(
        max_error=most,
        confidence=confidence,
        test=test,
        scenes=len(counts.scene_ids),
        thresholds=tuple(int(t) for t in thresholds),
        groups=bounds,
        class_error=tuple(
            float(1 - r / k) if k else None for r, k in zip(kept_right, kept, strict=True)
        ),
        class_coverage=tuple(float(k / n) if n else None for k, n in zip(kept, total, strict=True)),
        unit=counts.unit,
    )


def _size(counts: CalibrationCounts, ids: Sequence[int], level: int = 0) -> int:
    return int(counts.seen[:, :, list(ids), level:].sum())


def _together(
    counts: CalibrationCounts,
    groups: Mapping[str, Sequence[int]],
    lowest: Mapping[str, int],
    max_error: float,
    confidence: float,
    test: Test,
) -> dict[str, int]:
    """The groups' levels, raised by as many as all their voxels together need to pass the test."""
    top = counts.seen.shape[3] - 1
    passed: dict[str, int] = {}
    for raised in range(top, -1, -1):
        levels = {name: min(lowest[name] + raised, top) for name in groups if name in lowest}
        kept = np.zeros(len(counts.scene_ids), np.int64)
        wrong = kept.copy()
        for name, level in levels.items():
            seen, right = (
                of[:, :, list(groups[name]), level:].sum((1, 2, 3))
                for of in (counts.seen, counts.right)
            )
            kept, wrong = kept + seen, wrong + seen - right
        if _p_value(wrong, kept, max_error, test, counts.min_units) <= 1 - confidence:
            passed = levels
        elif passed:
            break
    if not passed:
        raise SetupError(
            f"--max-error {max_error:g}: holds for groups of classes, and not for all occupied "
            f"voxels together; calibrate on more {counts.unit} (scripts/calibrate.py)"
        )
    return passed


def _lowest_level(
    seen: Counts,  # (S, L)
    right: Counts,  # (S, L)
    name: str,
    max_error: float,
    confidence: float,
    test: Test,
    of: CalibrationCounts,
) -> int:
    """The lowest level down to which every one passes the test. Raises ``SetupError``: none."""
    n_scenes = len(seen)
    alpha = 1 - confidence
    min_scenes = _min_scenes(max_error, alpha, test, of.min_units)
    request = f"--max-error {max_error:g} with {100 * confidence:g} % confidence ({test} test)"
    if n_scenes < min_scenes:
        raise SetupError(
            f"{request}: {n_scenes} calibration {of.unit} are too few, at least {min_scenes} are "
            "needed; calibrate on more (scripts/calibrate.py)"
        )
    kept = seen[:, ::-1].cumsum(1)[:, ::-1]
    wrong = (seen - right)[:, ::-1].cumsum(1)[:, ::-1]
    tested = np.flatnonzero(kept.sum(0) >= max(1.0, MIN_SHARE * seen.sum()))
    if not tested.size:
        raise SetupError(f"{request}: no voxel of {name} was seen on the calibration {of.unit}")
    lowest = None
    for level in range(int(tested[-1]), -1, -1):
        if _p_value(wrong[:, level], kept[:, level], max_error, test, of.min_units) > alpha:
            break
        lowest = level
    if lowest is not None:
        return lowest
    top = int(tested[-1])
    error = wrong[:, top].sum() / kept[:, top].sum()
    measured = (
        f"of the surest labels of {name} {100 * error:.2f} % are wrong on {n_scenes} {of.unit}"
    )
    if error >= max_error:
        raise SetupError(f"{request}: cannot be kept, {measured}; a better teacher is needed")
    spare = max_error * kept[:, top] - wrong[:, top]
    quantile = float(stats.norm.ppf(confidence))
    needed = math.ceil((quantile * float(spare.std()) / float(spare.mean())) ** 2) + 1
    needed = max(needed, n_scenes + 1)
    raise SetupError(f"{request}: {measured}; about {needed} calibration {of.unit} are needed")


def _min_scenes(max_error: float, alpha: float, test: Test, min_units: int) -> int:
    """Below so many, no evidence suffices."""
    worst_share = MOST_WRONG if test == "t" else 1.0
    if max_error >= worst_share:
        return min_units
    unseen = math.ceil(math.log(alpha) / math.log1p(-max_error / worst_share))
    return max(min_units, unseen) if test == "t" else unseen


def _p_value(
    wrong: Counts, kept: Counts, max_error: float, test: Test, min_units: int = MIN_SCENES
) -> float:
    """Of the hypothesis that the error is larger, from (S,) counts."""
    has_voxels = kept > 0
    if test == "exact":
        return _betting(
            np.divide(wrong, kept, out=np.zeros(len(kept)), where=has_voxels), max_error
        )
    excess = (wrong - max_error * kept)[has_voxels]
    n = len(excess)
    if n < min_units:
        return 1.0
    worst = float((wrong[has_voxels] / kept[has_voxels]).max())
    excess = np.append(excess, (worst - max_error) * float(kept[has_voxels].mean()))
    n += 1
    mean, sd = float(excess.mean()), float(excess.std(ddof=1))
    if sd == 0:
        return 0.0 if mean < 0 else 1.0
    skew = float(((excess - mean) ** 3).mean()) / sd**3
    s = mean / sd
    s += skew * s**2 / 3 + skew**2 * s**3 / 27 + skew / (6 * n)
    return float(stats.t.cdf(math.sqrt(n) * s, n - 1))


def _betting(shares: NDArray[np.float64], max_error: float) -> float:
    """Bets against the mean's being above ``max_error``, scene after scene, on shares in 0..1."""
    capital = best = 1.0
    limit = 1 / (1 - max_error)  # more could lose all
    for i, share in enumerate(shares):
        previous = shares[:i]  # a stake may depend on these only
        gap = max_error - float(previous.mean()) if i else max_error
        spread = float(previous.var()) if i else 0.0
        stake = min(gap / (spread + gap**2), limit) if gap > 0 else 0.0
        capital *= 1 + stake * (max_error - share)
        best = max(best, capital)
    return 1 / best
