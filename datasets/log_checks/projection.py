"""LiDAR points and depth edges in the images of cameras."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from datasets.frames import CameraView
from datasets.geometry.transforms import apply, inverse

EDGE_WIDTH_PX, EDGE_CELL_PX = 640, 4
EDGE_FAR_M = 40.0
MIN_EDGES = 1000
TURNS_DEG = (-4.0, -2.0, -1.0, 1.0, 2.0, 4.0)


def project(
    points_ego: NDArray[Any], view: CameraView
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """(N, 2) pixels, (N,) metres along the optical axis, and (N,) whether inside the image."""
    p = apply(inverse(view.T_ego_camera), points_ego[:, :3])
    return _to_pixels(p, view)


def depth_edges(points_ego: NDArray[Any], view: CameraView) -> NDArray[np.float64]:
    """(E, 3) in the camera's frame: points (N, 3) beside which it is much farther."""
    p = apply(inverse(view.T_ego_camera), points_ego[:, :3])
    uv, depth, inside = _to_pixels(p, view)
    scale = EDGE_WIDTH_PX / view.width
    edges: NDArray[np.float64] = p[_near_edges(uv * scale, depth, inside & (depth < EDGE_FAR_M))]
    return edges


def gradient_under(
    edges: NDArray[np.float64],
    view: CameraView,
    gradient: NDArray[np.float64],
    *,
    outside: float = 1.0,
) -> float:
    """Sum of an image's gradient (``image_gradient``) under ``depth_edges`` of the view.

    Args:
        outside: value of an edge outside the image; 1 is the image's mean gradient.
    """
    scale = EDGE_WIDTH_PX / view.width
    pixels, _, inside = _to_pixels(edges, view)
    index = np.floor(pixels[inside] * scale).astype(np.int64)
    index = np.minimum(index, [gradient.shape[1] - 1, gradient.shape[0] - 1])
    return float(gradient[index[:, 1], index[:, 0]].sum() + outside * (~inside).sum())


def _to_pixels(
    p: NDArray[np.float64], view: CameraView
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    depth = p[:, 2]
    front = depth > 0.5
    uv = np.full((len(p), 2), -1.0)
    uv[front] = (p[front] / depth[front, None]) @ view.intrinsics[:2].T
    inside = front & (uv >= 0).all(axis=1) & (uv < [view.width, view.height]).all(axis=1)
    return uv, depth, inside


def _near_edges(
    uv: NDArray[np.float64], depth: NDArray[np.float64], inside: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Indices of the nearest points beside which, in the same row, it is much farther."""
    index = np.flatnonzero(inside)
    col, row = (uv[index] / EDGE_CELL_PX).astype(np.int64).T
    if not len(index):
        return index
    shape = (int(row.max()) + 1, int(col.max()) + 1)
    near, far = np.full(shape, np.inf), np.full(shape, -np.inf)
    z = depth[index]
    np.minimum.at(near, (row, col), z)
    far[np.isfinite(near)] = near[np.isfinite(near)]
    beside = ndimage.maximum_filter1d(far, 5, axis=1, mode="constant", cval=-np.inf)
    edge = (beside[row, col] > 1.1 * z + 1) & (z < 1.05 * near[row, col] + 0.1)
    edges: NDArray[np.int64] = index[edge]
    return edges


def image_gradient(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Horizontal gradient at ``EDGE_WIDTH_PX``, blurred, strong edges cut, of mean 1."""
    height = max(1, round(rgb.shape[0] * EDGE_WIDTH_PX / rgb.shape[1]))
    grey = Image.fromarray(rgb).convert("L").resize((EDGE_WIDTH_PX, height))
    steps = np.abs(ndimage.sobel(np.asarray(grey, np.float64), axis=1))
    strongest = float(np.percentile(steps[steps > 0], 98)) if steps.any() else 0.0
    blurred = ndimage.gaussian_filter(np.minimum(steps, strongest), 1.5)
    out: NDArray[np.float64] = blurred / max(float(blurred.mean()), 1e-9)
    return out
