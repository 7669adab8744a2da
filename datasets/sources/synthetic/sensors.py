"""What the sensors record: six shaded pictures and a 32-beam spinning LiDAR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform, from_yaw
from datasets.sources.synthetic.layout import (
    LANE_M,
    OTHER_FLAT,
    ROAD,
    SIDEWALK,
    TERRAIN,
    Layout,
    noise,
)
from datasets.sources.synthetic.shapes import Finish
from datasets.sources.synthetic.tracing import GROUND, MOVING, NOTHING, STATIC, Moment

Pixels = NDArray[np.float32]

# name: yaw (deg), mount (m, ego), focal length and principal point at 1600x900, delay to LiDAR (us)
_RIG: dict[str, tuple[float, tuple[float, float, float], float, tuple[float, float], int]] = {
    "CAM_FRONT": (0.0, (1.70, 0.016, 1.511), 1266.0, (816.0, 491.0), -35_000),
    "CAM_FRONT_RIGHT": (-56.0, (1.551, -0.493, 1.496), 1261.0, (808.0, 495.0), -27_600),
    "CAM_BACK_RIGHT": (-110.0, (1.015, -0.481, 1.562), 1260.0, (807.0, 501.0), -20_000),
    "CAM_BACK": (180.0, (0.028, 0.003, 1.579), 809.0, (829.0, 482.0), -10_400),
    "CAM_BACK_LEFT": (109.0, (1.036, 0.485, 1.591), 1257.0, (792.0, 493.0), -500),
    "CAM_FRONT_LEFT": (55.0, (1.524, 0.495, 1.509), 1273.0, (827.0, 480.0), -43_000),
}
CAMERAS = tuple(_RIG)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraModel:
    """One camera of the rig.

    Attributes:
        T_ego_camera: camera (z forward, x right, y down) to ego.
        intrinsics: (3, 3) pinhole matrix of the picture as stored.
        delay_us: capture time after the LiDAR's.
    """

    name: str
    width: int
    height: int
    T_ego_camera: Transform
    intrinsics: NDArray[np.float64]
    delay_us: int

    def directions(self) -> NDArray[np.float64]:
        """(H * W, 3) unit rays through the pixel centres, camera frame."""
        u, v = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        rays: NDArray[np.float64] = (
            np.stack([u.ravel(), v.ravel(), np.ones(u.size)], 1) @ np.linalg.inv(self.intrinsics).T
        )
        return np.asarray(rays / np.linalg.norm(rays, axis=1, keepdims=True))


def _tilt(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation by about half a degree."""
    a, b, c = rng.normal(0, np.radians(0.4), 3)
    q, _ = np.linalg.qr(np.array([[1, -c, b], [c, 1, -a], [-b, a, 1]]))
    return np.asarray(q * np.sign(np.diag(q)))


def camera_rig(rng: np.random.Generator, height: int, width: int) -> tuple[CameraModel, ...]:
    """Six cameras, placed as on the nuScenes cars to within a drawn mounting error.

    Pictures are 1600x900 pinhole views resized to ``width`` and cut to the lowest ``height`` rows.
    """
    scale = width / 1600
    out = []
    for name, (yaw, mount, focal, (cx, cy), delay) in _RIG.items():
        T = from_yaw(np.radians(yaw), np.asarray(mount) + rng.normal(0, 0.01, 3))
        T[:3, :3] = T[:3, :3] @ _tilt(rng) @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        f = focal * scale
        K = np.array(
            [[f, 0, cx * scale], [0, f, cy * scale - max(900 * scale - height, 0)], [0, 0, 1]]
        )
        out.append(
            CameraModel(
                name=name, width=width, height=height, T_ego_camera=T, intrinsics=K, delay_us=delay
            )
        )
    return tuple(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Sun, sky and exposure of one scene.

    Attributes:
        to_sun: unit vector.
        sun, sky: RGB strength of direct and of scattered light.
        horizon, zenith: RGB of the sky.
        fog_m: distance at which fog takes 63 %.
        gain: exposure.
        noise: standard deviation of the sensor noise, 0..1.
        asphalt, lawn: RGB of the ground of this scene.
    """

    to_sun: Pixels
    sun: Pixels
    sky: Pixels
    horizon: Pixels
    zenith: Pixels
    fog_m: float
    gain: float
    noise: float
    asphalt: Pixels
    lawn: Pixels


def draw_light(rng: np.random.Generator) -> Light:
    """Weather at random: from a low clear sun to an overcast sky."""
    overcast = float(rng.beta(1.2, 1.6))
    elevation, azimuth = rng.uniform(np.radians(18), np.radians(65)), rng.uniform(0, 2 * np.pi)
    low = 1 - float(elevation) / np.radians(65)
    flat = np.cos(elevation)
    blue, grey = np.array([0.42, 0.58, 0.85]), np.array([0.72, 0.74, 0.78])
    zenith = blue * (1 - overcast) + grey * overcast
    f = np.float32
    return Light(
        to_sun=np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], f),
        sun=((1.15 - 0.95 * overcast) * np.array([1.0, 0.96 - 0.12 * low, 0.9 - 0.3 * low])).astype(
            f
        ),
        sky=((0.42 + 0.4 * overcast) * np.array([0.92, 0.97, 1.06])).astype(f),
        horizon=(0.82 + 0.1 * overcast - np.array([0.06, 0.02, 0.0])).astype(f),
        zenith=zenith.astype(f),
        fog_m=float(rng.uniform(180, 500)),
        gain=float(rng.uniform(0.85, 1.35)),
        noise=float(rng.uniform(0.008, 0.02)),
        asphalt=(rng.uniform(0.16, 0.3) * np.array([1.0, 1.0, 1.02])).astype(f),
        lawn=(
            rng.uniform(0.8, 1.2)
            * np.array([[0.17, 0.24, 0.09], [0.27, 0.24, 0.13]])[int(rng.random() < 0.3)]
        ).astype(f),
    )


def _ground_colour(layout: Layout, light: Light, p: Pixels) -> Pixels:
    """Albedo of ground points, with markings, kerbs and joints."""
    x, y = p[:, 0].astype(np.float64), p[:, 1].astype(np.float64)
    g = layout.ground(x, y)
    fine, broad = noise(x, y, 6.0), noise(x, y, 53.0)
    tone = (1 + 0.12 * fine + 0.14 * broad)[:, None]
    table = np.zeros((18, 3), np.float32)
    table[ROAD], table[TERRAIN] = light.asphalt, light.lawn
    table[SIDEWALK], table[OTHER_FLAT] = (0.44, 0.42, 0.39), (0.42, 0.29, 0.24)
    colour = table[g.classes] * tone
    soft = g.classes == TERRAIN
    colour[soft] *= (1 + 0.3 * fine[soft] + 0.25 * broad[soft])[:, None]
    tiles = (g.classes == SIDEWALK) & ((np.mod(x, 1.5) < 0.06) | (np.mod(y, 1.5) < 0.06))
    colour[tiles] *= 0.75
    bricks = (g.classes == OTHER_FLAT) & (np.mod(np.floor(x / 0.8) + np.floor(y / 0.8), 2) > 0)
    colour[bricks] *= 0.82
    kerb = (g.edge_m > -0.02) & (g.edge_m < 0.22)
    colour[kerb] = 0.52

    a, lanes = np.abs(g.d_m), layout.lanes
    on = (g.classes == ROAD) & (g.edge_m < -0.1) & (a < layout.half_road_m)
    clear = on & (g.cross_m > 4.5)
    paint = np.zeros(len(p), bool)
    for lane in range(1, lanes):
        paint |= (np.abs(a - layout.median_m - lane * LANE_M) < 0.08) & (np.mod(x, 9.0) < 3.5)
    if layout.parking:
        paint |= np.abs(a - layout.median_m - lanes * LANE_M) < 0.07
        paint |= (a > layout.median_m + lanes * LANE_M) & (np.mod(x, 6.6) < 0.12)
    paint &= clear
    yellow = clear & (a > 0.06) & (a < 0.2) if layout.median_m == 0 else np.zeros(len(p), bool)
    if layout.has_crossing:
        band = on & (g.cross_m > 1.2) & (g.cross_m < 4.0)
        paint |= band & (np.mod(g.d_m, 1.2) < 0.6)
        paint |= on & (g.cross_m > 4.6) & (g.cross_m < 5.0) & (g.d_m * (x - layout.cross_x) > 0)
    worn = fine > -0.45
    colour[paint & worn] = 0.66
    colour[yellow & worn] = (0.62, 0.46, 0.08)
    return np.asarray(colour, np.float32)


def _face_colour(
    moment: Moment, what: int, face: NDArray[np.int64], p: Pixels, n: Pixels
) -> tuple[Pixels, NDArray[np.uint8]]:
    """Albedo and finish of points on meshes."""
    mesh = moment.stage.mesh if what == STATIC else moment.mesh
    assert mesh is not None
    colour, finish = mesh.colours[face], mesh.finishes[face]
    if what == MOVING:
        return colour.copy(), finish
    along, z = p[:, 0] * n[:, 1] - p[:, 1] * n[:, 0], p[:, 2]
    upright = np.abs(n[:, 2]) < 0.5
    u, v = np.where(upright, along, p[:, 0]), np.where(upright, z, p[:, 1])
    colour = colour * (1 + 0.16 * noise(u, v, 9.0) + 0.1 * noise(u, v, 41.0))[:, None]
    wall = (finish == Finish.WALL) & upright
    storey, bay = np.mod(z, 3.1), np.mod(along, 2.4)
    window = wall & (storey > 1.0) & (storey < 2.5) & (bay > 0.6) & (bay < 1.8)
    frame = wall & ~window & (storey > 0.88) & (storey < 2.62) & (bay > 0.48) & (bay < 1.92)
    colour[frame] = colour[frame] * 0.4 + 0.35
    lit = noise(np.floor(along / 2.4) * 3.7, np.floor(z / 3.1) * 5.3, 31.0)
    colour[window] = (
        np.array([0.08, 0.1, 0.13], np.float32) + 0.06 * np.clip(lit[window], -1, 1)[:, None]
    )
    finish = np.where(window, np.uint8(Finish.GLASS), finish)
    return colour, finish


def take_picture(
    moment: Moment,
    camera: CameraModel,
    T_scene_camera: Transform,
    light: Light,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB."""
    R = T_scene_camera[:3, :3]
    d = (camera.directions() @ R.T).astype(np.float32)
    hits = moment.cast(T_scene_camera[:3, 3], d)
    up = np.clip(d[:, 2], 0, 1)[:, None]
    sky = light.horizon + (light.zenith - light.horizon) * up**0.45
    lofty = np.maximum(d[:, 2], 0.02)
    clouds = noise(d[:, 0] / lofty, d[:, 1] / lofty, 14.0)[:, None]
    sky = sky + 0.1 * clouds * np.minimum(up * 6, 1)
    sky += (np.maximum(d @ light.to_sun, 0) ** 24)[:, None] * light.sun * 0.35
    image = sky.astype(np.float32)

    seen = np.flatnonzero(hits.what != NOTHING)
    p, n, what, face = hits.points_m[seen], hits.normals[seen], hits.what[seen], hits.face[seen]
    albedo = np.zeros((len(seen), 3), np.float32)
    finish = np.zeros(len(seen), np.uint8)
    on = what == GROUND
    albedo[on] = _ground_colour(moment.stage.layout, light, p[on])
    for kind in (STATIC, MOVING):
        on = what == kind
        if on.any():
            albedo[on], finish[on] = _face_colour(moment, kind, face[on], p[on], n[on])
    facing = n @ light.to_sun
    leafy = finish == Finish.LEAVES
    facing = np.where(leafy, 0.35 + 0.4 * np.abs(facing), facing)
    lit = np.flatnonzero(facing > 0)
    direct = np.zeros(len(seen), np.float32)
    dark = moment.shadowed(p[lit] + 0.04 * n[lit] + 0.02 * light.to_sun, light.to_sun)
    direct[lit] = np.where(dark, 0, facing[lit])
    scattered = 0.62 + 0.38 * n[:, 2]
    colour = albedo * (direct[:, None] * light.sun + scattered[:, None] * light.sky)
    shiny = np.where(finish == Finish.GLASS, 0.32, np.where(finish == Finish.PAINT, 0.1, 0)).astype(
        np.float32
    )
    cosine = np.abs(np.einsum("ij,ij->i", n, d[seen]))
    shiny = shiny * (0.35 + 0.65 * (1 - cosine) ** 2)
    mirror_up = np.clip(d[seen][:, 2] - 2 * np.einsum("ij,ij->i", n, d[seen]) * n[:, 2], 0, 1)[
        :, None
    ]
    colour += shiny[:, None] * (light.horizon + (light.zenith - light.horizon) * mirror_up) * 0.8
    clear = np.exp(-hits.range_m[seen] / light.fog_m)[:, None]
    image[seen] = colour * clear + light.horizon * (1 - clear)

    image = np.clip(image * light.gain, 0.0, 1.0) ** (1 / 2.2)
    image = image + 0.35 * (image - 0.5) * (1 - np.abs(2 * image - 1))
    image += rng.normal(0, light.noise, image.shape).astype(np.float32)
    levels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.asarray(levels.reshape(camera.height, camera.width, 3))


# ---- LiDAR ---------------------------------------------------------------------------------------

RINGS, AZIMUTHS = 32, 1080
ELEVATION_DEG = (-30.67, 10.67)
MAX_RANGE_M = 100.0
_REFLECTIVITY = np.array(
    # by class id: objects 0..10, the four grounds, man-made, vegetation, free
    [14, 45, 16, 30, 24, 28, 18, 16, 60, 32, 28, 9, 15, 17, 20, 24, 15, 0],
    np.float32,
)


def lidar_mount() -> Transform:
    """LiDAR (x right, y forward, z up) to ego."""
    return from_yaw(-np.pi / 2, (0.944, 0.0, 1.84))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One turn.

    Attributes:
        points: (N, 5) float32: x, y, z metres in the LiDAR frame, intensity 0..255, ring.
        classes: (N,) uint8, what each return really is.
    """

    points: NDArray[np.float32]
    classes: NDArray[np.uint8]


def take_sweep(moment: Moment, T_scene_lidar: Transform, rng: np.random.Generator) -> Sweep:
    """One turn of the LiDAR, all beams at the same instant.

    Ranges have 2 cm of noise; some returns drop out, more of them far away and at flat angles.
    """
    elevation = np.radians(np.linspace(*ELEVATION_DEG, RINGS))[:, None]
    azimuth = (np.arange(AZIMUTHS) + rng.random()) * (2 * np.pi / AZIMUTHS)
    flat = np.cos(elevation)
    rays = np.stack(
        [
            flat * np.cos(azimuth),
            flat * np.sin(azimuth),
            np.broadcast_to(np.sin(elevation), (RINGS, AZIMUTHS)),
        ],
        -1,
    ).reshape(-1, 3)
    world_rays = (rays @ T_scene_lidar[:3, :3].T).astype(np.float32)
    hits = moment.cast(T_scene_lidar[:3, 3], world_rays)
    # draw for every beam, so that a return more or less changes no other
    shift, luck, glint = (
        rng.normal(0, 0.02, len(rays)),
        rng.random(len(rays)),
        rng.normal(1, 0.25, len(rays)),
    )
    cosine = np.abs(np.einsum("ij,ij->i", hits.normals, world_rays))
    loss = 0.03 + 0.35 * np.clip(hits.range_m / MAX_RANGE_M, 0, 1) ** 2 + 0.25 * (cosine < 0.03)
    keep = np.flatnonzero((hits.range_m < MAX_RANGE_M) & (hits.range_m > 1.0) & (luck > loss))
    classes = moment.classes(hits)[keep]
    points = np.empty((len(keep), 5), np.float32)
    points[:, :3] = rays[keep] * (hits.range_m[keep] + shift[keep])[:, None]
    strength = _REFLECTIVITY[classes] * (0.35 + 0.65 * cosine[keep]) * np.clip(glint[keep], 0.2, 2)
    points[:, 3] = np.clip(np.round(strength), 0, 255)
    points[:, 4] = keep // AZIMUTHS
    return Sweep(points=points, classes=classes)
