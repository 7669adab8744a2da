"""Colours that several kinds of things share."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.objects.shapes import Rgb

PAINTS: tuple[Rgb, ...] = (
    *[(0.78, 0.78, 0.78), (0.74, 0.75, 0.74), (0.55, 0.56, 0.58), (0.4, 0.41, 0.43)],
    *[(0.03, 0.03, 0.035), (0.06, 0.06, 0.07), (0.16, 0.17, 0.19), (0.22, 0.23, 0.25)],
    *[(0.5, 0.05, 0.04), (0.32, 0.03, 0.05), (0.06, 0.12, 0.36), (0.1, 0.2, 0.42)],
    *[(0.30, 0.28, 0.22), (0.42, 0.36, 0.25), (0.09, 0.22, 0.13), (0.6, 0.33, 0.04)],
)
GLASS: Rgb = (0.07, 0.09, 0.11)
DARK: Rgb = (0.06, 0.06, 0.06)
ORANGE: Rgb = (0.85, 0.25, 0.03)
WHITE: Rgb = (0.8, 0.8, 0.8)
SKINS: tuple[Rgb, ...] = (
    (0.6, 0.42, 0.32),
    (0.5, 0.33, 0.23),
    (0.3, 0.18, 0.12),
    (0.17, 0.1, 0.07),
)
HAIR: tuple[Rgb, ...] = ((0.03, 0.02, 0.02), (0.12, 0.07, 0.03), (0.4, 0.3, 0.15), (0.4, 0.4, 0.4))


def pick(rng: np.random.Generator, colours: tuple[Rgb, ...]) -> Rgb:
    """One of the colours."""
    return colours[int(rng.integers(len(colours)))]


def vary(rng: np.random.Generator, colour: Rgb, share: float = 0.15) -> Rgb:
    """A colour near another: lighter or darker, and a little off in tone."""
    r, g, b = np.clip(
        np.asarray(colour) * (1 + rng.uniform(-share, share)) * rng.uniform(0.94, 1.06, 3), 0, 0.95
    )
    return (float(r), float(g), float(b))


def cloth(rng: np.random.Generator) -> Rgb:
    """The colour of a garment: mostly dark or grey, sometimes bright."""
    tone = float(rng.choice((0.05, 0.15, 0.35, 0.65), p=(0.35, 0.3, 0.22, 0.13)))
    r, g, b = tone * (1 + rng.uniform(-1, 1, 3) * float(rng.choice((0.15, 0.7), p=(0.6, 0.4))))
    return (float(r), float(g), float(b))
