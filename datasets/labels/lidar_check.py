"""What held-out LiDAR sweeps say of the trusted occupied voxels of a few frames of each scene.

Sweeps that the teacher did not read are evidence on any log, without a label: a return ends in a
voxel, or rays see through all of it, or neither. On calibration scenes, whose truth is known, it
was counted how often a voxel is free in each case; so on any log the share of trusted occupied
voxels that are free can be estimated and compared with what confidence claims. Of classes LiDAR
says nothing.

Where rays contradict more than on the calibration scenes, voxels that no ray decides are free more
often too (``CARRIED``).

Legend: G groups of classes but ``free``, R rings of distance, B bands of confidence, S scenes,
E what the sweeps say: touched, seen through, neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

RINGS = ("0-12 m", "12-25 m", "beyond 25 m")
"""Names of the rings of distance that confidence is calibrated by."""
BANDS = (0.8, 0.93)
"""P(label is right) at which a band of confidence ends and the next begins."""
LIDAR_CHECK = "lidar_check"
"""Of a scene's attributes."""
TOUCHED, THROUGH, NEITHER = range(3)
INTERVAL = 0.9
FALSE_ALARMS = 0.01
"""Share of logs whose confidence holds that may be said to contradict it."""
MIN_SCENES = 3
"""Of calibration scenes: fewer do not tell how far an estimate lies off."""
MIN_JUDGED = 200
"""Voxels; of fewer nothing is said."""
LEAN = 50.0
"""Voxels that a prior counts for."""
CARRIED = 0.5
"""Of what rays find more of, in log odds, than on calibration scenes, so much is expected of voxels
that no ray decides."""
Counts = NDArray[np.int64]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LidarEvidence:
    """Of one frame, or of several together.

    Attributes:
        counts: (G, R, B, E) trusted occupied voxels.
        claimed: (G, R, B, E) how many of them are free, by their confidence.
        frames: how many.
    """

    counts: Counts
    claimed: Array
    frames: int = 1

    def __post_init__(self) -> None:
        shape = (len(RINGS), len(BANDS) + 1, 3)
        if self.counts.shape[1:] != shape or self.counts.shape != self.claimed.shape:
            raise ValueError(f"counts {self.counts.shape}, claims {self.claimed.shape}")
        if (self.counts < 0).any() or not (self.claimed >= 0).all() or self.frames < 1:
            raise ValueError("a count is negative, or there is no frame")

    def __add__(self, other: LidarEvidence) -> LidarEvidence:
        return LidarEvidence(
            counts=self.counts + other.counts,
            claimed=self.claimed + other.claimed,
            frames=self.frames + other.frames,
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "frames": self.frames,
            "voxels": self.counts.tolist(),
            "claimed": self.claimed.round(3).tolist(),
        }

    @classmethod
    def from_json(cls, data: Any) -> LidarEvidence:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        return cls(
            counts=np.asarray(data["voxels"], np.int64),
            claimed=np.asarray(data["claimed"], np.float64),
            frames=int(data["frames"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LidarReference:
    """The same of calibration scenes, whose truth is known.

    Attributes:
        seen, free: (G, R, B, E) trusted occupied voxels whose truth is known, and those that are
            free.
        asked: (G, R, B, E) all of them, whether their truth is known or not.
        errors: (S,) of each scene, estimated less true share of free ones among its trusted
            occupied voxels.
        excess: (S,) estimated less claimed share.

    Raises:
        ValueError: the shapes do not fit, or more are free than there are.
    """

    seen: Counts
    free: Counts
    asked: Counts
    errors: Array
    excess: Array

    def __post_init__(self) -> None:
        if self.seen.ndim != 4 or self.seen.shape != self.free.shape:
            raise ValueError(f"counts of shape {self.seen.shape}, {self.free.shape}")
        if self.asked.shape != self.seen.shape or (self.asked < self.seen).any():
            raise ValueError("of more voxels the truth is known than there are")
        if (self.free < 0).any() or (self.free > self.seen).any():
            raise ValueError("more voxels are free than there are")
        if self.errors.ndim != 1 or self.errors.shape != self.excess.shape:
            raise ValueError("the errors and the excess are of other scenes")
        if not (np.isfinite(self.errors).all() and np.isfinite(self.excess).all()):
            raise ValueError("an error is not finite")

    def to_json(self) -> dict[str, Any]:
        return {
            "voxels": self.seen.tolist(),
            "free": self.free.tolist(),
            "asked": self.asked.tolist(),
            "errors": self.errors.round(5).tolist(),
            "excess": self.excess.round(5).tolist(),
        }

    @classmethod
    def from_json(cls, data: Any) -> LidarReference:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        return cls(
            seen=np.asarray(data["voxels"], np.int64),
            free=np.asarray(data["free"], np.int64),
            asked=np.asarray(data["asked"], np.int64),
            errors=np.asarray(data["errors"], np.float64),
            excess=np.asarray(data["excess"], np.float64),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LidarEstimate:
    """Of the trusted occupied voxels of a log.

    Attributes:
        scenes, frames, voxels: so many were checked; judged: voxels that rays decide.
        contradicted: share of the judged ones that held-out sweeps see through.
        wrong, low, high: estimated share that is free, and the interval of ``INTERVAL`` (over
            scenes); low and high are None where the calibration does not tell. Of voxels that a
            ground truth would know: what hides behind or inside of things is not.
        claimed: share of these that is free by their confidence.
        p: chance of so much more than claimed, did confidence hold; None: cannot be told.
        by_group: name and ring -> voxels, estimated and claimed share.
    """

    scenes: int
    frames: int
    voxels: int
    judged: int
    contradicted: float
    wrong: float
    low: float | None
    high: float | None
    claimed: float
    p: float | None
    by_group: dict[tuple[str, str], tuple[int, float, float]]

    @property
    def invalid(self) -> bool:
        """Whether held-out sweeps contradict confidence."""
        return self.p is not None and self.p < FALSE_ALARMS

    def to_text(self) -> str:
        """One line."""
        interval = ""
        if self.low is not None and self.high is not None:
            interval = (
                f" ({100 * INTERVAL:g} % interval {100 * self.low:.1f} to {100 * self.high:.1f} %)"
            )
        return (
            f"of the trusted occupied voxels {100 * self.wrong:.1f} %{interval} are free by LiDAR "
            f"sweeps that the teacher did not read, {100 * self.claimed:.1f} % by their confidence "
            f"({self.scenes} scenes, {self.frames} frames, {self.voxels:,} voxels)"
        )


def band_of(levels: Sequence[float]) -> NDArray[np.int64]:
    """(L,) band of each level."""
    return np.searchsorted(BANDS, np.asarray(levels) + 1e-9, side="right").astype(np.int64)


def known_share(seen: Counts, asked: Counts) -> Array:
    """(G, R, B, E) share of voxels whose truth is known, as on the calibration scenes."""
    group = (seen.sum((1, 2), keepdims=True) + LEAN) / (asked.sum((1, 2), keepdims=True) + LEAN)
    return np.asarray((seen + LEAN * group) / (asked + LEAN))


def expected_free(counts: Array | Counts, seen: Counts | None, free: Counts | None) -> Array:
    """(G, R) expected number of free voxels among (G, R, B, E) counts.

    How often rays see through a voxel that is free, and through one that is not, is taken from the
    calibration scenes; the share of free ones among those that rays decide follows from how many
    they see through here.

    Args:
        seen, free: of the calibration scenes (``LidarReference``); None: not known, and then a
            voxel that is seen through counts as free, and what no ray decides is as what they do.
    """
    decided = counts[..., :NEITHER].sum(3).astype(np.float64)  # (G, R, B)
    through = counts[..., THROUGH].astype(np.float64)
    if seen is None or free is None:
        share = through.sum(2) / np.maximum(decided.sum(2), 1)
        return np.asarray(share * counts.sum((2, 3)))
    occupied = seen - free
    if_free = _rate(free[..., THROUGH], free[..., :NEITHER].sum(3), 0.9)
    if_occupied = _rate(occupied[..., THROUGH], occupied[..., :NEITHER].sum(3), 0.05)
    usual = _rate(free[..., :NEITHER].sum(3), seen[..., :NEITHER].sum(3), 0.2)
    undecided = _rate(free[..., NEITHER], seen[..., NEITHER], 0.3)
    # few voxels say little: a cell begins with the usual share
    free_decided = (through - if_occupied * decided) / np.maximum(if_free - if_occupied, 0.2)
    share = (free_decided + LEAN * usual) / (decided + LEAN)
    share = share.clip(0, 1)
    off = _log_odds(share) - _log_odds(usual)
    elsewhere = 1 / (1 + np.exp(-(_log_odds(undecided) + CARRIED * off)))
    return np.asarray((decided * share + counts[..., NEITHER] * elsewhere).sum(2))


def _rate(part: Counts, whole: Counts, prior: float) -> Array:
    """(G, R, B) shares; a cell leans on its group, a group on the prior."""
    group = (part.sum((1, 2), keepdims=True) + LEAN * prior) / (
        whole.sum((1, 2), keepdims=True) + LEAN
    )
    return np.asarray((part + LEAN * group) / (whole + LEAN))


def _log_odds(p: Array) -> Array:
    p = p.clip(1e-3, 1 - 1e-3)
    return np.asarray(np.log(p / (1 - p)))


def estimate(
    scenes: Sequence[LidarEvidence], reference: LidarReference | None, groups: Sequence[str]
) -> LidarEstimate | None:
    """What held-out sweeps say of a log; None where too few voxels were judged.

    Args:
        scenes: the evidence of each.
        reference: of the calibration scenes.
        groups: G names.
    """
    scenes = [scene for scene in scenes if scene.counts.sum()]
    if not scenes:
        return None
    total = scenes[0]
    for scene in scenes[1:]:
        total = total + scene
    judged = int(total.counts[..., :NEITHER].sum())
    if judged < MIN_JUDGED:
        return None
    seen, free, known = None, None, np.ones(total.counts.shape)
    if reference is not None:
        if reference.seen.shape[0] != len(groups):
            raise ValueError(f"a reference of {len(reference.seen)} groups, not {len(groups)}")
        seen, free = reference.seen, reference.free
        known = known_share(seen, reference.asked)

    def shares(of: LidarEvidence) -> tuple[Array, Array, Array]:
        """(G, R) voxels whose truth could be known, and free ones, as expected and claimed."""
        counts = of.counts * known
        return (
            counts.sum((2, 3)),
            expected_free(counts, seen, free),
            (of.claimed * known).sum((2, 3)),
        )

    voxels, expected, claims = shares(total)
    wrong, claimed = (float(part.sum() / voxels.sum()) for part in (expected, claims))
    low = high = p = None
    if reference is not None and len(reference.errors) >= MIN_SCENES:
        n = len(reference.errors)
        spread = float(np.std(reference.errors, ddof=1)) * np.sqrt(1 / len(scenes) + 1 / n)
        reach = float(stdtrit(n - 1, (1 + INTERVAL) / 2)) * spread
        middle = wrong - float(reference.errors.mean())
        low, high = max(0.0, middle - reach), min(1.0, middle + reach)
        each = [(e.sum() - c.sum()) / v.sum() for v, e, c in map(shares, scenes)]
        off = float(np.mean(each)) - float(reference.excess.mean())
        scale = float(np.std(reference.excess, ddof=1)) * np.sqrt(1 / len(scenes) + 1 / n)
        p = float(stdtr(n - 1, -off / max(scale, 1e-4)))
    by_group = {
        (group, ring): (
            n_cell,
            float(expected[g, r] / voxels[g, r]),
            float(claims[g, r] / voxels[g, r]),
        )
        for g, group in enumerate(groups)
        for r, ring in enumerate(RINGS)
        if (n_cell := int(total.counts[g, r].sum()))
    }
    return LidarEstimate(
        scenes=len(scenes),
        frames=sum(scene.frames for scene in scenes),
        voxels=int(total.counts.sum()),
        judged=judged,
        contradicted=float(total.counts[..., THROUGH].sum() / judged),
        wrong=wrong,
        low=low,
        high=high,
        claimed=claimed,
        p=p,
        by_group=by_group,
    )


def evidence_of(attributes: Mapping[str, Any]) -> LidarEvidence | str:
    """Of a scene of a store, or why there is none. Raises as ``LidarEvidence.from_json``."""
    data = attributes.get(LIDAR_CHECK)
    if data is None:
        return "labeled without a LiDAR check"
    return str(data["untested"]) if "untested" in data else LidarEvidence.from_json(data)
