"""What stands and moves in a scene: houses, plants, furniture, traffic, people, building sites."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform, from_yaw
from datasets.sources.synthetic import things
from datasets.sources.synthetic.layout import LANE_M, TERRAIN, Layout, draw_layout
from datasets.sources.synthetic.shapes import Mesh, merge

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


class _Builder:
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


def _houses(b: _Builder) -> None:
    rng, layout = b.rng, b.layout
    downtown = layout.district == "downtown"
    share = {"downtown": 0.92, "suburb": 0.7, "park": 0.12}[layout.district]
    for side in (-1, 1):
        s = b.lo - 30
        while s < b.hi + 50:
            length = float(rng.uniform(12, 26) if downtown else rng.uniform(9, 16))
            depth, height = (
                float(rng.uniform(9, 14)),
                float(rng.uniform(7, 26) if downtown else rng.uniform(4, 8)),
            )
            back = (
                float(rng.choice((0.4, 2.0, 6.0), p=(0.5, 0.3, 0.2)))
                if downtown
                else float(rng.uniform(4, 12))
            )
            d = side * (layout.half_road_m + layout.pavement_m + back + depth / 2)
            if rng.random() < share:
                x, y, _, yaw, _ = b.spot(s + length / 2, d)
                # the awning looks to the street: -Y of the house
                b.house(x, y, yaw + (0 if side > 0 else np.pi), length, depth, height)
            s += length + float(rng.uniform(0, 5) if downtown else rng.uniform(4, 12))
    if layout.has_crossing and layout.district != "park":
        yaw = np.pi / 2 - np.arctan(layout.cross_slope)
        for side in (-1, 1):
            for along in (*np.arange(30, 100, 19.0), *np.arange(-30, -100, -19.0)):
                off = side * (LANE_M + 0.5 + layout.pavement_m + 7 + float(rng.uniform(0, 4)))
                x = layout.cross_x + layout.cross_slope * along + off
                b.house(
                    x,
                    float(along),
                    yaw + (0 if side < 0 else np.pi),
                    16.0,
                    11.0,
                    float(rng.uniform(5, 18)),
                )


def _plants_and_furniture(b: _Builder) -> None:
    rng, layout = b.rng, b.layout
    kerb, walk = layout.half_road_m, layout.half_road_m + layout.pavement_m
    green = {"downtown": 0.6, "suburb": 0.9, "park": 1.0}[layout.district]
    trees = [things.tree(rng) for _ in range(5)]
    bushes = [things.bush(rng) for _ in range(4)]
    for side in (-1, 1):
        phase = float(rng.uniform(0, 8))
        for s in np.arange(b.lo + phase, b.hi, 26.0):
            b.put(
                things.lamp(rng),
                float(s),
                side * (kerb + 0.5),
                radius=0.3,
                yaw=0 if side < 0 else np.pi,
            )
        for s in np.arange(b.lo, b.hi, 8.5):
            at = float(s + rng.uniform(-1.5, 1.5))
            if rng.random() < green * 0.8:
                e = layout.verge_m / 2 if layout.verge_m > 0 else 0.9
                b.put(
                    trees[int(rng.integers(5))],
                    at,
                    side * (kerb + e),
                    radius=1.0,
                    yaw=float(rng.uniform(0, 6)),
                )
            if rng.random() < 0.12:
                b.put(
                    things.sign(rng),
                    at + 3,
                    side * (kerb + 0.4),
                    radius=0.3,
                    yaw=0 if side < 0 else np.pi,
                )
        # behind the sidewalk: hedges and fences along it, plants in the lots
        for s in np.arange(b.lo, b.hi, 7.0):
            if rng.random() < (0.12 if layout.district == "downtown" else 0.4):
                make: Callable[[np.random.Generator, float], Mesh] = (
                    things.hedge if rng.random() < 0.6 else things.fence
                )
                b.put(
                    make(rng, 6.6),
                    float(s),
                    side * (walk + 0.7),
                    radius=2.4,
                    edge=layout.pavement_m,
                )
        for s in np.arange(b.lo, b.hi, 4.0):
            for _ in range(5):
                at, e = float(s + rng.uniform(-3, 3)), float(rng.uniform(1.5, 34))
                x, y, *_ = b.spot(at, side * (walk + e))
                g = layout.ground(np.array([x]), np.array([y]))
                if g.classes[0] != TERRAIN or rng.random() > green * 0.75:
                    continue
                plant, r = (
                    (trees[int(rng.integers(5))], 1.6)
                    if rng.random() < 0.45
                    else (bushes[int(rng.integers(4))], 1.1)
                )
                b.put(
                    plant,
                    at,
                    side * (walk + e),
                    radius=r,
                    yaw=float(rng.uniform(0, 6)),
                    edge=layout.pavement_m + 0.8,
                )
        if rng.random() < 0.5:
            s = float(rng.uniform(b.lo + 20, b.hi - 20))
            b.put(
                things.bus_shelter(rng),
                s,
                side * (kerb + max(layout.pavement_m - 1.2, 1.2)),
                radius=2.2,
                yaw=0 if side > 0 else np.pi,
            )
    if layout.has_crossing:
        for side in (-1, 1):
            for way in (-1, 1):
                s = layout.cross_x + way * (LANE_M + 6.0)
                b.put(
                    things.traffic_light(rng),
                    s,
                    side * (kerb + 0.6),
                    radius=0.3,
                    yaw=0 if way < 0 else np.pi,
                )


_MOVING, _PARKED, _RIDDEN = "vehicle.moving", "vehicle.parked", "cycle.with_rider"


def _drive(b: _Builder, s: float, d: float, speed: float, yaw: float) -> float:
    """One vehicle on a lane. Returns how much road it takes."""
    rng = b.rng
    kind = rng.choice(6, p=(0.56, 0.12, 0.1, 0.09, 0.07, 0.06))
    state = _MOVING if speed else "vehicle.stopped"
    if kind == 0:
        b.act(things.car(rng), "vehicle.car", s, d, attribute=state, speed=speed, yaw=yaw)
        return 5.0
    if kind == 1:
        b.act(things.truck(rng), "vehicle.truck", s, d, attribute=state, speed=speed, yaw=yaw)
        return 9.0
    if kind == 2:
        b.act(things.bus(rng), "vehicle.bus.rigid", s, d, attribute=state, speed=speed, yaw=yaw)
        return 12.5
    if kind == 3:
        b.act(
            things.motorcycle(rng, rider=True),
            "vehicle.motorcycle",
            s,
            d,
            attribute=_RIDDEN,
            speed=speed,
            yaw=yaw,
        )
        return 3.0
    if kind == 4:
        b.act(
            things.bicycle(rng, rider=True),
            "vehicle.bicycle",
            s,
            d,
            attribute=_RIDDEN,
            speed=speed,
            yaw=yaw,
        )
        return 3.0
    way = 1 if yaw == 0 else -1
    b.act(
        things.truck(rng), "vehicle.truck", s + way * 6.0, d, attribute=state, speed=speed, yaw=yaw
    )
    b.act(
        things.trailer(rng),
        "vehicle.trailer",
        s - way * 4.5,
        d,
        attribute=state,
        speed=speed,
        yaw=yaw,
    )
    return 20.0


def _traffic(b: _Builder, ego_d: float, ego_speed: float) -> None:
    rng, layout = b.rng, b.layout
    for lane in range(layout.lanes):
        d = layout.lane_center(lane)
        own = -d == ego_d
        speed = ego_speed if own else ego_speed * float(rng.uniform(0.8, 1.15))
        for start, stop in ((14.0, b.hi), (b.lo - 20, -16.0)) if own else ((b.lo - 20, b.hi),):
            s = start + float(rng.uniform(0, 14))
            while s < stop - 6:
                taken = _drive(b, s, -d, speed, 0.0)
                s += taken + float(rng.uniform(8, 32))
        s, speed = b.lo, -float(rng.uniform(4, 10))
        while s < b.hi + 40:
            s += float(rng.uniform(6, 18))
            s += _drive(b, s, d, speed, np.pi) + float(rng.uniform(4, 16))
    if layout.parking:
        for side in (-1, 1):
            for s in np.arange(b.lo, b.hi, 6.6):
                x, y, *_ = b.spot(float(s), side * (layout.half_road_m - 1.15))
                if layout.ground(np.array([x]), np.array([y])).cross_m[0] < 7 or rng.random() > 0.5:
                    continue
                yaw = 0.0 if side < 0 else np.pi
                d = side * (layout.half_road_m - 1.1)
                if rng.random() < 0.88:
                    b.act(
                        things.car(rng),
                        "vehicle.car",
                        float(s),
                        d,
                        yaw=yaw,
                        attribute=_PARKED,
                        radius=2.2,
                    )
                else:
                    b.act(
                        things.motorcycle(rng, rider=False),
                        "vehicle.motorcycle",
                        float(s),
                        d,
                        yaw=yaw + 0.8,
                        attribute="cycle.without_rider",
                    )
    if layout.has_crossing:
        # traffic that waits at the lines of the crossing street
        slope = np.arctan(layout.cross_slope)
        for way in (-1, 1):
            back = layout.half_road_m + 7.5
            for _ in range(int(rng.integers(0, 4))):
                along, off = -way * back, way * LANE_M / 2
                x = layout.cross_x + layout.cross_slope * along + off
                z = float(layout.height(np.array([x]), np.array([along]))[0])
                pose = from_yaw(way * np.pi / 2 - slope, (float(x), float(along), z))
                what = rng.random()
                if what < 0.7:
                    b.act(
                        things.car(rng),
                        "vehicle.car",
                        0,
                        0,
                        attribute="vehicle.stopped",
                        fixed=pose,
                    )
                elif what < 0.85:
                    b.act(
                        things.motorcycle(rng, rider=True),
                        "vehicle.motorcycle",
                        0,
                        0,
                        attribute=_RIDDEN,
                        fixed=pose,
                    )
                else:
                    b.act(
                        things.truck(rng),
                        "vehicle.truck",
                        0,
                        0,
                        attribute="vehicle.stopped",
                        fixed=pose,
                    )
                back += 9.5


def _people(b: _Builder) -> None:
    rng, layout = b.rng, b.layout
    inner = layout.half_road_m + layout.verge_m
    for _ in range(int(rng.integers(16, 46))):
        side = int(rng.choice((-1, 1)))
        s, d = (
            float(rng.uniform(b.lo, b.hi)),
            side * (inner + float(rng.uniform(0.6, layout.walk_m - 0.4))),
        )
        if layout.has_crossing and b.spot(s, d)[4] < 0.3:
            continue
        speed = float(rng.choice((-1, 1)) * rng.uniform(0.8, 1.6)) if rng.random() < 0.6 else 0.0
        yaw = (0.0 if speed > 0 else np.pi) if speed else float(rng.uniform(0, 6.28))
        state = "pedestrian.moving" if speed else "pedestrian.standing"
        b.act(
            things.pedestrian(rng),
            "human.pedestrian.adult",
            s,
            d,
            speed=speed,
            yaw=yaw,
            attribute=state,
            radius=0 if speed else 0.4,
        )
    for _ in range(int(rng.integers(2, 6))):
        side, s = int(rng.choice((-1, 1))), float(rng.uniform(b.lo, b.hi))
        b.act(
            things.bicycle(rng, rider=True),
            "vehicle.bicycle",
            s,
            side * (layout.half_road_m - (2.6 if layout.parking else 0.7)),
            speed=-side * float(rng.uniform(3, 5)),
            yaw=0 if side < 0 else np.pi,
            attribute=_RIDDEN,
        )
    for _ in range(int(rng.integers(3, 9))):
        side, s = int(rng.choice((-1, 1))), float(rng.uniform(b.lo, b.hi))
        d = side * (inner + float(rng.uniform(0.5, 1.0)))
        if b.spot(s, d)[4] < 0.3:
            continue
        if rng.random() < 0.6:
            b.act(
                things.bicycle(rng, rider=False),
                "vehicle.bicycle",
                s,
                d,
                yaw=float(rng.uniform(0, 6)),
                attribute="cycle.without_rider",
                radius=0.8,
            )
        else:
            b.act(
                things.motorcycle(rng, rider=False),
                "vehicle.motorcycle",
                s,
                d,
                yaw=float(rng.uniform(0, 6)),
                attribute="cycle.without_rider",
                radius=0.9,
            )
    for _ in range(int(rng.integers(14, 26))):
        side, s = int(rng.choice((-1, 1))), float(rng.uniform(b.lo, b.hi))
        d = side * (inner + float(rng.uniform(0.4, layout.walk_m)))
        if b.spot(s, d)[4] > 0.2:
            mesh, category = things.clutter(rng)
            b.act(mesh, category, s, d, yaw=float(rng.uniform(0, 6)), radius=0.7)


def _building_site(b: _Builder, ego_d: float) -> None:
    """Barriers and cones along a closed strip of the road's edge or of the lot beside it."""
    rng, layout = b.rng, b.layout
    for _ in range(int(rng.integers(1, 3))):
        side = int(rng.choice((-1, 1)))
        s0, n = float(rng.uniform(b.lo + 40, b.hi - 70)), int(rng.integers(5, 13))
        d = side * (layout.half_road_m + float(rng.choice((-0.5, 0.9, layout.pavement_m + 0.8))))
        for i in range(n):
            b.act(
                things.barrier(rng),
                "movable_object.barrier",
                s0 + 2.05 * i,
                d,
                radius=0.35,
            )
    for _ in range(int(rng.integers(2, 5))):
        side = int(rng.choice((-1, 1)))
        s0, n = float(rng.uniform(b.lo + 35, b.hi - 60)), int(rng.integers(4, 10))
        d, gap = layout.half_road_m - float(rng.uniform(0.2, 0.9)), float(rng.uniform(1.6, 3.0))
        for i in range(n):
            b.act(
                things.cone(rng),
                "movable_object.trafficcone",
                s0 + gap * i,
                side * (d - 0.05 * i),
                radius=0.25,
            )
    for _ in range(int(rng.choice((0, 1, 2), p=(0.2, 0.5, 0.3)))):
        side, s = int(rng.choice((-1, 1))), float(rng.uniform(0, b.hi - 45))
        for e in (3.0, 6.0, 9.0):
            d = side * (layout.half_road_m + layout.pavement_m + e)
            if b.spot(s, d)[4] > layout.pavement_m and b.act(
                things.excavator(rng),
                "vehicle.construction",
                s,
                d,
                yaw=float(rng.uniform(0, 6)),
                attribute=_PARKED,
                radius=3.2,
            ):
                for k in range(2):
                    b.act(
                        things.worker(rng),
                        "human.pedestrian.construction_worker",
                        s + 4 + k,
                        d,
                        yaw=float(rng.uniform(0, 6)),
                        attribute="pedestrian.standing",
                        radius=0.4,
                    )
                break


def draw_world(rng: np.random.Generator, duration_s: float) -> World:
    """A scene at random, long enough for a drive of ``duration_s``."""
    layout = draw_layout(rng)
    speed = float(rng.uniform(3.5, 8.5))
    ego_d = -layout.lane_center(int(rng.integers(layout.lanes)))
    length = speed * duration_s
    b = _Builder(rng, layout, length)
    _houses(b)
    _building_site(b, ego_d)
    _plants_and_furniture(b)
    _people(b)
    _traffic(b, ego_d, speed)
    return World(
        layout=layout,
        static=merge(b.static),
        actors=tuple(b.actors),
        ego_d_m=ego_d,
        ego_speed_mps=speed,
        ego_length_m=length,
    )


def ego_pose(world: World, time_s: float) -> Transform:
    """Ego (rear axle on the ground) to scene: along its lane, tilted as the road is."""
    s = np.array([world.ego_speed_mps * time_s])
    x, y, yaw = world.layout.place(s, np.array([world.ego_d_m]))
    c, n = np.cos(yaw), np.sin(yaw)
    step = 1.4
    fx, fy = (
        np.concatenate([x + step * c, x - step * c]),
        np.concatenate([y + step * n, y - step * n]),
    )
    lx, ly = np.concatenate([x - n, x + n]), np.concatenate([y + c, y - c])
    front, left = world.layout.height(fx, fy), world.layout.height(lx, ly)
    forward = np.array([c[0], n[0], (front[0] - front[1]) / (2 * step)])
    forward /= np.linalg.norm(forward)
    leftward: NDArray[np.float64] = np.array([-n[0], c[0], (left[0] - left[1]) / 2])
    up = np.cross(forward, leftward)
    up /= np.linalg.norm(up)
    T = np.eye(4)
    T[:3, 0], T[:3, 1], T[:3, 2] = forward, np.cross(up, forward), up
    T[:3, 3] = x[0], y[0], world.layout.height(x, y)[0]
    return T
