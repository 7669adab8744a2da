"""What confidence was learned on, and whether a labeled log is like it.

Confidence and error bounds hold for scenes drawn as the calibration scenes were. Of every scene a
few statistics are kept: what cameras and LiDAR deliver, how sure the teacher is, and what it sees
where. Two tests compare a log's scenes with the calibration scenes, by distances in all statistics
at once (Mahalanobis, the correlations shrunk towards none): how far each scene lies off, which
tells of a single scene, and how far their mean does, which tells of small shifts that they share.
How far calibration scenes themselves lie off is measured on scenes left out, so nothing is taken
for granted of how the statistics are distributed but that log distances are near normal.

A log of another name is another log, however alike: only truth or reviews of it can show more.

Legend: S scenes, F statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from datasets.labels.lidar_check import LidarReference

FALSE_ALARMS = 0.01
"""Share of logs of the same kind that may be taken for others."""
MIN_SCENES = 8
"""Of calibration scenes; fewer do not tell how scenes of one log differ."""
MAX_SCENES, MAX_STATISTICS = 20_000, 200
"""Of a reference."""
SHOWN = 6
MIN_SPREAD = {"share": 0.02, "m": 0.03, "": 0.03}
"""Least standard deviation between scenes by unit: square roots of shares, metres, logarithms of
all else. Statistics that no two calibration scenes differ in are not infinitely telling."""
DRAWS = 200

Statistics = dict[str, float]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneStatistics:
    """Attributes:
    values: mean over the scene's frames of each statistic that they have.
    frames: how many.
    """

    values: Mapping[str, float]
    frames: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """The calibration scenes.

    Attributes:
        names: (F,) of the statistics.
        scenes: (S, F) mean over a scene's frames; NaN where it has none.
        frames: (S,) how many frames those were.
        within: (F,) standard deviation of a frame's transformed value about its scene's mean.

    Raises:
        ValueError: the shapes do not fit, a value is infinite, or a scene has no frame.
    """

    names: tuple[str, ...]
    scenes: Array
    frames: NDArray[np.int64]
    within: Array

    def __post_init__(self) -> None:
        S, F = len(self.frames), len(self.names)
        if self.scenes.shape != (S, F) or self.within.shape != (F,):
            raise ValueError(f"{self.scenes.shape} statistics of {S} scenes and {F} names")
        if S > MAX_SCENES or F > MAX_STATISTICS:
            raise ValueError(f"{S} scenes, {F} statistics: more than MAX_SCENES, MAX_STATISTICS")
        if np.isinf(self.scenes).any() or not np.isfinite(self.within).all():
            raise ValueError("a statistic is infinite")
        if (self.frames < 1).any() or (self.within < 0).any():
            raise ValueError("a scene without frames, or a negative deviation")

    @classmethod
    def of(cls, scenes: Sequence[Sequence[Mapping[str, float]]]) -> Reference:
        """Of the statistics of each frame of each scene."""
        names = tuple(dict.fromkeys(name for scene in scenes for frame in scene for name in frame))
        means = np.full((len(scenes), len(names)), np.nan)
        squares, degrees = np.zeros(len(names)), np.zeros(len(names))
        for s, scene in enumerate(scenes):
            table = np.array([[frame.get(name, np.nan) for name in names] for frame in scene])
            for f, values in enumerate(table.reshape(len(scene), len(names)).T):
                known = values[np.isfinite(values)]
                if len(known):
                    means[s, f] = known.mean()
                    even = _transformed(known[:, None], names[f : f + 1])[:, 0]
                    squares[f] += ((even - even.mean()) ** 2).sum()
                    degrees[f] += len(known) - 1
        return cls(
            names=names,
            scenes=means.round(6),
            frames=np.array([len(scene) for scene in scenes], np.int64),
            within=np.sqrt(squares / np.maximum(degrees, 1)).round(6),
        )

    def to_json(self) -> dict[str, Any]:
        rows = [[None if np.isnan(v) else float(v) for v in row] for row in self.scenes]
        return {
            "names": list(self.names),
            "scenes": rows,
            "frames": self.frames.tolist(),
            "within": self.within.tolist(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Reference:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        names = tuple(str(name) for name in data["names"])
        rows = [[np.nan if v is None else float(v) for v in row] for row in data["scenes"]]
        return cls(
            names=names,
            scenes=np.array(rows, np.float64).reshape(len(rows), len(names)),
            frames=np.array([int(n) for n in data["frames"]], np.int64),
            within=np.array([float(v) for v in data["within"]], np.float64),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogDomain:
    """A log that confidence was learned on.

    Attributes:
        source: its kind (``datasets.sources.SOURCES``); log: its name; licence: of its data.
        scenes, frames: so many of them have truth or reviews that it was learned from.
        reference: what they are like; None: not known.
    """

    source: str
    log: str
    licence: str
    scenes: int
    frames: int
    reference: Reference | None

    @property
    def name(self) -> str:
        """For people."""
        return self.source if self.log == self.source else f"{self.log} ({self.source})"

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "log": self.log,
            "licence": self.licence,
            "scenes": self.scenes,
            "frames": self.frames,
            "reference": None if self.reference is None else self.reference.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> LogDomain:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        reference = data["reference"]
        return cls(
            source=str(data["source"]),
            log=str(data["log"]),
            licence=str(data["licence"]),
            scenes=int(data["scenes"]),
            frames=int(data["frames"]),
            reference=None if reference is None else Reference.from_json(reference),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfidenceDomain:
    """Where a teacher's confidence is known to hold.

    Attributes:
        logs: that it was learned on.
        lidar: what held-out sweeps said there; None: they were not asked.
    """

    logs: tuple[LogDomain, ...]
    lidar: LidarReference | None = None

    def log(self, source: str, name: str) -> LogDomain | None:
        """The one of that kind and name."""
        return next((log for log in self.logs if (log.source, log.log) == (source, name)), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "logs": [log.to_json() for log in self.logs],
            "lidar": None if self.lidar is None else self.lidar.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> ConfidenceDomain:
        """Inverse of ``to_json``. Raises ``KeyError``, ``TypeError`` or ``ValueError``."""
        lidar = data["lidar"]
        return cls(
            logs=tuple(LogDomain.from_json(log) for log in data["logs"]),
            lidar=None if lidar is None else LidarReference.from_json(lidar),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A statistic in which a log differs from the calibration scenes.

    Attributes:
        here, there: mean over the log's and over the calibration scenes; ``here`` is None where
            the log has none.
        deviations: how many standard deviations between scenes that is.
    """

    name: str
    here: float | None
    there: float
    deviations: float

    def __str__(self) -> str:
        here = "none" if self.here is None else f"{self.here:.4g}"
        return f"{self.name}: {here} here, {self.there:.4g} there ({self.deviations:.1f} sd)"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainShift:
    """Attributes:
    p: chance of so large a distance, were these scenes drawn like the calibration scenes.
    scenes: how many were compared.
    differences: in what they differ, the clearest first.
    """

    p: float
    scenes: int
    differences: tuple[Difference, ...]

    @property
    def shifted(self) -> bool:
        return self.p < FALSE_ALARMS


def domain_shift(scenes: Sequence[SceneStatistics], reference: Reference) -> DomainShift:
    """Compare a log's scenes with the calibration scenes.

    Raises:
        ValueError: there is no scene, or there are fewer than ``MIN_SCENES`` calibration scenes.
    """
    if not scenes:
        raise ValueError("no scene with statistics")
    if len(reference.frames) < MIN_SCENES:
        raise ValueError(
            f"{len(reference.frames)} calibration scenes; at least {MIN_SCENES} are needed"
        )
    always = np.isfinite(reference.scenes).all(0)
    names = tuple(name for name, known in zip(reference.names, always, strict=True) if known)
    there = _transformed(reference.scenes[:, always], names)
    rows = [[scene.values.get(name, np.nan) for name in names] for scene in scenes]
    here = _transformed(np.array(rows).reshape(len(scenes), len(names)), names)
    # a scene of fewer frames than the calibration scenes scatters more about its kind
    noise = reference.within[always] ** 2
    usual = float(np.mean(1 / reference.frames))
    extra = [max(0.0, 1 / scene.frames - usual) for scene in scenes]

    own = [
        _log_distance(there[s : s + 1], np.delete(there, s, axis=0), names, noise, 0.0)
        for s in range(len(there))
    ]
    theirs = [_log_distance(here[s : s + 1], there, names, noise, e) for s, e in enumerate(extra)]
    p_single = _upper(theirs, own, independent=True)

    part = min(len(scenes), len(there) // 3)
    p = p_single
    if part > 1:
        rng = np.random.default_rng(0)
        order = [rng.permutation(len(there)) for _ in range(DRAWS)]
        own = [_log_distance(there[o[:part]], there[o[part:]], names, noise, 0.0) for o in order]
        chosen = [rng.permutation(len(here))[:part] for _ in range(DRAWS)]
        mean_extra = float(np.mean(extra))
        theirs = [_log_distance(here[c], there, names, noise, mean_extra) for c in chosen]
        p = min(1.0, 2 * min(p_single, _upper([float(np.median(theirs))], own, independent=False)))
    return DomainShift(p=p, scenes=len(scenes), differences=_differences(here, scenes, reference))


def _upper(theirs: Sequence[float], own: Sequence[float], *, independent: bool) -> float:
    """Chance of log distances with a mean as large as theirs, were they like the own ones."""
    n, m = len(own), len(theirs)
    spread = float(np.std(own, ddof=1))
    off = float(np.mean(theirs)) - float(np.mean(own))
    scale = spread * np.sqrt(1 / m + 1 / n if independent else 1 + 1 / n)
    degrees = n - 1
    return float(stdtr(degrees, -off / max(scale, 1e-9)))


def _log_distance(
    scenes: Array, reference: Array, names: Sequence[str], noise: Array, extra: float
) -> float:
    """Logarithm of the squared distance of the scenes' mean (M, F) from the reference (S, F)."""
    S, F = reference.shape
    centre, spread = reference.mean(0), _spread(reference, names)
    known = np.isfinite(scenes)
    mean = np.where(known, scenes, 0).sum(0) / np.maximum(known.sum(0), 1)
    off = np.where(known.any(0), (mean - centre) / spread, FAR)
    even = (reference - centre) / spread
    shrunk = F / (F + S)
    correlation = (1 - shrunk) * (even.T @ even) / max(1, S - 1) + shrunk * np.eye(F)
    correlation += np.diag(extra * noise / spread**2)
    return float(np.log(off @ np.linalg.solve(correlation, off) + 1e-9))


FAR = 30.0
"""Standard deviations that a statistic counts for which a scene does not have."""


def _differences(
    here: Array, scenes: Sequence[SceneStatistics], reference: Reference
) -> tuple[Difference, ...]:
    out = []
    always = np.flatnonzero(np.isfinite(reference.scenes).all(0))
    names = [reference.names[f] for f in always]
    there = _transformed(reference.scenes[:, always], names)
    spread, centre = _spread(there, names), there.mean(0)
    for column, f in enumerate(always):
        name = reference.names[f]
        values = [scene.values[name] for scene in scenes if name in scene.values]
        mean = float(np.mean(values)) if values else None
        known = here[np.isfinite(here[:, column]), column]
        off = abs(float(known.mean()) - centre[column]) / spread[column] if len(known) else FAR
        there_mean = float(reference.scenes[:, f].mean())
        out.append(Difference(name=name, here=mean, there=there_mean, deviations=float(off)))
    return tuple(sorted(out, key=lambda d: -d.deviations)[:SHOWN])


def _unit(name: str) -> str:
    return next((unit for unit in ("share", "m") if name.endswith(f", {unit}")), "")


def _transformed(values: Array, names: Sequence[str]) -> Array:
    """(S, F) on scales on which scenes of one log scatter about evenly."""
    out = values.astype(np.float64)
    for f, name in enumerate(names):
        unit = _unit(name)
        if unit == "share":
            out[:, f] = np.sqrt(out[:, f].clip(0))
        elif unit != "m":
            out[:, f] = np.log(out[:, f].clip(1e-3))
    return out


def _spread(scenes: Array, names: Sequence[str]) -> Array:
    least = np.array([MIN_SPREAD[_unit(name)] for name in names])
    return np.maximum(scenes.std(0, ddof=1), least)
