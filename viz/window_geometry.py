"""Geometry for the window's renderer, with every vertex attribute set.

Open3D's unlit shader reads a texture at each vertex's texture coordinates, and leaves those of its
older geometry classes to chance: a software renderer may then take seconds for a few pixels. The
tensor classes let us set them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import open3d as o3d

from viz.scene3d import ColouredMesh, ColouredPoints

_TENSOR: Any = o3d.core.Tensor


def textured_mesh(mesh: ColouredMesh) -> Any:
    """An ``open3d.t.geometry.TriangleMesh`` with a colour per vertex."""
    n = len(mesh.corners_m)
    first = 4 * np.arange(n, dtype=np.int32)[:, None, None]
    triangles = (first + np.array([[0, 1, 2], [0, 2, 3]], np.int32)).reshape(-1, 3)
    out = o3d.t.geometry.TriangleMesh(_tensor(mesh.corners_m.reshape(-1, 3)), _TENSOR(triangles))
    out.vertex.colors = _tensor(np.repeat(mesh.colours, 4, axis=0) / np.float32(255))
    out.vertex.normals = _tensor(np.broadcast_to(np.array([0, 0, 1]), (4 * n, 3)))
    out.vertex.texture_uvs = _tensor(np.zeros((4 * n, 2)))
    return out


def scalar_points(points: ColouredPoints) -> Any:
    """An ``open3d.t.geometry.PointCloud`` with a colour per point."""
    n = len(points.points_m)
    out = o3d.t.geometry.PointCloud(_tensor(points.points_m))
    out.point.colors = _tensor(points.colours / np.float32(255))
    out.point.normals = _tensor(np.broadcast_to(np.array([0, 0, 1]), (n, 3)))
    return out


def _tensor(values: Any) -> Any:
    return _TENSOR(np.ascontiguousarray(values, np.float32))
