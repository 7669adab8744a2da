"""A scene at random, and the ego vehicle's way through it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform
from datasets.sources.synthetic.objects.shapes import merge
from datasets.sources.synthetic.traffic.traffic import add_people, add_traffic
from datasets.sources.synthetic.world.builder import SceneBuilder, World
from datasets.sources.synthetic.world.layout import Layout
from datasets.sources.synthetic.world.planning import draw_layout
from datasets.sources.synthetic.world.streets import (
    add_bridges,
    add_building_sites,
    add_houses,
    add_plants_and_furniture,
)

_TURNING = 0.3  # share of drives that leave the main street


def draw_world(
    rng: np.random.Generator, duration_s: float, *, lit: bool = False, rain: bool = False
) -> World:
    """A scene at random, long enough for a drive of ``duration_s``.

    ``lit``: vehicles have their lights on; ``rain``: people carry umbrellas.
    """
    turning = bool(rng.random() < _TURNING)
    speed = float(rng.uniform(3.5, 6.0) if turning else rng.uniform(3.0, 10.5))
    accel = float(np.clip(rng.normal(0, 0.3), -0.7 * speed / max(duration_s, 4.0), 0.6))
    length = max(speed * duration_s + 0.5 * accel * duration_s**2, 1.0)
    layout = draw_layout(rng, length, turning=turning)
    b = SceneBuilder(rng, layout, length, duration_s)
    add_bridges(b)
    add_houses(b)
    add_traffic(b, speed, accel, lit=lit)
    add_building_sites(b)
    add_people(b, rain=rain)
    add_plants_and_furniture(b)
    return World(
        layout=layout,
        static=merge(b.static),
        actors=tuple(b.actors),
        lamps_m=np.array(b.lamps).reshape(-1, 3),
        ego_speed_mps=speed,
        ego_accel_mps2=accel,
        ego_length_m=length,
    )


def pose_on_route(layout: Layout, s_m: float) -> Transform:
    """Ego (rear axle on the ground) to scene: on its lane, tilted as the road is."""
    x, y, yaw = layout.route.place(np.array([s_m]), np.array([layout.route_d_m]))
    c, n = np.cos(yaw), np.sin(yaw)
    step = 1.4
    px = np.concatenate([x + step * c, x - step * c, x - n, x + n, x])
    py = np.concatenate([y + step * n, y - step * n, y + c, y - c, y])
    front, rear, left, right, center = layout.height(px, py)
    forward = np.array([c[0], n[0], (front - rear) / (2 * step)])
    forward /= np.linalg.norm(forward)
    leftward: NDArray[np.float64] = np.array([-n[0], c[0], (left - right) / 2])
    up = np.cross(forward, leftward)
    up /= np.linalg.norm(up)
    T = np.eye(4)
    T[:3, 0], T[:3, 1], T[:3, 2] = forward, np.cross(up, forward), up
    T[:3, 3] = x[0], y[0], center
    return T
