"""Trees, bushes and hedges, as meshes in the object frame of ``shapes``."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.objects.palette import pick, vary
from datasets.sources.synthetic.objects.shapes import (
    Finish,
    Mesh,
    Rgb,
    bar,
    box,
    cylinder,
    leaves,
    merge,
)

_NAME = "vegetation"
_GREENS: tuple[Rgb, ...] = ((0.12, 0.23, 0.06), (0.08, 0.18, 0.05), (0.17, 0.25, 0.07))
_AUTUMN: tuple[Rgb, ...] = ((0.38, 0.26, 0.05), (0.36, 0.14, 0.04), (0.22, 0.22, 0.06))
_BARK: tuple[Rgb, ...] = ((0.17, 0.12, 0.08), (0.24, 0.21, 0.18), (0.11, 0.09, 0.07))


def _stem(rng: np.random.Generator, height: float, radius: float, top: float) -> Mesh:
    bark = pick(rng, _BARK)
    return cylinder(radius, height, _NAME, bark, sides=6, top_radius=top, finish=Finish.WOOD)


def _branches(rng: np.random.Generator, base: float, height: float, n: int) -> list[Mesh]:
    """Boughs that leave the stem upwards, with twigs."""
    out, bark = [], pick(rng, _BARK)
    for _ in range(n):
        turn, z = float(rng.uniform(0, 6.28)), float(rng.uniform(base, 0.7 * height))
        reach = float(rng.uniform(0.9, 2.4))
        tip = (reach * np.cos(turn), reach * np.sin(turn), z + float(rng.uniform(0.8, 2.2)))
        out.append(bar((0, 0, z), tip, 0.12, _NAME, bark, Finish.WOOD))
        for _ in range(3):
            end = tuple(float(v) for v in np.asarray(tip) + rng.normal(0, 0.55, 3) + (0, 0, 0.5))
            out.append(bar(tip, (end[0], end[1], end[2]), 0.05, _NAME, bark, Finish.WOOD))
    return out


def avenue_tree(rng: np.random.Generator, *, autumn: bool = False) -> Mesh:
    """A broad crown on a tall stem, as along streets."""
    green = vary(rng, pick(rng, _AUTUMN if autumn else _GREENS), 0.25)
    h, low, r = rng.uniform(6, 10), float(rng.uniform(2.3, 3.2)), float(rng.uniform(2.2, 3.6))
    z = float(h - low) / 2
    crown = leaves(rng, (r, r, z), (0, 0, low + z), green, n=int(110 * r), size=0.46)
    stem = _stem(rng, low + 1.2, float(rng.uniform(0.14, 0.28)), 0.1)
    return merge([stem, *_branches(rng, low - 0.3, h, 3), crown])


def tree(rng: np.random.Generator, *, autumn: bool = False) -> Mesh:
    """Round, in tiers, tall and narrow, a conifer, young, many-stemmed or bare."""
    kind = int(rng.choice(7, p=(0.26, 0.18, 0.1, 0.16, 0.1, 0.14, 0.06)))
    green = vary(rng, pick(rng, _AUTUMN if autumn and kind not in (3,) else _GREENS), 0.25)
    if kind == 0:
        h, low, r = rng.uniform(5.5, 11), float(rng.uniform(1.5, 2.6)), float(rng.uniform(1.8, 3.4))
        z = float(h - low) / 2
        crown = leaves(rng, (r, r, z), (0, 0, low + z), green, n=int(85 * r), size=0.46)
        return merge([_stem(rng, low + 1.2, float(rng.uniform(0.14, 0.28)), 0.1), crown])
    if kind == 1:  # several crowns on boughs
        low = float(rng.uniform(1.6, 2.8))
        parts = [_stem(rng, low + 2, 0.22, 0.12), *_branches(rng, low, low + 3, 4)]
        for _ in range(4):
            x, y = rng.normal(0, 1.4, 2)
            center = (float(x), float(y), low + float(rng.uniform(0.8, 4)))
            r = float(rng.uniform(1.0, 1.9))
            parts.append(leaves(rng, (r, r, 0.7 * r), center, green, n=int(85 * r), size=0.46))
        return merge(parts)
    if kind == 2:
        h, r = float(rng.uniform(6, 11)), float(rng.uniform(0.7, 1.1))
        crown = leaves(rng, (r, r, h / 2), (0, 0, 0.5 + h / 2), green, n=int(32 * h), size=0.35)
        return merge([_stem(rng, 2.0, 0.14, 0.1), crown])
    if kind == 3:  # tiers that narrow to the tip
        h, r = float(rng.uniform(4, 10)), float(rng.uniform(1.2, 2.3))
        dark = vary(rng, (0.05, 0.12, 0.06), 0.25)
        parts = [_stem(rng, 0.5 * h, 0.16, 0.08)]
        for share in np.linspace(0.08, 0.9, 6):
            q = r * (1.05 - float(share))
            center = (0.0, 0.0, float(share) * h + 0.3)
            parts.append(leaves(rng, (q, q, 0.1 * h), center, dark, n=int(60 * q) + 8, size=0.36))
        return merge(parts)
    if kind == 4:  # newly planted, between posts
        h = float(rng.uniform(2.8, 4.2))
        crown = leaves(rng, (0.7, 0.7, 0.9), (0, 0, h - 0.4), green, n=110, size=0.3)
        posts = [
            box((0.07, 0.07, 1.3), (x, 0.3, 0.65), _NAME, (0.3, 0.22, 0.12)) for x in (-0.3, 0.3)
        ]
        return merge([_stem(rng, h - 0.5, 0.06, 0.04), crown, *posts])
    if kind == 5:  # broad and low, down to the ground
        h, r = float(rng.uniform(3, 5.5)), float(rng.uniform(1.6, 2.8))
        crown = leaves(rng, (r, r, h / 2), (0, 0, h / 2 + 0.2), green, n=int(80 * r), size=0.46)
        return merge([_stem(rng, 1.5, 0.15, 0.1), crown])
    h = float(rng.uniform(5, 8))
    return merge([_stem(rng, h, 0.2, 0.05), *_branches(rng, 1.8, h, 12)])


def bush(rng: np.random.Generator, *, autumn: bool = False) -> Mesh:
    """Low and round, tall and dense, or a tuft of high grass."""
    kind = int(rng.choice(3, p=(0.45, 0.4, 0.15)))
    green = vary(rng, pick(rng, _AUTUMN if autumn and kind < 2 else _GREENS), 0.3)
    if kind == 2:
        h, c = float(rng.uniform(0.7, 1.3)), vary(rng, (0.32, 0.29, 0.13), 0.3)
        return leaves(rng, (0.8, 0.8, h / 2), (0, 0, h / 2), c, n=90, size=0.35)
    r, h = float(rng.uniform(0.7, 1.5)), float(rng.uniform(0.5, 1.0))
    if kind == 1:
        h = float(rng.uniform(0.9, 1.7))
    return leaves(rng, (r, r, h), (0, 0, h * 0.85), green, n=int(60 * r * (0.6 + h)), size=0.33)


def hedge(
    rng: np.random.Generator,
    length: float,
    height_m: tuple[float, float] = (0.8, 2.4),
    *,
    autumn: bool = False,
) -> Mesh:
    """A clipped hedge or a row of shrubs along X; the least and the largest height."""
    h, c = float(rng.uniform(*height_m)), vary(rng, pick(rng, _GREENS), 0.3)
    if autumn and rng.random() < 0.5:
        c = vary(rng, pick(rng, _AUTUMN))
    if rng.random() < 0.6:
        core = box((length, 0.7, h), (0, 0, h / 2), _NAME, c, Finish.LEAVES)
        tips = leaves(
            rng, (length / 2, 0.55, h / 2), (0, 0, h / 2), c, n=int(45 * length), size=0.2
        )
        return merge([core, tips])
    parts = []
    for x in np.arange(-length / 2, length / 2, 1.1):
        q = float(rng.uniform(0.5, 1.0))
        center = (float(x), float(rng.normal(0, 0.15)), 0.5 * h)
        parts.append(leaves(rng, (0.9, q, 0.55 * h), center, c, n=int(80 * (0.5 + h)), size=0.3))
    return merge(parts)


def ground_cover(rng: np.random.Generator) -> Mesh:
    """Low plants over a few square metres."""
    r, h = float(rng.uniform(1.0, 1.8)), float(rng.uniform(0.15, 0.4))
    green = vary(rng, pick(rng, _GREENS), 0.35)
    return leaves(rng, (r, r, h), (0, 0, h), green, n=int(34 * r), size=0.32)
