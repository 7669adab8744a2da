"""Buses, lorries, trailers and building machines, as meshes in the object frame of ``shapes``."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.objects.cars import HEADLIGHT, TAILLIGHT
from datasets.sources.synthetic.objects.palette import DARK, GLASS, PAINTS, WHITE, pick, vary
from datasets.sources.synthetic.objects.shapes import (
    Finish,
    Mesh,
    Rgb,
    bar,
    box,
    cylinder,
    merge,
    prism,
    wheel,
)

_LIVERIES: tuple[Rgb, ...] = (
    *[(0.6, 0.08, 0.06), (0.75, 0.72, 0.65), (0.08, 0.3, 0.5), (0.7, 0.5, 0.05)],
    *[(0.1, 0.35, 0.15), (0.78, 0.78, 0.78), (0.3, 0.1, 0.3)],
)
_YELLOW: tuple[Rgb, ...] = ((0.75, 0.5, 0.04), (0.8, 0.35, 0.03), (0.6, 0.6, 0.58))


def _ends(f: float, r: float, w: float, z: float, name: str, *, lit: bool) -> list[Mesh]:
    finish = Finish.LAMP if lit else Finish.SIGN
    out = []
    for y in (-0.4 * w, 0.4 * w):
        out.append(box((0.08, 0.3, 0.2), (f, y, z), name, HEADLIGHT, finish))
        out.append(box((0.08, 0.2, 0.3), (r, y, z + 0.2), name, TAILLIGHT, finish))
    return out


def bus(rng: np.random.Generator, *, lit: bool) -> Mesh:
    """A city bus, a coach, a bendy bus or a small bus."""
    kind = int(rng.choice(4, p=(0.45, 0.22, 0.15, 0.18)))
    length = float((rng.uniform(10.5, 12.2), rng.uniform(11, 13), 17.5, rng.uniform(6, 7.5))[kind])
    w, h = (2.5, 3.5) if kind == 1 else (2.2, 2.7) if kind == 3 else (2.55, 3.1)
    sill = 1.7 if kind == 1 else 1.3
    paint, name = vary(rng, pick(rng, _LIVERIES)), "bus"
    second = vary(rng, pick(rng, _LIVERIES)) if rng.random() < 0.5 else paint
    bodies = [(0.0, length)] if kind != 2 else [(4.4, 8.6), (-4.6, 8.2)]
    parts = []
    for x, long in bodies:
        parts += [
            box((long, w, sill - 0.35), (x, 0, (sill + 0.35) / 2), name, paint, Finish.PAINT),
            box(
                (long - 0.06, w - 0.04, h - sill - 0.5),
                (x, 0, (h + sill - 0.5) / 2),
                name,
                GLASS,
                Finish.GLASS,
            ),
            box((long, w, 0.5), (x, 0, h - 0.25), name, second, Finish.PAINT),
        ]
        for post_x in np.arange(x - long / 2 + 0.5, x + long / 2, 1.6):
            size = (0.16, w, h - sill - 0.5)
            parts.append(
                box(size, (float(post_x), 0, (h + sill - 0.5) / 2), name, second, Finish.PAINT)
            )
    if kind == 2:
        parts.append(box((0.7, 2.3, 2.5), (-0.2, 0, 1.75), name, DARK))
    if rng.random() < 0.6:
        parts.append(box((2.2, 1.8, 0.3), (-0.2 * length, 0, h + 0.15), name, (0.6, 0.6, 0.6)))
    f = length / 2
    parts.append(box((0.06, 1.4, 0.25), (f, 0, h - 0.3), name, (0.9, 0.55, 0.1), Finish.LAMP))
    for x in (f - 0.2 * min(length, 12), -f + 0.24 * min(length, 12)):
        parts += [wheel(x, y, 0.46, 0.3, name) for y in (-w / 2 + 0.14, w / 2 - 0.14)]
    return merge([*parts, *_ends(f, -f, w, 0.7, name, lit=lit)])


def _cab(f: float, w: float, paint: Rgb, *, tall: bool) -> list[Mesh]:
    """A forward cab whose front is at x = f."""
    name, h = "truck", 3.1 if tall else 2.35
    profile = [(f - 1.9, 0.5), (f, 0.5), (f, 1.35), (f - 0.25, h - 0.05), (f - 1.9, h)]
    return [
        prism(profile, w * 0.94, name, paint, Finish.PAINT),
        box((0.3, w * 0.86, 0.75), (f - 0.09, 0, 1.75), name, GLASS, Finish.GLASS),
        box((0.9, w * 0.96, 0.6), (f - 0.75, 0, 1.75), name, GLASS, Finish.GLASS),
        box((0.1, w * 0.6, 0.5), (f, 0, 0.95), name, DARK),
        *(box((0.2, 0.15, 0.5), (f - 0.2, y * w * 0.56, 1.8), name, DARK) for y in (-1, 1)),
    ]


def truck(rng: np.random.Generator, *, lit: bool) -> Mesh:
    """A lorry: box, flat bed with a load, tipper, tanker, refuse lorry or a big van."""
    kind = int(rng.choice(6, p=(0.36, 0.14, 0.14, 0.1, 0.12, 0.14)))
    length, w, h = (
        float(rng.uniform(6.2, 9.2)),
        float(rng.uniform(2.2, 2.5)),
        float(rng.uniform(2.8, 3.6)),
    )
    paint, cargo, name = (
        vary(rng, pick(rng, PAINTS)),
        vary(rng, pick(rng, (*PAINTS, WHITE))),
        "truck",
    )
    if kind == 5:  # a tall delivery van
        length, w, h = float(rng.uniform(5.6, 7)), 2.05, float(rng.uniform(2.5, 2.9))
    f = length / 2
    back, mid = length - 2.1, -1.05
    parts = _cab(f, w, paint, tall=h > 3.3 and kind == 0)
    parts.append(box((length - 0.6, w * 0.5, 0.3), (-0.3, 0, 0.75), name, DARK))
    if kind in (0, 5):
        parts.append(
            box(
                (back, w, h - 0.9),
                (mid, 0, (h + 0.9) / 2),
                name,
                paint if kind == 5 else cargo,
                Finish.PAINT,
            )
        )
        stripe = (0.6 * back, w + 0.02, 0.5)
        parts.append(box(stripe, (mid, 0, 0.6 * h), name, pick(rng, PAINTS)))
    elif kind == 1:
        parts.append(box((back, w, 0.2), (mid, 0, 1.05), name, (0.35, 0.26, 0.17), Finish.WOOD))
        for x in np.arange(mid - back / 2 + 0.8, mid + back / 2 - 0.5, 1.5):
            tall = float(rng.uniform(0.3, 1.3))
            parts.append(
                box((1.3, 0.8 * w, tall), (float(x), 0, 1.15 + tall / 2), name, vary(rng, cargo))
            )
    elif kind == 2:
        tub = [(-back / 2, 1.0), (back / 2, 1.0), (back / 2 + 0.1, 2.3), (-back / 2 - 0.4, 2.2)]
        parts.append(
            prism(tub, 0.9 * w, name, vary(rng, pick(rng, _YELLOW)), top_width=w).at(mid, 0, 0)
        )
        sand = [(-back / 2, 2.2), (back / 2, 2.2), (0.0, 2.7)]
        parts.append(prism(sand, 0.8 * w, name, (0.35, 0.28, 0.2), top_width=0.3).at(mid, 0, 0))
    elif kind == 3:
        parts.append(_tank(back, 1.0, 1.95, name, cargo).at(mid, 0, 0))
    else:
        body = [
            (-back / 2 - 0.5, 1.4),
            (-back / 2, 0.8),
            (back / 2, 0.8),
            (back / 2, 3.1),
            (-back / 2, 3.2),
        ]
        parts.append(prism(body, w, name, cargo, Finish.PAINT).at(mid, 0, 0))
    axles = (f - 1.1, -f + 1.2) if length < 7 else (f - 1.1, -f + 1.2, -f + 2.2)
    for x in axles:
        parts += [wheel(x, y, 0.46, 0.28, name) for y in (-w / 2 + 0.14, w / 2 - 0.14)]
    return merge([*parts, *_ends(f, -f, w, 0.75, name, lit=lit)])


def _tank(length: float, radius: float, z: float, name: str, colour: Rgb) -> Mesh:
    """A lying cylinder along X."""
    turned = np.array([[0, 0, 1, -length / 2], [0, 1, 0, 0], [-1, 0, 0, z], [0, 0, 0, 1.0]])
    return cylinder(radius, length, name, colour, sides=10, finish=Finish.METAL).moved(turned)


def tractor(rng: np.random.Generator, *, lit: bool) -> Mesh:
    """What pulls a trailer: a tall cab on a short frame."""
    paint, name, w, f = vary(rng, pick(rng, PAINTS)), "truck", 2.45, 2.9
    parts = _cab(f, w, paint, tall=True)
    parts.append(box((5.4, 1.1, 0.3), (0, 0, 0.8), name, DARK))
    parts.append(cylinder(0.5, 0.15, name, DARK).at(-1.4, 0, 0.95))
    for x in (f - 1.2, -1.2, -2.2):
        parts += [wheel(x, y, 0.5, 0.3, name) for y in (-w / 2 + 0.15, w / 2 - 0.15)]
    return merge([*parts, *_ends(f, -f, w, 0.75, name, lit=lit)])


def trailer(rng: np.random.Generator) -> Mesh:
    """A long trailer on three axles: box, container, flat bed with a load, or tank."""
    kind, name = int(rng.choice(4, p=(0.45, 0.25, 0.15, 0.15))), "trailer"
    length, w, h = float(rng.uniform(8.0, 12.0)), 2.5, float(rng.uniform(3.5, 3.9))
    colour = vary(rng, pick(rng, (*PAINTS, (0.7, 0.7, 0.7))))
    parts = [box((length, w * 0.45, 0.25), (0, 0, 0.98), name, DARK)]
    if kind < 2:
        finish, style = (Finish.PAINT, 0) if kind == 0 else (Finish.WALL, 40)
        parts.append(box((length, w, h - 1.1), (0, 0, (h + 1.1) / 2), name, colour, finish, style))
        if kind == 0:
            parts.append(box((0.5 * length, w + 0.02, 0.9), (0, 0, 2.5), name, pick(rng, PAINTS)))
    elif kind == 2:
        parts.append(box((length, w, 0.25), (0, 0, 1.2), name, (0.35, 0.26, 0.17), Finish.WOOD))
        for x in np.arange(-length / 2 + 1, length / 2 - 0.5, 2.0):
            tall = float(rng.uniform(0.4, 1.5))
            parts.append(
                box((1.7, 0.85 * w, tall), (float(x), 0, 1.3 + tall / 2), name, vary(rng, colour))
            )
    else:
        parts.append(_tank(length, 1.15, 2.25, name, vary(rng, (0.6, 0.61, 0.62))))
    for x in (-length / 2 + 1.0, -length / 2 + 2.1, -length / 2 + 3.2):
        parts += [wheel(x, y, 0.48, 0.3, name) for y in (-w / 2 + 0.15, w / 2 - 0.15)]
    parts += [box((0.12, 0.12, 1.0), (length / 2 - 2.3, y, 0.5), name, DARK) for y in (-0.8, 0.8)]
    guard = box((0.06, w, 0.12), (-length / 2, 0, 0.6), name, TAILLIGHT, Finish.SIGN)
    return merge([*parts, guard])


def digger(rng: np.random.Generator) -> Mesh:
    """A tracked or wheeled excavator, its arm bent down before it."""
    c, name = vary(rng, pick(rng, _YELLOW)), "construction_vehicle"
    reach, high = float(rng.uniform(3.4, 4.6)), float(rng.uniform(2.8, 4.2))
    track = [(-1.7, 0.2), (-1.4, 0.0), (1.4, 0.0), (1.7, 0.2), (1.5, 0.75), (-1.5, 0.75)]
    parts = [prism(track, 0.5, name, DARK).at(0, y, 0) for y in (-0.95, 0.95)]
    parts += [
        box((2.0, 1.5, 0.4), (0, 0, 0.7), name, DARK),
        prism([(-1.9, 1.0), (1.0, 1.0), (1.0, 1.7), (-1.9, 1.9)], 2.3, name, c),
        box((1.3, 1.0, 1.0), (0.3, 0.6, 2.3), name, GLASS, Finish.GLASS),
        box((1.35, 1.05, 0.1), (0.3, 0.6, 2.85), name, c),
        bar((0.9, -0.2, 1.5), (0.55 * reach, -0.2, high), 0.4, name, c),
        bar((0.55 * reach, -0.2, high), (reach, -0.2, 1.1), 0.32, name, c),
        prism([(-0.4, 0.1), (0.35, 0.0), (0.4, 0.6), (-0.2, 0.8)], 0.9, name, DARK).at(
            reach, -0.2, 0.4
        ),
    ]
    return merge(parts)


def loader(rng: np.random.Generator) -> Mesh:
    """A wheel loader, its shovel in front."""
    c, name = vary(rng, pick(rng, _YELLOW)), "construction_vehicle"
    parts = [
        prism([(-2.4, 0.8), (0.2, 0.7), (0.2, 1.6), (-2.3, 1.9)], 1.9, name, c),
        box((1.2, 1.4, 1.3), (0.2, 0, 2.3), name, GLASS, Finish.GLASS),
        box((1.4, 1.5, 0.12), (0.2, 0, 3.0), name, c),
        box((1.6, 1.0, 0.7), (1.3, 0, 1.0), name, c),
        prism([(2.9, 0.1), (3.8, 0.05), (3.2, 1.1), (2.8, 0.9)], 2.6, name, DARK),
    ]
    parts += [bar((1.2, y, 1.6), (3.0, y, 0.6), 0.25, name, c) for y in (-0.6, 0.6)]
    for x in (-1.5, 1.4):
        parts += [wheel(x, y, 0.75, 0.5, name) for y in (-1.0, 1.0)]
    return merge(parts)


def roller(rng: np.random.Generator) -> Mesh:
    """A road roller."""
    c, name = vary(rng, pick(rng, _YELLOW)), "construction_vehicle"
    parts = [
        box((3.2, 1.3, 0.7), (-0.2, 0, 1.15), name, c),
        box((1.4, 1.4, 0.1), (-0.3, 0, 2.7), name, c),
        *(box((0.1, 0.1, 1.3), (x, y, 2.05), name, DARK) for x in (-0.9, 0.3) for y in (-0.6, 0.6)),
        wheel(1.4, 0, 0.65, 1.7, name),
        wheel(-1.4, 0, 0.65, 1.7, name),
    ]
    return merge(parts)


def crane(rng: np.random.Generator) -> Mesh:
    """A mobile crane on four axles, its boom raised."""
    c, name = vary(rng, pick(rng, _YELLOW)), "construction_vehicle"
    parts = [
        box((9.5, 2.4, 0.6), (0, 0, 1.0), name, c),
        box((1.8, 2.4, 1.5), (3.8, 0, 1.9), name, c),
        box((0.1, 2.1, 0.8), (4.75, 0, 2.1), name, GLASS, Finish.GLASS),
        box((3.0, 2.2, 1.4), (-2.0, 0, 2.0), name, c),
        bar((-2.8, 0, 2.9), (4.5, 0, float(rng.uniform(4.5, 9))), 0.7, name, c),
    ]
    for x in (-3.4, -2.0, 1.6, 3.2):
        parts += [wheel(x, y, 0.55, 0.35, name) for y in (-1.05, 1.05)]
    return merge(parts)


def machine(rng: np.random.Generator) -> Mesh:
    """Any of the building machines."""
    makers = (digger, loader, roller, crane)
    return makers[int(rng.choice(4, p=(0.42, 0.28, 0.15, 0.15)))](rng)
