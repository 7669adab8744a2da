"""Marked boxes drawn over a camera image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from datasets.annotations import Box
from datasets.frames import CameraView
from datasets.geometry.transforms import apply, inverse
from datasets.taxonomy import Taxonomy
from viz.render.lines import BOX_EDGES, UNIT_CORNERS

NEAR_M = 0.3
"""Edges are cut at this depth; what is nearer would be drawn from behind the camera."""

_FRONT = [(4, 7), (5, 6)]  # the diagonals of the face at +X


def box_lines_px(view: CameraView, box: Box) -> NDArray[np.float64]:
    """(K, 2, 2) ends (u, v) of the box's edges and of a cross on its front; K may be 0.

    Pixels of the stored image, whether inside it or not; what lies behind the camera is cut.
    """
    corners = apply(
        inverse(view.T_ego_camera) @ box.T_ego_box, UNIT_CORNERS * np.asarray(box.size_m)
    )
    lines = []
    for a, b in (*BOX_EDGES, *_FRONT):
        p, q = corners[a], corners[b]
        if max(p[2], q[2]) <= NEAR_M:
            continue
        if min(p[2], q[2]) < NEAR_M:
            cut = p + (NEAR_M - p[2]) / (q[2] - p[2]) * (q - p)
            p, q = (cut, q) if p[2] < q[2] else (p, cut)
        ends = np.stack([p, q]) @ view.intrinsics.T
        lines.append(ends[:, :2] / ends[:, 2:])
    return np.array(lines).reshape(-1, 2, 2)


def draw_boxes(
    rgb: NDArray[np.uint8],
    view: CameraView,
    boxes: Sequence[Box],
    taxonomy: Taxonomy,
    *,
    width_px: int = 3,
) -> Image.Image:
    """The image with every box in front of the camera, farthest first, in its class's color.

    Args:
        rgb: (H, W, 3), the image of ``view``.
        boxes: of the view's frame, as in ``Annotations``.
    """
    image = Image.fromarray(rgb)
    draw = ImageDraw.Draw(image)
    T_camera_ego = inverse(view.T_ego_camera)
    for box in sorted(boxes, key=lambda box: -apply(T_camera_ego, box.T_ego_box[:3, 3])[2]):
        for (u0, v0), (u1, v1) in box_lines_px(view, box):
            draw.line((u0, v0, u1, v1), fill=taxonomy.colors[box.class_id], width=width_px)
    return image
