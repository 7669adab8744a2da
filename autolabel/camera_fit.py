"""Does each camera look where the log says, or would another direction fit better?

Depth edges of the LiDAR must lie on edges of the picture (``datasets.log_checks``). Which turn of
the camera, about each of its axes, puts them onto the strongest edges; and do they lie on those of
another camera's picture instead? Every frame is one vote, so that a gain counts only where frames
agree on it.

Legend: F frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from datasets.frames import CameraView
from datasets.log_checks import (
    MIN_EDGES,
    TURNS_DEG,
    CameraAgreement,
    depth_edges,
    gradient_under,
    picture_gradient,
)

MIN_FRAMES, MAX_CHANCE = 6, 1e-6
MIN_SWAP_GAIN = 0.15
AXES = {"yawed": "y (to the side)", "pitched": "x (up and down)", "rolled": "z (about its view)"}
MIN_LEAN = {"yawed": 0.075, "pitched": 0.075, "rolled": 0.035}
"""How far a camera must lean from the others: on 40 city scenes (seed 101) right ones lay within
0.06 (rolled: 0.024), one 2 degrees off leant by 0.17 to the side, 0.13 up, 0.18 down, and only
0.04 about its view."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraTurn:
    """How a camera looks elsewhere than stated.

    Attributes:
        axis: in words, of the camera.
        degrees: by about which the stated extrinsics must be turned about it.
        lean: how much stronger edges get by 2 degrees that way than by 2 degrees the other way,
            as a share, beyond what the other cameras do.
        sigmas: how many times its standard error the lean is.
    """

    axis: str
    degrees: float
    lean: float
    sigmas: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lean:
    """Of one camera about one axis, with its standard error."""

    lean: float
    error: float
    peak_deg: float
    frames: int


def turned_cameras(cameras: Mapping[str, Sequence[CameraAgreement]]) -> dict[str, CameraTurn]:
    """Cameras that look elsewhere than stated, of the frames (F) of each.

    Edges get stronger a little up even for a right camera (what stands on the ground has its
    edges above it), so cameras are compared with one another. With fewer than three only turns to
    the side are told.
    """
    found: dict[str, CameraTurn] = {}
    for name, words in AXES.items():
        leans = {c: one for c, of in cameras.items() if (one := _lean(of, name)) is not None}
        for camera, own in leans.items():
            others = [one for c, one in leans.items() if c != camera]
            if len(others) < 2 and name != "yawed":
                continue
            lean, peak = own.lean, own.peak_deg
            if len(others) >= 2:
                lean -= float(np.median([one.lean for one in others]))
                peak -= float(np.median([one.peak_deg for one in others]))
            sigmas = abs(lean) / max(own.error, 1e-9)
            chance = 2 * float(stats.t.sf(sigmas, own.frames - 1))
            if abs(lean) < MIN_LEAN[name] or chance > MAX_CHANCE:
                continue
            if camera not in found or sigmas > found[camera].sigmas:
                found[camera] = CameraTurn(axis=words, degrees=peak, lean=lean, sigmas=sigmas)
    return found


def _lean(agreements: Sequence[CameraAgreement], name: str) -> _Lean | None:
    agreements = [a for a in agreements if a.edges]
    if sum(a.edges for a in agreements) < MIN_EDGES or len(agreements) < MIN_FRAMES:
        return None
    stated = np.array([a.stated for a in agreements])
    turned = np.array([getattr(a, name) for a in agreements])  # (F, turns)
    leans = turned[:, TURNS_DEG.index(2)] - turned[:, TURNS_DEG.index(-2)]
    total = max(float(stated.sum()), 1e-9)
    return _Lean(
        lean=float(leans.sum()) / total,
        error=float(leans.std(ddof=1) * np.sqrt(len(leans))) / total,
        peak_deg=_peak(float(stated.sum()), turned.sum(axis=0)),
        frames=len(leans),
    )


def _peak(stated: float, turned: NDArray[np.float64]) -> float:
    """Degrees at which a parabola through the best turn and its neighbours is highest."""
    degrees = np.array((*TURNS_DEG, 0.0))
    order = np.argsort(degrees)
    x, y = degrees[order], np.array((*turned, stated))[order]
    k = int(y.argmax())
    if not 0 < k < len(x) - 1:
        return float(x[k])
    a, b, _ = np.polyfit(x[k - 1 : k + 2], y[k - 1 : k + 2], 2)
    return float(np.clip(-b / (2 * a), x[k - 1], x[k + 1])) if a < 0 else float(x[k])


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
    pictures: Sequence[NDArray[np.uint8]],
) -> list[Crossing]:
    """Every view of a frame with every picture of the same size, its own included."""
    gradients = [picture_gradient(picture) for picture in pictures]
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
    for one in found:
        key = one.view, one.picture
        gradient[key] = gradient.get(key, 0) + one.gradient
        edges[key] = edges.get(key, 0) + one.edges
    strength = {key: gradient[key] / edges[key] for key in gradient if edges[key] >= MIN_EDGES}
    best = {}
    for view in {view for view, _ in strength}:
        of = {picture: s for (v, picture), s in strength.items() if v == view}
        fits = max(of, key=lambda name: of[name])
        if view in of and of[fits] > of[view] + MIN_SWAP_GAIN:
            best[view] = fits
    return sorted((a, b) for a, b in best.items() if a < b and best.get(b) == a)
