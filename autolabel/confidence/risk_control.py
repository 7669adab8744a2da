"""A promise about wrong labels: thresholds under which few of the trusted voxels are wrong.

``promise`` looks for the lowest confidence from which on labels may be trusted, so that the share
of wrong voxels among the trusted ones of new scenes is at most ``max_error`` with a stated
confidence over the draw of the calibration scenes. The scheme is learn-then-test (Angelopoulos et
al., arXiv 2110.01052): levels are tested from the surest one downwards, each against the
hypothesis that its error is too large, and the first that cannot be rejected ends the search.
Voxels of a scene are far from independent, so scenes are what is counted. Free voxels are nine in
ten and easy: the promise is kept for them and for occupied voxels separately.

Two tests: ``t``, Student's t over scenes of wrong minus allowed voxels, corrected for skewness
(Hall, JRSS B 1992), which takes sums over some scenes to be near normal; and ``exact``, valid for
any distribution of the scenes' shares of wrong voxels (betting, Waudby-Smith and Ramdas, JRSS B
2024), which can never hold with fewer than ln(1 - confidence) / ln(1 - max_error) scenes. What no
calibration scene shows no t test can know of, so two things guard it: one more scene is counted, as
bad as the worst (as in conformal risk control, Angelopoulos et al., arXiv 2208.02814), and there
must be so many scenes that a kind of scene with ``MOST_WRONG`` of its trusted voxels wrong, were it
frequent enough to break the promise by itself, would have been among them.

Legend: S scenes, R rings of distance, K classes, L levels of confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from datasets.errors import SetupError

Counts = NDArray[np.int64]
Test = Literal["t", "exact"]
MIN_SCENES = 8
"""Fewer are no sample for the t test."""
MOST_WRONG = 0.25
"""Share of a scene's trusted voxels that the t test reckons may be wrong in kinds not yet seen."""
MIN_SHARE = 0.02
"""Levels that keep less than this share of a group's voxels are passed over: of so few voxels most
lie in few scenes, and keeping them is worth little."""
MAX_COUNTS = 32 << 20
"""Of evidence in a file: scenes x rings x classes x levels."""
NEVER = 255
"""Threshold of a class of which nothing is trusted."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What became of labels that could be trusted, on scenes left out of the fit of their map.

    Attributes:
        scene_ids: (S,).
        seen, right: (S, R, K, L) voxels and right ones.
        free_id: the class of free space.
        made_with: JSON values of the configuration of these labels.

    Raises:
        ValueError: the shapes do not fit, or more voxels are right than there are.
    """

    scene_ids: tuple[str, ...]
    seen: Counts
    right: Counts
    free_id: int
    made_with: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.seen.ndim != 4 or len(self.seen) != len(self.scene_ids):
            raise ValueError(f"counts of shape {self.seen.shape} for {len(self.scene_ids)} scenes")
        if self.right.shape != self.seen.shape or (self.right > self.seen).any():
            raise ValueError("more voxels are right than there are")

    def part(self, scenes: Sequence[int]) -> Evidence:
        """Of some of the scenes; one may occur several times."""
        take = list(scenes)
        ids = tuple(self.scene_ids[s] for s in take)
        return replace(self, scene_ids=ids, seen=self.seen[take], right=self.right[take])

    def groups(self) -> dict[str, NDArray[np.bool_]]:
        """(K,) which classes are occupied and which is free."""
        free = np.arange(self.seen.shape[2]) == self.free_id
        return {"occupied": ~free, "free": free}

    def to_json(self) -> dict[str, Any]:
        """JSON values; only what is not 0."""
        at = np.flatnonzero(self.seen)
        return {
            "scenes": list(self.scene_ids),
            "shape": list(self.seen.shape),
            "free": self.free_id,
            "made_with": self.made_with,
            "at": np.diff(at, prepend=0).tolist(),
            "voxels": self.seen.ravel()[at].tolist(),
            "right": self.right.ravel()[at].tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evidence:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        shape = tuple(int(n) for n in data["shape"])
        if math.prod(shape) > MAX_COUNTS:
            raise ValueError(f"counts of shape {shape}, more than the {MAX_COUNTS:,} of MAX_COUNTS")
        at = np.cumsum(np.asarray(data["at"], np.int64))
        counts = []
        for name in ("voxels", "right"):
            flat = np.zeros(math.prod(shape), np.int64)
            if at.size and not 0 <= int(at.min()) <= int(at.max()) < flat.size:
                raise ValueError("a count lies outside its shape")
            flat[at] = np.asarray(data[name], np.int64)
            counts.append(flat.reshape(shape))
        ids = tuple(str(s) for s in data["scenes"])
        return cls(
            scene_ids=ids,
            seen=counts[0],
            right=counts[1],
            free_id=int(data["free"]),
            made_with=dict(data["made_with"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRiskBound:
    """What is promised of occupied or of free voxels.

    Attributes:
        threshold: P(label is right) from which on labels are trusted.
        error: share of wrong ones among those of the calibration scenes.
        coverage: share of the voxels that could be trusted which are.
        coverage_by_ring: the same per ring of distance.
    """

    threshold: float
    error: float
    coverage: float
    coverage_by_ring: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBound:
    """At most ``max_error`` of the trusted voxels are wrong, occupied and free ones each.

    Attributes:
        confidence: that it holds, over the draw of the calibration scenes.
        test: how that was found; scenes: on how many.
        thresholds: (K,) lowest trusted level of each class.
        groups: of ``occupied`` and of ``free``.
        class_error, class_coverage: (K,) on the calibration scenes; None where a class is absent.
    """

    max_error: float
    confidence: float
    test: Test
    scenes: int
    thresholds: tuple[int, ...]
    groups: dict[str, GroupRiskBound]
    class_error: tuple[float | None, ...]
    class_coverage: tuple[float | None, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "max_error": self.max_error,
            "confidence": self.confidence,
            "test": self.test,
            "scenes": self.scenes,
            "thresholds": list(self.thresholds),
            "groups": {
                name: {
                    "threshold": g.threshold,
                    "error": round(g.error, 6),
                    "coverage": round(g.coverage, 6),
                    "coverage_by_ring": [round(c, 6) for c in g.coverage_by_ring],
                }
                for name, g in self.groups.items()
            },
            "class_error": [None if e is None else round(e, 6) for e in self.class_error],
            "class_coverage": [None if c is None else round(c, 6) for c in self.class_coverage],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> RiskBound:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        if data["test"] not in get_args(Test):
            raise ValueError(f"unknown test {data['test']!r}")
        return cls(
            max_error=float(data["max_error"]),
            confidence=float(data["confidence"]),
            test=data["test"],
            scenes=int(data["scenes"]),
            thresholds=tuple(int(t) for t in data["thresholds"]),
            groups={
                str(name): GroupRiskBound(
                    threshold=float(g["threshold"]),
                    error=float(g["error"]),
                    coverage=float(g["coverage"]),
                    coverage_by_ring=tuple(float(c) for c in g["coverage_by_ring"]),
                )
                for name, g in data["groups"].items()
            },
            class_error=tuple(data["class_error"]),
            class_coverage=tuple(data["class_coverage"]),
        )

    def describe(self, names: Sequence[str]) -> str:
        """Lines for people."""
        lines = [
            f"promise: at most {100 * self.max_error:g} % of the trusted occupied and of the "
            f"trusted free voxels are wrong, each with {100 * self.confidence:g} % confidence "
            f"({self.test} test, {self.scenes} scenes)"
        ]
        for name, g in self.groups.items():
            rings = ", ".join(f"{100 * c:.1f}" for c in g.coverage_by_ring)
            lines.append(
                f"  {name}: trusted from P {g.threshold:g} on: {100 * g.coverage:.1f} % are kept "
                f"(by distance {rings}), {100 * g.error:.2f} % of them wrong in calibration"
            )
        for name, error, coverage in zip(names, self.class_error, self.class_coverage, strict=True):
            if coverage is not None:
                wrong = "" if error is None else f", {100 * error:.2f} % of them wrong"
                lines.append(f"    {name:<22} {100 * coverage:5.1f} % kept{wrong}")
        return "\n".join(lines)


def promise(
    evidence: Evidence,
    levels: Sequence[float],  # (L,)
    *,
    max_error: float,
    confidence: float = 0.9,
    test: Test = "t",
) -> RiskBound:
    """The lowest thresholds that keep the promise.

    Raises:
        SetupError: the evidence does not suffice for it; says how many scenes would, if any.
        ValueError: an argument is out of range.
    """
    if not 0 < max_error < 1 or not 0 < confidence < 1 or test not in get_args(Test):
        raise ValueError(f"max_error {max_error}, confidence {confidence}, test {test}")
    n_classes = evidence.seen.shape[2]
    thresholds = np.full(n_classes, NEVER)
    groups = {}
    for name, ids in evidence.groups().items():
        seen = evidence.seen[:, :, ids].sum(2)  # (S, R, L)
        right = evidence.right[:, :, ids].sum(2)
        level = _lowest(seen.sum(1), right.sum(1), name, max_error, confidence, test)
        thresholds[ids] = level
        kept, good = seen[..., level:].sum((0, 2)), right[..., level:].sum((0, 2))
        there = seen.sum((0, 2))
        groups[name] = GroupRiskBound(
            threshold=float(levels[level]),
            error=float(1 - good.sum() / kept.sum()),
            coverage=float(kept.sum() / there.sum()),
            coverage_by_ring=tuple((kept / np.maximum(there, 1)).tolist()),
        )
    above = np.arange(evidence.seen.shape[3]) >= thresholds[:, None]  # (K, L)
    seen, right = evidence.seen.sum((0, 1)), evidence.right.sum((0, 1))
    there, kept, good = seen.sum(1), (seen * above).sum(1), (right * above).sum(1)
    return RiskBound(
        max_error=max_error,
        confidence=confidence,
        test=test,
        scenes=len(evidence.scene_ids),
        thresholds=tuple(int(t) for t in thresholds),
        groups=groups,
        class_error=tuple(float(1 - g / k) if k else None for g, k in zip(good, kept, strict=True)),
        class_coverage=tuple(float(k / n) if n else None for k, n in zip(kept, there, strict=True)),
    )


def _lowest(
    seen: Counts,  # (S, L)
    right: Counts,
    name: str,
    max_error: float,
    confidence: float,
    test: Test,
) -> int:
    """The lowest level down to which every one passes the test."""
    n_scenes = len(seen)
    alpha = 1 - confidence
    least = _least_scenes(max_error, alpha, test)
    what = f"--max-error {max_error:g} with {100 * confidence:g} % confidence ({test} test)"
    if n_scenes < least:
        raise SetupError(
            f"{what}: {n_scenes} calibration scenes are too few, at least {least} are needed; "
            "calibrate on more (scripts/calibrate.py)"
        )
    taken = seen[:, ::-1].cumsum(1)[:, ::-1]
    wrong = (seen - right)[:, ::-1].cumsum(1)[:, ::-1]
    enough = np.flatnonzero(taken.sum(0) >= max(1.0, MIN_SHARE * seen.sum()))
    if not enough.size:
        raise SetupError(f"{what}: no {name} voxel was seen on the calibration scenes")
    found = None
    for level in range(int(enough[-1]), -1, -1):
        if _p_value(wrong[:, level], taken[:, level], max_error, test) > alpha:
            break
        found = level
    if found is not None:
        return found
    top = int(enough[-1])
    error = wrong[:, top].sum() / taken[:, top].sum()
    rest = f"of the surest {name} labels {100 * error:.2f} % are wrong on {n_scenes} scenes"
    if error >= max_error:
        raise SetupError(f"{what}: cannot be kept, {rest}; a better teacher is needed")
    spare = max_error * taken[:, top] - wrong[:, top]
    quantile = float(stats.norm.ppf(confidence))
    needed = math.ceil((quantile * float(spare.std()) / float(spare.mean())) ** 2) + 1
    needed = max(needed, n_scenes + 1)
    raise SetupError(f"{what}: {rest}; about {needed} calibration scenes are needed")


def _least_scenes(max_error: float, alpha: float, test: Test) -> int:
    """Below so many, no evidence suffices."""
    most_wrong = MOST_WRONG if test == "t" else 1.0
    if max_error >= most_wrong:
        return MIN_SCENES
    unseen = math.ceil(math.log(alpha) / math.log1p(-max_error / most_wrong))
    return max(MIN_SCENES, unseen) if test == "t" else unseen


def _p_value(wrong: Counts, taken: Counts, max_error: float, test: Test) -> float:
    """Of the hypothesis that the error is larger, from (S,) counts."""
    there = taken > 0
    if test == "exact":
        return _betting(np.divide(wrong, taken, out=np.zeros(len(taken)), where=there), max_error)
    excess = (wrong - max_error * taken)[there]
    n = len(excess)
    if n < MIN_SCENES:
        return 1.0
    worst = float((wrong[there] / taken[there]).max())
    excess = np.append(excess, (worst - max_error) * float(taken[there].mean()))
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
        earlier = shares[:i]  # a stake may depend on these only
        gap = max_error - float(earlier.mean()) if i else max_error
        spread = float(earlier.var()) if i else 0.0
        stake = min(gap / (spread + gap**2), limit) if gap > 0 else 0.0
        capital *= 1 + stake * (max_error - share)
        best = max(best, capital)
    return 1 / best
