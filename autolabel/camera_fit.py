"""Does each camera look where the log says, or would another direction fit better?

Depth edges of the LiDAR must lie on edges of the picture (``datasets.log_checks``). Which turn of
the camera, about each of its axes, puts them onto the strongest edges; and do they lie on those of
another camera's picture instead? Every frame is one vote, so that a gain counts only where frames
agree on it.

Legend: F frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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

MIN_TURN_DEG, MIN_FRAMES = 1.25, 6
MIN_GAIN, MAX_CHANCE = 0.06, 1e-5
"""A turn must fit better by this share, and frames must not agree on it so well by chance. What a
right camera gained was up to 4 % (40 city scenes, seed 101), one 2 degrees off gained 12 % or more.
"""
MIN_SWAP_GAIN = 0.15
AXES = {"yawed": "y (to the side)", "pitched": "x (up and down)", "rolled": "z (about its view)"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraTurn:
    """The turn that fits best.

    Attributes:
        axis: in words, of the camera.
        degrees: by which the stated extrinsics must be turned about it.
        gain: how much stronger the edges are then, as a share.
        sigmas: how many times its standard error the gain is.
    """

    axis: str
    degrees: float
    gain: float
    sigmas: float


def best_turn(agreements: Sequence[CameraAgreement]) -> CameraTurn | None:
    """What a camera's frames (F) agree on; None where no turn fits clearly better."""
    agreements = [a for a in agreements if a.edges]
    if sum(a.edges for a in agreements) < MIN_EDGES or len(agreements) < MIN_FRAMES:
        return None
    stated = np.array([a.stated for a in agreements])
    found: list[CameraTurn] = []
    for name, words in AXES.items():
        turned = np.array([getattr(a, name) for a in agreements])  # (F, turns)
        k = int(turned.sum(axis=0).argmax())
        gains = turned[:, k] - stated
        gain = float(gains.sum() / stated.sum())
        error = float(gains.std(ddof=1) * np.sqrt(len(gains)) / stated.sum())
        degrees = _peak(stated.sum(), turned.sum(axis=0))
        sigmas = gain / max(error, 1e-9)
        chance = float(stats.t.sf(sigmas, len(gains) - 1))
        if gain >= MIN_GAIN and chance <= MAX_CHANCE and abs(degrees) >= MIN_TURN_DEG:
            found.append(CameraTurn(axis=words, degrees=degrees, gain=gain, sigmas=sigmas))
    return max(found, key=lambda turn: turn.gain) if found else None


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
