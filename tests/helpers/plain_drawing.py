"""Twins of the compiled drawing in plain numpy: slow, what the fast ones are checked against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import apply
from viz.render.rasterizer import _EDGE, NEAR_M, Pinhole
from viz.render.voxel_mesh import _CHEQUER, CORNERS, SHADES, SurfaceMesh

_CHUNK = 2_000_000
_NOTHING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def nearest_faces_plain(
    corners_m: NDArray[np.float32], camera: Pinhole
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Twin of ``nearest_faces`` in plain numpy; slow, what the fast one is checked against."""
    buffer = np.full(camera.width * camera.height, _NOTHING, np.uint64)
    p = apply(camera.T_camera_ego, corners_m)
    index = np.flatnonzero((p[..., 2] > NEAR_M).all(axis=1))
    p = p[index]
    edge_a, edge_b = p[:, 1] - p[:, 0], p[:, 3] - p[:, 0]
    normal = np.cross(edge_a, edge_b)
    offset = (normal * p[:, 0]).sum(axis=1)
    uv = (p / p[..., 2:]) @ camera.intrinsics[:2].T
    low = np.maximum(np.ceil(uv.min(axis=1)), 0)
    high = np.minimum(np.floor(uv.max(axis=1)), [camera.width - 1, camera.height - 1])
    seen = np.flatnonzero((offset < 0) & (high >= low).all(axis=1))
    index, p0, normal, offset = index[seen], p[seen, 0], normal[seen], offset[seen]
    # coordinates along the two edges, 0..1 inside the rectangle
    edge_a = edge_a[seen] / (edge_a[seen] ** 2).sum(axis=1, keepdims=True)
    edge_b = edge_b[seen] / (edge_b[seen] ** 2).sum(axis=1, keepdims=True)
    low, extent = low[seen].astype(np.int64), (high - low)[seen].astype(np.int64) + 1
    to_ray = np.linalg.inv(camera.intrinsics)

    # faces of like extent together: each group is a dense (faces, rows, columns) block
    size_class = np.ceil(np.log2(extent)).astype(np.int64)
    for w_class, h_class in np.unique(size_class, axis=0):
        group = np.flatnonzero((size_class == (w_class, h_class)).all(axis=1))
        w, h = 1 << int(w_class), 1 << int(h_class)
        per_chunk = max(1, _CHUNK // (w * h))
        dv, du = (a.ravel() for a in np.mgrid[:h, :w])
        for start in range(0, len(group), per_chunk):
            f = group[start : start + per_chunk]
            u, v = low[f, :1] + du, low[f, 1:] + dv  # (faces, pixels)
            ray_x = to_ray[0, 0] * u + to_ray[0, 1] * v + to_ray[0, 2]
            ray_y = to_ray[1, 1] * v + to_ray[1, 2]
            n, a, b = normal[f, :, None], edge_a[f, :, None], edge_b[f, :, None]
            facing = n[:, 0] * ray_x + n[:, 1] * ray_y + n[:, 2]
            with np.errstate(divide="ignore", invalid="ignore"):
                z = offset[f, None] / facing
                along_a = (a[:, 0] * ray_x + a[:, 1] * ray_y + a[:, 2]) * z
                along_b = (b[:, 0] * ray_x + b[:, 1] * ray_y + b[:, 2]) * z
                along_a -= (a[:, :, 0] * p0[f]).sum(axis=1, keepdims=True)
                along_b -= (b[:, :, 0] * p0[f]).sum(axis=1, keepdims=True)
                inside = (along_a >= -_EDGE) & (along_a <= 1 + _EDGE)
                inside &= (along_b >= -_EDGE) & (along_b <= 1 + _EDGE)
            inside &= (z > NEAR_M) & (u < camera.width) & (v < camera.height)
            row, _ = np.nonzero(inside)
            pixel = v[inside] * camera.width + u[inside]
            # positive floats sort like their bits: depth above, face below
            key = z[inside].astype(np.float32).view(np.uint32).astype(np.uint64) << np.uint64(32)
            np.minimum.at(buffer, pixel, key | index[f[row]].astype(np.uint64))

    hit = buffer != _NOTHING
    face = np.where(hit, (buffer & np.uint64(0xFFFF_FFFF)).astype(np.int64), -1)
    bits = (buffer >> np.uint64(32)).astype(np.uint32)
    depth = np.where(hit, bits.view(np.float32), np.float32(np.inf))
    shape = (camera.height, camera.width)
    return face.reshape(shape), depth.reshape(shape).astype(np.float32)


def surface_meshes_plain(
    ids: NDArray[np.uint8], shown: NDArray[np.bool_], grid: VoxelGrid
) -> tuple[SurfaceMesh, ...]:
    """Twin of ``surface_meshes`` in plain numpy; slow, what the fast one is checked against."""
    padded = np.pad(shown, 1)
    voxels, directions = [], []
    for direction in range(6):
        axis, step = direction // 2, 2 * (direction % 2) - 1
        neighbour = np.roll(padded, -step, axis=axis)[1:-1, 1:-1, 1:-1]
        found = np.argwhere(shown & ~neighbour)
        voxels.append(found)
        directions.append(np.full(len(found), direction))
    voxel, direction_of = np.concatenate(voxels), np.concatenate(directions)
    id_of = ids[tuple(voxel.T)]
    cells = voxel[:, None, :] + CORNERS[direction_of]
    corners = (cells * np.asarray(grid.size_m) + np.asarray(grid.min_m)).astype(np.float32)
    chequer = np.where(voxel.sum(axis=1) % 2 == 0, 1.0, _CHEQUER)
    shades = (SHADES[direction_of] * chequer).astype(np.float32)
    return tuple(
        SurfaceMesh(id=int(i), corners_m=corners[id_of == i], shades=shades[id_of == i])
        for i in np.unique(id_of)
    )
