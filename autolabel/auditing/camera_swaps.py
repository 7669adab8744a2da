"""Which cameras have each other's images? Depth edges of the LiDAR then lie on the other's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.frames import CameraView
from datasets.log_checks.projection import MIN_EDGES, depth_edges, gradient_under

MIN_SWAP_GAIN = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Edges of one camera's view on another's image: summed gradient, and how many edges."""

    view: str
    image: str
    gradient: float
    edges: int


def crossings(
    points_ego: NDArray[Any],  # (N, 3) or wider
    views: Sequence[CameraView],
    gradients: Sequence[NDArray[np.float64]],
) -> list[Crossing]:
    """Every view of a frame with every image of the same size (``image_gradient``), its own
    included."""
    out = []
    for view in views:
        edges = depth_edges(points_ego, view)
        for other, gradient in zip(views, gradients, strict=True):
            if (other.width, other.height) == (view.width, view.height) and len(edges):
                strength = gradient_under(edges, view, gradient)
                out.append(
                    Crossing(view=view.name, image=other.name, gradient=strength, edges=len(edges))
                )
    return out


def swapped(found: Iterable[Crossing]) -> list[tuple[str, str]]:
    """Cameras of which each one's edges lie on the other's image, not on its own."""
    gradient: dict[tuple[str, str], float] = {}
    edges: dict[tuple[str, str], int] = {}
    for crossing in found:
        key = crossing.view, crossing.image
        gradient[key] = gradient.get(key, 0) + crossing.gradient
        edges[key] = edges.get(key, 0) + crossing.edges
    strength = {key: gradient[key] / edges[key] for key in gradient if edges[key] >= MIN_EDGES}
    best = {}
    for view in {view for view, _ in strength}:
        by_image = {image: s for (v, image), s in strength.items() if v == view}
        fits = max(by_image, key=lambda name: by_image[name])
        if view in by_image and by_image[fits] > by_image[view] + MIN_SWAP_GAIN:
            best[view] = fits
    return sorted((a, b) for a, b in best.items() if a < b and best.get(b) == a)
