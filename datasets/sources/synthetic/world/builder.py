"""The pieces of a scene and how they are put in place without standing in one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform, apply, from_yaw
from datasets.sources.synthetic.objects.shapes import Mesh
from datasets.sources.synthetic.world.curves import Curve
from datasets.sources.synthetic.world.layout import Layout, Street

REACH_M = 62.0  # how far beyond the ego path the dense world reaches
_MOMENT_S = 0.01
_HALF_EGO_M = 1.25
Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """An annotated object.

    Attributes:
        mesh: in its object frame.
        category, attribute: nuScenes names; the attribute may be empty.
        size_m: length, width, height of its box; ``center_m`` is the middle of the box in the
            object frame.
        curve: what it is placed on.
        s_m, d_m: place on the curve at time 0.
        speed_mps, accel_mps2: along +s.
        drift_mps: along +d.
        yaw_rad: heading relative to the curve.
    """

    mesh: Mesh
    category: str
    attribute: str
    size_m: Vector
    center_m: Vector
    curve: Curve
    s_m: float
    d_m: float
    speed_mps: float
    accel_mps2: float
    drift_mps: float
    yaw_rad: float

    @property
    def moves(self) -> bool:
        return self.speed_mps != 0 or self.drift_mps != 0


def actor_poses(actors: Sequence[Actor], layout: Layout, time_s: float) -> list[Transform]:
    """Object frame to scene frame of every actor at a time."""
    if not actors:
        return []
    t = time_s
    s = np.array([a.s_m + a.speed_mps * t + 0.5 * a.accel_mps2 * t * t for a in actors])
    d = np.array([a.d_m + a.drift_mps * t for a in actors])
    turn = np.array([a.yaw_rad for a in actors])
    x, y, yaw = np.empty(len(s)), np.empty(len(s)), np.empty(len(s))
    keys = np.array([id(a.curve) for a in actors])
    for key in dict.fromkeys(keys.tolist()):
        of_key = np.flatnonzero(keys == key)
        x[of_key], y[of_key], yaw[of_key] = actors[of_key[0]].curve.place(s[of_key], d[of_key])
    z = layout.height(x, y)
    yaw = yaw + turn
    return [from_yaw(float(yaw[i]), (x[i], y[i], z[i])) for i in range(len(s))]


def velocities(actors: Sequence[Actor], layout: Layout, time_s: float) -> NDArray[np.float64]:
    """(n, 3) m/s over the ground of the middles of the actors' boxes, scene frame."""
    before, after = (
        np.array(
            [
                apply(T, np.asarray(a.center_m))
                for a, T in zip(actors, actor_poses(actors, layout, moment_s), strict=True)
            ]
        ).reshape(-1, 3)
        for moment_s in (time_s - _MOMENT_S, time_s + _MOMENT_S)
    )
    return np.asarray((after - before) / (2 * _MOMENT_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One scene's content. ``static`` is everything that is not an actor, in the scene frame.

    The ego vehicle drives along the layout's route from ``s`` = 0 on. ``lamps_m``: (n, 3) where
    the street lamps shine.
    """

    layout: Layout
    static: Mesh
    actors: tuple[Actor, ...]
    lamps_m: NDArray[np.float64]
    ego_speed_mps: float
    ego_accel_mps2: float
    ego_length_m: float

    def ego_s(self, time_s: float) -> float:
        """How far along the route the ego vehicle is."""
        return self.ego_speed_mps * time_s + 0.5 * self.ego_accel_mps2 * time_s**2


class SceneBuilder:
    """Places things without letting them stand in one another.

    Attributes:
        spans: for each street the stretch of ``s`` within ``REACH_M`` of the ego path.
    """

    def __init__(
        self, rng: np.random.Generator, layout: Layout, path_m: float, duration_s: float
    ) -> None:
        self.rng, self.layout, self.duration_s = rng, layout, duration_s
        self.path_m = path_m
        self.static: list[Mesh] = []
        self.actors: list[Actor] = []
        self.lamps: list[tuple[float, float, float]] = []
        self._discs = np.empty((0, 3))
        self._n_discs = 0
        self._houses: list[tuple[float, float, float, float, float]] = []
        self._path = np.stack(
            layout.route.place(np.linspace(0, path_m, 25), np.full(25, layout.route_d_m))[:2], 1
        )
        s = np.arange(-6.0, path_m + 14, 1.0)
        self._lane = np.stack(layout.route.place(s, np.full_like(s, layout.route_d_m))[:2], 1)
        self.spans = tuple(self._span(street) for street in layout.streets)

    def _span(self, street: Street) -> tuple[float, float]:
        begin = 0.0 if street.ends else -280.0
        s = np.arange(begin, 360.0, 2.0)
        points = np.stack(street.curve.place(s, np.zeros_like(s))[:2], 1)
        gap = np.linalg.norm(points[:, None] - self._path, axis=-1).min(axis=1)
        near = s[gap < REACH_M + 4]
        return (float(near[0]), float(near[-1])) if len(near) else (0.0, 0.0)

    def is_free(self, x: float, y: float, radius: float) -> bool:
        """Whether a disc meets nothing that stands and leaves the ego vehicle its way."""
        gap = ((self._lane - (x, y)) ** 2).sum(axis=1)
        if gap.min() < (radius + _HALF_EGO_M) ** 2:
            return False
        if self._houses:
            hx, hy, yaw, a, b = np.array(self._houses).T
            c, s = np.cos(yaw), np.sin(yaw)
            u, v = c * (x - hx) + s * (y - hy), -s * (x - hx) + c * (y - hy)
            if ((np.abs(u) < a + radius) & (np.abs(v) < b + radius)).any():
                return False
        discs = self._discs[: self._n_discs]
        gap = (x - discs[:, 0]) ** 2 + (y - discs[:, 1]) ** 2
        return bool((gap > (radius + discs[:, 2]) ** 2).all())

    def occupy(self, x: float, y: float, radius: float) -> None:
        if self._n_discs == len(self._discs):
            self._discs = np.concatenate([self._discs, np.empty((len(self._discs) + 256, 3))])
        self._discs[self._n_discs] = x, y, radius
        self._n_discs += 1

    def blocks_another(self, curve: Curve, s: float, d: float) -> bool:
        """Whether a place at the edge of one street is on the road of another."""
        x, y, _ = curve.place(np.array([s]), np.array([d]))
        return bool(self.layout.ground(x, y).cross_m[0] < 0.8)

    def spot(self, curve: Curve, s: float, d: float) -> tuple[float, float, float, float, float]:
        """x, y, z, heading of the curve and distance from the road's edge."""
        x, y, yaw = curve.place(np.array([s]), np.array([d]))
        z, g = self.layout.height(x, y), self.layout.ground(x, y)
        return float(x[0]), float(y[0]), float(z[0]), float(yaw[0]), float(g.edge_m[0])

    def put(
        self,
        mesh: Mesh,
        curve: Curve,
        s: float,
        d: float,
        *,
        radius: float,
        yaw: float = 0.0,
        edge: float = 0.1,
    ) -> Transform | None:
        """Something static that is not annotated; ``edge``: the least distance from the road.

        Returns its pose, or None where it does not fit.
        """
        x, y, z, road_yaw, e = self.spot(curve, s, d)
        if e < edge or not self.is_free(x, y, radius):
            return None
        pose = from_yaw(road_yaw + yaw, (x, y, z))
        self.static.append(mesh.moved(pose))
        self.occupy(x, y, radius)
        return pose

    def act(
        self,
        mesh: Mesh,
        category: str,
        curve: Curve,
        s: float,
        d: float,
        *,
        speed: float = 0.0,
        accel: float = 0.0,
        drift: float = 0.0,
        yaw: float = 0.0,
        attribute: str = "",
        radius: float = 0.0,
        edge: float = -np.inf,
    ) -> bool:
        """An annotated object; with a radius it must stand free of the others."""
        if radius > 0 or np.isfinite(edge):
            x, y, _, _, e = self.spot(curve, s, d)
            if e < edge or not self.is_free(x, y, radius):
                return False
            self.occupy(x, y, radius)
        lo, hi = mesh.vertices.min(0), mesh.vertices.max(0)
        size, mid = hi - lo, (hi + lo) / 2
        self.actors.append(
            Actor(
                mesh=mesh,
                category=category,
                attribute=attribute,
                size_m=(float(size[0]), float(size[1]), float(size[2])),
                center_m=(float(mid[0]), float(mid[1]), float(mid[2])),
                curve=curve,
                s_m=s,
                d_m=d,
                speed_mps=speed,
                accel_mps2=accel,
                drift_mps=drift,
                yaw_rad=yaw,
            )
        )
        return True

    def house(
        self, mesh: Mesh, x: float, y: float, yaw: float, length: float, depth: float
    ) -> bool:
        """A building whose feet keep off roads and sidewalks and other houses."""
        u, v = np.meshgrid(np.linspace(-0.5, 0.5, 5) * length, np.linspace(-0.5, 0.5, 5) * depth)
        c, s = np.cos(yaw), np.sin(yaw)
        px, py = (x + c * u - s * v).ravel(), (y + s * u + c * v).ravel()
        if self.layout.ground(px, py).edge_m.min() < self.layout.pavement_m + 0.2:
            return False
        if not all(self.is_free(float(a), float(b), 0.2) for a, b in zip(px, py, strict=True)):
            return False
        z = float(self.layout.height(px, py).min())
        self.static.append(mesh.at(x, y, z, yaw))
        self.reserve(x, y, yaw, length / 2, depth / 2)
        return True

    def reserve(self, x: float, y: float, yaw: float, half_x: float, half_y: float) -> None:
        """Keep a rectangle free of everything that is placed later."""
        self._houses.append((x, y, yaw, half_x, half_y))
