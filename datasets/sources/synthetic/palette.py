"""Colours that several kinds of things share."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.shapes import Rgb

PAINTS: tuple[Rgb, ...] = (
    (0.78, 0.78, 0.78),
    (0.55, 0.56, 0.58),
    (0.06, 0.06, 0.07),
    (0.22, 0.23, 0.25),
    (0.55, 0.06, 0.05),
    (0.07, 0.13, 0.38),
    (0.30, 0.28, 0.22),
    (0.10, 0.25, 0.15),
)
GLASS: Rgb = (0.07, 0.09, 0.11)
DARK: Rgb = (0.06, 0.06, 0.06)
SKIN: Rgb = (0.55, 0.38, 0.28)


def pick(rng: np.random.Generator, colours: tuple[Rgb, ...]) -> Rgb:
    """One of the colours."""
    return colours[int(rng.integers(len(colours)))]


def cloth(rng: np.random.Generator) -> Rgb:
    """The colour of a garment."""
    r, g, b = rng.uniform(0.05, 0.6, 3)
    return (float(r), float(g), float(b))
