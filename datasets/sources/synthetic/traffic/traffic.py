"""What moves or may move: vehicles on the lanes, at the kerb and on lots; people; clutter."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.objects import cars, people, vehicles
from datasets.sources.synthetic.objects import roadworks as works
from datasets.sources.synthetic.world.builder import SceneBuilder
from datasets.sources.synthetic.world.curves import Curve
from datasets.sources.synthetic.world.layout import LOT_M, ROAD, Street
from datasets.sources.synthetic.world.streets import lot_class

_MOVING, _STOPPED, _PARKED = "vehicle.moving", "vehicle.stopped", "vehicle.parked"
_RIDDEN, _UNRIDDEN = "cycle.with_rider", "cycle.without_rider"


class Traffic:
    """Puts vehicles on lanes.

    Args:
        lit: headlights are on.
    """

    def __init__(self, b: SceneBuilder, *, lit: bool) -> None:
        self.b, self.rng, self.lit = b, b.rng, lit

    def vehicle(
        self, line: Curve, s: float, d: float, way: int, speed: float, accel: float
    ) -> float:
        """One vehicle whose front is at s, looking along ``way``. Returns its length."""
        b, rng, lit = self.b, self.rng, self.lit
        heavy = b.layout.district.trucks
        kinds = ("car", "truck", "bus", "motorcycle", "bicycle", "combination")
        shares = np.array([1.0 - heavy, 0.45 * heavy, 0.2 * heavy, 0.05, 0.025, 0.25 * heavy])
        kind = kinds[int(rng.choice(6, p=shares / shares.sum()))]
        state = _MOVING if speed else _STOPPED
        rows = []
        if kind == "car":
            rows.append((cars.car(rng, lit=lit), "vehicle.car", state))
        elif kind == "truck":
            rows.append((vehicles.truck(rng, lit=lit), "vehicle.truck", state))
        elif kind == "bus":
            rows.append((vehicles.bus(rng, lit=lit), "vehicle.bus.rigid", state))
        elif kind == "motorcycle":
            mesh = cars.motorcycle(rng, rider=True, lit=lit)
            rows.append((mesh, "vehicle.motorcycle", _RIDDEN))
        elif kind == "bicycle":
            rows.append((cars.bicycle(rng, rider=True), "vehicle.bicycle", _RIDDEN))
        else:
            rows.append((vehicles.tractor(rng, lit=lit), "vehicle.truck", state))
            rows.append((vehicles.trailer(rng), "vehicle.trailer", state))
        position_s = s
        for mesh, category, attribute in rows:
            long = float(np.ptp(mesh.vertices[:, 0]))
            middle = position_s - way * (long / 2)
            b.act(
                mesh,
                category,
                line,
                middle,
                d + float(rng.normal(0, 0.12)),
                speed=way * speed,
                accel=way * accel,
                yaw=0.0 if way > 0 else np.pi,
                attribute=attribute,
            )
            position_s -= way * (long - 1.2)  # a trailer rests on its tractor
        return abs(s - position_s) + 1.2

    def stream(
        self,
        line: Curve,
        d: float,
        way: int,
        speed: float,
        lo: float,
        hi: float,
        *,
        accel: float = 0.0,
        gap_m: tuple[float, float],
    ) -> None:
        """Vehicles that all drive alike, from lo to hi; none beyond."""
        rng = self.rng
        front = (
            hi - float(rng.uniform(0, gap_m[1]))
            if way > 0
            else lo + float(rng.uniform(0, gap_m[1]))
        )
        while lo + 6 < front < hi + 1 if way > 0 else lo - 1 < front < hi - 6:
            length_m = self.vehicle(line, front, d, way, speed, accel)
            front -= way * (length_m + float(rng.uniform(*gap_m)))

    def queue(self, street: Street, join: float, lane: int, way: int, n: int) -> None:
        """Vehicles that wait before a junction at ``join``."""
        front = join - way * 12.5
        d = self.b.layout.lane_d(street, lane, way)
        for _ in range(n):
            if street.ends and front < 8:
                break
            length_m = self.vehicle(street.curve, front, d, way, 0.0, 0.0)
            front -= way * (length_m + float(self.rng.uniform(1.0, 3.0)))


def add_traffic(b: SceneBuilder, speed: float, accel: float, *, lit: bool) -> None:
    """Vehicles on all streets: on the main street they drive, on the others they wait or leave."""
    rng, layout, main = b.rng, b.layout, b.layout.main
    traffic, busy = Traffic(b, lit=lit), layout.district.traffic
    lo, hi = b.spans[0]
    gaps = (3 / busy, 16 / busy)
    route, d = layout.route, layout.route_d_m
    end_s = b.path_m + 60.0
    leader, follower = (float(rng.choice((17.0, 45.0))) for _ in range(2))
    traffic.stream(route, d, 1, speed, leader, end_s, accel=accel, gap_m=gaps)
    traffic.stream(route, d, 1, speed, -60, 3 - follower, accel=accel, gap_m=gaps)
    if layout.turns:
        join = main.joins_m[0]
        for lane in range(main.lanes):
            if abs(layout.lane_d(main, lane, 1) - _start_d(b)) > 0.5:
                traffic.queue(main, join, lane, 1, int(rng.integers(0, 4)))
            traffic.queue(main, join, lane, -1, int(rng.integers(0, 4)))
    else:
        for lane in range(main.lanes):
            if abs(layout.lane_d(main, lane, 1) - d) > 0.5:
                own = speed * float(rng.uniform(0.75, 1.15))
                traffic.stream(main.curve, layout.lane_d(main, lane, 1), 1, own, lo, hi, gap_m=gaps)
            other = float(rng.uniform(4, 10))
            far = hi + min(other * b.duration_s, 150.0)
            against = layout.lane_d(main, lane, -1)
            traffic.stream(main.curve, against, -1, other, lo, far, gap_m=gaps)
    for number, street in enumerate(layout.streets[1:], 1):
        for lane in range(street.lanes):
            ways = (-1,) if street.ends else (-1, 1)
            for way in ways:
                traffic.queue(street, 0.0, lane, way, int(rng.integers(0, 4)))
            if not layout.turns:
                distance_m = float(rng.uniform(3, 7))
                leave = layout.lane_d(street, lane, 1)
                traffic.stream(
                    street.curve, leave, 1, distance_m, 16, b.spans[number][1], gap_m=gaps
                )
    for number, street in enumerate(layout.streets):
        if street.parking:
            _park_at_kerb(b, number, street)
        _park_on_lots(b, number, street)


def _start_d(b: SceneBuilder) -> float:
    """The ego vehicle's d on the main street when it sets off, before it turns."""
    return float(b.layout.route.segments[0, 1])


def _park(
    b: SceneBuilder, line: Curve, s: float, d: float, yaw: float, edge: float = -np.inf
) -> None:
    """One parked vehicle."""
    rng = b.rng
    heavy = 0.5 * b.layout.district.trucks
    draw = rng.random()
    if draw < heavy:
        if rng.random() < 0.7:
            mesh, category, r = vehicles.truck(rng, lit=False), "vehicle.truck", 3.2
        else:
            mesh, category, r = vehicles.trailer(rng), "vehicle.trailer", 4.0
        b.act(mesh, category, line, s, d, yaw=yaw, attribute=_PARKED, radius=r, edge=edge)
    elif draw < 0.96:
        mesh = cars.car(rng, lit=False)
        b.act(mesh, "vehicle.car", line, s, d, yaw=yaw, attribute=_PARKED, radius=1.25, edge=edge)
    else:
        mesh = cars.motorcycle(rng, rider=False)
        turn = yaw + 0.8
        b.act(mesh, "vehicle.motorcycle", line, s, d, yaw=turn, attribute=_UNRIDDEN, radius=0.9)


def _park_at_kerb(b: SceneBuilder, number: int, street: Street) -> None:
    rng, layout, line = b.rng, b.layout, street.curve
    lo, hi = b.spans[number]
    for side in (-1, 1):
        share = float(rng.uniform(0.2, 0.85))
        s = np.arange(lo, hi, 6.0) + rng.uniform(-0.4, 0.4, len(np.arange(lo, hi, 6.0)))
        d = side * (street.half_m - 1.15)
        g = layout.ground(*line.place(s, np.full_like(s, d))[:2])
        for bay_s in s[(g.cross_m > 8) & (rng.random(len(s)) < share)]:
            yaw = 0.0 if (side < 0) == (layout.hand > 0) else np.pi
            _park(
                b,
                line,
                float(bay_s),
                d + float(rng.normal(0, 0.08)),
                yaw + float(rng.normal(0, 0.03)),
            )


def _park_on_lots(b: SceneBuilder, number: int, street: Street) -> None:
    """Rows of parked vehicles on the paved lots behind the sidewalk."""
    rng, layout, line = b.rng, b.layout, street.curve
    lo, hi = b.spans[number]
    edge = layout.pavement_m + 2.4
    for side in (-1, 1):
        for first in np.arange(np.floor(lo / LOT_M) * LOT_M, hi, LOT_M):
            if lot_class(b, number, side, float(first) + 1) != ROAD or rng.random() < 0.05:
                continue
            share = float(rng.uniform(0.5, 1.0))
            for row in (8.0, 13.5, 20.5, 26.0):
                d = side * (street.half_m + layout.pavement_m + row)
                for s in np.arange(first + 1.5, first + LOT_M - 1, 2.9):
                    if lo < s < hi and rng.random() < share:
                        turn = float(rng.choice((-1, 1)) * np.pi / 2 + rng.normal(0, 0.04))
                        _park(b, line, float(s), d + float(rng.normal(0, 0.15)), turn, edge)


def add_people(b: SceneBuilder, *, rain: bool) -> None:
    """On the sidewalks, in crowds at the corners, on the crossings of the side streets."""
    rng, layout = b.rng, b.layout

    def person(line: Curve, s: float, d: float, speed: float = 0.0, drift: float = 0.0) -> None:
        yaw = float(rng.uniform(0, 6.28))
        if speed or drift:
            yaw = float(np.arctan2(drift, speed))
        b.act(
            people.pedestrian(rng, umbrella=rain and rng.random() < 0.6),
            "human.pedestrian.adult",
            line,
            s,
            d,
            speed=speed,
            drift=drift,
            yaw=yaw,
            attribute="pedestrian.moving" if speed or drift else "pedestrian.standing",
            radius=0 if speed or drift else 0.35,
            edge=-np.inf if drift else 0.2,
        )

    for number, street in enumerate(layout.streets):
        lo, hi = b.spans[number]
        inner = street.half_m + layout.verge_m
        n = int(rng.integers(*layout.district.people) * (hi - lo) / 250)
        for _ in range(n):
            side, s = int(rng.choice((-1, 1))), float(rng.uniform(lo, hi))
            d = side * (inner + float(rng.uniform(0.4, max(layout.walk_m - 0.4, 0.6))))
            pace = float(rng.choice((-1, 1)) * rng.uniform(0.8, 1.7))
            company = 1 + int(rng.random() < 0.3) + int(rng.random() < 0.1)
            walks = rng.random() < 0.65
            for i in range(company):
                person(street.curve, s + 0.2 * i, d + 0.6 * side * i, pace if walks else 0.0)
        for join in street.joins_m:  # a crowd waits at a corner
            side, way = int(rng.choice((-1, 1))), int(rng.choice((-1, 1)))
            for _ in range(int(rng.integers(0, 8))):
                s = join + way * float(rng.uniform(7, 13))
                person(street.curve, s, side * (street.half_m + float(rng.uniform(0.4, 2.6))))
        if number > 0 and not layout.turns and rng.random() < 0.7:  # and some cross the side street
            way = 1 if street.ends else int(rng.choice((-1, 1)))
            for _ in range(int(rng.integers(1, 7))):
                s = way * (layout.main.half_m + float(rng.uniform(1.4, 4.2)))
                pace = float(rng.choice((-1, 1)) * rng.uniform(0.8, 1.6))
                person(street.curve, s, float(rng.uniform(-4, 4)), drift=pace)
        _cycles_and_clutter(b, number, street)


def _cycles_and_clutter(b: SceneBuilder, number: int, street: Street) -> None:
    rng, layout, line = b.rng, b.layout, street.curve
    lo, hi = b.spans[number]
    inner = street.half_m + layout.verge_m
    share = (hi - lo) / 130
    for _ in range(int(rng.poisson(0.5 * share))):
        side, s = int(rng.choice((-1, 1))), float(rng.uniform(lo, hi))
        way = -side * layout.hand
        b.act(
            cars.bicycle(rng, rider=True),
            "vehicle.bicycle",
            line,
            s,
            side * (street.half_m - (2.6 if street.parking else 0.5)),
            speed=way * float(rng.uniform(3, 5)),
            yaw=0 if way > 0 else np.pi,
            attribute=_RIDDEN,
        )
    for _ in range(int(rng.poisson(1.2 * share))):
        side, s = int(rng.choice((-1, 1))), float(rng.uniform(lo, hi))
        d = side * (inner + float(rng.uniform(0.5, 1.0)))
        bike = rng.random() < 0.6
        mesh = cars.bicycle(rng, rider=False) if bike else cars.motorcycle(rng, rider=False)
        category = "vehicle.bicycle" if bike else "vehicle.motorcycle"
        turn = float(rng.uniform(0, 6))
        b.act(mesh, category, line, s, d, yaw=turn, attribute=_UNRIDDEN, radius=0.8, edge=0.3)
    for _ in range(int(rng.poisson(10 * share))):
        side, s = int(rng.choice((-1, 1))), float(rng.uniform(lo, hi))
        d = side * (inner + float(rng.uniform(0.4, layout.walk_m)))
        mesh, category = works.clutter(rng)
        b.act(mesh, category, line, s, d, yaw=float(rng.uniform(0, 6)), radius=0.7, edge=0.2)
