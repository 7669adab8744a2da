"""What moves or may move: vehicles on the lanes and at the kerb, people, what they leave about."""

from __future__ import annotations

import numpy as np

from datasets.geometry.transforms import from_yaw
from datasets.sources.synthetic import things, vehicles
from datasets.sources.synthetic.builder import SceneBuilder
from datasets.sources.synthetic.layout import LANE_M

_MOVING, _PARKED, _RIDDEN = "vehicle.moving", "vehicle.parked", "cycle.with_rider"


def _drive(b: SceneBuilder, s: float, d: float, speed: float, yaw: float) -> float:
    """One vehicle on a lane. Returns how much road it takes."""
    rng = b.rng
    kind = rng.choice(6, p=(0.56, 0.12, 0.1, 0.09, 0.07, 0.06))
    state = _MOVING if speed else "vehicle.stopped"
    if kind == 0:
        b.act(vehicles.car(rng), "vehicle.car", s, d, attribute=state, speed=speed, yaw=yaw)
        return 5.0
    if kind == 1:
        b.act(vehicles.truck(rng), "vehicle.truck", s, d, attribute=state, speed=speed, yaw=yaw)
        return 9.0
    if kind == 2:
        b.act(vehicles.bus(rng), "vehicle.bus.rigid", s, d, attribute=state, speed=speed, yaw=yaw)
        return 12.5
    if kind == 3:
        b.act(
            vehicles.motorcycle(rng, rider=True),
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
            vehicles.bicycle(rng, rider=True),
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
        vehicles.truck(rng),
        "vehicle.truck",
        s + way * 6.0,
        d,
        attribute=state,
        speed=speed,
        yaw=yaw,
    )
    b.act(
        vehicles.trailer(rng),
        "vehicle.trailer",
        s - way * 4.5,
        d,
        attribute=state,
        speed=speed,
        yaw=yaw,
    )
    return 20.0


def add_traffic(b: SceneBuilder, ego_d: float, ego_speed: float) -> None:
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
                        vehicles.car(rng),
                        "vehicle.car",
                        float(s),
                        d,
                        yaw=yaw,
                        attribute=_PARKED,
                        radius=2.2,
                    )
                else:
                    b.act(
                        vehicles.motorcycle(rng, rider=False),
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
                        vehicles.car(rng),
                        "vehicle.car",
                        0,
                        0,
                        attribute="vehicle.stopped",
                        fixed=pose,
                    )
                elif what < 0.85:
                    b.act(
                        vehicles.motorcycle(rng, rider=True),
                        "vehicle.motorcycle",
                        0,
                        0,
                        attribute=_RIDDEN,
                        fixed=pose,
                    )
                else:
                    b.act(
                        vehicles.truck(rng),
                        "vehicle.truck",
                        0,
                        0,
                        attribute="vehicle.stopped",
                        fixed=pose,
                    )
                back += 9.5


def add_people(b: SceneBuilder) -> None:
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
            vehicles.bicycle(rng, rider=True),
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
                vehicles.bicycle(rng, rider=False),
                "vehicle.bicycle",
                s,
                d,
                yaw=float(rng.uniform(0, 6)),
                attribute="cycle.without_rider",
                radius=0.8,
            )
        else:
            b.act(
                vehicles.motorcycle(rng, rider=False),
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
