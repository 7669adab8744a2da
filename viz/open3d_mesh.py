"""Our meshes, points, lines and colours as Open3D's."""

from __future__ import annotations

from typing import Any

import numpy as np

from viz.scene3d import ColouredLines, ColouredMesh, ColouredPoints


def open3d_mesh(mesh: ColouredMesh) -> Any:
    """An ``open3d.geometry.TriangleMesh`` with a colour per vertex."""
    import open3d as o3d

    n = len(mesh.corners_m)
    first = 4 * np.arange(n, dtype=np.int32)[:, None, None]
    triangles = (first + np.array([[0, 1, 2], [0, 2, 3]], np.int32)).reshape(-1, 3)
    out = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.corners_m.reshape(-1, 3).astype(np.float64)),
        o3d.utility.Vector3iVector(triangles),
    )
    colours = np.repeat(mesh.colours, 4, axis=0).astype(np.float64) / 255
    out.vertex_colors = o3d.utility.Vector3dVector(colours)
    return out


def open3d_points(points: ColouredPoints) -> Any:
    """An ``open3d.geometry.PointCloud``."""
    import open3d as o3d

    out = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.points_m.astype(np.float64)))
    out.colors = o3d.utility.Vector3dVector(points.colours.astype(np.float64) / 255)
    return out


def open3d_lines(lines: ColouredLines) -> Any:
    """An ``open3d.geometry.LineSet``."""
    import open3d as o3d

    pairs = np.arange(2 * len(lines.ends_m), dtype=np.int32).reshape(-1, 2)
    out = o3d.geometry.LineSet(
        o3d.utility.Vector3dVector(lines.ends_m.reshape(-1, 3).astype(np.float64)),
        o3d.utility.Vector2iVector(pairs),
    )
    out.colors = o3d.utility.Vector3dVector(lines.colours.astype(np.float64) / 255)
    return out


def open3d_background(colour: tuple[int, int, int]) -> list[float]:
    """RGBA that Open3D shows as this colour: without post-processing it applies a gamma of 2.2 to
    the background and none to the vertices."""
    return [(c / 255) ** (1 / 2.2) for c in colour] + [1.0]
