"""Houses, as meshes in the object frame of ``shapes``: the street is on the side of -Y."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from datasets.sources.synthetic.objects.palette import DARK, PAINTS, WHITE, pick, vary
from datasets.sources.synthetic.objects.shapes import Finish, Mesh, Rgb, box, cylinder, merge, prism

_NAME = "manmade"
_FOOT_M = 1.5  # feet reach below the ground
_PLASTER: tuple[Rgb, ...] = (
    *[(0.55, 0.47, 0.36), (0.6, 0.57, 0.52), (0.62, 0.52, 0.36), (0.4, 0.42, 0.44)],
    *[(0.5, 0.36, 0.3), (0.66, 0.63, 0.55), (0.42, 0.47, 0.4), (0.5, 0.55, 0.6)],
)
_BRICK: tuple[Rgb, ...] = (
    (0.4, 0.18, 0.12),
    (0.32, 0.16, 0.12),
    (0.5, 0.33, 0.2),
    (0.3, 0.26, 0.23),
)
_TILES: tuple[Rgb, ...] = ((0.32, 0.12, 0.08), (0.13, 0.13, 0.15), (0.24, 0.17, 0.13))
_SHEET: tuple[Rgb, ...] = (
    (0.5, 0.52, 0.54),
    (0.25, 0.35, 0.45),
    (0.6, 0.57, 0.48),
    (0.36, 0.4, 0.34),
)

# facades, see surfaces.py: plaster, brick, boards, glass, shops, sheet metal
PLASTER, BRICK, BOARDS, CURTAIN, SHOPS, SHEET = (range(8 * i, 8 * i + 8) for i in range(6))


def _style(rng: np.random.Generator, kind: range) -> int:
    return int(rng.integers(kind.start, kind.stop))


def _gable(length: float, depth: float, steep: float, colour: Rgb, *, across: bool) -> Mesh:
    """A pitched roof whose ridge runs along X, or along Y."""
    run, ridge = (length, depth) if across else (depth, length)
    roof = prism(
        [(-run / 2 - 0.4, 0), (run / 2 + 0.4, 0), (0, run * steep)],
        ridge + 0.6,
        _NAME,
        colour,
        Finish.ROOF,
    )
    return roof if across else roof.at(0, 0, 0, np.pi / 2)


def _hip(length: float, depth: float, height: float, colour: Rgb) -> Mesh:
    """A roof that slopes to all four sides."""
    x = length / 2 + 0.4
    profile = [(-x, 0.0), (x, 0.0), (x - 0.45 * depth, height), (-x + 0.45 * depth, height)]
    return prism(profile, depth + 0.8, _NAME, colour, Finish.ROOF, top_width=0.2)


def _block(
    length: float, depth: float, lo: float, hi: float, c: Rgb, style: int, y: float = 0.0
) -> list[Mesh]:
    """A body with facades, cut at 10 m: only the lower part can reach into a voxel grid."""
    cuts = [lo, 10.0, hi] if lo < 10.0 < hi else [lo, hi]
    return [
        box((length, depth, b - a), (0, y, (a + b) / 2), _NAME, c, Finish.WALL, style)
        for a, b in pairwise(cuts)
    ]


def _balconies(rng: np.random.Generator, length: float, depth: float, height: float) -> list[Mesh]:
    out, colour = [], vary(rng, pick(rng, ((0.6, 0.6, 0.6), (0.25, 0.27, 0.3))))
    step = float(rng.uniform(4, 7))
    for x in np.arange(-length / 2 + 2, length / 2 - 1.5, step):
        for z in np.arange(3.1, min(height - 2, 22), 3.1):
            center_x, y = float(x), -depth / 2 - 0.6
            out.append(box((2.4, 1.2, 0.18), (center_x, y, float(z)), _NAME, colour))
            out.append(box((2.4, 0.08, 0.9), (center_x, y - 0.55, float(z) + 0.5), _NAME, colour))
    return out


def _front(rng: np.random.Generator, length: float, depth: float) -> list[Mesh]:
    """What may stand before a ground floor: an awning, a stair, a bay, bins of a shop."""
    y, kind = -depth / 2, rng.random()
    center_x = float(rng.uniform(-0.3, 0.3)) * length
    if kind < 0.3:
        size = (length * float(rng.uniform(0.3, 0.8)), 1.5, 0.14)
        return [box(size, (center_x * 0.3, y - 0.6, 3.0), _NAME, vary(rng, pick(rng, PAINTS)))]
    if kind < 0.5:
        stair = [(-0.5, 0.0), (0.5, 0.0), (0.5, 0.75), (0.1, 0.75)]
        rail = box((0.08, 1.0, 0.9), (center_x + 0.8, y - 0.5, 1.0), _NAME, DARK, Finish.METAL)
        return [
            prism(stair, 1.5, _NAME, (0.45, 0.44, 0.42)).at(center_x, y - 0.45, 0, np.pi / 2),
            rail,
        ]
    if kind < 0.65:
        return [
            box((2.6, 1.0, 2.6), (center_x, y - 0.5, 1.5), _NAME, vary(rng, WHITE), Finish.WALL, 3)
        ]
    return []


def tower(rng: np.random.Generator, length: float, depth: float, height: float) -> Mesh:
    """Flats or offices: a base with shops, a body, sometimes stepped back; things on the roof."""
    kind = pick_kind(rng, (PLASTER, BRICK, CURTAIN, SHOPS), (0.35, 0.25, 0.25, 0.15))
    c = vary(rng, pick(rng, _BRICK if kind is BRICK else _PLASTER))
    style = _style(rng, kind)
    base = 4.2 if rng.random() < 0.55 else 0.0
    parts = []
    if base:
        ground = vary(rng, (0.4, 0.39, 0.38), 0.4)
        parts += _block(length, depth, -_FOOT_M, base, ground, _style(rng, SHOPS))
        if rng.random() < 0.6:
            parts.append(box((length + 0.6, depth + 0.6, 0.35), (0, 0, base), _NAME, c))
    shrink = 1.0 if not base or rng.random() < 0.6 else 0.9
    parts += _block(shrink * length, shrink * depth, base or -_FOOT_M, height, c, style)
    if height > 16 and rng.random() < 0.5:  # stepped back
        added_m = float(rng.uniform(3, 12))
        parts += _block(0.7 * length, 0.7 * depth, height, height + added_m, c, style, 0.1 * depth)
    parts.append(box((length + 0.4, depth + 0.4, 0.6), (0, 0, height), _NAME, (0.35, 0.34, 0.33)))
    if rng.random() < 0.5:
        parts.append(box((3, 2.4, 1.6), (0.2 * length, 0, height + 1), _NAME, (0.5, 0.5, 0.5)))
    if rng.random() < 0.45:
        parts += _balconies(rng, length, depth, height)
    return merge([*parts, *_front(rng, length, depth)])


def pick_kind(
    rng: np.random.Generator, kinds: tuple[range, ...], chances: tuple[float, ...]
) -> range:
    """One of the kinds of facades."""
    return kinds[int(rng.choice(len(kinds), p=chances))]


def row_house(rng: np.random.Generator, length: float, depth: float, height: float) -> Mesh:
    """A narrow town house with a gable, a hip or a parapet, and perhaps a shop."""
    kind = pick_kind(rng, (PLASTER, BRICK, SHOPS), (0.45, 0.35, 0.2))
    c = vary(rng, pick(rng, _BRICK if kind is BRICK else _PLASTER), 0.25)
    parts = _block(length, depth, -_FOOT_M, height, c, _style(rng, kind))
    roof, tiles = rng.random(), vary(rng, pick(rng, _TILES))
    if roof < 0.35:
        parts.append(_gable(length, depth, 0.7, tiles, across=True).at(0, 0, height))
    elif roof < 0.75:
        parts.append(_gable(length, depth, 0.45, tiles, across=False).at(0, 0, height))
    else:
        parts.append(box((length, depth + 0.5, 0.7), (0, 0, height), _NAME, vary(rng, c)))
    if rng.random() < 0.5:
        chimney = box((0.7, 0.7, 2.6), (0.3 * length, 0, height + 2.4), _NAME, pick(rng, _BRICK))
        parts.append(chimney)
    if rng.random() < 0.25:
        parts += _balconies(rng, length, depth, height)
    return merge([*parts, *_front(rng, length, depth)])


def villa(rng: np.random.Generator, length: float, depth: float, height: float) -> Mesh:
    """A house of its own: wings, porch, garage, chimney."""
    kind = pick_kind(rng, (PLASTER, BRICK, BOARDS), (0.35, 0.25, 0.4))
    c = vary(rng, pick(rng, _BRICK if kind is BRICK else _PLASTER), 0.25)
    style, tiles = _style(rng, kind), vary(rng, pick(rng, _TILES))
    parts = _block(length, depth, -_FOOT_M, height, c, style)
    shape = rng.random()
    if shape < 0.5:
        parts.append(
            _gable(length, depth, float(rng.uniform(0.3, 0.6)), tiles, across=False).at(
                0, 0, height
            )
        )
    elif shape < 0.8:
        parts.append(_hip(length, depth, 0.35 * depth, tiles).at(0, 0, height))
    else:
        parts.append(box((length + 0.8, depth + 0.8, 0.4), (0, 0, height), _NAME, tiles))
    side = float(rng.choice((-1, 1)))
    if rng.random() < 0.55:  # a wing towards the street, its gable in front
        w, out = 0.42 * length, float(rng.uniform(1.5, 3))
        wing = _block(w, out, -_FOOT_M, 0.8 * height, c, style, -depth / 2 - out / 2)
        roof = _gable(w, out + 1, 0.5, tiles, across=True).at(0, -depth / 2 - out / 2, 0.8 * height)
        parts += [m.at(side * 0.27 * length, 0, 0) for m in (*wing, roof)]
    if rng.random() < 0.5:  # a porch on posts
        x, y = -side * 0.2 * length, -depth / 2 - 0.9
        parts.append(box((3.2, 1.9, 0.16), (x, y, 2.5), _NAME, tiles))
        parts.append(box((3.2, 1.9, 0.6), (x, y, 0.1), _NAME, (0.45, 0.42, 0.38), Finish.WOOD))
        posts = [(x + a, y - 0.8, 1.3) for a in (-1.45, 1.45)]
        parts += [box((0.14, 0.14, 2.6), p, _NAME, WHITE) for p in posts]
    if rng.random() < 0.45:
        x = side * (length / 2 + 1.8)
        parts.append(box((3.6, 6.0, 3.9), (x, 0, 0.7), _NAME, c, Finish.WALL, SHEET.start))
        parts.append(box((2.6, 0.1, 2.1), (x, -3.02, 1.05), _NAME, vary(rng, WHITE), Finish.WOOD))
    if rng.random() < 0.5:
        parts.append(
            box((0.7, 0.7, 2.2), (-0.3 * length, 0.1, height + 1.6), _NAME, pick(rng, _BRICK))
        )
    return merge(parts)


def hall(rng: np.random.Generator, length: float, depth: float, height: float) -> Mesh:
    """A store house or a workshop: gates, a flat pitched roof, tanks or a chimney beside it."""
    kind = pick_kind(rng, (SHEET, BRICK, PLASTER), (0.65, 0.2, 0.15))
    c = vary(rng, pick(rng, _SHEET if kind is SHEET else _PLASTER), 0.25)
    parts = _block(length, depth, -_FOOT_M, height, c, _style(rng, kind))
    parts.append(_gable(length, depth, 0.09, (0.4, 0.4, 0.41), across=False).at(0, 0, height))
    gate = vary(rng, pick(rng, (*PAINTS, WHITE)))
    for x in np.arange(-length / 2 + 4, length / 2 - 3, float(rng.uniform(5.5, 9))):
        parts.append(box((3.4, 0.2, 3.6), (float(x), -depth / 2, 1.8), _NAME, gate, Finish.WOOD))
        if rng.random() < 0.3:
            parts.append(box((4.2, 1.8, 0.16), (float(x), -depth / 2 - 0.9, 4.0), _NAME, gate))
    if rng.random() < 0.4:
        x = length / 2 + 2.6
        tank = cylinder(1.7, float(rng.uniform(4, 8)), _NAME, WHITE, sides=10, finish=Finish.METAL)
        parts += [tank.at(x, 0, 0), tank.at(x, 4, 0)]
    if rng.random() < 0.5:
        office = vary(rng, pick(rng, _PLASTER))
        block = _block(
            0.3 * length, 4.0, -_FOOT_M, 3.4, office, _style(rng, PLASTER), -depth / 2 - 2
        )
        parts += [m.at(0.35 * length, 0, 0) for m in block]
    return merge(parts)


MAKERS = {"tower": tower, "row": row_house, "villa": villa, "hall": hall}
