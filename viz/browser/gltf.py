"""Meshes as a browser takes them: one binary glTF, small on the wire and drawn without light.

Corners are 16 bit within the box that holds them all (KHR_mesh_quantization): voxel corners lie on
a lattice, so the viewer's compression takes most of it away. The material is KHR_materials_unlit:
a face has the shade it came with, not that of a lamp.

Legend: F faces.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.files.json_files import json_text
from datasets.geometry.compiled import compiled
from viz.render.scene3d import ColoredMesh

_FACES_EACH = 16383
"""A primitive's corners are counted with 16 bits; 65535 may not be used."""
_MAX = 65535
_GLB, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_UINT16, _ARRAY, _ELEMENTS, _STRIDE = 5123, 34962, 34963, 8

# The browser's renderer ends with three.js' ACES filmic curve, exposure 1: these are its matrices.
_TO_ACES = np.array(
    [[0.59719, 0.35458, 0.04823], [0.07600, 0.90834, 0.01566], [0.02840, 0.13383, 0.83777]]
)
_FROM_ACES = np.array(
    [[1.60475, -0.53108, -0.07367], [-0.10208, 1.10813, -0.00605], [-0.00327, -0.07276, 1.07602]]
)
_EXPOSURE = 1 / 0.6


def glb(meshes: Sequence[ColoredMesh]) -> bytes:
    """Binary glTF 2.0 of all faces, in the meshes' frame, metres; no faces: no bytes.

    Corners are kept to 1/131070 of the extent of them all: 0.4 mm at 50 m.
    """
    corners = np.concatenate([np.zeros((0, 4, 3), np.float32), *(m.corners_m for m in meshes)])
    if not len(corners):
        return b""
    colors = np.concatenate([m.colors for m in meshes])
    low, high = _extent(corners)
    step = np.maximum(high - low, 1e-3) / _MAX
    places = np.zeros((4 * len(corners), 4), np.uint16)
    lights = np.full((4 * len(corners), 4), _MAX, np.uint16)
    linear = (before_tone_curve(colors) * _MAX).round().astype(np.uint16)
    _pack(corners, low, 1 / step, linear, places, lights)
    indices = _two_triangles_each(min(len(corners), _FACES_EACH))

    accessors, primitives = _primitives(places)
    n, m = places.nbytes, indices.nbytes
    corner_view = {"buffer": 0, "byteLength": n, "byteStride": _STRIDE, "target": _ARRAY}
    views: list[dict[str, Any]] = [
        {"byteOffset": 0, **corner_view},
        {"byteOffset": n, **corner_view},
        {"buffer": 0, "byteOffset": 2 * n, "byteLength": m, "target": _ELEMENTS},
    ]
    extensions = ["KHR_materials_unlit", "KHR_mesh_quantization"]
    document = {
        "asset": {"version": "2.0"},
        "extensionsUsed": extensions,
        "extensionsRequired": extensions[1:],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "translation": low.tolist(), "scale": step.tolist()}],
        "meshes": [{"primitives": primitives}],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": 2 * n + m}],
    }
    return _container(json_text(document).encode("ascii"), (places, lights, indices))


def _primitives(places: NDArray[np.uint16]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Accessors, and the primitives that use them; all begin with the same indices."""
    accessors: list[dict[str, Any]] = []
    primitives: list[dict[str, Any]] = []
    for first in range(0, len(places) // 4, _FACES_EACH):
        block = slice(4 * first, 4 * (first + _FACES_EACH))
        n = len(places[block])
        accessor = {"byteOffset": 4 * first * _STRIDE, "componentType": _UINT16, "count": n}
        lowest, highest = _extent(places[block].reshape(-1, 4, 4))
        box = {"min": lowest.astype(int).tolist(), "max": highest.astype(int).tolist()}
        i = len(accessors)
        accessors += [
            {"bufferView": 0, "type": "VEC3", **accessor, **box},
            {"bufferView": 1, "type": "VEC4", "normalized": True, **accessor},
            {"bufferView": 2, "type": "SCALAR", "componentType": _UINT16, "count": n // 4 * 6},
        ]
        primitives.append(
            {"attributes": {"POSITION": i, "COLOR_0": i + 1}, "indices": i + 2, "material": 0}
        )
    return accessors, primitives


def before_tone_curve(colors: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, 3) sRGB colors 0..255 -> (N, 3) linear ones 0..1 that the renderer turns into them.

    Inverse of the ACES filmic curve. What it cannot reach (near white, some full colors) comes
    out as the nearest it can.
    """
    srgb = colors / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    w = np.clip(linear @ np.linalg.inv(_FROM_ACES).T, 0.0, 1.0)
    # w = (v (v + 0.0245786) - 0.000090537) / (v (0.983729 v + 0.4329510) + 0.238081), solved for v
    a, b, c = 1 - 0.983729 * w, 0.0245786 - 0.4329510 * w, -0.000090537 - 0.238081 * w
    v = (-b + np.sqrt(b * b - 4 * a * c)) / (2 * a)
    return np.asarray(np.clip(v @ np.linalg.inv(_TO_ACES).T / _EXPOSURE, 0.0, 1.0))


def _two_triangles_each(n_faces: int) -> NDArray[np.uint16]:
    corners = np.arange(n_faces)[:, None] * 4 + np.array([0, 1, 2, 0, 2, 3])
    return np.asarray(corners, np.uint16)


@compiled
def _extent(corners: Any) -> Any:
    """Lowest and highest of each axis, (3,) float64 both."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for f in range(len(corners)):
        for c in range(4):
            for axis in range(3):
                low[axis] = min(low[axis], corners[f, c, axis])
                high[axis] = max(high[axis], corners[f, c, axis])
    return low, high


@compiled
def _pack(corners: Any, low: Any, per_step: Any, linear: Any, places: Any, lights: Any) -> None:
    """Corners in steps from the lowest, and to each its face's color."""
    for f in range(len(corners)):
        for c in range(4):
            for axis in range(3):
                steps = (corners[f, c, axis] - low[axis]) * per_step[axis]
                places[4 * f + c, axis] = np.uint16(steps + 0.5)
                lights[4 * f + c, axis] = linear[f, axis]


def _container(document: bytes, arrays: Sequence[NDArray[np.uint16]]) -> bytes:
    """The document and the arrays, one after the other; their lengths are multiples of 4."""
    document += b" " * (-len(document) % 4)
    n = sum(array.nbytes for array in arrays)
    head = struct.pack("<III", _GLB, 2, 12 + 8 + len(document) + 8 + n)
    head += struct.pack("<II", len(document), _JSON) + document
    return b"".join([head, struct.pack("<II", n, _BIN), *(array.data for array in arrays)])
