"""People, street furniture, plants and houses, as meshes in the object frame of ``shapes``."""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.palette import DARK, GLASS, PAINTS, SKIN, cloth, pick
from datasets.sources.synthetic.shapes import (
    Finish,
    Mesh,
    Rgb,
    box,
    cylinder,
    leaves,
    merge,
    prism,
)


def _person(rng: np.random.Generator, name: str, height: float) -> list[Mesh]:
    s = height / 1.75
    top, trousers = cloth(rng), cloth(rng)
    stride = float(rng.uniform(0.05, 0.22))
    parts = [
        box((0.23 * s, 0.36 * s, 0.62 * s), (0, 0, 1.13 * s), name, top),
        cylinder(0.11 * s, 0.24 * s, name, SKIN, sides=6).at(0, 0, 1.47 * s),
    ]
    for side in (-1, 1):
        parts.append(
            cylinder(0.09 * s, 0.86 * s, name, trousers, sides=5).at(
                side * stride, side * 0.1 * s, 0
            )
        )
        parts.append(
            box(
                (0.1 * s, 0.1 * s, 0.6 * s),
                (-side * stride * 0.6, side * 0.23 * s, 1.1 * s),
                name,
                top,
            )
        )
    return parts


def pedestrian(rng: np.random.Generator) -> Mesh:
    return merge(_person(rng, "pedestrian", float(rng.uniform(1.5, 1.88))))


def worker(rng: np.random.Generator) -> Mesh:
    """A person in an orange vest."""
    m = _person(rng, "pedestrian", 1.78)
    vest = box((0.3, 0.5, 0.5), (0, 0, 1.17), "pedestrian", (0.85, 0.3, 0.02))
    helmet = cylinder(0.14, 0.12, "pedestrian", (0.8, 0.7, 0.05), sides=6).at(0, 0, 1.7)
    return merge([*m, vest, helmet])


def cone(rng: np.random.Generator) -> Mesh:
    h, name, orange = float(rng.uniform(0.7, 1.0)), "traffic_cone", (0.85, 0.22, 0.03)
    r = [0.17 - 0.13 * t for t in (0.0, 0.45, 0.7, 1.0)]
    z = [0.05 + (h - 0.05) * t for t in (0.0, 0.45, 0.7, 1.0)]
    parts = [box((0.42, 0.42, 0.06), (0, 0, 0.03), name, DARK)]
    for i, colour in enumerate((orange, (0.85, 0.85, 0.85), orange)):
        parts.append(
            cylinder(r[i], z[i + 1] - z[i], name, colour, top_radius=r[i + 1]).at(0, 0, z[i])
        )
    return merge(parts)


def barrier(rng: np.random.Generator) -> Mesh:
    """One two-metre piece of a concrete or a red and white plastic barrier; X along its length."""
    h = float(rng.uniform(0.85, 1.05))
    profile = [(-0.3, 0.0), (0.3, 0.0), (0.22, 0.25), (0.1, h), (-0.1, h), (-0.22, 0.25)]
    colour: Rgb = (0.55, 0.54, 0.5)
    if rng.random() < 0.5:
        colour = pick(rng, ((0.75, 0.1, 0.05), (0.8, 0.8, 0.8)))
    m = prism(profile, 1.95, "barrier", colour)
    return m.at(0, 0, 0, np.pi / 2)


def clutter(rng: np.random.Generator) -> tuple[Mesh, str]:
    """Something of class ``others`` and its nuScenes category: bin, bags, dog, rack of bikes."""
    kind = int(rng.integers(4))
    if kind == 0:
        c = pick(rng, ((0.05, 0.22, 0.08), (0.1, 0.1, 0.12), (0.45, 0.35, 0.05)))
        m = merge(
            [
                box((0.6, 0.65, 1.0), (0, 0, 0.55), "others", c),
                box((0.68, 0.7, 0.08), (0, 0, 1.08), "others", DARK),
            ]
        )
        return m, "movable_object.pushable_pullable"
    if kind == 1:
        bags = [
            cylinder(
                float(rng.uniform(0.25, 0.4)),
                float(rng.uniform(0.4, 0.7)),
                "others",
                (0.07, 0.07, 0.08),
                top_radius=0.12,
                sides=6,
            ).at(float(rng.uniform(-0.4, 0.4)), float(rng.uniform(-0.4, 0.4)), 0.0)
            for _ in range(4)
        ]
        return merge(bags), "movable_object.debris"
    if kind == 2:
        c = pick(rng, ((0.35, 0.22, 0.1), (0.1, 0.09, 0.08), (0.6, 0.55, 0.45)))
        legs = [
            box((0.09, 0.09, 0.35), (x, y, 0.17), "others", c)
            for x in (-0.25, 0.25)
            for y in (-0.1, 0.1)
        ]
        m = merge(
            [
                *legs,
                box((0.7, 0.28, 0.3), (0, 0, 0.48), "others", c),
                box((0.28, 0.2, 0.24), (0.45, 0, 0.7), "others", c),
            ]
        )
        return m, "animal"
    hoops = [
        box((0.08, 0.9, 0.85), (float(x), 0, 0.43), "others", (0.35, 0.37, 0.4))
        for x in (-1, -0.33, 0.33, 1)
    ]
    return merge(hoops), "static_object.bicycle_rack"


def tree(rng: np.random.Generator) -> Mesh:
    """A trunk and a crown of leaves; crowns begin above a person's head."""
    h = float(rng.uniform(5.5, 10.0))
    stem = float(rng.uniform(1.7, 2.6))
    r = float(rng.uniform(1.7, 3.2))
    g = float(rng.uniform(0.75, 1.2))
    colour = (0.13 * g, 0.24 * g, 0.07 * g)
    parts = [
        cylinder(
            float(rng.uniform(0.13, 0.24)),
            stem + 1.2,
            "vegetation",
            (0.17, 0.12, 0.08),
            sides=6,
            top_radius=0.1,
        )
    ]
    z = (h - stem) / 2
    parts.append(leaves(rng, (r, r, z), (0, 0, stem + z), colour, n=int(190 * r), size=0.4))
    return merge(parts)


def bush(rng: np.random.Generator) -> Mesh:
    r, h = float(rng.uniform(0.6, 1.3)), float(rng.uniform(0.5, 1.0))
    g = float(rng.uniform(0.7, 1.2))
    return leaves(
        rng, (r, r, h), (0, 0, h * 0.8), (0.11 * g, 0.2 * g, 0.06 * g), n=int(110 * r), size=0.3
    )


def hedge(rng: np.random.Generator, length: float) -> Mesh:
    """A clipped hedge along X."""
    h, c = float(rng.uniform(0.9, 1.7)), (0.08, 0.16, 0.05)
    core = box((length, 0.7, h), (0, 0, h / 2), "vegetation", c, Finish.LEAVES)
    return merge(
        [
            core,
            leaves(rng, (length / 2, 0.5, h / 2), (0, 0, h / 2), c, n=int(40 * length), size=0.2),
        ]
    )


def lamp(rng: np.random.Generator) -> Mesh:
    """A street lamp; its arm reaches to +Y."""
    h, c = float(rng.uniform(6.0, 8.5)), (0.3, 0.31, 0.32)
    return merge(
        [
            cylinder(0.12, h, "manmade", c, top_radius=0.07, sides=6),
            box((0.1, 1.6, 0.1), (0, 0.8, h), "manmade", c),
            box((0.25, 0.6, 0.12), (0, 1.6, h), "manmade", (0.7, 0.7, 0.65)),
        ]
    )


def traffic_light(rng: np.random.Generator) -> Mesh:
    c = (0.2, 0.21, 0.2)
    return merge(
        [
            cylinder(0.11, 3.6, "manmade", c, sides=6),
            box((0.25, 0.3, 0.9), (0, 0, 3.4), "manmade", DARK),
            box((0.05, 0.16, 0.16), (-0.14, 0, 3.7), "manmade", (0.9, 0.1, 0.05)),
        ]
    )


def sign(rng: np.random.Generator) -> Mesh:
    """A post with a plate that looks along -X."""
    c = pick(rng, ((0.75, 0.08, 0.06), (0.08, 0.2, 0.6), (0.8, 0.7, 0.1), (0.8, 0.8, 0.8)))
    return merge(
        [
            cylinder(0.05, 2.7, "manmade", (0.5, 0.5, 0.5), sides=5),
            box((0.05, 0.7, 0.7), (-0.06, 0, 2.4), "manmade", c),
        ]
    )


def fence(rng: np.random.Generator, length: float) -> Mesh:
    """A low wall or a board fence along X."""
    h = float(rng.uniform(0.9, 1.9))
    c = pick(rng, ((0.42, 0.4, 0.37), (0.3, 0.2, 0.12), (0.5, 0.28, 0.2)))
    return box((length, 0.2, h + 0.4), (0, 0, h / 2 - 0.2), "manmade", c)


def bus_shelter(rng: np.random.Generator) -> Mesh:
    """Open towards -Y."""
    frame = (0.25, 0.27, 0.3)
    parts = [
        box((3.6, 0.1, 2.2), (0, 0.7, 1.1), "manmade", GLASS, Finish.GLASS),
        box((3.8, 1.7, 0.14), (0, 0, 2.35), "manmade", frame),
        box((2.4, 0.4, 0.1), (0, 0.4, 0.5), "manmade", frame),
    ]
    parts += [
        box((0.12, 0.12, 2.3), (x, y, 1.15), "manmade", frame)
        for x in (-1.75, 1.75)
        for y in (-0.7, 0.7)
    ]
    return merge(parts)


def building(rng: np.random.Generator, length: float, depth: float, height: float) -> Mesh:
    """A house: walls with windows and a flat or a pitched roof. Its feet reach below the ground."""
    c = pick(
        rng,
        (
            (0.5, 0.42, 0.33),
            (0.42, 0.2, 0.14),
            (0.55, 0.53, 0.5),
            (0.35, 0.36, 0.38),
            (0.6, 0.5, 0.36),
            (0.3, 0.27, 0.25),
        ),
    )
    # two storeys of boxes: only the lower one can reach into a voxel grid
    waist = min(height, 10.0)
    parts = [box((length, depth, waist + 1.5), (0, 0, waist / 2 - 0.75), "manmade", c, Finish.WALL)]
    if height > waist:
        middle = (height + waist) / 2
        parts.append(
            box((length, depth, height - waist), (0, 0, middle), "manmade", c, Finish.WALL)
        )
    if height < 9 and rng.random() < 0.75:
        roof = prism(
            [(-depth / 2 - 0.4, 0), (depth / 2 + 0.4, 0), (0, depth * 0.32)],
            length + 0.6,
            "manmade",
            pick(rng, ((0.3, 0.12, 0.08), (0.14, 0.14, 0.16))),
        )
        parts.append(roof.at(0, 0, height, np.pi / 2))
    else:
        parts.append(
            box((length + 0.5, depth + 0.5, 0.5), (0, 0, height), "manmade", (0.35, 0.34, 0.33))
        )
    if rng.random() < 0.4:
        parts.append(
            box(
                (length * 0.5, 1.6, 0.15),
                (0, -depth / 2 - 0.6, 3.0),
                "manmade",
                pick(rng, PAINTS),
            )
        )
    return merge(parts)
