"""Triangle meshes of everything that stands or moves in the city.

Object frame: origin on the ground below the middle, X forward, Y left, Z up, metres.
Legend: V vertices, F faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform, from_yaw
from datasets.taxonomy import OCC3D_NUSCENES

Rgb = tuple[float, float, float]


class Finish(IntEnum):
    """How a face is shaded."""

    PLAIN = 0
    WALL = 1  # with windows, as its style says
    LEAVES = 2
    GLASS = 3
    PAINT = 4  # glossy car paint
    METAL = 5
    CLOTH = 6
    WOOD = 7  # boards, bark
    SIGN = 8  # reflects light back to where it comes from
    LAMP = 9  # shines when it is dark
    ROOF = 10  # tiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """Faces with class and material.

    Attributes:
        vertices: (V, 3) float64 metres.
        faces: (F, 3) int32.
        classes: (F,) uint8 Occ3D class ids.
        colours: (F, 3) float32 albedo 0..1.
        finishes: (F,) uint8 ``Finish``.
        styles: (F,) uint8, which of the facades a ``WALL`` bears (``surfaces``).
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int32]
    classes: NDArray[np.uint8]
    colours: NDArray[np.float32]
    finishes: NDArray[np.uint8]
    styles: NDArray[np.uint8]

    def moved(self, T: Transform) -> Mesh:
        """The same mesh under a transform."""
        return replace(self, vertices=self.vertices @ T[:3, :3].T + T[:3, 3])

    def at(self, x: float, y: float, z: float, yaw_rad: float = 0.0) -> Mesh:
        return self.moved(from_yaw(yaw_rad, (x, y, z)))

    def surface_samples(
        self, spacing_m: float
    ) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float32]]:
        """Evenly spread points on the faces: (n, 3) metres, their face and the area each holds.

        Every face has at least one; long thin ones are sampled by length.
        """
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))
        area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
        longest = np.sqrt(np.maximum(((b - a) ** 2).sum(1), ((c - a) ** 2).sum(1)))
        n = np.maximum(np.ceil(area / spacing_m**2), np.ceil(longest / (1.5 * spacing_m)))
        n = np.maximum(n, 1).astype(np.int64)
        face = np.repeat(np.arange(len(n)), n)
        k = np.arange(len(face)) - np.repeat(np.cumsum(n) - n, n)
        # Roberts' R2 sequence, folded into the triangle
        u, v = (0.5 + k * 0.7548776662466927) % 1, (0.5 + k * 0.5698402909980532) % 1
        fold = u + v > 1
        u, v = np.where(fold, 1 - u, u), np.where(fold, 1 - v, v)
        points = a[face] + u[:, None] * (b - a)[face] + v[:, None] * (c - a)[face]
        return points, face.astype(np.int32), (area / n)[face].astype(np.float32)


def make(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int32] | Sequence[Sequence[int]],
    name: str,
    colour: Rgb,
    finish: Finish = Finish.PLAIN,
    style: int = 0,
) -> Mesh:
    """A mesh of one class, colour, finish and style."""
    f = np.asarray(faces, np.int32)
    return Mesh(
        vertices=np.asarray(vertices, np.float64),
        faces=f,
        classes=np.full(len(f), OCC3D_NUSCENES.id_of(name), np.uint8),
        colours=np.tile(np.asarray(colour, np.float32), (len(f), 1)),
        finishes=np.full(len(f), finish, np.uint8),
        styles=np.full(len(f), style, np.uint8),
    )


def merge(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of many."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        vertices=np.concatenate([m.vertices for m in meshes]),
        faces=np.concatenate([m.faces + s for m, s in zip(meshes, starts, strict=True)]).astype(
            np.int32
        ),
        classes=np.concatenate([m.classes for m in meshes]),
        colours=np.concatenate([m.colours for m in meshes]),
        finishes=np.concatenate([m.finishes for m in meshes]),
        styles=np.concatenate([m.styles for m in meshes]),
    )


def _ring(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    t = np.arange(n) * (2 * np.pi / n)
    return np.cos(t), np.sin(t)


def prism(
    profile_xz: Sequence[tuple[float, float]],
    width: float,
    name: str,
    colour: Rgb,
    finish: Finish = Finish.PLAIN,
    *,
    top_width: float | None = None,
    style: int = 0,
) -> Mesh:
    """A convex side profile, drawn across ``width``; the upper edge may be narrower."""
    p = np.asarray(profile_xz, np.float64)
    n, z = len(p), p[:, 1]
    share = (z - z.min()) / max(float(np.ptp(z)), 1e-9)
    half = 0.5 * (width + share * ((top_width if top_width is not None else width) - width))
    left = np.stack([p[:, 0], half, z], 1)
    right = np.stack([p[:, 0], -half, z], 1)
    i = np.arange(n)
    j = (i + 1) % n
    fan = np.stack([np.zeros(n - 2), np.arange(1, n - 1), np.arange(2, n)], 1)
    faces = np.concatenate(
        [fan, fan[:, ::-1] + n, np.stack([i, j, j + n], 1), np.stack([i, j + n, i + n], 1)]
    )
    return make(np.concatenate([left, right]), faces.astype(np.int32), name, colour, finish, style)


def box(
    size: tuple[float, float, float],
    center: tuple[float, float, float],
    name: str,
    colour: Rgb,
    finish: Finish = Finish.PLAIN,
    style: int = 0,
) -> Mesh:
    """An axis-parallel box (length, width, height)."""
    x, h = size[0] / 2, size[2] / 2
    m = prism([(-x, -h), (x, -h), (x, h), (-x, h)], size[1], name, colour, finish, style=style)
    return m.at(*center)


def bar(
    a: tuple[float, float, float],
    b: tuple[float, float, float],
    width: float,
    name: str,
    colour: Rgb,
    finish: Finish = Finish.PLAIN,
) -> Mesh:
    """A square bar between two points."""
    start, way = np.asarray(a), np.subtract(b, a)
    length = float(np.linalg.norm(way))
    x = way / length
    side = np.cross(x, (0.0, 0.0, 1.0) if abs(x[2]) < 0.9 else (1.0, 0.0, 0.0))
    side /= np.linalg.norm(side)
    T = np.eye(4)
    T[:3, 0], T[:3, 1], T[:3, 2], T[:3, 3] = x, side, np.cross(x, side), start + way / 2
    return box((length, width, width), (0, 0, 0), name, colour, finish).moved(T)


def ball(
    radii: tuple[float, float, float],
    center: tuple[float, float, float],
    name: str,
    colour: Rgb,
    finish: Finish = Finish.PLAIN,
) -> Mesh:
    """A faceted ellipsoid."""
    c, s = _ring(6)
    rings = [np.stack([q * c, q * s, np.full(6, z)], 1) for q, z in ((0.8, -0.6), (0.8, 0.6))]
    v = np.concatenate([[[0, 0, -1]], *rings, [[0, 0, 1]]])
    i = np.arange(6)
    j = (i + 1) % 6
    bottom, top = np.zeros(6, int), np.full(6, 13)
    faces = np.concatenate(
        [
            np.stack([bottom, j + 1, i + 1], 1),
            np.stack([i + 1, j + 1, j + 7], 1),
            np.stack([i + 1, j + 7, i + 7], 1),
            np.stack([i + 7, j + 7, top], 1),
        ]
    )
    vertices = v * np.asarray(radii) + np.asarray(center)
    return make(vertices, faces.astype(np.int32), name, colour, finish)


def cylinder(
    radius: float,
    height: float,
    name: str,
    colour: Rgb,
    *,
    top_radius: float | None = None,
    sides: int = 8,
    finish: Finish = Finish.PLAIN,
) -> Mesh:
    """An upright cylinder or cone from z = 0 to ``height``, closed at the top."""
    c, s = _ring(sides)
    r1 = radius if top_radius is None else top_radius
    v = np.concatenate(
        [
            np.stack([radius * c, radius * s, np.zeros(sides)], 1),
            np.stack([r1 * c, r1 * s, np.full(sides, height)], 1),
            [[0, 0, height]],
        ]
    )
    i = np.arange(sides)
    j = (i + 1) % sides
    top = np.full(sides, 2 * sides)
    faces = np.concatenate(
        [
            np.stack([i, j, j + sides], 1),
            np.stack([i, j + sides, i + sides], 1),
            np.stack([i + sides, j + sides, top], 1),
        ]
    )
    return make(v, faces.astype(np.int32), name, colour, finish)


def wheel(x: float, y: float, radius: float, width: float, name: str) -> Mesh:
    """A wheel that rolls along X and stands on the ground at (x, y)."""
    c, s = _ring(8)
    profile = [(float(radius * a), float(radius * b)) for a, b in zip(c, s, strict=True)]
    tyre = prism(profile, width, name, (0.04, 0.04, 0.045))
    hub = [(0.55 * a, 0.55 * b) for a, b in profile]
    rim = prism(hub, width + 0.03, name, (0.4, 0.41, 0.42), Finish.METAL)
    return merge([tyre, rim]).at(x, y, radius)


def leaves(
    rng: np.random.Generator,
    radii: tuple[float, float, float],
    center: tuple[float, float, float],
    colour: Rgb,
    *,
    n: int,
    size: float,
) -> Mesh:
    """A crown: ``n`` leafy triangles within an ellipsoid, denser towards its surface."""
    d = rng.normal(size=(n, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    mid = d * (rng.uniform(0.35, 1.0, (n, 1)) ** 0.5) * np.asarray(radii) + np.asarray(center)
    corners = mid[:, None] + rng.normal(size=(n, 3, 3)) * (size * 0.62)
    m = make(
        corners.reshape(-1, 3), np.arange(3 * n).reshape(n, 3), "vegetation", colour, Finish.LEAVES
    )
    # the light falls from above and the inside is dark
    depth = np.linalg.norm((mid - np.asarray(center)) / np.asarray(radii), axis=1)
    shade = (0.55 + 0.45 * depth**2) * rng.uniform(0.75, 1.25, n)
    return replace(m, colours=(m.colours * shade[:, None]).astype(np.float32))
