"""A 32-beam spinning LiDAR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform, from_yaw
from datasets.sources.synthetic.objects.shapes import Finish
from datasets.sources.synthetic.sensors.ray_tracing import MOVING, NOTHING, Moment, RayHits
from datasets.sources.synthetic.sensors.weather import Light
from datasets.sources.synthetic.world.layout import ROAD
from datasets.taxonomy import OCC3D_NUSCENES

RINGS, AZIMUTHS = 32, 1080
ELEVATION_DEG = (-30.67, 10.67)
MAX_RANGE_M = 100.0
_GROUND_REFLECTIVITY = {"driveable_surface": 9, "other_flat": 15, "sidewalk": 17, "terrain": 20}
# by finish: plain, wall, leaves, glass, paint, metal, cloth, wood, sign, lamp, roof
_REFLECTIVITY = np.array([26, 30, 20, 6, 34, 40, 18, 22, 190, 60, 18], np.float32)
# share of returns that is lost, straight on: glass lets light through, dark paint swallows it
_LOSS = np.array([0.02, 0.02, 0.04, 0.55, 0.08, 0.06, 0.03, 0.03, 0.0, 0.1, 0.04], np.float32)


def lidar_mount() -> Transform:
    """LiDAR (x right, y forward, z up) to ego."""
    return from_yaw(-np.pi / 2, (0.944, 0.0, 1.84))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One turn.

    Attributes:
        points: (N, 5) float32: x, y, z metres in the LiDAR frame, intensity 0..255, ring.
        still: (N,) bool, returns of what does not move.
    """

    points: NDArray[np.float32]
    still: NDArray[np.bool_]


def _materials(
    moment: Moment, hits: RayHits, light: Light
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reflectivity of every hit and the share of returns lost there."""
    n = len(hits.what)
    strength, loss = np.zeros(n, np.float32), np.full(n, 0.02, np.float32)
    classes = moment.classes(hits)
    for mesh, index in moment.on_meshes(hits):
        face = hits.face[index]
        finish, tone = mesh.finishes[face], mesh.colours[face].mean(axis=1)
        strength[index] = _REFLECTIVITY[finish] * (0.45 + 1.1 * tone)
        loss[index] = _LOSS[finish] + np.where(finish == Finish.PAINT, 0.35 * (tone < 0.1), 0)
    for name, value in _GROUND_REFLECTIVITY.items():
        strength[(strength == 0) & (classes == OCC3D_NUSCENES.id_of(name))] = value
    wet = light.wet * np.where(classes == ROAD, 0.75, 0.35).astype(np.float32)
    return strength * (1 - 0.6 * wet), loss + 0.35 * wet


def take_sweep(
    moment: Moment,
    T_scene_lidar: Transform,
    light: Light,
    rng: np.random.Generator,
    *,
    step: int = 1,
) -> Sweep:
    """One turn of the LiDAR, all beams at the same instant; every ``step``-th azimuth.

    Ranges have 2 cm of noise. Returns drop out: more of them far away, at flat angles, on glass, on
    dark paint and on a wet road; drops of rain send back some.
    """
    turns = AZIMUTHS // step
    elevation = np.radians(np.linspace(*ELEVATION_DEG, RINGS))[:, None]
    azimuth = (np.arange(turns) + rng.random()) * (2 * np.pi / turns)
    flat = np.cos(elevation)
    rays = np.stack(
        [
            flat * np.cos(azimuth),
            flat * np.sin(azimuth),
            np.broadcast_to(np.sin(elevation), (RINGS, turns)),
        ],
        -1,
    ).reshape(-1, 3)
    world_rays = (rays @ T_scene_lidar[:3, :3].T).astype(np.float32)
    hits = moment.cast(T_scene_lidar[:3, 3], world_rays)
    # draw for every beam, so that a return more or less changes no other
    shift, glint = (rng.standard_normal(len(rays), np.float32) for _ in range(2))
    luck, drops = (rng.random(len(rays), np.float32) for _ in range(2))
    cosine = np.abs(np.einsum("ij,ij->i", hits.normals, world_rays))
    strength, lost = _materials(moment, hits, light)
    share = np.clip(hits.range_m / MAX_RANGE_M, 0, 1)
    weak = np.clip(1 - strength * (0.3 + 0.7 * cosine) / 14, 0, 1)
    loss = 0.02 + lost + 0.5 * share**2 + 0.6 * weak * share + 0.25 * (cosine < 0.03)
    if light.weather == "fog":
        loss = 1 - (1 - loss) * np.exp(-hits.range_m / (2.5 * light.fog_m))
    reach = hits.range_m + 0.02 * shift
    hit_kind = hits.what
    value = strength * (0.3 + 0.7 * cosine) * np.clip(1 + 0.2 * glint, 0.3, 1.8)
    keep = (hits.range_m < MAX_RANGE_M) & (hits.range_m > 1.0) & (luck > loss)
    if light.rain > 0:
        near = 1.2 + 9 * luck**2
        drop = (drops < light.rain) & (near < hits.range_m)
        reach, value = np.where(drop, near, reach), np.where(drop, 1 + 3 * luck, value)
        keep, hit_kind = keep | drop, np.where(drop, NOTHING, hit_kind)
    returned = np.flatnonzero(keep)
    points = np.empty((len(returned), 5), np.float32)
    points[:, :3] = rays[returned] * reach[returned, None]
    points[:, 3] = np.clip(np.round(value[returned]), 0, 255)
    points[:, 4] = returned // turns
    return Sweep(
        points=points, still=(hit_kind[returned] != MOVING) & (hit_kind[returned] != NOTHING)
    )
