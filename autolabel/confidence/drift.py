"""Is an unlabelled log like the scenes that confidence was calibrated on?

Confidence and promises about errors hold for scenes drawn as the calibration scenes were. Of every
scene a few statistics are kept: what cameras and LiDAR deliver, how sure the teacher is, and what
it sees where. ``drift`` compares their distribution over scenes with that of the calibration
scenes, each by the two-sample Kolmogorov-Smirnov test, and names those that differ, at a level that
counts for all of them together (Bonferroni). It sees changes that scenes of a log have in common,
not single odd scenes: those are the audit's.

Legend: S scenes, F statistics, X Y Z voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from datasets.frames import Frame, of_the_moment
from datasets.geometry.grid import VoxelGrid
from datasets.model_inputs import FrameInputs
from datasets.taxonomy import Taxonomy

FALSE_ALARMS = 0.01
"""Share of logs of the same kind that may be taken for others."""
MIN_SCENES = 3
FAR_M = 20.0
NEAR_M = 15.0

Statistics = dict[str, float]


def of_inputs(
    inputs: FrameInputs,
    frame: Frame,
    points: NDArray[np.float32] | None,  # (P, 6), as ``points_in_ego`` gives them
) -> Statistics:
    """What the sensors delivered for one frame."""
    out: Statistics = {}
    if inputs.images.size:
        green = inputs.images[..., 1].astype(np.float32)
        out["picture brightness"] = float(green.mean())
        out["picture contrast"] = float(green.std(axis=(1, 2)).mean())
        out["picture detail"] = float(np.abs(np.diff(green, axis=2)).mean())
    if points is not None and frame.lidar is not None:
        key = points[of_the_moment(frame, points)]
        distance_m = np.hypot(key[:, 0], key[:, 1])
        out["LiDAR returns"] = float(len(key))
        out["LiDAR height, m"] = float(frame.lidar.T_ego_lidar[2, 3])
        if len(key):
            out["LiDAR returns far off, share"] = float((distance_m > FAR_M).mean())
            out["LiDAR intensity"] = float(key[:, 3].mean())
        if (distance_m < NEAR_M).any():
            out["height of the ground, m"] = float(np.percentile(key[distance_m < NEAR_M, 2], 10))
    return out


def of_labels(
    semantics: NDArray[np.uint8],  # (X, Y, Z)
    raw: NDArray[np.float32],  # (X, Y, Z) softmax value of the class
    hits: NDArray[np.uint8],  # (X, Y, Z)
    passes: NDArray[np.uint8],  # (X, Y, Z)
    grid: VoxelGrid,
    taxonomy: Taxonomy,
) -> Statistics:
    """What the teacher makes of one frame, where LiDAR saw something."""
    observed = (hits > 0) | (passes > 0)
    occupied = observed & (semantics != taxonomy.free_id)
    n = max(1, int(occupied.sum()))
    out: Statistics = {"observed by LiDAR, share": float(observed.mean())}
    for name, voxels in (("occupied", occupied), ("free", observed & ~occupied)):
        if voxels.any():
            out[f"softmax of {name}"] = float(raw[voxels].mean())
    out["hit of occupied, share"] = float((hits > 0)[occupied].sum() / n)
    height = grid.min_m[2] + (np.arange(grid.shape[2]) + 0.5) * grid.size_m[2]
    layers = occupied.sum((0, 1))
    out["height of occupied, m"] = float((layers * height).sum() / n)
    counts = np.bincount(semantics[occupied], minlength=taxonomy.n_classes)
    for k in taxonomy.semantic_ids:
        out[f"{taxonomy.names[k]}, share"] = float(counts[k] / n)
    return out


def mean_of(frames: Sequence[Mapping[str, float]]) -> Statistics:
    """Of a scene: the mean of every statistic over the frames that have it."""
    names = dict.fromkeys(name for frame in frames for name in frame)
    return {
        name: round(float(np.mean([frame[name] for frame in frames if name in frame])), 6)
        for name in names
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A statistic in which a log differs from the calibration scenes.

    Attributes:
        here, there: median over the log's and over the calibration scenes.
        p: chance of such a difference between scenes of one kind.
    """

    name: str
    here: float
    there: float
    p: float

    def __str__(self) -> str:
        return f"{self.name}: {self.here:.4g} here, {self.there:.4g} there (p {self.p:.1g})"


def drift(
    scenes: Sequence[Mapping[str, float]], reference: Sequence[Mapping[str, float]]
) -> list[Drift]:
    """In what a log's scenes differ from the calibration scenes, the clearest first.

    Raises:
        ValueError: either has fewer than ``MIN_SCENES`` scenes.
    """
    if min(len(scenes), len(reference)) < MIN_SCENES:
        raise ValueError(
            f"{len(scenes)} scenes here and {len(reference)} calibration scenes; at least "
            f"{MIN_SCENES} of each are needed to compare them"
        )
    names = list(dict.fromkeys(name for scene in reference for name in scene))
    drifts = []
    for name in names:
        values, expected = ([s[name] for s in group if name in s] for group in (scenes, reference))
        if min(len(values), len(expected)) < MIN_SCENES:
            continue
        p = float(stats.ks_2samp(values, expected).pvalue)
        if p < FALSE_ALARMS / len(names):
            drifts.append(
                Drift(
                    name=name, here=float(np.median(values)), there=float(np.median(expected)), p=p
                )
            )
    return sorted(drifts, key=lambda d: d.p)


def drift_warning(drifts: Sequence[Drift], *, promised: bool) -> str:
    """Lines for people; nothing found: an empty string."""
    if not drifts:
        return ""
    affected = "confidence and the promise of --max-error" if promised else "confidence"
    lines = [
        f"warning: this log is not like the calibration scenes; {affected} may not hold here. "
        f"What differs:",
        *(f"  {statistic}" for statistic in drifts[:6]),
    ]
    if len(drifts) > 6:
        lines.append(f"  and {len(drifts) - 6} more")
    return "\n".join(lines)


def reference_from_json(data: Any) -> list[Statistics]:
    """Statistics of the calibration scenes. Raises ``KeyError``, ``TypeError``, ``ValueError``."""
    names = [str(name) for name in data["names"]]
    return [
        {name: float(v) for name, v in zip(names, row, strict=True) if v is not None}
        for row in data["scenes"]
    ]


def reference_to_json(scenes: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Inverse of ``reference_from_json``."""
    names = list(dict.fromkeys(name for scene in scenes for name in scene))
    return {"names": names, "scenes": [[scene.get(name) for name in names] for scene in scenes]}
