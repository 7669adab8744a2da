"""Draws the plan of a scene: district, streets, junctions, slopes and the ego vehicle's route."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.sources.synthetic.world.curves import Curve, curve
from datasets.sources.synthetic.world.districts import DISTRICTS, District
from datasets.sources.synthetic.world.layout import (
    LANE_M,
    N_LOTS,
    OTHER_FLAT,
    ROAD,
    SIDEWALK,
    TERRAIN,
    Layout,
    Street,
)

_FAR_M = 400.0  # streets run out of sight
_BACK_M = 300.0


def _main_curve(rng: np.random.Generator) -> Curve:
    """Straight, gently winding, or with a sharp bend near the beginning of the drive."""
    kind = rng.choice(4, p=(0.3, 0.28, 0.2, 0.22))
    lead = _BACK_M + float(rng.uniform(-15, 30))
    side = float(rng.choice((-1, 1)))
    if kind == 0:
        pieces = [(_BACK_M + _FAR_M, 0.0)]
    elif kind == 1:
        pieces = [(lead - 30, 0.0), (float(rng.uniform(60, 140)), side / rng.uniform(70, 260))]
    elif kind == 2:
        bend = side / float(rng.uniform(45, 110))
        run = float(rng.uniform(30, 55))
        pieces = [(lead - 30, 0.0), (run, bend), (run, -bend), (run, bend)]
    else:
        radius = float(rng.uniform(16, 36))
        pieces = [(lead, 0.0), (radius * float(rng.uniform(0.7, 1.75)), side / radius)]
    return curve(-_BACK_M, 0.0, 0.0, [*pieces, (_FAR_M, 0.0)], s_m=-_BACK_M)


def _other(rng: np.random.Generator, x: float, y: float, yaw: float, *, stem: bool) -> Curve:
    """A street through or from a point."""
    bend = float(rng.choice((-1, 1)) / rng.uniform(60, 200)) if rng.random() < 0.4 else 0.0
    run = float(rng.uniform(30, 60))
    onwards = [(float(rng.uniform(35, 60)), 0.0), (run, bend), (_FAR_M, 0.0)]
    if stem:
        return curve(x, y, yaw, onwards)
    back = (x - _BACK_M * np.cos(yaw), y - _BACK_M * np.sin(yaw))
    (first, _), *segments = onwards
    return curve(*back, yaw, [(_BACK_M + first, 0.0), *segments], s_m=-_BACK_M)


def _fillet(
    p: tuple[float, float], yaw: float, q: tuple[float, float], onto: float, radius: float
) -> Curve | None:
    """From the line through p to the one through q by an arc; s is 0 where the arc begins."""
    a, b = np.array([np.cos(yaw), np.sin(yaw)]), np.array([np.cos(onto), np.sin(onto)])
    along = np.linalg.solve(np.stack([a, -b], 1), np.subtract(q, p))[0]
    turn = float((onto - yaw + np.pi) % (2 * np.pi) - np.pi)
    if abs(turn) < 0.5 or abs(turn) > 2.6:
        return None
    x, y = np.asarray(p) + (along - radius * np.tan(abs(turn) / 2)) * a - _BACK_M * a
    arc = (radius * abs(turn), np.sign(turn) / radius)
    return curve(float(x), float(y), yaw, [(_BACK_M, 0.0), arc, (_FAR_M, 0.0)], s_m=-_BACK_M)


def _hills(rng: np.random.Generator) -> NDArray[np.float64]:
    hills = np.zeros((5, 4))
    steep = float(rng.uniform(0.2, 1.0))
    for row in hills[:4]:
        wavelength, angle = rng.uniform(55, 170), rng.uniform(0, np.pi)
        k = 2 * np.pi / wavelength
        height = wavelength * 0.0022 * steep * rng.uniform(0.3, 1)
        row[:] = (height, k * np.cos(angle), k * np.sin(angle), rng.uniform(0, 6.28))
    # one long slope, as if on the side of a hill
    angle, k = rng.uniform(0, 2 * np.pi), 2 * np.pi / 1200
    grade = float(rng.choice((0.0, rng.uniform(0.01, 0.06))))
    hills[4] = (grade / k, k * np.cos(angle), k * np.sin(angle), rng.uniform(-0.4, 0.4))
    return hills


def _streets(rng: np.random.Generator, district: District, turning: bool) -> list[Street]:
    """The main street and those that meet it."""
    lanes = 1 + int(rng.choice(3, p=district.lanes))
    median = float(rng.uniform(0.8, 2.4)) if rng.random() < district.median else 0.0
    straight = curve(-_BACK_M, 0.0, 0.0, [(_BACK_M + _FAR_M, 0.0)], s_m=-_BACK_M)
    main = straight if turning else _main_curve(rng)
    kinds = ("cross", "left", "right")
    wanted = int(rng.choice(3, p=(0.22, 0.5, 0.28)))
    joins, others = [], []
    s = float(rng.uniform(8, 28) if turning else rng.uniform(-20, 50))
    for number in range(max(wanted, int(turning))):
        kind = "cross" if turning and number == 0 else str(rng.choice(kinds))
        x, y, yaw = (float(v) for v in main.place(np.array(s), np.array(0.0)))
        skew = float(rng.uniform(-0.22, 0.22)) * (0.3 if turning else 1.0)
        yaw += skew + (-np.pi / 2 if kind == "right" else np.pi / 2)
        line = _other(rng, x, y, yaw, stem=kind != "cross")
        others.append(
            Street(
                curve=line,
                lanes=1 if rng.random() < 0.6 or lanes == 1 else 2,
                parking=bool(rng.random() < district.parking * 0.6),
                median_m=0.0,
                ends=kind != "cross",
                joins_m=(0.0,),
            )
        )
        joins.append(s)
        s += float(rng.uniform(42, 70))
    first = Street(
        curve=main,
        lanes=lanes,
        parking=bool(rng.random() < district.parking),
        median_m=median,
        ends=False,
        joins_m=tuple(joins),
    )
    return [first, *others]


def _turning_route(
    rng: np.random.Generator, streets: list[Street], hand: int, path_m: float
) -> Curve | None:
    """From the main street into the first crossing one."""
    main, other = streets[:2]
    to_left = bool(rng.random() < 0.5)
    near = to_left == (hand < 0)  # the turn that crosses no traffic
    lane = main.lanes - 1 if near else 0
    radius = float(rng.uniform(7.0, 8.5) if near else rng.uniform(12, 17))
    way = 1 if to_left else -1
    d = hand * -main.lane_center(lane)
    x, y, heading = other.curve.place(np.array(0.0), np.array(-hand * way * LANE_M / 2))
    onto = float(heading) + (0 if to_left else np.pi)
    fillet = _fillet((0.0, d), 0.0, (float(x), float(y)), onto, radius)
    if fillet is None:
        return None
    shifted = fillet.segments.copy()
    shifted[:, 3] += float(rng.uniform(-2, max(path_m - 8, 2)))  # the drive begins at s = 0
    return Curve(segments=shifted)


def draw_layout(rng: np.random.Generator, path_m: float, *, turning: bool) -> Layout:
    """A plan at random for a drive of ``path_m``; ``turning``: off the main street, if it fits."""
    chances = np.array([d.chance for d in DISTRICTS])
    district = DISTRICTS[int(rng.choice(len(DISTRICTS), p=chances / chances.sum()))]
    hand = int(rng.choice((1, -1), p=(0.6, 0.4)))
    streets = _streets(rng, district, turning)
    route = _turning_route(rng, streets, hand, path_m) if turning else None
    lane = int(rng.integers(streets[0].lanes))
    turns = route is not None
    return Layout(
        district=district,
        streets=tuple(streets),
        route=route if route is not None else streets[0].curve,
        route_d_m=0.0 if turns else -hand * streets[0].lane_center(lane),
        turns=turns,
        hand=hand,
        median_class=OTHER_FLAT if rng.random() < 0.5 else TERRAIN,
        verge_m=float(rng.uniform(1.6, 5.5)) if rng.random() < district.verge else 0.0,
        walk_m=float(rng.uniform(*district.walk_m)),
        path_m=float(rng.uniform(9, 18)) if rng.random() < 0.3 else 0.0,
        lots=rng.choice(
            (ROAD, OTHER_FLAT, SIDEWALK, TERRAIN), size=(len(streets), 2, N_LOTS), p=district.lots
        ).astype(np.uint8),
        hills=_hills(rng),
        rise=float(
            rng.choice((0.0, rng.uniform(-0.03, 0.05), rng.uniform(0.07, 0.2)), p=(0.15, 0.15, 0.7))
        ),
    )
