"""What stands in the streets: houses, plants, street furniture, building sites."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from datasets.sources.synthetic import things, vehicles
from datasets.sources.synthetic.builder import SceneBuilder
from datasets.sources.synthetic.layout import LANE_M, TERRAIN
from datasets.sources.synthetic.shapes import Mesh


def add_houses(b: SceneBuilder) -> None:
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


def add_plants_and_furniture(b: SceneBuilder) -> None:
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


def add_building_site(b: SceneBuilder, ego_d: float) -> None:
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
                vehicles.excavator(rng),
                "vehicle.construction",
                s,
                d,
                yaw=float(rng.uniform(0, 6)),
                attribute="vehicle.parked",
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
