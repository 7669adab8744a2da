"""Street furniture, fences and walls, and the things of building sites."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.objects.palette import DARK, GLASS, PAINTS, WHITE, cloth, pick, vary
from datasets.sources.synthetic.objects.shapes import (
    Finish,
    Mesh,
    Rgb,
    ball,
    bar,
    box,
    cylinder,
    merge,
    prism,
)

_NAME = "manmade"
_STEEL: tuple[Rgb, ...] = (
    (0.3, 0.31, 0.32),
    (0.45, 0.46, 0.47),
    (0.08, 0.1, 0.09),
    (0.2, 0.21, 0.24),
)
_SIGNS: tuple[Rgb, ...] = (
    (0.75, 0.08, 0.06),
    (0.08, 0.2, 0.6),
    (0.8, 0.7, 0.1),
    WHITE,
    (0.05, 0.35, 0.15),
)


def lamp(rng: np.random.Generator) -> tuple[Mesh, tuple[float, float, float]]:
    """A street lamp whose arm reaches to +Y, and where its light is."""
    h, c = float(rng.uniform(5.5, 8.5)), pick(rng, _STEEL)
    reach = float(rng.choice((0.0, 1.2, 2.0)))
    pole = cylinder(0.12, h, _NAME, c, top_radius=0.07, sides=6, finish=Finish.METAL)
    if reach == 0:
        head = ball((0.3, 0.3, 0.35), (0, 0, h - 1.5), _NAME, (0.8, 0.75, 0.6), Finish.LAMP)
        return merge([pole.at(0, 0, -1.8), head]), (0.0, 0.0, h - 1.9)
    arm = bar((0, 0, h - 0.3), (0, reach, h), 0.1, _NAME, c, Finish.METAL)
    head = box((0.28, 0.7, 0.12), (0, reach, h), _NAME, (0.8, 0.75, 0.6), Finish.LAMP)
    return merge([pole, arm, head]), (0.0, reach, h - 0.2)


def traffic_light(rng: np.random.Generator) -> Mesh:
    """Signals on a post, sometimes with an arm to +Y over the road; they look along -X."""
    c = pick(rng, _STEEL)
    green = bool(rng.random() < 0.5)
    red_c: Rgb = (0.15, 0.02, 0.02) if green else (0.95, 0.08, 0.05)
    green_c: Rgb = (0.1, 0.9, 0.4) if green else (0.02, 0.12, 0.05)
    head = [
        box((0.25, 0.32, 0.95), (0, 0, 0), _NAME, DARK),
        box((0.06, 0.18, 0.18), (-0.14, 0, 0.3), _NAME, red_c, Finish.LAMP),
        box((0.06, 0.18, 0.18), (-0.14, 0, -0.3), _NAME, green_c, Finish.LAMP),
    ]
    parts = [
        cylinder(0.1, 3.4, _NAME, c, sides=6, finish=Finish.METAL),
        *(m.at(0, 0, 3.1) for m in head),
    ]
    if rng.random() < 0.45:
        reach = float(rng.uniform(3, 5.5))
        parts.append(cylinder(0.14, 5.8, _NAME, c, sides=6, finish=Finish.METAL))
        parts.append(bar((0, 0, 5.6), (0, reach, 5.9), 0.16, _NAME, c, Finish.METAL))
        parts += [m.at(0, reach - 0.4, 5.3) for m in head]
    return merge(parts)


def sign(rng: np.random.Generator) -> Mesh:
    """A post with a plate that looks along -X: a disc, a triangle, a board or a big panel."""
    c, kind = pick(rng, _SIGNS), int(rng.integers(4))
    post = cylinder(0.05, 2.7, _NAME, (0.5, 0.5, 0.5), sides=5, finish=Finish.METAL)
    if kind == 0:
        turned = np.array([[0, 0, 1, -0.1], [0, 1, 0, 0], [-1, 0, 0, 2.4], [0, 0, 0, 1.0]])
        plate = cylinder(0.38, 0.05, _NAME, c, sides=8, finish=Finish.SIGN).moved(turned)
        return merge([post, plate])
    if kind == 1:
        plate = prism([(-0.45, 0.0), (0.45, 0.0), (0.0, 0.8)], 0.05, _NAME, c, Finish.SIGN)
        return merge([post, plate.at(-0.08, 0, 2.0, np.pi / 2)])
    if kind == 2:
        return merge([post, box((0.05, 0.7, 0.7), (-0.08, 0, 2.4), _NAME, c, Finish.SIGN)])
    posts = [post.at(0, y, 0) for y in (-0.8, 0.8)]
    return merge([*posts, box((0.08, 2.4, 1.2), (-0.08, 0, 2.4), _NAME, c, Finish.SIGN)])


def billboard(rng: np.random.Generator) -> Mesh:
    """A poster on legs; it looks along -X."""
    legs = [cylinder(0.12, 2.4, _NAME, DARK, sides=6).at(0, y, 0) for y in (-1.2, 1.2)]
    panel = box((0.25, 4.2, 2.6), (0, 0, 3.4), _NAME, (0.3, 0.3, 0.3))
    picture = [
        box((0.05, 4.0, 0.8), (-0.15, 0, 2.55 + 0.8 * i), _NAME, cloth(rng)) for i in range(3)
    ]
    return merge([*legs, panel, *picture])


def pole(rng: np.random.Generator) -> Mesh:
    """A wooden or concrete mast with cross-arms."""
    h, c = float(rng.uniform(7, 10)), pick(rng, ((0.25, 0.18, 0.12), (0.5, 0.5, 0.48)))
    arms = [box((0.12, 1.8, 0.12), (0, 0, h - 0.4 - 0.7 * i), _NAME, c) for i in range(2)]
    return merge([cylinder(0.16, h, _NAME, c, top_radius=0.1, sides=6, finish=Finish.WOOD), *arms])


def fence(rng: np.random.Generator, length: float) -> Mesh:
    """A wall, boards, palings, a railing or a guard rail along X. Its foot reaches underground."""
    kind = int(rng.choice(5, p=(0.32, 0.26, 0.14, 0.14, 0.14)))
    low, mid, high = rng.uniform(0.4, 0.8), rng.uniform(0.9, 1.3), rng.uniform(1.6, 2.4)
    h = float(rng.choice((low, mid, high), p=(0.5, 0.33, 0.17)))
    if kind == 0:
        c = vary(rng, pick(rng, ((0.42, 0.4, 0.37), (0.45, 0.22, 0.15), (0.6, 0.57, 0.5))), 0.25)
        cap = box((length, 0.42, 0.12), (0, 0, h), _NAME, vary(rng, c))
        return merge(
            [box((length, 0.3, h + 0.4), (0, 0, h / 2 - 0.2), _NAME, c, Finish.WALL, 32 + 7), cap]
        )
    c = vary(rng, pick(rng, ((0.3, 0.2, 0.12), (0.5, 0.42, 0.3), (0.2, 0.25, 0.2), WHITE)), 0.25)
    if kind == 1:
        boards = box((length, 0.12, h + 0.3), (0, 0, h / 2 - 0.15), _NAME, c, Finish.WOOD)
        posts = [
            box((0.16, 0.2, h + 0.5), (float(x), 0, h / 2 - 0.15), _NAME, c, Finish.WOOD)
            for x in np.arange(-length / 2, length / 2 + 0.1, 2.2)
        ]
        return merge([boards, *posts])
    if kind == 2:
        rails = [box((length, 0.06, 0.1), (0, 0, z), _NAME, c, Finish.WOOD) for z in (0.35, 0.8)]
        pales = [
            box((0.1, 0.05, 1.1), (float(x), 0.05, 0.5), _NAME, c, Finish.WOOD)
            for x in np.arange(-length / 2, length / 2, 0.32)
        ]
        return merge([*rails, *pales])
    steel = pick(rng, _STEEL)
    step = 0.5 if kind == 3 else 2.0
    posts = [
        box((0.06, 0.06, 1.2), (float(x), 0, 0.5), _NAME, steel, Finish.METAL)
        for x in np.arange(-length / 2, length / 2, step)
    ]
    if kind == 3:
        rails = [
            box((length, 0.05, 0.06), (0, 0, z), _NAME, steel, Finish.METAL) for z in (0.2, 1.1)
        ]
    else:
        rails = [box((length, 0.1, 0.32), (0, 0, 0.65), _NAME, (0.5, 0.51, 0.52), Finish.METAL)]
    return merge([*rails, *posts])


def bus_shelter(rng: np.random.Generator) -> Mesh:
    """Open towards -Y."""
    frame = pick(rng, _STEEL)
    parts = [
        box((3.6, 0.1, 2.2), (0, 0.7, 1.1), _NAME, GLASS, Finish.GLASS),
        box((3.8, 1.7, 0.14), (0, 0, 2.35), _NAME, frame),
        box((2.4, 0.4, 0.1), (0, 0.4, 0.5), _NAME, frame),
        box((0.12, 1.3, 2.0), (1.7, 0, 1.2), _NAME, cloth(rng)),
    ]
    posts = [(x, y, 1.15) for x in (-1.75, 1.75) for y in (-0.7, 0.7)]
    return merge([*parts, *(box((0.12, 0.12, 2.3), p, _NAME, frame) for p in posts)])


def small_thing(rng: np.random.Generator) -> Mesh:
    """A bench, a hydrant, a bollard, a box of wires, a letter box or a kiosk."""
    kind, steel = int(rng.integers(6)), pick(rng, _STEEL)
    if kind == 0:
        wood = vary(rng, (0.35, 0.24, 0.14))
        seat = box((1.7, 0.45, 0.08), (0, 0, 0.45), _NAME, wood, Finish.WOOD)
        back = box((1.7, 0.08, 0.5), (0, 0.25, 0.75), _NAME, wood, Finish.WOOD)
        legs = [box((0.1, 0.4, 0.45), (x, 0, 0.22), _NAME, steel) for x in (-0.7, 0.7)]
        return merge([seat, back, *legs])
    if kind == 1:
        red = (0.6, 0.06, 0.04)
        return merge(
            [
                cylinder(0.14, 0.6, _NAME, red, sides=6),
                ball((0.16, 0.16, 0.12), (0, 0, 0.62), _NAME, red),
            ]
        )
    if kind == 2:
        posts = [cylinder(0.1, 0.9, _NAME, steel, sides=6).at(x, 0, 0) for x in (-1.2, 0.0, 1.2)]
        return merge(posts)
    if kind == 3:
        return box(
            (1.1, 0.45, 1.3), (0, 0, 0.65), _NAME, vary(rng, (0.42, 0.45, 0.42)), Finish.METAL
        )
    if kind == 4:
        c = pick(rng, ((0.65, 0.5, 0.05), (0.06, 0.12, 0.4), (0.5, 0.05, 0.05)))
        return merge(
            [
                cylinder(0.06, 0.8, _NAME, DARK, sides=5),
                box((0.4, 0.4, 0.6), (0, 0, 1.05), _NAME, c),
            ]
        )
    c = vary(rng, pick(rng, PAINTS))
    return merge(
        [
            box((2.4, 2.0, 2.4), (0, 0, 1.2), _NAME, c, Finish.WALL, 32),
            box((2.9, 2.6, 0.2), (0, -0.2, 2.5), _NAME, vary(rng, c)),
        ]
    )


def covered_walk(rng: np.random.Generator, length: float, width: float) -> Mesh:
    """A roof on posts along X, over a sidewalk."""
    h, steel = float(rng.uniform(2.5, 3.2)), pick(rng, _STEEL)
    roof = box((length, width, 0.15), (0, 0, h), _NAME, vary(rng, (0.5, 0.5, 0.48)), Finish.METAL)
    beam = box((length, 0.2, 0.25), (0, 0, h - 0.2), _NAME, steel, Finish.METAL)
    posts = [box((0.16, 0.16, h), (x, 0, h / 2), _NAME, steel) for x in (-length / 4, length / 4)]
    return merge([roof, beam, *posts])


def canopy(rng: np.random.Generator) -> Mesh:
    """A wide roof on posts, as of a filling station or a market, with a kiosk below."""
    length, width, h = (float(rng.uniform(*v)) for v in ((10, 18), (7, 11), (4.2, 5.0)))
    c, trim = vary(rng, WHITE), vary(rng, pick(rng, PAINTS))
    roof = box((length, width, 0.3), (0, 0, h), _NAME, c, Finish.METAL)
    edge = box((length + 0.2, width + 0.2, 0.35), (0, 0, h + 0.3), _NAME, trim)
    spots = [(x * length, y * width) for x in (-0.3, 0.3) for y in (-0.3, 0.3)]
    posts = [box((0.35, 0.35, h), (x, y, h / 2), _NAME, c) for x, y in spots]
    pumps = [
        box((0.6, 0.9, 1.6), (x * length, 0, 0.8), _NAME, trim, Finish.PAINT) for x in (-0.2, 0.2)
    ]
    return merge([roof, edge, *posts, *pumps])


def bridge(rng: np.random.Generator, span: float, width: float) -> Mesh:
    """A deck high over a street, along Y: pillars beyond ``span`` / 2, parapets, a beam below."""
    h, c = float(rng.uniform(4.7, 5.0)), vary(rng, (0.5, 0.49, 0.46), 0.25)
    full = span + float(rng.uniform(20, 60))
    parts = [
        box((width, full, 0.5), (0, 0, h + 0.25), _NAME, c),
        box((0.3 * width, full, 0.3), (0, 0, h - 0.1), _NAME, vary(rng, c)),
    ]
    for side in (-1, 1):
        rail = (0.2, full, 1.1)
        parts.append(box(rail, (side * width / 2, 0, h + 1.0), _NAME, vary(rng, c), Finish.METAL))
        for out in (0.0, 9.0, 18.0):
            y = side * (span / 2 + 0.6 + out)
            if abs(y) < full / 2:
                parts.append(cylinder(0.5, h + 1.5, _NAME, c).at(0, y, -1.5))
    return merge(parts)
