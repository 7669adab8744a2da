"""Does each camera look where the log says, or would something else fit better?

``image_match`` tells how well the images of neighbouring frames match under what the log states,
and with small faults put right: of one camera (turned, late, another focal length) or of all
(late, another focal length, a LiDAR that is turned or moved). Whatever is right matches best, so
any clear gain is the alarm. The *cause* is what gains most in pairs that had no part in choosing
its amount, and clearly more than the others do; not with the largest amount that is tried, beyond
which anything may lie.

Legend: F pairs of frames, C cameras, H hypotheses (``HYPOTHESES``), A amounts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from autolabel.auditing.image_match import AMOUNTS, HYPOTHESES, TURNED_AXES, ImageMatch, Kind
from autolabel.auditing.motion_fit import sigmas

OF_ONE: tuple[Kind, ...] = ("yawed", "pitched", "rolled", "focal length", "late")
OF_ALL: tuple[Kind, ...] = tuple(kind for kind in AMOUNTS if kind not in TURNED_AXES)

MIN_PAIRS, MIN_POINTS, FOLDS = 6, 2000, 5
MANY_CAMERAS = 3
"""Fewer cannot tell a fault of all cameras from one of each."""
MANY_SCENES = 8
"""Of fewer scenes only a clear cause is an alarm: a car that follows all along makes the pairs of a
scene agree on what is no fault (3 of 40 right scenes, city seeds 9601 to 9604; none had a clear
cause, nor had any of 440 scenes with another fault a wrong one)."""
MAX_CHANCE, MAX_CHANCE_SCENES = 1e-3, 1e-2
"""Of a gain, over pairs and, where there are many, over scenes, for pairs of a scene are alike. A
right camera loses by every hypothesis, so that chance alone seldom makes a gain."""
MIN_LEAD = 3.0
MIN_GAIN_OF_ONE: dict[Kind, float] = {
    "yawed": 0.015,
    "pitched": 0.025,
    "rolled": 0.02,
    "focal length": 0.015,
    "late": 0.012,
}
MIN_GAIN_OF_ALL: dict[Kind, float] = dict.fromkeys(OF_ALL, 0.004) | {"LiDAR up": 0.01}
"""Of the mean match. Chosen with city seeds 101 and 4301, where right cameras gained nothing at
all, and ten frames of PandaSet, where they gained at most 0.014 (pitched) and 0.008 (other) and all
together 0.005 (up) and 0.001 (other); 2 degrees, 5 % or 0.1 s put into seed 101 gained 0.03 to
0.08, a LiDAR 0.15 m aside 0.01."""
FAR_DEG, MIN_PEAK = 4.0, 0.02
"""A camera whose images match hardly better as stated than turned so far looks elsewhere. Of right
ones the difference was at least 0.05 in the same data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFinding:
    """Cameras whose images match better otherwise.

    Attributes:
        cameras: one, or all.
        kind: the cause; None where several explain it as well, or none does.
        amount: of the cause: degrees, share, seconds or metres that what the log states is off by.
        stated: the mean match as the log states it.
        gain: by how much it rises.
        sigmas: how many times its standard error the gain is.
        likely: kinds that explain it best, with their amounts, best first.
    """

    cameras: tuple[str, ...]
    kind: Kind | None
    amount: float
    stated: float
    gain: float
    sigmas: float
    likely: tuple[tuple[Kind, float], ...]


class _Stack:
    """The matches of pairs, as arrays.

    Attributes:
        n_scenes: that the pairs are of.
        points: (F, C); 0 where a pair lacks the camera.
        stated: (F, C) sums of the match over points.
        gains: (F, C, H) beyond these; 0 where nothing tells.
    """

    def __init__(self, pairs: Sequence[Mapping[str, ImageMatch]], scenes: Sequence[str]) -> None:
        self._scene = np.unique(np.asarray(scenes, np.str_), return_inverse=True)[1]
        self.n_scenes = int(self._scene.max(initial=-1)) + 1
        self.cameras = tuple(sorted({name for pair in pairs for name in pair}))
        self.points = np.zeros((len(pairs), len(self.cameras)))
        self.stated = np.zeros_like(self.points)
        self.gains = np.zeros((*self.points.shape, len(HYPOTHESES)))
        for i, pair in enumerate(pairs):
            for name, match in pair.items():
                j = self.cameras.index(name)
                self.points[i, j] = match.points
                self.stated[i, j] = match.points * match.stated
                self.gains[i, j] = match.points * np.nan_to_num(match.under - match.stated)

    def judged(self) -> list[int]:
        """Cameras of which enough is seen."""
        enough = ((self.points > 0).sum(axis=0) >= MIN_PAIRS) & (
            self.points.sum(axis=0) >= MIN_POINTS
        )
        return [int(j) for j in np.flatnonzero(enough)]

    def amounts(self, kind: Kind, cameras: Sequence[int]) -> NDArray[np.float64]:
        """(F, A) gains of a kind, summed over cameras."""
        of_kind = [h for h, (k, _) in enumerate(HYPOTHESES) if k == kind]
        gains: NDArray[np.float64] = self.gains[:, cameras][:, :, of_kind].sum(axis=1)
        return gains

    def beyond_chance(self, gains: NDArray[np.float64]) -> float | None:
        """Standard errors by which the mean of pairs' gains (F,) is above 0; None where it may be
        chance."""
        s = sigmas(gains)
        if stats.t.sf(s, len(gains) - 1) > MAX_CHANCE:
            return None
        if self.n_scenes >= MANY_SCENES:
            sums = np.bincount(self._scene, gains, minlength=self.n_scenes).astype(np.float64)
            s = min(s, sigmas(sums))
            if stats.t.sf(s, self.n_scenes - 1) > MAX_CHANCE_SCENES:
                return None
        return s


def camera_findings(
    pairs: Sequence[Mapping[str, ImageMatch]], scenes: Sequence[str]
) -> list[CameraFinding]:
    """What is wrong with cameras, of the matches of their pairs (F), and the scene of each pair."""
    if not pairs:
        return []
    stack = _Stack(pairs, scenes)
    judged = stack.judged()
    of_all = _finding(stack, judged, judged) if len(judged) >= MANY_CAMERAS else None
    if of_all is not None and of_all.kind is not None:
        return [of_all]
    of_one = [_finding(stack, [j], judged) or _elsewhere(stack, j) for j in judged]
    findings = [finding for finding in of_one if finding is not None]
    if of_all is not None and not any(finding.kind for finding in findings):
        return [of_all]
    return findings


def judged_cameras(pairs: Sequence[Mapping[str, ImageMatch]]) -> tuple[str, ...]:
    """Names of the cameras of which enough is seen to judge them."""
    stack = _Stack(pairs, [""] * len(pairs))
    return tuple(stack.cameras[j] for j in stack.judged())


def _finding(stack: _Stack, cameras: list[int], judged: list[int]) -> CameraFinding | None:
    """What is wrong with one camera, or with all that are judged; None where nothing shows."""
    with_points = stack.points[:, cameras].any(axis=1)
    of_all = len(cameras) > 1
    own = {kind: stack.amounts(kind, cameras) for kind in (OF_ALL if of_all else OF_ONE)}
    gains = {kind: _held_out(amounts) for kind, amounts in own.items()}
    order = sorted(gains, key=lambda kind: -float(gains[kind].sum()))
    points = float(stack.points[:, cameras].sum())
    min_gain = MIN_GAIN_OF_ALL if of_all else MIN_GAIN_OF_ONE
    clear = [kind for kind in order if gains[kind].sum() >= min_gain[kind] * points]
    s = next((s for kind in clear if (s := stack.beyond_chance(gains[kind])) is not None), None)
    if s is None:
        return None
    rivals = [gains[kind] for kind in order[1:]]
    if of_all:  # a fault of one camera
        rivals += [_held_out(stack.amounts(kind, [j])) for kind in OF_ONE for j in judged]
    elif len(judged) > 1:
        rivals += [_held_out(stack.amounts(kind, judged)) for kind in OF_ALL]
    else:
        rivals += [_held_out(stack.amounts(kind, judged)) for kind in OF_ALL if kind not in OF_ONE]
    amounts = {k: AMOUNTS[k][int(gained.sum(axis=0).argmax())] for k, gained in own.items()}
    # more may be off than was tried
    at_the_end = abs(amounts[order[0]]) == max(AMOUNTS[order[0]])
    lead = min(sigmas((gains[order[0]] - rival)[with_points]) for rival in rivals)
    likely = tuple((kind, amounts[kind]) for kind in order if gains[kind].sum() > 0)[:3]
    cause = order[0] if lead >= MIN_LEAD and not at_the_end else None
    if cause is None and stack.n_scenes < MANY_SCENES:
        return None
    return CameraFinding(
        cameras=tuple(stack.cameras[j] for j in cameras),
        kind=cause,
        amount=amounts[order[0]],
        stated=float(stack.stated[:, cameras].sum()) / points,
        gain=float(gains[order[0]].sum()) / points,
        sigmas=s,
        likely=likely,
    )


def _elsewhere(stack: _Stack, j: int) -> CameraFinding | None:
    """A camera that matches as badly as one that looks elsewhere, by a fault that is not tried."""
    far = [h for h, (kind, a) in enumerate(HYPOTHESES) if kind in TURNED_AXES and abs(a) == FAR_DEG]
    points = float(stack.points[:, j].sum())
    lost = -stack.gains[:, j][:, far].mean(axis=1)
    if float(lost.sum()) >= MIN_PEAK * points:
        return None
    return CameraFinding(
        cameras=(stack.cameras[j],),
        kind=None,
        amount=0.0,
        stated=float(stack.stated[:, j].sum()) / points,
        gain=0.0,
        sigmas=0.0,
        likely=(),
    )


def _held_out(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,) of (F, A): gain by the amount that gains most in other pairs."""
    fold = np.arange(len(gains)) * FOLDS // max(len(gains), 1)  # pairs side by side are alike
    out = np.zeros(len(gains))
    for f in range(FOLDS):
        held = fold == f
        if held.any() and not held.all():
            out[held] = gains[held, int(gains[~held].sum(axis=0).argmax())]
    return out
