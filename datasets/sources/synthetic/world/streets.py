"""What stands in the streets: houses, plants, street furniture, building sites."""

from __future__ import annotations

import numpy as np

from datasets.geometry.transforms import apply
from datasets.sources.synthetic.objects import buildings, furniture, people, plants, vehicles
from datasets.sources.synthetic.objects import roadworks as works
from datasets.sources.synthetic.objects.shapes import Mesh
from datasets.sources.synthetic.world.builder import SceneBuilder
from datasets.sources.synthetic.world.layout import LOT_M, N_LOTS, ROAD, TERRAIN, Street


def lot_class(b: SceneBuilder, number: int, side: int, s: float) -> int:
    """Class of the ground behind the sidewalk of a street."""
    return int(b.layout.lots[number, int(side > 0), int(np.floor(s / LOT_M)) % N_LOTS])


def add_houses(b: SceneBuilder) -> None:
    """Rows of houses along every street, the main street first."""
    rng, layout, district = b.rng, b.layout, b.layout.district
    make = buildings.MAKERS[district.house]
    for number, (street, (lo, hi)) in enumerate(zip(layout.streets, b.spans, strict=True)):
        for side in (-1, 1):
            s = lo - 35 + float(rng.uniform(0, 10))
            common = float(rng.uniform(*district.height_m))
            while s < hi + 45:
                length = float(rng.uniform(*district.length_m))
                depth = float(rng.uniform(0.55, 0.9)) * min(length, 18) + 3
                height = 0.5 * common + 0.5 * float(rng.uniform(*district.height_m))
                back = float(rng.uniform(*district.setback_m))
                d = side * (street.half_m + layout.pavement_m + back + depth / 2)
                open_lot = lot_class(b, number, side, s + length / 2) == ROAD
                if rng.random() < district.built * (0.35 if open_lot else 1.0):
                    x, y, _, yaw, _ = b.spot(street.curve, s + length / 2, d)
                    # the front looks to the street: -Y of the house
                    turn = 0.0 if side > 0 else np.pi
                    b.house(make(rng, length, depth, height), x, y, yaw + turn, length, depth)
                s += length + float(rng.uniform(*district.gap_m))


def add_bridges(b: SceneBuilder) -> None:
    """A road or a footbridge over the main street; nothing else stands below its deck."""
    rng, layout, street = b.rng, b.layout, b.layout.main
    if rng.random() > layout.district.bridges:
        return
    places = [s for s in rng.uniform(-28, b.path_m + 42, 4) if _clear_of(street, float(s))]
    if not places:
        return
    s = float(places[0])
    span = 2 * (street.half_m + layout.pavement_m)
    width = float(rng.uniform(3, 4.5) if rng.random() < 0.35 else rng.uniform(8, 15))
    mesh = furniture.bridge(rng, span, width)
    x, y, z, yaw, _ = b.spot(street.curve, s, 0.0)
    b.static.append(mesh.at(x, y, z, yaw))
    half = float(np.ptp(mesh.vertices[:, 1])) / 2
    b.reserve(x, y, yaw, width / 2 + 0.5, half + 0.5)


def _clear_of(street: Street, s: float) -> bool:
    return all(abs(s - join) > 19 for join in street.joins_m)


class _Nursery:
    """A few plants of each kind, for one scene."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        autumn = bool(rng.random() < 0.3)
        self.autumn = autumn
        self._trees = [plants.tree(rng, autumn=autumn) for _ in range(8)]
        self._bushes = [plants.bush(rng, autumn=autumn) for _ in range(7)]
        self._covers = [plants.ground_cover(rng) for _ in range(5)]
        self.avenue = plants.avenue_tree(rng, autumn=autumn)

    def tree(self) -> Mesh:
        return self._trees[int(self._rng.integers(8))]

    def bush(self) -> Mesh:
        return self._bushes[int(self._rng.integers(7))]

    def cover(self) -> Mesh:
        return self._covers[int(self._rng.integers(5))]


def add_plants_and_furniture(b: SceneBuilder) -> None:
    nursery = _Nursery(b.rng)
    for number, street in enumerate(b.layout.streets):
        for side in (-1, 1):
            _kerb_side(b, nursery, number, street, side)
            _behind_sidewalk(b, nursery, number, street, side)
            _wild_plants(b, nursery, number, street, side)
        _median(b, nursery, number, street)
        _signals(b, street)


def _turned(side: int) -> float:
    """So that +Y looks to the street."""
    return 0.0 if side < 0 else np.pi


def _kerb_side(b: SceneBuilder, nursery: _Nursery, number: int, street: Street, side: int) -> None:
    rng, layout, line, kerb = b.rng, b.layout, street.curve, street.half_m
    lo, hi = b.spans[number]
    for s in np.arange(lo + float(rng.uniform(0, 8)), hi, 24.0):
        mesh, light = furniture.lamp(rng)
        pose = b.put(mesh, line, float(s), side * (kerb + 0.5), radius=0.3, yaw=_turned(side))
        if pose is not None:
            x, y, z = apply(pose, np.asarray(light))
            b.lamps.append((float(x), float(y), float(z)))
    mixed, double = bool(rng.random() < 0.3), bool(rng.random() < 0.45)
    for s in np.arange(lo, hi, 8.0):
        tree_s = float(s + rng.uniform(-1.5, 1.5))
        if rng.random() < layout.district.street_trees:
            e = layout.verge_m / 2 if layout.verge_m > 0 else 0.8
            tree = nursery.tree() if mixed else nursery.avenue
            turn = float(rng.uniform(0, 6))
            b.put(tree, line, tree_s, side * (kerb + e), radius=0.9, yaw=turn)
            if double:
                d = side * (kerb + layout.pavement_m + 1.4)
                b.put(tree, line, tree_s + 4, d, radius=0.9, yaw=turn, edge=layout.pavement_m)
        if rng.random() < 0.3:
            b.put(
                furniture.sign(rng),
                line,
                tree_s + 3,
                side * (kerb + 0.4),
                radius=0.3,
                yaw=_turned(side),
            )
        if rng.random() < 0.35:
            d = side * (kerb + layout.verge_m + 0.4)
            turn = np.pi if side < 0 else 0.0
            b.put(furniture.small_thing(rng), line, tree_s + 5, d, radius=0.8, yaw=turn)
    if rng.random() < 0.35:
        for s in np.arange(lo + 9, hi, 30.0):
            b.put(furniture.pole(rng), line, float(s), side * (kerb + 0.7), radius=0.3, yaw=0.0)
    if layout.verge_m > 1.6 and rng.random() < 0.45:
        row = plants.hedge(rng, 3.4, (0.4, 0.95), autumn=nursery.autumn)
        for s in np.arange(lo, hi, 3.6):
            if rng.random() < 0.85:
                d = side * (kerb + 0.6 * layout.verge_m)
                b.put(row, line, float(s), d, radius=0.5, edge=0.5)
    if layout.walk_m > 2.4 and rng.random() < layout.district.roofs:
        width = min(layout.walk_m, 3.4)
        d = side * (kerb + layout.pavement_m - width / 2)
        roof = furniture.covered_walk(rng, 6.0, width)
        for s in np.arange(lo + float(rng.uniform(0, 30)), hi - float(rng.uniform(0, 30)), 6.0):
            b.put(roof, line, float(s), d, radius=0.2, edge=max(layout.pavement_m - 2, 0.1))
    if rng.random() < 0.5:
        s = float(rng.uniform(lo, hi))
        d = side * (kerb + max(layout.pavement_m - 1.2, 1.2))
        b.put(furniture.bus_shelter(rng), line, s, d, radius=2.2, yaw=_turned(-side))


def _behind_sidewalk(
    b: SceneBuilder, nursery: _Nursery, number: int, street: Street, side: int
) -> None:
    """Hedges, walls and fences along the lots, and what stands on the paved ones."""
    rng, layout, line = b.rng, b.layout, street.curve
    lo, hi = b.spans[number]
    walk, district = street.half_m + layout.pavement_m, layout.district
    for s in np.arange(lo, hi, 7.0):
        kind = lot_class(b, number, side, float(s))
        for back in (0.7, *rng.uniform((4, 10, 18), (9, 17, 30)).tolist()):  # and between the lots
            draw = rng.random() * (1.0 if kind == TERRAIN else 1.8)
            turn = 0.0 if back < 1 or rng.random() < 0.6 else np.pi / 2
            if draw < district.hedges:
                mesh = plants.hedge(rng, 6.8, autumn=nursery.autumn)
            elif draw < district.hedges + district.walls:
                mesh = furniture.fence(rng, 6.9)
            else:
                continue
            d, edge = side * (walk + back), layout.pavement_m + 5 * (back > 1)
            b.put(mesh, line, float(s), d, radius=2.4, yaw=turn, edge=edge)
        if rng.random() < 0.03:
            turn = float(rng.choice((0.0, np.pi)))
            b.put(
                furniture.billboard(rng), line, float(s), side * (walk + 2.5), radius=2.2, yaw=turn
            )
        if kind not in (ROAD, TERRAIN) and rng.random() < 0.5:
            d = side * (walk + float(rng.uniform(1.5, 12)))
            plant = nursery.tree() if rng.random() < 0.5 else furniture.small_thing(rng)
            b.put(plant, line, float(s), d, radius=1.0, edge=layout.pavement_m + 0.5)
        if kind == ROAD and rng.random() < 0.5 * district.roofs:
            d, edge = side * (walk + float(rng.uniform(9, 16))), layout.pavement_m + 4
            b.put(furniture.canopy(rng), line, float(s), d, radius=5.0, edge=edge)
        if kind == ROAD and district.house == "hall" and rng.random() < 0.35:
            d = side * (walk + float(rng.uniform(4, 26)))
            turn = float(rng.choice((0.0, np.pi / 2)))
            edge = layout.pavement_m + 2.5
            b.put(furniture_of_yard(rng), line, float(s), d, radius=3.3, yaw=turn, edge=edge)


def furniture_of_yard(rng: np.random.Generator) -> Mesh:
    """What stands in the yard of a factory."""
    return works.container(rng) if rng.random() < 0.6 else works.heap(rng)


def _wild_plants(
    b: SceneBuilder, nursery: _Nursery, number: int, street: Street, side: int
) -> None:
    """Trees and bushes on the green lots: single ones, and thickets."""
    rng, layout, district = b.rng, b.layout, b.layout.district
    lo, hi = b.spans[number]
    n = int(district.shrubs * (hi - lo) / 10)
    s, e = rng.uniform(lo, hi, n), rng.uniform(1.2, 30, n)
    wood = rng.random(N_LOTS) < district.woods
    front = rng.uniform(9, 18, N_LOTS)
    m = int(1.5 * (hi - lo))
    row = rng.uniform(lo, hi, m)
    lot = np.floor(row / LOT_M).astype(int) % N_LOTS
    inside = wood[lot]
    depth = front[lot] + 9 * rng.random(m) ** 1.5
    s, e = np.concatenate([s, row[inside]]), np.concatenate([e, depth[inside]])
    walk = street.half_m + layout.pavement_m
    d = side * (walk + e)
    ground = layout.ground(*street.curve.place(s, d)[:2])
    grow = (ground.classes == TERRAIN) & (ground.edge_m > layout.pavement_m + 0.8)
    for i in np.flatnonzero(grow):
        plant, r = (nursery.tree(), 1.1) if rng.random() < 0.42 else (nursery.bush(), 0.7)
        turn = float(rng.uniform(0, 6))
        b.put(plant, street.curve, float(s[i]), float(d[i]), radius=r, yaw=turn)
    bed = rng.random(N_LOTS) < district.beds
    s = rng.uniform(lo, hi, int(3 * (hi - lo)))
    s = s[bed[np.floor(s / LOT_M).astype(int) % N_LOTS]]
    d = side * (walk + rng.uniform(1.0, 13, len(s)))
    ground = layout.ground(*street.curve.place(s, d)[:2])
    grow = (ground.classes == TERRAIN) & (ground.edge_m > layout.pavement_m + 0.9)
    for i in np.flatnonzero(grow):
        b.put(nursery.cover(), street.curve, float(s[i]), float(d[i]), radius=0.55)


def _median(b: SceneBuilder, nursery: _Nursery, number: int, street: Street) -> None:
    """Plants or rails on the strip between the directions."""
    rng, line = b.rng, street.curve
    if street.median_m < 0.8 or rng.random() < 0.25:
        return
    lo, hi = b.spans[number]
    hedge = plants.hedge(rng, 5.0, autumn=nursery.autumn) if rng.random() < 0.6 else None
    rail = furniture.fence(rng, 5.0)
    green = b.layout.median_class == TERRAIN
    for s in np.arange(lo, hi, 5.5):
        x, y, *_ = b.spot(line, float(s), 0.0)
        if float(b.layout.ground(np.array([x]), np.array([y])).cross_m[0]) < 8:
            continue
        mesh = (hedge if hedge is not None else nursery.bush()) if green else rail
        if rng.random() < (0.75 if green else 0.4):
            b.put(mesh, line, float(s), 0.0, radius=1.0, edge=-np.inf)
        elif rng.random() < 0.5:
            b.put(nursery.avenue, line, float(s), 0.0, radius=0.8, edge=-np.inf)


def _signals(b: SceneBuilder, street: Street) -> None:
    """Traffic lights, or signs, at the corners where other streets meet this one."""
    rng, kerb = b.rng, street.half_m
    for join in street.joins_m:
        if rng.random() < 0.25:
            continue
        for side in (-1, 1):
            for way in (-1, 1):
                s, d = join + way * 11.5, side * (kerb + 0.6)
                turn = 0.0 if way < 0 else np.pi
                b.put(furniture.traffic_light(rng), street.curve, s, d, radius=0.3, yaw=turn)


def add_building_sites(b: SceneBuilder) -> None:
    """Barriers, cones, machines and workers, at the edge of a road or on the lot beside it."""
    rng, layout = b.rng, b.layout
    for _ in range(1 + int(rng.poisson(layout.district.works))):
        number = int(rng.integers(len(layout.streets)))
        street, (lo, hi) = layout.streets[number], b.spans[number]
        side, s0 = int(rng.choice((-1, 1))), float(rng.uniform(lo + 15, max(hi - 25, lo + 16)))
        line, kind, n = street.curve, int(rng.integers(4)), int(rng.integers(4, 12))
        d = side * (street.half_m + float(rng.choice((-0.5, 0.9, layout.pavement_m + 0.8))))
        if rng.random() < 0.6:
            for s in s0 + 2.05 * np.arange(n):
                if not b.blocks_another(line, float(s), d):
                    piece = works.barrier(rng, kind)
                    b.act(piece, "movable_object.barrier", line, float(s), d, radius=0.35)
        site = side * (street.half_m + layout.pavement_m + float(rng.uniform(4, 9)))
        if rng.random() < 0.5 and b.act(
            vehicles.machine(rng),
            "vehicle.construction",
            line,
            s0 + 6,
            site,
            yaw=float(rng.uniform(0, 6)),
            attribute="vehicle.parked",
            radius=3.0,
            edge=layout.pavement_m + 1,
        ):
            for _ in range(int(rng.integers(1, 5))):
                b.act(
                    people.worker(rng),
                    "human.pedestrian.construction_worker",
                    line,
                    s0 + 6 + float(rng.uniform(-7, 7)),
                    site + float(rng.uniform(-3, 3)),
                    yaw=float(rng.uniform(0, 6)),
                    attribute="pedestrian.standing",
                    radius=0.4,
                )
            b.put(works.heap(rng), line, s0 + 12, site, radius=2.0, edge=layout.pavement_m)
    for _ in range(int(rng.integers(1, 4))):
        number = int(rng.integers(len(layout.streets)))
        street, (lo, hi) = layout.streets[number], b.spans[number]
        side, s0 = int(rng.choice((-1, 1))), float(rng.uniform(lo + 15, max(hi - 20, lo + 16)))
        d, gap = street.half_m - float(rng.uniform(0.1, 0.9)), float(rng.uniform(1.6, 3.2))
        cone = works.cone(rng)
        for i in range(int(rng.integers(4, 11))):
            s, cone_d = s0 + gap * i, side * (d - 0.05 * i)
            if not b.blocks_another(street.curve, s, cone_d):
                name = "movable_object.trafficcone"
                b.act(cone, name, street.curve, s, cone_d, radius=0.25)
    if rng.random() < 0.3 and layout.district.built > 0.5:
        street, (lo, hi) = layout.main, b.spans[0]
        d = street.half_m + layout.pavement_m - 0.5
        side = int(rng.choice((-1, 1)))
        s = float(rng.uniform(lo, hi))
        b.put(works.scaffold(rng), street.curve, s, side * d, radius=0.8, yaw=_turned(side))
