"""What is drawn of a frame, put into one browser tab's 3D scene.

Legend: N points, L lines.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from viz.browser.gltf import glb
from viz.render.layers import RenderedLayers
from viz.render.scene3d import BACKGROUND, ColoredMesh, ColoredPoints, lifted

POINT_SIZE_M = 0.09
LINE_WIDTH_PX = 1.5


class BrowserScene:
    """The drawn layers of one tab. A new frame is laid over the old one, which ``clear_old`` takes
    away when the browser has had the time to build the new: it never shows an empty scene.

    Args:
        scene: the tab's ``viser.SceneApi``.
    """

    def __init__(self, scene: Any) -> None:
        self._scene = scene
        self._numbers = itertools.count()
        self._roots: list[Any] = []
        self._clouds: list[tuple[Any, ColoredPoints]] = []
        scene.set_background_image(np.full((2, 2, 3), BACKGROUND, np.uint8), format="png")
        scene.configure_default_lights(enabled=False)
        scene.configure_environment_map(hdri=None)

    def draw(self, drawn: RenderedLayers, eye_m: NDArray[np.float64], *, floor_m: float) -> None:
        """Send all layers.

        Args:
            eye_m: (3,) where the tab's camera stands.
            floor_m: the grid's lowest plane; faces in it, often a quarter of all, are left out.
        """
        root = f"/frame {next(self._numbers)}"
        self._roots.append(self._scene.add_frame(root, show_axes=False))
        data = glb([without_floor(mesh, floor_m) for mesh in drawn.meshes])
        if data:
            self._scene.add_glb(f"{root}/voxels", data, cast_shadow=False, receive_shadow=False)
        for lines in drawn.lines:
            if len(lines.ends_m):
                self._scene.add_line_segments(
                    f"{root}/{lines.name}",
                    lines.ends_m,
                    np.repeat(lines.colors[:, None], 2, axis=1),
                    thickness=LINE_WIDTH_PX,
                    thickness_units="screen",
                )
        self._clouds = []
        for points in drawn.points:
            if len(points.points_m):
                cloud = self._scene.add_point_cloud(
                    f"{root}/{points.name}",
                    lifted(points.points_m, eye_m),
                    points.colors,
                    point_size=POINT_SIZE_M,
                    point_shading="flat",
                )
                self._clouds.append((cloud, points))

    def lift_points(self, eye_m: NDArray[np.float64]) -> None:
        """Keep the points before their voxels, seen from another place."""
        for cloud, points in self._clouds:
            cloud.points = lifted(points.points_m, eye_m)

    def clear_old(self) -> None:
        """Take away all but the last frame drawn."""
        while len(self._roots) > 1:
            self._roots.pop(0).remove()


def without_floor(mesh: ColoredMesh, floor_m: float) -> ColoredMesh:
    """The faces that do not lie in the lowest plane: only who looks from below misses those."""
    keep = (mesh.corners_m[:, :, 2] > floor_m + 1e-3).any(axis=1)
    return replace(mesh, corners_m=mesh.corners_m[keep], colors=mesh.colors[keep])
