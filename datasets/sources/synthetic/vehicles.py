"""Vehicles with wheels or tracks, as meshes in the object frame of ``shapes``."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.palette import DARK, GLASS, PAINTS, SKIN, cloth, pick
from datasets.sources.synthetic.shapes import (
    Finish,
    Mesh,
    box,
    cylinder,
    merge,
    prism,
    wheel,
)


def car(rng: np.random.Generator) -> Mesh:
    """A saloon, a hatchback, an estate car or a van."""
    kind = int(rng.integers(4))
    length = float(rng.uniform(4.1, 4.9)) + (0.3 if kind == 3 else 0.0)
    w, h = (
        float(rng.uniform(1.75, 1.92)),
        (1.45, 1.5, 1.68, 1.95)[kind] + float(rng.normal(0, 0.04)),
    )
    paint = pick(rng, PAINTS)
    f, r = length / 2, -length / 2
    waist = 0.55 * h if kind < 3 else 0.5 * h
    body = prism(
        [
            (r, 0.35),
            (r + 0.1, 0.22),
            (f - 0.1, 0.22),
            (f, 0.4),
            (f - 0.05, waist * 0.86),
            (f - 1.1, waist),
            (r + 0.15, waist),
            (r, waist * 0.9),
        ],
        w,
        "car",
        paint,
        Finish.PAINT,
    )
    back = (0.75, 0.25, 0.2, 0.1)[kind]
    screen = 1.0 if kind < 3 else 0.45
    foot_f, foot_r = f - screen, r + back
    top_f, top_r = foot_f - (0.75 if kind < 3 else 0.5), foot_r + (0.55, 0.45, 0.25, 0.15)[kind]
    cabin = prism(
        [(foot_r, waist), (foot_f, waist), (top_f, h - 0.05), (top_r, h - 0.05)],
        w * 0.94,
        "car",
        GLASS,
        Finish.GLASS,
        top_width=w * 0.74,
    )
    roof = box(
        (top_f - top_r + 0.1, w * 0.76, 0.06),
        ((top_f + top_r) / 2, 0, h - 0.03),
        "car",
        paint,
        Finish.PAINT,
    )
    parts = [body, cabin, roof]
    for y in (-w * 0.36, w * 0.36):
        parts.append(box((0.06, 0.35, 0.14), (f - 0.02, y, 0.62), "car", (0.9, 0.9, 0.8)))
        parts.append(box((0.06, 0.3, 0.16), (r, y, 0.72), "car", (0.6, 0.03, 0.03)))
    for x in (f - 0.85, r + 0.8):
        parts += [wheel(x, y, 0.32, 0.22, "car") for y in (-w / 2 + 0.1, w / 2 - 0.1)]
    return merge(parts)


def bus(rng: np.random.Generator) -> Mesh:
    """A city bus with its band of windows."""
    length, w, h = float(rng.uniform(10.5, 12.2)), 2.55, 3.1
    paint = pick(rng, ((0.6, 0.08, 0.06), (0.75, 0.72, 0.65), (0.08, 0.3, 0.5), (0.7, 0.5, 0.05)))
    parts = [
        box((length, w, 1.0), (0, 0, 0.85), "bus", paint, Finish.PAINT),
        box((length - 0.06, w - 0.04, 1.15), (0, 0, 1.92), "bus", GLASS, Finish.GLASS),
        box((length, w, 0.6), (0, 0, h - 0.3), "bus", paint, Finish.PAINT),
    ]
    for x in np.arange(-length / 2 + 1.2, length / 2 - 0.5, 1.6):
        parts.append(box((0.16, w, 1.15), (float(x), 0, 1.92), "bus", paint, Finish.PAINT))
    for x in (length / 2 - 2.2, -length / 2 + 2.6):
        parts += [wheel(x, y, 0.48, 0.3, "bus") for y in (-w / 2 + 0.14, w / 2 - 0.14)]
    return merge(parts)


def truck(rng: np.random.Generator) -> Mesh:
    """A delivery lorry: cab and cargo box."""
    length, w, h = float(rng.uniform(6.2, 8.8)), 2.35, float(rng.uniform(2.8, 3.5))
    paint, cargo = pick(rng, PAINTS), pick(rng, ((0.75, 0.75, 0.73), (0.4, 0.45, 0.5)))
    f = length / 2
    parts = [
        prism(
            [(f - 1.9, 0.5), (f, 0.5), (f, 1.35), (f - 0.25, 2.3), (f - 1.9, 2.35)],
            w * 0.94,
            "truck",
            paint,
            Finish.PAINT,
        ),
        box((0.7, w * 0.95, 0.6), (f - 0.75, 0, 1.75), "truck", GLASS, Finish.GLASS),
        box((length - 2.1, w, h - 1.0), (-1.05, 0, (h + 1.0) / 2), "truck", cargo),
        box((length - 0.6, w * 0.5, 0.3), (-0.3, 0, 0.75), "truck", DARK),
    ]
    for x in (f - 1.1, -f + 1.3, -f + 2.2):
        parts += [wheel(x, y, 0.45, 0.28, "truck") for y in (-w / 2 + 0.14, w / 2 - 0.14)]
    return merge(parts)


def trailer(rng: np.random.Generator) -> Mesh:
    """A long box trailer on three axles (its tractor is a truck of its own)."""
    length, w, h = float(rng.uniform(8.0, 11.0)), 2.5, 3.7
    colour = pick(rng, ((0.7, 0.7, 0.7), (0.15, 0.3, 0.55), (0.55, 0.25, 0.08)))
    parts = [
        box((length, w, h - 1.1), (0, 0, (h + 1.1) / 2), "trailer", colour),
        box((length, w * 0.45, 0.25), (0, 0, 0.98), "trailer", DARK),
    ]
    for x in (-length / 2 + 1.0, -length / 2 + 2.1, -length / 2 + 3.2):
        parts += [wheel(x, y, 0.48, 0.3, "trailer") for y in (-w / 2 + 0.15, w / 2 - 0.15)]
    for y in (-0.8, 0.8):
        parts.append(box((0.12, 0.12, 1.0), (length / 2 - 2.3, y, 0.5), "trailer", DARK))
    return merge(parts)


def excavator(rng: np.random.Generator) -> Mesh:
    """A tracked digger, its arm bent down before it."""
    c, name = (0.75, 0.5, 0.04), "construction_vehicle"
    arm = box((2.9, 0.35, 0.4), (0, 0, 0), name, c)
    pitch = np.eye(4)
    pitch[:3, :3] = [[0.77, 0, -0.64], [0, 1, 0], [0.64, 0, 0.77]]
    pitch[:3, 3] = (2.3, 0.1, 2.3)
    fore = np.eye(4)
    fore[:3, :3] = [[0.45, 0, 0.89], [0, 1, 0], [-0.89, 0, 0.45]]
    fore[:3, 3] = (3.7, 0.1, 2.1)
    parts = [
        prism(
            [(-1.7, 0.2), (-1.4, 0), (1.4, 0), (1.7, 0.2), (1.5, 0.75), (-1.5, 0.75)],
            0.5,
            name,
            DARK,
        ).at(0, y, 0)
        for y in (-0.95, 0.95)
    ]
    parts += [
        box((2.0, 1.5, 0.4), (0, 0, 0.7), name, DARK),
        box((2.9, 2.3, 0.9), (-0.4, 0, 1.35), name, c),
        box((1.3, 1.0, 1.0), (0.3, 0.6, 2.3), name, GLASS, Finish.GLASS),
        box((1.35, 1.05, 0.1), (0.3, 0.6, 2.85), name, c),
        arm.moved(pitch),
        arm.moved(fore),
        box((0.8, 0.9, 0.6), (4.3, 0.1, 0.6), name, (0.25, 0.25, 0.25)),
    ]
    return merge(parts)


def _two_wheeler(rng: np.random.Generator, name: str, *, rider: bool, heavy: bool) -> Mesh:
    c = pick(rng, PAINTS)
    half, radius, width = (0.68, 0.32, 0.16) if heavy else (0.55, 0.34, 0.07)
    seat = 0.8 if heavy else 0.92
    parts = [wheel(x, 0, radius, width, name) for x in (-half, half)]
    if heavy:
        parts.append(
            prism(
                [(-0.75, 0.62), (-0.2, 0.32), (0.35, 0.32), (0.6, 0.75), (0.3, 1.0), (-0.7, 0.85)],
                0.34,
                name,
                c,
                Finish.PAINT,
            )
        )
    else:
        parts.append(box((0.95, 0.07, 0.07), (0, 0, 0.62), name, c))
        parts.append(box((0.07, 0.07, 0.6), (-0.2, 0, 0.62), name, c))
        parts.append(box((0.07, 0.07, 0.7), (0.45, 0, 0.66), name, c))
        parts.append(box((0.28, 0.16, 0.07), (-0.22, 0, seat), name, DARK))
    parts.append(box((0.07, 0.62, 0.07), (0.42, 0, 1.06), name, DARK))
    if rider:
        top = cloth(rng)
        parts.append(
            prism(
                [(-0.3, seat), (-0.02, seat), (0.22, seat + 0.6), (-0.04, seat + 0.62)],
                0.42,
                name,
                top,
            )
        )
        parts.append(
            cylinder(0.13, 0.26, name, pick(rng, (SKIN, DARK)), sides=6).at(0.14, 0, seat + 0.62)
        )
        for y in (-0.17, 0.17):
            parts.append(
                prism(
                    [(-0.15, seat - 0.05), (-0.1, seat + 0.1), (0.25, 0.45), (0.15, 0.3)],
                    0.14,
                    name,
                    cloth(rng),
                ).at(0, y, 0)
            )
            parts.append(box((0.5, 0.09, 0.09), (0.25, y * 1.5, seat + 0.4), name, top))
    return merge(parts)


def bicycle(rng: np.random.Generator, *, rider: bool) -> Mesh:
    return _two_wheeler(rng, "bicycle", rider=rider, heavy=False)


def motorcycle(rng: np.random.Generator, *, rider: bool) -> Mesh:
    return _two_wheeler(rng, "motorcycle", rider=rider, heavy=True)
