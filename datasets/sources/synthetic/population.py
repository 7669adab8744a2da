"""A scene at random, and the ego vehicle's way through it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform
from datasets.sources.synthetic.builder import SceneBuilder, World
from datasets.sources.synthetic.layout import draw_layout
from datasets.sources.synthetic.shapes import merge
from datasets.sources.synthetic.streets import (
    add_building_site,
    add_houses,
    add_plants_and_furniture,
)
from datasets.sources.synthetic.traffic import add_people, add_traffic


def draw_world(rng: np.random.Generator, duration_s: float) -> World:
    """A scene at random, long enough for a drive of ``duration_s``."""
    layout = draw_layout(rng)
    speed = float(rng.uniform(3.5, 8.5))
    ego_d = -layout.lane_center(int(rng.integers(layout.lanes)))
    length = speed * duration_s
    b = SceneBuilder(rng, layout, length)
    add_houses(b)
    add_building_site(b, ego_d)
    add_plants_and_furniture(b)
    add_people(b)
    add_traffic(b, ego_d, speed)
    return World(
        layout=layout,
        static=merge(b.static),
        actors=tuple(b.actors),
        ego_d_m=ego_d,
        ego_speed_mps=speed,
        ego_length_m=length,
    )


def ego_pose(world: World, time_s: float) -> Transform:
    """Ego (rear axle on the ground) to scene: along its lane, tilted as the road is."""
    s = np.array([world.ego_speed_mps * time_s])
    x, y, yaw = world.layout.place(s, np.array([world.ego_d_m]))
    c, n = np.cos(yaw), np.sin(yaw)
    step = 1.4
    fx, fy = (
        np.concatenate([x + step * c, x - step * c]),
        np.concatenate([y + step * n, y - step * n]),
    )
    lx, ly = np.concatenate([x - n, x + n]), np.concatenate([y + c, y - c])
    front, left = world.layout.height(fx, fy), world.layout.height(lx, ly)
    forward = np.array([c[0], n[0], (front[0] - front[1]) / (2 * step)])
    forward /= np.linalg.norm(forward)
    leftward: NDArray[np.float64] = np.array([-n[0], c[0], (left[0] - left[1]) / 2])
    up = np.cross(forward, leftward)
    up /= np.linalg.norm(up)
    T = np.eye(4)
    T[:3, 0], T[:3, 1], T[:3, 2] = forward, np.cross(up, forward), up
    T[:3, 3] = x[0], y[0], world.layout.height(x, y)[0]
    return T
