"""Our meshes, points, lines and colors as Open3D's.

Every vertex attribute is set: Open3D's unlit shader reads a texture at each vertex's coordinates,
and its older geometry classes leave those to chance. A software renderer may then take a minute for
a few pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from viz.render.scene3d import ColoredLines, ColoredMesh, ColoredPoints


def open3d_mesh(mesh: ColoredMesh) -> Any:
    """An ``open3d.t.geometry.TriangleMesh`` with a color per vertex."""
    import open3d as o3d

    n = len(mesh.corners_m)
    first = 4 * np.arange(n, dtype=np.int32)[:, None, None]
    triangles = (first + np.array([[0, 1, 2], [0, 2, 3]], np.int32)).reshape(-1, 3)
    out = o3d.t.geometry.TriangleMesh(
        _tensor(mesh.corners_m.reshape(-1, 3)), _tensor(triangles, np.int32)
    )
    out.vertex.colors = _tensor(np.repeat(mesh.colors, 4, axis=0) / np.float32(255))
    out.vertex.normals = _tensor(np.broadcast_to(np.array([0, 0, 1]), (4 * n, 3)))
    out.vertex.texture_uvs = _tensor(np.zeros((4 * n, 2)))
    return out


def open3d_points(points: ColoredPoints) -> Any:
    """An ``open3d.t.geometry.PointCloud`` with a color per point."""
    import open3d as o3d

    out = o3d.t.geometry.PointCloud(_tensor(points.points_m))
    out.point.colors = _tensor(points.colors / np.float32(255))
    out.point.normals = _tensor(np.broadcast_to(np.array([0, 0, 1]), points.points_m.shape))
    return out


def open3d_lines(lines: ColoredLines) -> Any:
    """An ``open3d.geometry.LineSet``."""
    import open3d as o3d

    pairs = np.arange(2 * len(lines.ends_m), dtype=np.int32).reshape(-1, 2)
    out = o3d.geometry.LineSet(
        o3d.utility.Vector3dVector(lines.ends_m.reshape(-1, 3).astype(np.float64)),
        o3d.utility.Vector2iVector(pairs),
    )
    out.colors = o3d.utility.Vector3dVector(lines.colors.astype(np.float64) / 255)
    return out


def open3d_background(color: tuple[int, int, int]) -> list[float]:
    """RGBA that Open3D shows as this color: without post-processing it applies a gamma of 2.2 to
    the background and none to the vertices."""
    return [(c / 255) ** (1 / 2.2) for c in color] + [1.0]


def _tensor(values: Any, dtype: Any = np.float32) -> Any:
    import open3d as o3d

    make: Any = o3d.core.Tensor
    return make(np.ascontiguousarray(values, dtype))
