"""The pieces of a scene and how they are put in place without standing in one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datasets.geometry.transforms import Transform, from_yaw
from datasets.sources.synthetic import things
from datasets.sources.synthetic.layout import Layout
from datasets.sources.synthetic.shapes import Mesh

REACH_M = 62.0  # how far beyond the ego path the dense world reaches


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """An annotated object.

    Attributes:
        mesh: in its object frame.
        category, attribute: nuScenes names; the attribute may be empty.
        size_m: length, width, height of its box; ``center_m`` is the middle of the box in the
            object frame.
        s_m, d_m: place in road coordinates at time 0; on the crossing street for ``fixed``.
        speed_mps: along +s.
        yaw_rad: heading relative to the road.
        fixed: pose in the scene frame instead of road coordinates.
    """

    mesh: Mesh
    category: str
    attribute: str
    size_m: tuple[float, float, float]
    center_m: tuple[float, float, float]
    s_m: float
    d_m: float
    speed_mps: float
    yaw_rad: float
    fixed: Transform | None

    @property
    def moves(self) -> bool:
        return self.speed_mps != 0


def actor_poses(actors: Sequence[Actor], layout: Layout, time_s: float) -> list[Transform]:
    """Object frame to scene frame of every actor at a time."""
    if not actors:
        return []
    s = np.array([a.s_m + a.speed_mps * time_s for a in actors])
    x, y, yaw = layout.place(s, np.array([a.d_m for a in actors]))
    z = layout.height(x, y)
    yaw = yaw + np.array([a.yaw_rad for a in actors])
    return [
        from_yaw(float(yaw[i]), (x[i], y[i], z[i])) if a.fixed is None else a.fixed
        for i, a in enumerate(actors)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One scene's content. ``static`` is everything that is not an actor, in the scene frame."""

    layout: Layout
    static: Mesh
    actors: tuple[Actor, ...]
    ego_d_m: float
    ego_speed_mps: float
    ego_length_m: float


class SceneBuilder:
    """Places things without letting them stand in one another."""

    def __init__(self, rng: np.random.Generator, layout: Layout, path_m: float) -> None:
        self.rng, self.layout = rng, layout
        self.lo, self.hi = -REACH_M, path_m + REACH_M
        self.static: list[Mesh] = []
        self.actors: list[Actor] = []
        self._discs: list[tuple[float, float, float]] = []
        self._houses: list[tuple[float, float, float, float, float]] = []

    def is_free(self, x: float, y: float, radius: float) -> bool:
        for hx, hy, yaw, a, b in self._houses:
            c, s = np.cos(yaw), np.sin(yaw)
            u, v = c * (x - hx) + s * (y - hy), -s * (x - hx) + c * (y - hy)
            if abs(u) < a + radius and abs(v) < b + radius:
                return False
        return all((x - a) ** 2 + (y - b) ** 2 > (radius + r) ** 2 for a, b, r in self._discs)

    def spot(self, s: float, d: float) -> tuple[float, float, float, float, float]:
        """x, y, z, heading of the road and distance from the road's edge at road coordinates."""
        x, y, yaw = self.layout.place(np.array([s]), np.array([d]))
        z, g = self.layout.height(x, y), self.layout.ground(x, y)
        return float(x[0]), float(y[0]), float(z[0]), float(yaw[0]), float(g.edge_m[0])

    def put(
        self, mesh: Mesh, s: float, d: float, *, radius: float, yaw: float = 0.0, edge: float = 0.1
    ) -> bool:
        """Something static that is not annotated; ``edge``: the least distance from the road."""
        x, y, z, road_yaw, e = self.spot(s, d)
        if e < edge or not self.is_free(x, y, radius):
            return False
        self.static.append(mesh.at(x, y, z, road_yaw + yaw))
        self._discs.append((x, y, radius))
        return True

    def act(
        self,
        mesh: Mesh,
        category: str,
        s: float,
        d: float,
        *,
        speed: float = 0.0,
        yaw: float = 0.0,
        attribute: str = "",
        radius: float = 0.0,
        fixed: Transform | None = None,
    ) -> bool:
        """An annotated object; with a radius it must stand free of the others."""
        if radius > 0:
            x, y, *_ = self.spot(s, d) if fixed is None else (fixed[0, 3], fixed[1, 3])
            if not self.is_free(x, y, radius):
                return False
            self._discs.append((x, y, radius))
        lo, hi = mesh.vertices.min(0), mesh.vertices.max(0)
        size, mid = hi - lo, (hi + lo) / 2
        self.actors.append(
            Actor(
                mesh=mesh,
                category=category,
                attribute=attribute,
                size_m=(float(size[0]), float(size[1]), float(size[2])),
                center_m=(float(mid[0]), float(mid[1]), float(mid[2])),
                s_m=s,
                d_m=d,
                speed_mps=speed,
                yaw_rad=yaw,
                fixed=fixed,
            )
        )
        return True

    def house(
        self, x: float, y: float, yaw: float, length: float, depth: float, height: float
    ) -> bool:
        """A building whose feet keep off roads and sidewalks and other houses."""
        u, v = np.meshgrid(np.linspace(-0.5, 0.5, 5) * length, np.linspace(-0.5, 0.5, 5) * depth)
        c, s = np.cos(yaw), np.sin(yaw)
        px, py = (x + c * u - s * v).ravel(), (y + s * u + c * v).ravel()
        if self.layout.ground(px, py).edge_m.min() < self.layout.pavement_m + 0.2:
            return False
        if not all(self.is_free(float(a), float(b), 0.5) for a, b in zip(px, py, strict=True)):
            return False
        z = float(self.layout.height(px, py).min())
        self.static.append(things.building(self.rng, length, depth, height).at(x, y, z, yaw))
        self._houses.append((x, y, yaw, length / 2, depth / 2))
        return True
