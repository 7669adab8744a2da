"""What stands and moves in the streets, as meshes: vehicles, people, street furniture, plants.

Each function takes a random generator and returns a ``Mesh`` in the object frame of ``shapes``.
"""

from __future__ import annotations

import numpy as np

from datasets.sources.synthetic.shapes import (
    Finish,
    Mesh,
    Rgb,
    box,
    cylinder,
    leaves,
    merge,
    prism,
    wheel,
)

_CAR_PAINTS: tuple[Rgb, ...] = (
    (0.78, 0.78, 0.78),
    (0.55, 0.56, 0.58),
    (0.06, 0.06, 0.07),
    (0.22, 0.23, 0.25),
    (0.55, 0.06, 0.05),
    (0.07, 0.13, 0.38),
    (0.30, 0.28, 0.22),
    (0.10, 0.25, 0.15),
)
_GLASS: Rgb = (0.07, 0.09, 0.11)
_DARK: Rgb = (0.06, 0.06, 0.06)
_SKIN: Rgb = (0.55, 0.38, 0.28)


def _pick(rng: np.random.Generator, colours: tuple[Rgb, ...]) -> Rgb:
    return colours[int(rng.integers(len(colours)))]


def _cloth(rng: np.random.Generator) -> Rgb:
    r, g, b = rng.uniform(0.05, 0.6, 3)
    return (float(r), float(g), float(b))


def car(rng: np.random.Generator) -> Mesh:
    """A saloon, a hatchback, an estate car or a van."""
    kind = int(rng.integers(4))
    length = float(rng.uniform(4.1, 4.9)) + (0.3 if kind == 3 else 0.0)
    w, h = (
        float(rng.uniform(1.75, 1.92)),
        (1.45, 1.5, 1.68, 1.95)[kind] + float(rng.normal(0, 0.04)),
    )
    paint = _pick(rng, _CAR_PAINTS)
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
        _GLASS,
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
    paint = _pick(rng, ((0.6, 0.08, 0.06), (0.75, 0.72, 0.65), (0.08, 0.3, 0.5), (0.7, 0.5, 0.05)))
    parts = [
        box((length, w, 1.0), (0, 0, 0.85), "bus", paint, Finish.PAINT),
        box((length - 0.06, w - 0.04, 1.15), (0, 0, 1.92), "bus", _GLASS, Finish.GLASS),
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
    paint, cargo = _pick(rng, _CAR_PAINTS), _pick(rng, ((0.75, 0.75, 0.73), (0.4, 0.45, 0.5)))
    f = length / 2
    parts = [
        prism(
            [(f - 1.9, 0.5), (f, 0.5), (f, 1.35), (f - 0.25, 2.3), (f - 1.9, 2.35)],
            w * 0.94,
            "truck",
            paint,
            Finish.PAINT,
        ),
        box((0.7, w * 0.95, 0.6), (f - 0.75, 0, 1.75), "truck", _GLASS, Finish.GLASS),
        box((length - 2.1, w, h - 1.0), (-1.05, 0, (h + 1.0) / 2), "truck", cargo),
        box((length - 0.6, w * 0.5, 0.3), (-0.3, 0, 0.75), "truck", _DARK),
    ]
    for x in (f - 1.1, -f + 1.3, -f + 2.2):
        parts += [wheel(x, y, 0.45, 0.28, "truck") for y in (-w / 2 + 0.14, w / 2 - 0.14)]
    return merge(parts)


def trailer(rng: np.random.Generator) -> Mesh:
    """A long box trailer on three axles (its tractor is a truck of its own)."""
    length, w, h = float(rng.uniform(8.0, 11.0)), 2.5, 3.7
    colour = _pick(rng, ((0.7, 0.7, 0.7), (0.15, 0.3, 0.55), (0.55, 0.25, 0.08)))
    parts = [
        box((length, w, h - 1.1), (0, 0, (h + 1.1) / 2), "trailer", colour),
        box((length, w * 0.45, 0.25), (0, 0, 0.98), "trailer", _DARK),
    ]
    for x in (-length / 2 + 1.0, -length / 2 + 2.1, -length / 2 + 3.2):
        parts += [wheel(x, y, 0.48, 0.3, "trailer") for y in (-w / 2 + 0.15, w / 2 - 0.15)]
    for y in (-0.8, 0.8):
        parts.append(box((0.12, 0.12, 1.0), (length / 2 - 2.3, y, 0.5), "trailer", _DARK))
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
            _DARK,
        ).at(0, y, 0)
        for y in (-0.95, 0.95)
    ]
    parts += [
        box((2.0, 1.5, 0.4), (0, 0, 0.7), name, _DARK),
        box((2.9, 2.3, 0.9), (-0.4, 0, 1.35), name, c),
        box((1.3, 1.0, 1.0), (0.3, 0.6, 2.3), name, _GLASS, Finish.GLASS),
        box((1.35, 1.05, 0.1), (0.3, 0.6, 2.85), name, c),
        arm.moved(pitch),
        arm.moved(fore),
        box((0.8, 0.9, 0.6), (4.3, 0.1, 0.6), name, (0.25, 0.25, 0.25)),
    ]
    return merge(parts)


def _person(rng: np.random.Generator, name: str, height: float) -> list[Mesh]:
    s = height / 1.75
    top, trousers = _cloth(rng), _cloth(rng)
    stride = float(rng.uniform(0.05, 0.22))
    parts = [
        box((0.23 * s, 0.36 * s, 0.62 * s), (0, 0, 1.13 * s), name, top),
        cylinder(0.11 * s, 0.24 * s, name, _SKIN, sides=6).at(0, 0, 1.47 * s),
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


def _two_wheeler(rng: np.random.Generator, name: str, *, rider: bool, heavy: bool) -> Mesh:
    c = _pick(rng, _CAR_PAINTS)
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
        parts.append(box((0.28, 0.16, 0.07), (-0.22, 0, seat), name, _DARK))
    parts.append(box((0.07, 0.62, 0.07), (0.42, 0, 1.06), name, _DARK))
    if rider:
        top = _cloth(rng)
        parts.append(
            prism(
                [(-0.3, seat), (-0.02, seat), (0.22, seat + 0.6), (-0.04, seat + 0.62)],
                0.42,
                name,
                top,
            )
        )
        parts.append(
            cylinder(0.13, 0.26, name, _pick(rng, (_SKIN, _DARK)), sides=6).at(0.14, 0, seat + 0.62)
        )
        for y in (-0.17, 0.17):
            parts.append(
                prism(
                    [(-0.15, seat - 0.05), (-0.1, seat + 0.1), (0.25, 0.45), (0.15, 0.3)],
                    0.14,
                    name,
                    _cloth(rng),
                ).at(0, y, 0)
            )
            parts.append(box((0.5, 0.09, 0.09), (0.25, y * 1.5, seat + 0.4), name, top))
    return merge(parts)


def bicycle(rng: np.random.Generator, *, rider: bool) -> Mesh:
    return _two_wheeler(rng, "bicycle", rider=rider, heavy=False)


def motorcycle(rng: np.random.Generator, *, rider: bool) -> Mesh:
    return _two_wheeler(rng, "motorcycle", rider=rider, heavy=True)


def cone(rng: np.random.Generator) -> Mesh:
    h, name, orange = float(rng.uniform(0.7, 1.0)), "traffic_cone", (0.85, 0.22, 0.03)
    r = [0.17 - 0.13 * t for t in (0.0, 0.45, 0.7, 1.0)]
    z = [0.05 + (h - 0.05) * t for t in (0.0, 0.45, 0.7, 1.0)]
    parts = [box((0.42, 0.42, 0.06), (0, 0, 0.03), name, _DARK)]
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
        colour = _pick(rng, ((0.75, 0.1, 0.05), (0.8, 0.8, 0.8)))
    m = prism(profile, 1.95, "barrier", colour)
    return m.at(0, 0, 0, np.pi / 2)


def clutter(rng: np.random.Generator) -> tuple[Mesh, str]:
    """Something of class ``others`` and its nuScenes category: bin, bags, dog, rack of bikes."""
    kind = int(rng.integers(4))
    if kind == 0:
        c = _pick(rng, ((0.05, 0.22, 0.08), (0.1, 0.1, 0.12), (0.45, 0.35, 0.05)))
        m = merge(
            [
                box((0.6, 0.65, 1.0), (0, 0, 0.55), "others", c),
                box((0.68, 0.7, 0.08), (0, 0, 1.08), "others", _DARK),
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
        c = _pick(rng, ((0.35, 0.22, 0.1), (0.1, 0.09, 0.08), (0.6, 0.55, 0.45)))
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
            box((0.25, 0.3, 0.9), (0, 0, 3.4), "manmade", _DARK),
            box((0.05, 0.16, 0.16), (-0.14, 0, 3.7), "manmade", (0.9, 0.1, 0.05)),
        ]
    )


def sign(rng: np.random.Generator) -> Mesh:
    """A post with a plate that looks along -X."""
    c = _pick(rng, ((0.75, 0.08, 0.06), (0.08, 0.2, 0.6), (0.8, 0.7, 0.1), (0.8, 0.8, 0.8)))
    return merge(
        [
            cylinder(0.05, 2.7, "manmade", (0.5, 0.5, 0.5), sides=5),
            box((0.05, 0.7, 0.7), (-0.06, 0, 2.4), "manmade", c),
        ]
    )


def fence(rng: np.random.Generator, length: float) -> Mesh:
    """A low wall or a board fence along X."""
    h = float(rng.uniform(0.9, 1.9))
    c = _pick(rng, ((0.42, 0.4, 0.37), (0.3, 0.2, 0.12), (0.5, 0.28, 0.2)))
    return box((length, 0.2, h + 0.4), (0, 0, h / 2 - 0.2), "manmade", c)


def bus_shelter(rng: np.random.Generator) -> Mesh:
    """Open towards -Y."""
    frame = (0.25, 0.27, 0.3)
    parts = [
        box((3.6, 0.1, 2.2), (0, 0.7, 1.1), "manmade", _GLASS, Finish.GLASS),
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
    c = _pick(
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
            _pick(rng, ((0.3, 0.12, 0.08), (0.14, 0.14, 0.16))),
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
                _pick(rng, _CAR_PAINTS),
            )
        )
    return merge(parts)
