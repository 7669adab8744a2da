"""Cones, barriers and the other things of building sites, and what lies about in a street."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.objects.palette import (
    DARK,
    ORANGE,
    PAINTS,
    WHITE,
    cloth,
    pick,
    vary,
)
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


def container(rng: np.random.Generator) -> Mesh:
    """A freight container or a stack of two, X along its length."""
    boxes = [
        box(
            (6.1, 2.44, 2.6),
            (0, 0, 1.3 + 2.6 * i),
            _NAME,
            vary(rng, pick(rng, PAINTS)),
            Finish.WALL,
            40,
        )
        for i in range(1 + int(rng.random() < 0.3))
    ]
    return merge(boxes)


def heap(rng: np.random.Generator) -> Mesh:
    """A heap of pipes, planks or pallets on a building site."""
    c = vary(rng, pick(rng, ((0.45, 0.33, 0.2), (0.35, 0.36, 0.38))))
    boxes = []
    for i in range(int(rng.integers(2, 5))):
        size = (float(rng.uniform(1.2, 3)), float(rng.uniform(0.9, 1.2)), 0.25)
        boxes.append(
            box(size, (float(rng.normal(0, 0.1)), 0, 0.13 + 0.28 * i), _NAME, c, Finish.WOOD)
        )
    return merge(boxes)


def scaffold(rng: np.random.Generator) -> Mesh:
    """Poles and planks before a wall, X along it."""
    parts, steel = [], (0.5, 0.5, 0.5)
    for x in np.arange(-5.0, 5.1, 2.0):
        parts += [
            bar((float(x), y, 0), (float(x), y, 6.4), 0.07, _NAME, steel, Finish.METAL)
            for y in (0, 1.0)
        ]
    parts += [
        box((10, 1.0, 0.08), (0, 0.5, z), _NAME, (0.5, 0.38, 0.2), Finish.WOOD)
        for z in (2.1, 4.2, 6.2)
    ]
    if rng.random() < 0.5:
        parts.append(box((10, 0.04, 4.0), (0, -0.05, 4.2), _NAME, (0.2, 0.35, 0.25), Finish.CLOTH))
    return merge(parts)


def cone(rng: np.random.Generator) -> Mesh:
    """A cone with its bands, or a striped drum or delineator post."""
    name, kind = "traffic_cone", rng.random()
    if kind < 0.7:
        h = float(rng.uniform(0.65, 1.0))
        r = [0.19 - 0.15 * t for t in (0.0, 0.45, 0.7, 1.0)]
        z = [0.05 + (h - 0.05) * t for t in (0.0, 0.45, 0.7, 1.0)]
        parts = [box((0.44, 0.44, 0.06), (0, 0, 0.03), name, DARK)]
        for i, (colour, finish) in enumerate(
            ((ORANGE, Finish.PLAIN), (WHITE, Finish.SIGN), (ORANGE, Finish.PLAIN))
        ):
            part = cylinder(r[i], z[i + 1] - z[i], name, colour, top_radius=r[i + 1], finish=finish)
            parts.append(part.at(0, 0, z[i]))
        return merge(parts)
    wide, tall = (0.28, 0.25) if kind < 0.88 else (0.07, 0.28)
    bands = [
        cylinder(wide, tall, name, WHITE if i % 2 else ORANGE, finish=Finish.SIGN) for i in range(4)
    ]
    foot = cylinder(1.4 * wide, 0.06, name, DARK)
    return merge([foot, *(band.at(0, 0, tall * i) for i, band in enumerate(bands))])


def barrier(rng: np.random.Generator, kind: int) -> Mesh:
    """One two-metre piece; Y along its length: concrete, plastic, a striped board or a grid."""
    h, name = float(rng.uniform(0.85, 1.05)), "barrier"
    if kind < 2:
        profile = [(-0.3, 0.0), (0.3, 0.0), (0.22, 0.25), (0.1, h), (-0.1, h), (-0.22, 0.25)]
        colour: Rgb = vary(rng, (0.55, 0.54, 0.5))
        if kind == 1:
            colour = pick(rng, ((0.75, 0.1, 0.05), (0.8, 0.8, 0.8), (0.8, 0.35, 0.03)))
        return prism(profile, 1.95, name, colour)
    if kind == 2:
        legs = [box((0.5, 0.08, 1.1), (0, y, 0.55), name, (0.5, 0.5, 0.5)) for y in (-0.8, 0.8)]
        stripes = [
            box(
                (0.06, 0.4, 0.26),
                (0, -0.8 + 0.4 * i, z),
                name,
                WHITE if i % 2 else ORANGE,
                Finish.SIGN,
            )
            for i in range(5)
            for z in (0.95, 0.55)
        ]
        return merge([*legs, *stripes])
    bars = [
        bar((0, y, 0.1), (0, y, 1.1), 0.04, name, (0.5, 0.5, 0.5)) for y in np.arange(-0.9, 1, 0.2)
    ]
    rails = [box((0.05, 1.95, 0.06), (0, 0, z), name, (0.5, 0.5, 0.5)) for z in (0.15, 1.1)]
    feet = [box((0.6, 0.12, 0.06), (0, y, 0.03), name, DARK) for y in (-0.8, 0.8)]
    return merge([*bars, *rails, *feet])


def clutter(rng: np.random.Generator) -> tuple[Mesh, str]:
    """Something of class ``others`` and its nuScenes category."""
    kind, name = int(rng.integers(6)), "others"
    if kind == 0:
        c = pick(rng, ((0.05, 0.22, 0.08), (0.1, 0.1, 0.12), (0.45, 0.35, 0.05), (0.08, 0.15, 0.4)))
        bin_ = prism([(-0.26, 0.05), (0.26, 0.05), (0.32, 1.02), (-0.32, 1.02)], 0.62, name, c)
        lid = box((0.7, 0.68, 0.07), (0.02, 0, 1.06), name, vary(rng, c, 0.3))
        return merge([bin_, lid]), "movable_object.pushable_pullable"
    if kind == 1:
        bags = []
        for _ in range(4):
            x, y = rng.uniform(-0.4, 0.4, 2)
            r = float(rng.uniform(0.22, 0.38))
            c = pick(rng, ((0.07, 0.07, 0.08), (0.5, 0.5, 0.52), (0.4, 0.3, 0.18)))
            bags.append(ball((r, r, 1.1 * r), (float(x), float(y), r), name, c, Finish.CLOTH))
        return merge(bags), "movable_object.debris"
    if kind == 2:
        c = pick(rng, ((0.35, 0.22, 0.1), (0.1, 0.09, 0.08), (0.6, 0.55, 0.45)))
        legs = [
            bar((x, y, 0.0), (0.9 * x, y, 0.42), 0.09, name, c)
            for x in (-0.25, 0.25)
            for y in (-0.1, 0.1)
        ]
        body = ball((0.4, 0.16, 0.18), (0, 0, 0.5), name, c)
        head = ball((0.18, 0.11, 0.12), (0.45, 0, 0.72), name, c)
        tail = bar((-0.35, 0, 0.55), (-0.6, 0, 0.75), 0.06, name, c)
        return merge([*legs, body, head, tail]), "animal"
    if kind == 3:
        hoops = [
            box((0.08, 0.9, 0.85), (float(x), 0, 0.43), name, (0.35, 0.37, 0.4))
            for x in (-1, -0.33, 0.33, 1)
        ]
        return merge(hoops), "static_object.bicycle_rack"
    if kind == 4:  # a pram
        hood = ball((0.4, 0.25, 0.25), (0, 0, 0.75), name, cloth(rng), Finish.CLOTH)
        wheels = [
            bar((x, y, 0.12), (0.3 * x, y, 0.6), 0.07, name, DARK)
            for x in (-0.35, 0.35)
            for y in (-0.22, 0.22)
        ]
        grip = bar((-0.35, 0, 0.8), (-0.7, 0, 1.0), 0.06, name, DARK)
        return merge([hood, *wheels, grip]), "movable_object.pushable_pullable"
    cart = box((0.9, 0.6, 0.5), (0, 0, 0.6), name, (0.5, 0.5, 0.52), Finish.METAL)
    goods = box((0.7, 0.5, 0.4), (0, 0, 1.0), name, (0.45, 0.33, 0.2))
    return merge(
        [cart, goods, box((0.7, 0.5, 0.1), (0, 0, 0.15), name, DARK)]
    ), "movable_object.pushable_pullable"
