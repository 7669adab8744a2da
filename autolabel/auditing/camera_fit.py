"""Does each camera look where the log says, or would something else fit better?

Depth edges of the LiDAR must lie on edges of the picture (``datasets.log_checks.ground``). Many
things can part them: a camera that is turned, late or of another focal length, all cameras late or
of another focal length, a LiDAR that is turned or moved. Each is tried by small amounts in either
direction. Right cameras gain as much one way as the other, so a *lean* to one side is the alarm.
The *cause* is what gains most in frames that had no part in choosing its amount, and clearly more
than the others.

Legend: F frames, C cameras, H hypotheses (``HYPOTHESES``), A amounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from autolabel.auditing.motion_fit import Trajectory, pose_near, sigmas
from datasets.frames import CameraView, Frame
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.log_checks.projection import MIN_EDGES, depth_edges, gradient_under

Kind = Literal[
    "pitched",
    "yawed",
    "rolled",
    "focal length",
    "late",
    "LiDAR about its x",
    "LiDAR about its y",
    "LiDAR about its z",
    "LiDAR to the left",
    "LiDAR forward",
]
DEGREES, SECONDS = (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0), (-0.3, -0.2, -0.1, 0.1, 0.2, 0.3)
SHARES, METRES = (-0.1, -0.05, 0.05, 0.1), (-0.3, -0.15, 0.15, 0.3)
AMOUNTS: dict[Kind, tuple[float, ...]] = {
    "pitched": DEGREES,
    "yawed": DEGREES,
    "rolled": DEGREES,
    "focal length": SHARES,
    "late": SECONDS,
    "LiDAR about its x": DEGREES,
    "LiDAR about its y": DEGREES,
    "LiDAR about its z": DEGREES,
    "LiDAR to the left": METRES,
    "LiDAR forward": METRES,
}
HYPOTHESES: tuple[tuple[Kind, float], ...] = tuple(
    (kind, amount) for kind, amounts in AMOUNTS.items() for amount in amounts
)
OF_ONE: tuple[Kind, ...] = ("yawed", "pitched", "rolled", "focal length", "late")
OF_ALL: tuple[Kind, ...] = tuple(kind for kind in AMOUNTS if kind not in OF_ONE[:3])
TURNED_AXES: dict[Kind, int] = {"pitched": 0, "yawed": 1, "rolled": 2}

MIN_FRAMES, FOLDS = 6, 5
MANY_CAMERAS = 3
"""Fewer cannot tell a fault of all cameras from one of each, nor what every camera shows."""
MANY_SCENES = 8
MAX_CHANCE, MAX_CHANCE_FEW = 1e-3, 1e-6
"""Of a lean: frames of a scene are alike, so scenes are drawn where there are many, and of few
scenes frames, which prove less."""
MIN_LEAD = 3.0
MIN_SWAP_GAIN = 0.15
LEANS_OF_ONE: dict[Kind, tuple[float, float]] = {
    "yawed": (2.0, 0.075),
    "pitched": (2.0, 0.075),
    "rolled": (2.0, 0.06),
    "focal length": (0.05, 0.075),
}
LEANS_OF_ALL: tuple[tuple[Kind, float, float], ...] = (
    ("focal length", 0.05, 0.035),
    ("focal length", 0.1, 0.06),
    ("late", 0.1, 0.035),
    ("late", 0.3, 0.055),
    ("LiDAR about its z", 2.0, 0.04),
    ("LiDAR to the left", 0.3, 0.05),
    ("LiDAR forward", 0.3, 0.05),
)
"""Amount at which leans are taken, and the least that counts. Chosen on 40 right scenes (city seeds
101, 102, 7301 and 7304, ten each): cameras of a city leant by at most 0.078 yawed, 0.107 pitched,
0.048 rolled and 0.062 with another focal length beyond the others, and those beyond the least by at
most 3.4 standard errors of ten scenes (``MAX_CHANCE`` asks for 4.8); all together by at most 0.011
(focal length, 5 %), 0.038 (10 %), 0.013 (late) and 0.023 (LiDAR). One late camera leans no more
than right ones do, so that is no alarm."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewFit:
    """Gradient of one picture under the depth edges of its frame, summed over edges.

    Attributes:
        under: (H,) with each of ``HYPOTHESES`` put right; NaN where the log does not tell.
    """

    edges: int
    stated: float
    under: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraFinding:
    """Cameras whose edges fit better otherwise.

    Attributes:
        cameras: one, or all.
        kind: the cause; None where several explain it as well.
        amount: of the cause: degrees, share, seconds or metres that what the log states is off by.
        lean: how much stronger edges get one way than the other, as a share; of one camera, beyond
            what the other cameras do.
        sigmas: how many times its standard error the lean is.
        likely: kinds that explain it best, with their amounts, best first.
    """

    cameras: tuple[str, ...]
    kind: Kind | None
    amount: float
    lean: float
    sigmas: float
    likely: tuple[tuple[Kind, float], ...]


def fit_view(
    points_ego: NDArray[Any],  # (N, 3) or wider
    view: CameraView,
    gradient: NDArray[np.float64],
    frame: Frame,
    trajectory: Trajectory,
) -> ViewFit:
    """Try every hypothesis on one picture, given as its ``picture_gradient``.

    Args:
        frame: that the view belongs to, with LiDAR.
        trajectory: of its scene.
    """
    if frame.lidar is None:
        raise ValueError("the frame needs a LiDAR sweep")
    edges = depth_edges(points_ego, view)
    in_ego, T_camera_ego = apply(view.T_ego_camera, edges), inverse(view.T_ego_camera)
    T_ego_lidar = frame.lidar.T_ego_lidar
    under = np.zeros(len(HYPOTHESES))
    for h, (kind, amount) in enumerate(HYPOTHESES if len(edges) else ()):
        placed: NDArray[np.float64] | None
        if kind in TURNED_AXES:
            placed = apply(turn(TURNED_AXES[kind], amount), edges)
        elif kind == "focal length":  # a longer one moves pixels outwards
            placed = edges * [1 / (1 + amount), 1 / (1 + amount), 1]
        elif kind == "late":
            step = _motion(trajectory, frame, view, amount)
            placed = None if step is None else apply(T_camera_ego @ inverse(step), in_ego)
        elif kind in ("LiDAR to the left", "LiDAR forward"):
            aside = [0.0, -amount, 0.0] if kind == "LiDAR to the left" else [-amount, 0.0, 0.0]
            placed = apply(T_camera_ego, in_ego + aside)
        else:
            back = T_ego_lidar @ turn("xyz".index(kind[-1]), -amount) @ inverse(T_ego_lidar)
            placed = apply(T_camera_ego @ back, in_ego)
        under[h] = np.nan if placed is None else gradient_under(placed, view, gradient)
    stated = gradient_under(edges, view, gradient) if len(edges) else 0.0
    return ViewFit(edges=len(edges), stated=stated, under=under)


def turn(axis: int, degrees: float) -> Transform:
    """About the x (0), y (1) or z (2) axis."""
    T = np.eye(4)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    T[i, i], T[i, j], T[j, i], T[j, j] = c, -s, s, c
    return T


def _motion(
    trajectory: Trajectory, frame: Frame, view: CameraView, seconds: float
) -> Transform | None:
    """What the vehicle does after a picture's time, in the frame's ego; None: nothing tells."""
    then = pose_near(trajectory, view.timestamp_us + seconds * 1e6, frame)
    now = pose_near(trajectory, view.timestamp_us, frame)
    if then is None or now is None:
        return None
    T_ego_global = inverse(frame.T_global_ego)
    return np.asarray(T_ego_global @ then @ inverse(now) @ frame.T_global_ego)


class _Stack:
    """The fits of frames, as arrays.

    Attributes:
        stated: (F, C) sums; 0 where a frame lacks the camera.
        gains: (F, C, H) beyond these; 0 where nothing tells.
    """

    def __init__(self, frames: Sequence[Mapping[str, ViewFit]], scenes: Sequence[str]) -> None:
        with_edges = [k for k, f in enumerate(frames) if any(fit.edges for fit in f.values())]
        frames = [frames[k] for k in with_edges]
        self._scene = np.unique([scenes[k] for k in with_edges], return_inverse=True)[1]
        self.cameras = tuple(sorted({name for f in frames for name in f}))
        self.stated = np.zeros((len(frames), len(self.cameras)))
        self.edges = np.zeros_like(self.stated)
        self.gains = np.zeros((*self.stated.shape, len(HYPOTHESES)))
        for i, f in enumerate(frames):
            for name, fit in f.items():
                if fit.edges:
                    j = self.cameras.index(name)
                    self.stated[i, j], self.edges[i, j] = fit.stated, fit.edges
                    self.gains[i, j] = np.nan_to_num(fit.under - fit.stated)

    def lean(self, kind: Kind, amount: float) -> NDArray[np.float64]:
        """(F, C) how much stronger edges get by this amount than by its opposite."""
        plus, minus = (HYPOTHESES.index((kind, sign * amount)) for sign in (1, -1))
        return np.asarray(self.gains[:, :, plus] - self.gains[:, :, minus])

    def beyond_chance(self, lean: float, leans: NDArray[np.float64], total: float) -> float | None:
        """Standard errors of a lean, given those of frames (F,) and what they are shares of; None
        where it may be chance."""
        n, n_scenes = len(leans), int(self._scene.max()) + 1
        error = float(leans.std(ddof=1)) * np.sqrt(n) / total
        if n_scenes >= MANY_SCENES:
            sums = np.bincount(self._scene, leans, minlength=n_scenes)
            error, n = max(error, float(sums.std(ddof=1)) * np.sqrt(n_scenes) / total), n_scenes
        s = lean / max(error, 1e-9)
        chance = 2 * float(stats.t.sf(abs(s), n - 1))
        return s if chance <= (MAX_CHANCE if n_scenes >= MANY_SCENES else MAX_CHANCE_FEW) else None

    def amounts(self, kind: Kind) -> NDArray[np.float64]:
        """(F, C, A) gains of a kind."""
        return self.gains[:, :, [h for h, (k, _) in enumerate(HYPOTHESES) if k == kind]]


def camera_findings(
    frames: Sequence[Mapping[str, ViewFit]], scenes: Sequence[str]
) -> list[CameraFinding]:
    """What is wrong with cameras, of the fits of their frames (F), and the scene of each frame.

    Edges get stronger a little up even for a right camera (what stands on the ground has its edges
    above it), so the turns of a camera are compared with those of the others.
    """
    stack = _Stack(frames, scenes)
    judged = [j for j in range(len(stack.cameras)) if _enough(stack, j)]
    if not judged:
        return []
    alarm = _all_lean(stack, judged) if len(judged) >= MANY_CAMERAS else None
    if alarm is not None:
        kind, amount, likely = _cause_of_all(stack, judged)
        names = tuple(stack.cameras[j] for j in judged)
        finding = CameraFinding(
            cameras=names, kind=kind, amount=amount, lean=alarm[0], sigmas=alarm[1], likely=likely
        )
        if kind is not None:
            return [finding]
    findings = [single for j in judged if (single := _of_one(stack, j, judged)) is not None]
    if alarm is not None and not any(single.kind for single in findings):
        return [finding]
    return findings


def judged_cameras(frames: Sequence[Mapping[str, ViewFit]]) -> tuple[str, ...]:
    """Names of the cameras of which enough is seen to judge them."""
    stack = _Stack(frames, [""] * len(frames))
    return tuple(name for j, name in enumerate(stack.cameras) if _enough(stack, j))


def _enough(stack: _Stack, j: int) -> bool:
    edges = stack.edges[:, j]
    return bool(edges.sum() >= MIN_EDGES and (edges > 0).sum() >= MIN_FRAMES)


def _all_lean(stack: _Stack, judged: list[int]) -> tuple[float, float] | None:
    """Lean and sigmas of all cameras together, where they are no chance."""
    total = stack.stated[:, judged].sum()
    top: tuple[float, float] | None = None
    for kind, amount, min_lean in LEANS_OF_ALL:
        leans = stack.lean(kind, amount)[:, judged].sum(axis=1)
        lean = float(leans.sum() / total)
        s = stack.beyond_chance(lean, leans, float(total))
        if abs(lean) >= min_lean and s is not None and (not top or abs(s) > abs(top[1])):
            top = lean, s
    return top


def _of_one(stack: _Stack, j: int, judged: list[int]) -> CameraFinding | None:
    """What is wrong with one camera; None where nothing shows."""
    others = [k for k in judged if k != j]
    has_edges = stack.edges[:, j] > 0
    total = float(stack.stated[has_edges, j].sum())
    top: tuple[float, float] | None = None
    for kind, (amount, min_lean) in LEANS_OF_ONE.items():
        if kind == "pitched" and len(others) + 1 < MANY_CAMERAS:
            continue
        leans = stack.lean(kind, amount)
        lean = float(leans[:, j].sum()) / total
        if len(others) + 1 >= MANY_CAMERAS:
            lean -= float(np.median([leans[:, k].sum() / stack.stated[:, k].sum() for k in others]))
        s = stack.beyond_chance(lean, leans[:, j], total)
        if abs(lean) >= min_lean and s is not None and (not top or abs(s) > abs(top[1])):
            top = lean, s
    if top is None:
        return None
    cause, off_by, likely = _cause_of_one(stack, j, judged, has_edges)
    return CameraFinding(
        cameras=(stack.cameras[j],),
        kind=cause,
        amount=off_by,
        lean=top[0],
        sigmas=top[1],
        likely=likely,
    )


Cause = tuple[Kind | None, float, tuple[tuple[Kind, float], ...]]


def _cause_of_all(stack: _Stack, judged: list[int]) -> Cause:
    """The kind that explains all cameras better than any other does, and than one camera alone."""
    n = len(stack.stated)
    gains = {kind: _held_out(stack.amounts(kind)[:, judged].sum(axis=1)) for kind in OF_ALL}
    rivals = [_held_out(stack.amounts(kind)[:, j]) for kind in OF_ONE[3:] for j in judged]
    for kind in OF_ONE[:3]:
        rivals += [_held_out(_beyond_others(stack, kind, j, judged)) for j in judged]
    amounts = {k: _best_amount(stack.amounts(k)[:, judged].sum(axis=1), k) for k in gains}
    return _decide(gains, amounts, [*rivals, np.zeros(n)])


def _cause_of_one(of: _Stack, j: int, judged: list[int], here: NDArray[np.bool_]) -> Cause:
    """The kind that explains one camera better than any other does, and than a fault of all."""
    own = {kind: _beyond_others(of, kind, j, judged)[here] for kind in OF_ONE}
    gains = {kind: _held_out(of_kind) for kind, of_kind in own.items()}
    rivals = [_held_out(of.amounts(kind)[here][:, judged].sum(axis=1)) for kind in OF_ALL]
    amounts = {kind: _best_amount(of_kind, kind) for kind, of_kind in own.items()}
    return _decide(gains, amounts, [*rivals, np.zeros(int(here.sum()))])


def _beyond_others(of: _Stack, kind: Kind, j: int, judged: list[int]) -> NDArray[np.float64]:
    """(F, A) gains of one camera; of a pitch, without the bias that the other cameras show."""
    gains = of.amounts(kind)
    others = [k for k in judged if k != j]
    if kind != "pitched" or len(others) + 1 < MANY_CAMERAS:
        return gains[:, j]
    usual = np.median([gains[:, k].sum(axis=0) / of.stated[:, k].sum() for k in others], axis=0)
    bias = (usual - usual[::-1]) / 2  # amounts are symmetric; what both ways lose stays
    return np.asarray(gains[:, j] - of.stated[:, [j]] * bias)


def _held_out(gains: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,) of (F, A): gain by the amount that gains most in other frames."""
    fold = np.arange(len(gains)) * FOLDS // max(len(gains), 1)  # frames side by side are alike
    out = np.zeros(len(gains))
    for f in range(FOLDS):
        held = fold == f
        if held.any() and not held.all():
            out[held] = gains[held, int(gains[~held].sum(axis=0).argmax())]
    return out


def _best_amount(gains: NDArray[np.float64], kind: Kind) -> float:
    return AMOUNTS[kind][int(gains.sum(axis=0).argmax())]


def _decide(
    gains: Mapping[Kind, NDArray[np.float64]],
    amounts: Mapping[Kind, float],
    rivals: Sequence[NDArray[np.float64]],
) -> Cause:
    order = sorted(gains, key=lambda kind: -float(gains[kind].sum()))
    best = order[0]
    others = [gains[kind] for kind in order[1:]] + list(rivals)
    lead = min(sigmas(gains[best] - other) for other in others)
    likely = tuple((kind, amounts[kind]) for kind in order if gains[kind].sum() > 0)[:3]
    return (best if lead >= MIN_LEAD else None), amounts[best], likely


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Edges of one camera's view on another's picture: summed gradient, and how many edges."""

    view: str
    picture: str
    gradient: float
    edges: int


def crossings(
    points_ego: NDArray[Any],  # (N, 3) or wider
    views: Sequence[CameraView],
    gradients: Sequence[NDArray[np.float64]],
) -> list[Crossing]:
    """Every view of a frame with every picture of the same size (``picture_gradient``), its own
    included."""
    out = []
    for view in views:
        edges = depth_edges(points_ego, view)
        for other, gradient in zip(views, gradients, strict=True):
            if (other.width, other.height) == (view.width, view.height) and len(edges):
                strength = gradient_under(edges, view, gradient)
                out.append(
                    Crossing(
                        view=view.name, picture=other.name, gradient=strength, edges=len(edges)
                    )
                )
    return out


def swapped(found: Iterable[Crossing]) -> list[tuple[str, str]]:
    """Cameras of which each one's edges lie on the other's picture, not on its own."""
    gradient: dict[tuple[str, str], float] = {}
    edges: dict[tuple[str, str], int] = {}
    for crossing in found:
        key = crossing.view, crossing.picture
        gradient[key] = gradient.get(key, 0) + crossing.gradient
        edges[key] = edges.get(key, 0) + crossing.edges
    strength = {key: gradient[key] / edges[key] for key in gradient if edges[key] >= MIN_EDGES}
    best = {}
    for view in {view for view, _ in strength}:
        by_picture = {picture: s for (v, picture), s in strength.items() if v == view}
        fits = max(by_picture, key=lambda name: by_picture[name])
        if view in by_picture and by_picture[fits] > by_picture[view] + MIN_SWAP_GAIN:
            best[view] = fits
    return sorted((a, b) for a, b in best.items() if a < b and best.get(b) == a)
