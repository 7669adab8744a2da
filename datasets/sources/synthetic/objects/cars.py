"""Cars and two-wheelers, as meshes in the object frame of ``shapes``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.sources.synthetic.objects.palette import (
    DARK,
    GLASS,
    HAIR,
    PAINTS,
    SKINS,
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
    merge,
    prism,
    wheel,
)

HEADLIGHT: Rgb = (0.95, 0.93, 0.85)
TAILLIGHT: Rgb = (0.7, 0.03, 0.03)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Body:
    """Proportions of a car: lengths in metres, the others as shares.

    Attributes:
        length, width, height: least and largest.
        waist: height of the windows' foot.
        bonnet, boot: length before and behind the cabin's foot.
        rake: run of the windscreen and of the rear window.
    """

    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    waist: float
    bonnet: float
    boot: float
    rake: tuple[float, float]


_BODIES = {
    "saloon": _Body(
        length=(4.4, 5.0), width=(1.78, 1.9), height=(1.4, 1.5),
        waist=0.58, bonnet=1.15, boot=0.75, rake=(0.8, 0.6),
    ),
    "hatch": _Body(
        length=(3.6, 4.3), width=(1.68, 1.82), height=(1.45, 1.58),
        waist=0.57, bonnet=0.9, boot=0.15, rake=(0.75, 0.45),
    ),
    "estate": _Body(
        length=(4.5, 4.95), width=(1.78, 1.9), height=(1.45, 1.55),
        waist=0.56, bonnet=1.15, boot=0.12, rake=(0.8, 0.35),
    ),
    "suv": _Body(
        length=(4.3, 5.0), width=(1.82, 2.0), height=(1.65, 1.85),
        waist=0.6, bonnet=1.1, boot=0.12, rake=(0.6, 0.3),
    ),
    "van": _Body(
        length=(4.6, 5.6), width=(1.9, 2.05), height=(1.9, 2.4),
        waist=0.5, bonnet=0.7, boot=0.06, rake=(0.6, 0.1),
    ),
    "coupe": _Body(
        length=(4.0, 4.5), width=(1.76, 1.88), height=(1.25, 1.36),
        waist=0.62, bonnet=1.35, boot=0.35, rake=(0.85, 1.1),
    ),
}  # fmt: skip


def _lights(front: float, rear: float, w: float, z: float, name: str, *, lit: bool) -> list[Mesh]:
    finish = Finish.LAMP if lit else Finish.SIGN
    out = []
    for y in (-0.37 * w, 0.37 * w):
        out.append(box((0.08, 0.34, 0.15), (front - 0.03, y, z), name, HEADLIGHT, finish))
        out.append(box((0.06, 0.28, 0.2), (rear + 0.02, y, z + 0.12), name, TAILLIGHT, finish))
    plate = (0.04, 0.5, 0.12)
    return [
        *out,
        box(plate, (front, 0, 0.45), name, WHITE, Finish.SIGN),
        box(plate, (rear, 0, 0.6), name, WHITE, Finish.SIGN),
    ]


def car(rng: np.random.Generator, *, lit: bool) -> Mesh:
    """A saloon, hatchback, estate, SUV, van, coupe or pickup; ``lit``: its lights are on."""
    kinds = (*_BODIES, "pickup")
    kind = kinds[int(rng.choice(7, p=(0.24, 0.2, 0.12, 0.22, 0.12, 0.04, 0.06)))]
    shape = _BODIES["suv" if kind == "pickup" else kind]
    length, w, h = (float(rng.uniform(*v)) for v in (shape.length, shape.width, shape.height))
    if kind == "pickup":
        length += 0.7
    paint = vary(rng, pick(rng, PAINTS), 0.1)
    f, r, name = length / 2, -length / 2, "car"
    waist, low = shape.waist * h, 0.24
    nose = float(rng.uniform(0.72, 0.85)) * waist
    hull = [(r, 0.4), (r + 0.12, low), (f - 0.15, low), (f, 0.42), (f - 0.06, nose)]
    hull += [(f - shape.bonnet, waist), (r + 0.12, waist), (r, 0.85 * waist)]
    parts = [prism(hull, w, name, paint, Finish.PAINT, top_width=0.94 * w)]
    foot_f = f - shape.bonnet
    foot_r = r + (0.42 * length if kind == "pickup" else shape.boot)
    top_f, top_r = foot_f - shape.rake[0], foot_r + shape.rake[1]
    if kind == "pickup":
        top_r = foot_r + 0.1
    closed = kind == "van" and rng.random() < 0.5
    cabin = [(foot_r, waist), (foot_f, waist), (top_f, h - 0.06), (top_r, h - 0.06)]
    parts.append(prism(cabin, 0.93 * w, name, GLASS, Finish.GLASS, top_width=0.76 * w))
    roof = [(top_r - 0.06, h - 0.1), (top_f + 0.06, h - 0.1), (top_f - 0.12, h), (top_r + 0.1, h)]
    parts.append(prism(roof, 0.8 * w, name, paint, Finish.PAINT, top_width=0.7 * w))
    if closed:  # no windows behind the driver
        size = (foot_f - 1.3 - foot_r, 0.94 * w, h - waist)
        parts.append(
            box(size, (foot_r + size[0] / 2, 0, (h + waist) / 2), name, paint, Finish.PAINT)
        )
    else:  # pillars
        x, top = (foot_f + foot_r) / 2 - 0.1, (top_f + top_r) / 2 - 0.1
        for side in (-1, 1):
            foot, head = (x, side * 0.465 * w, waist), (top, side * 0.385 * w, h - 0.06)
            parts.append(bar(foot, head, 0.09, name, paint, Finish.PAINT))
    if kind == "pickup":
        deep = foot_r - r - 0.2
        parts.append(box((deep, 0.8 * w, 0.05), (r + 0.12 + deep / 2, 0, waist + 0.01), name, DARK))
        for side in (-1, 1):
            center = (r + 0.1 + deep / 2, side * 0.46 * w, waist + 0.1)
            parts.append(box((deep, 0.08, 0.22), center, name, paint, Finish.PAINT))
    for side in (-1, 1):
        parts.append(
            box((0.14, 0.2, 0.14), (foot_f - 0.25, side * 0.52 * w, waist + 0.1), name, paint)
        )
    if rng.random() < 0.12:  # a taxi's sign, or a box on the roof
        size = (0.3, 0.6, 0.16) if rng.random() < 0.5 else (1.7, 0.8, 0.35)
        parts.append(
            box(size, (0.5 * (top_f + top_r), 0, h + size[2] / 2), name, pick(rng, PAINTS))
        )
    parts += _lights(f, r, w, 0.85 * nose, name, lit=lit)
    radius = 0.36 if kind in ("suv", "pickup", "van") else 0.32
    for x in (f - 0.19 * length, r + 0.18 * length):
        parts += [wheel(x, y, radius, 0.24, name) for y in (-w / 2 + 0.1, w / 2 - 0.1)]
    return merge(parts)


# ---- two-wheelers --------------------------------------------------------------------------------


def _rider(rng: np.random.Generator, name: str, seat: float, lean: float) -> list[Mesh]:
    top, below = cloth(rng), cloth(rng)
    neck = (0.05 + lean, 0.0, seat + 0.58)
    body = [(-0.28, seat), (-0.02, seat), (neck[0] + 0.12, neck[2]), (neck[0] - 0.12, neck[2])]
    parts = [
        prism(body, 0.36, name, top, Finish.CLOTH),
        ball((0.11, 0.09, 0.13), (neck[0] + 0.06, 0, neck[2] + 0.16), name, pick(rng, SKINS)),
        ball(
            (0.14, 0.12, 0.11),
            (neck[0] + 0.03, 0, neck[2] + 0.23),
            name,
            pick(rng, (*PAINTS, *HAIR)),
        ),
    ]
    for y in (-0.16, 0.16):
        knee, foot = (0.22, y, seat - 0.22), (0.05, y, 0.3)
        parts.append(bar((-0.15, y, seat), knee, 0.14, name, below, Finish.CLOTH))
        parts.append(bar(knee, foot, 0.12, name, below, Finish.CLOTH))
        parts.append(
            bar(
                (neck[0], y * 1.2, neck[2] - 0.08),
                (0.42, y * 1.5, 1.02),
                0.09,
                name,
                top,
                Finish.CLOTH,
            )
        )
    return parts


def bicycle(rng: np.random.Generator, *, rider: bool) -> Mesh:
    """With a frame, some with a basket; ridden or standing."""
    c, name, seat = vary(rng, pick(rng, PAINTS)), "bicycle", float(rng.uniform(0.85, 0.97))
    crank, head, saddle = (-0.05, 0.0, 0.3), (0.36, 0.0, 0.82), (-0.22, 0.0, seat)
    pairs = [(crank, head), (crank, saddle), (saddle, head), (crank, (-0.52, 0.0, 0.34))]
    pairs += [(saddle, (-0.52, 0.0, 0.34)), (head, (0.52, 0.0, 0.34))]
    parts = [bar(a, b, 0.06, name, c) for a, b in pairs]
    parts += [wheel(x, 0, 0.34, 0.06, name) for x in (-0.52, 0.52)]
    parts.append(bar((0.38, -0.3, 1.03), (0.38, 0.3, 1.03), 0.06, name, DARK))
    parts.append(bar(head, (0.38, 0, 1.03), 0.05, name, c))
    parts.append(box((0.28, 0.16, 0.07), saddle, name, DARK))
    if rng.random() < 0.25:
        parts.append(box((0.35, 0.4, 0.28), (0.62, 0, 0.88), name, (0.3, 0.2, 0.12)))
    if rider:
        parts += _rider(rng, name, seat + 0.03, float(rng.uniform(0.1, 0.25)))
    return merge(parts)


def motorcycle(rng: np.random.Generator, *, rider: bool, lit: bool = False) -> Mesh:
    """A motorcycle or a scooter."""
    c, name = vary(rng, pick(rng, PAINTS)), "motorcycle"
    half = float(rng.uniform(0.6, 0.75))
    parts = [wheel(x, 0, 0.3, 0.15, name) for x in (-half, half)]
    if rng.random() < 0.5:
        tank = [(-0.75, 0.62), (-0.2, 0.32), (0.35, 0.32), (0.6, 0.75), (0.3, 1.0), (-0.7, 0.85)]
        parts.append(prism(tank, 0.34, name, c, Finish.PAINT))
    else:  # a scooter: a shield in front, a floor, a box under the seat
        rear = [(-0.8, 0.35), (-0.2, 0.3), (-0.15, 0.78), (-0.8, 0.8)]
        parts.append(prism(rear, 0.36, name, c, Finish.PAINT))
        parts.append(box((0.5, 0.36, 0.1), (0.1, 0, 0.32), name, DARK))
        parts.append(prism([(0.35, 0.3), (0.5, 0.3), (0.45, 1.0), (0.35, 1.0)], 0.42, name, c))
    parts.append(bar((half, 0, 0.32), (0.42, 0, 1.04), 0.09, name, DARK, Finish.METAL))
    parts.append(bar((0.42, -0.34, 1.04), (0.42, 0.34, 1.04), 0.07, name, DARK))
    lamp = Finish.LAMP if lit else Finish.SIGN
    parts.append(box((0.1, 0.18, 0.16), (0.55, 0, 0.9), name, HEADLIGHT, lamp))
    parts.append(box((0.06, 0.16, 0.1), (-0.8, 0, 0.72), name, TAILLIGHT, lamp))
    if rng.random() < 0.3:
        parts.append(box((0.4, 0.42, 0.38), (-0.65, 0, 1.02), name, vary(rng, c)))
    if rider:
        parts += _rider(rng, name, 0.82, float(rng.uniform(0.05, 0.2)))
    return merge(parts)
