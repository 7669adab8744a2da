"""People, as meshes in the object frame of ``shapes``."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.objects.palette import DARK, HAIR, ORANGE, SKINS, cloth, pick
from datasets.sources.synthetic.objects.shapes import (
    Finish,
    Mesh,
    Rgb,
    ball,
    bar,
    box,
    merge,
    prism,
)


def _person(
    rng: np.random.Generator, height: float, top: Rgb, below: Rgb, name: str = "pedestrian"
) -> list[Mesh]:
    """Body, limbs in mid-stride, head and hair."""
    s = height / 1.75
    stride, swing = float(rng.uniform(0.03, 0.3)), float(rng.uniform(0.03, 0.22))
    girth = float(rng.uniform(0.88, 1.25))
    skin = pick(rng, SKINS)
    hip, neck = 0.84 * s, 1.46 * s
    body = [(-0.11 * s, hip), (0.11 * s, hip), (0.13 * s, 1.3 * s), (0.06 * s, neck)]
    torso = [*body, (-0.07 * s, neck), (-0.12 * s, 1.3 * s)]
    parts = [
        prism(torso, 0.34 * s * girth, name, top, Finish.CLOTH, top_width=0.38 * s * girth),
        ball((0.1 * s, 0.085 * s, 0.14 * s), (0.02 * s, 0, 1.6 * s), name, skin),
        ball((0.1 * s, 0.095 * s, 0.08 * s), (-0.02 * s, 0, 1.69 * s), name, pick(rng, HAIR)),
    ]
    if rng.random() < 0.2:  # a coat or a skirt
        hem = (0.45 + 0.2 * float(rng.random())) * s
        skirt = [(-0.17 * s, hem), (0.17 * s, hem), (0.11 * s, hip), (-0.11 * s, hip)]
        parts.append(prism(skirt, 0.42 * s * girth, name, top, Finish.CLOTH))
    for side in (-1, 1):
        foot, y = side * stride, side * 0.1 * s
        parts.append(bar((foot, y, 0.07), (0, y, hip), 0.15 * s, name, below, Finish.CLOTH))
        parts.append(box((0.26 * s, 0.1 * s, 0.08), (foot + 0.05, y, 0.04), name, DARK))
        hand = (-side * swing, side * 0.27 * s * girth, 0.85 * s)
        shoulder = (0.0, side * 0.2 * s * girth, 1.38 * s)
        parts.append(bar(hand, shoulder, 0.1 * s, name, top, Finish.CLOTH))
    return parts


def pedestrian(rng: np.random.Generator, *, umbrella: bool = False) -> Mesh:
    """A grown-up or a child, some with a bag, some under an umbrella."""
    height = float(rng.uniform(1.05, 1.45) if rng.random() < 0.12 else rng.uniform(1.52, 1.92))
    top, below, name = cloth(rng), cloth(rng), "pedestrian"
    parts = _person(rng, height, top, below)
    if rng.random() < 0.3:
        center = (-0.2, 0.0, 0.7 * height) if rng.random() < 0.6 else (0.0, 0.3, 0.45 * height)
        parts.append(box((0.18, 0.28, 0.38), center, name, cloth(rng), Finish.CLOTH))
    if umbrella:
        parts.append(bar((0.15, 0.2, 1.0), (0.15, 0.2, 2.0), 0.04, name, DARK))
        parts.append(ball((0.5, 0.5, 0.18), (0.15, 0.2, 1.98), name, cloth(rng), Finish.CLOTH))
    return merge(parts)


def worker(rng: np.random.Generator) -> Mesh:
    """A person in a bright vest and a helmet."""
    name = "pedestrian"
    m = _person(rng, 1.78, ORANGE, cloth(rng))
    band = box((0.27, 0.44, 0.09), (0, 0, 1.1), name, (0.7, 0.75, 0.7), Finish.SIGN)
    helmet = ball((0.15, 0.13, 0.1), (0, 0, 1.74), name, (0.85, 0.72, 0.05))
    return merge([*m, band, helmet])
