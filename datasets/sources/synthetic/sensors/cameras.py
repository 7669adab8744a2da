"""The six pictures: where the cameras sit, and what they record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from datasets.geometry.transforms import Transform, from_yaw
from datasets.sources.synthetic.objects.shapes import Finish
from datasets.sources.synthetic.sensors.ray_tracing import (
    GROUND,
    MOVING,
    NOTHING,
    STATIC,
    Moment,
    RayHits,
)
from datasets.sources.synthetic.sensors.surfaces import face_colour, ground_colour
from datasets.sources.synthetic.sensors.weather import Light, Pixels
from datasets.sources.synthetic.world.layout import noise

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
_NEAR_LAMPS = 8
_RAYS_AT_ONCE = 160_000  # bounds the memory that a large picture takes
_LAMP_RGB = np.array([2.6, 2.0, 1.15], np.float32) * 7


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraModel:
    """One camera of the rig.

    Attributes:
        T_ego_camera: camera (z forward, x right, y down) to ego.
        intrinsics: (3, 3) pinhole matrix of the picture as stored.
        delay_us: capture time after the LiDAR's.
        gain: its exposure beside that of the others.
    """

    name: str
    width: int
    height: int
    T_ego_camera: Transform
    intrinsics: NDArray[np.float64]
    delay_us: int
    gain: float

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

    Pictures are 1600x900 pinhole views resized to ``width`` and cut to ``height`` rows: three
    quarters of what goes is sky, the rest the ground next to the car.
    """
    scale = width / 1600
    out = []
    for name, (yaw, mount, focal, (cx, cy), delay) in _RIG.items():
        T = from_yaw(np.radians(yaw), np.asarray(mount) + rng.normal(0, 0.01, 3))
        T[:3, :3] = T[:3, :3] @ _tilt(rng) @ [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
        f = focal * scale
        K = np.array(
            [
                [f, 0, cx * scale],
                [0, f, cy * scale - 0.75 * max(900 * scale - height, 0)],
                [0, 0, 1],
            ]
        )
        out.append(
            CameraModel(
                name=name,
                width=width,
                height=height,
                T_ego_camera=T,
                intrinsics=K,
                delay_us=delay,
                gain=float(np.clip(rng.normal(1, 0.06), 0.8, 1.2)),
            )
        )
    return tuple(out)


def _sky(light: Light, d: Pixels) -> Pixels:
    up = np.clip(d[:, 2], 0, 1)[:, None]
    sky = light.horizon + (light.zenith - light.horizon) * up**0.45
    lofty = np.maximum(d[:, 2], 0.02)
    clouds = noise(d[:, 0] / lofty, d[:, 1] / lofty, 14.0)[:, None]
    sky = sky * (1 + 0.12 * clouds * np.minimum(up * 6, 1))
    sky += (np.maximum(d @ light.to_sun, 0) ** 24)[:, None] * light.sun * 0.35
    return np.asarray(sky, np.float32)


def _lamp_light(
    lamps: NDArray[np.float64], T_scene_ego: Transform, p: Pixels, n: Pixels, strength: float
) -> Pixels:
    """Light of the nearest street lamps and of the ego vehicle's own headlights."""
    out = np.zeros_like(p)
    eye = T_scene_ego[:3, 3]
    near = lamps[np.argsort(((lamps - eye) ** 2).sum(1), kind="stable")[:_NEAR_LAMPS]]
    for lamp in near.astype(np.float32):
        ray = lamp - p
        gap2 = np.maximum((ray * ray).sum(1), 1.0)
        facing = np.clip(np.einsum("ij,ij->i", ray, n) / np.sqrt(gap2), 0.08, 1)
        out += (facing / gap2)[:, None] * _LAMP_RGB
    front = (T_scene_ego @ [3.9, 0, 0.65, 1])[:3].astype(np.float32)
    ray = p - front
    gap = np.maximum(np.linalg.norm(ray, axis=1), 0.5)
    cosine = np.clip((ray @ T_scene_ego[:3, 0].astype(np.float32)) / gap, 0, 1)
    beam = 14 * cosine**18 / (gap * (1 + 0.12 * gap))
    facing = np.clip(-np.einsum("ij,ij->i", ray, n) / gap, 0.1, 1)
    return np.asarray(strength * (out + (beam * facing)[:, None]), np.float32)


def _shade(
    moment: Moment, hits: RayHits, d: Pixels, light: Light, T_scene_ego: Transform, *, mirror: bool
) -> Pixels:
    """Colour of what every ray meets; with ``mirror`` also of what wet ground reflects."""
    image = _sky(light, d)
    hit_index = np.flatnonzero(hits.what != NOTHING)
    p, n, hit_kind, face = (
        hits.points_m[hit_index],
        hits.normals[hit_index],
        hits.what[hit_index],
        hits.face[hit_index],
    )
    d = d[hit_index]
    albedo = np.zeros((len(hit_index), 3), np.float32)
    glow, gloss = np.zeros_like(albedo), np.zeros(len(hit_index), np.float32)
    finish = np.zeros(len(hit_index), np.uint8)
    ground = hit_kind == GROUND
    albedo[ground], gloss[ground] = ground_colour(moment.stage.layout, light, p[ground])
    for kind in (STATIC, MOVING):
        of_kind = hit_kind == kind
        if of_kind.any():
            albedo[of_kind], finish[of_kind], glow[of_kind] = face_colour(
                moment, kind, face[of_kind], p[of_kind], n[of_kind], light
            )
    facing = n @ light.to_sun
    facing = np.where(finish == Finish.LEAVES, 0.35 + 0.4 * np.abs(facing), facing)
    direct = np.zeros(len(hit_index), np.float32)
    if light.sun.max() > 0.02:
        lit = np.flatnonzero(facing > 0)
        dark = moment.shadowed(p[lit] + 0.04 * n[lit] + 0.02 * light.to_sun, light.to_sun)
        direct[lit] = np.where(dark, 0, facing[lit])
    scattered = 0.62 + 0.38 * n[:, 2]
    falling = direct[:, None] * light.sun + scattered[:, None] * light.sky
    if light.lamps > 0:
        falling += _lamp_light(moment.stage.world.lamps_m, T_scene_ego, p, n, light.lamps)
    colour = albedo * falling + glow
    cosine = np.abs(np.einsum("ij,ij->i", n, d))
    strength = np.array([0, 0, 0, 0.32, 0.12, 0.1, 0, 0, 0.03, 0.05, 0.03], np.float32)
    shiny = strength[finish] * (0.35 + 0.65 * (1 - cosine) ** 2)
    tilt = np.clip(d[:, 2] - 2 * np.einsum("ij,ij->i", n, d) * n[:, 2], 0, 1)[:, None]
    colour += shiny[:, None] * (light.horizon + (light.zenith - light.horizon) * tilt) * 0.8
    wet = np.flatnonzero(gloss > 0.03)
    if mirror and len(wet):
        rough = noise(p[wet, 0], p[wet, 1], 3.0)[:, None] * np.array([0.03, 0.03, 0], np.float32)
        bounce = d[wet] * np.array([1, 1, -1], np.float32) + rough
        bounce[:, 2] = np.maximum(bounce[:, 2], 0.02)
        bounce /= np.linalg.norm(bounce, axis=1, keepdims=True)
        other = moment.cast(p[wet] + 0.05 * n[wet], bounce)
        image_of = _shade(moment, other, bounce, light, T_scene_ego, mirror=False)
        share = (gloss[wet] * (0.06 + 0.8 * (1 - cosine[wet]) ** 4))[:, None]
        colour[wet] = colour[wet] * (1 - share) + share * image_of
    clear = np.exp(-hits.range_m[hit_index] / light.fog_m)[:, None]
    image[hit_index] = colour * clear + light.horizon * (1 - clear)
    return image


def take_picture(
    moment: Moment,
    camera: CameraModel,
    T_scene_ego: Transform,
    light: Light,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB; the ego pose is that of the capture."""
    T = T_scene_ego @ camera.T_ego_camera
    d = (camera.directions() @ T[:3, :3].T).astype(np.float32)
    image = np.empty((len(d), 3), np.float32)
    for part in (slice(i, i + _RAYS_AT_ONCE) for i in range(0, len(d), _RAYS_AT_ONCE)):
        hits = moment.cast(T[:3, 3], d[part])
        image[part] = _shade(moment, hits, d[part], light, T_scene_ego, mirror=True)
    image = image.reshape(camera.height, camera.width, 3)
    scale = camera.width / 256
    if light.lamps > 0:  # bright things bleed into their surroundings
        glare = np.maximum(image * light.gain - 0.9, 0)
        image = image + gaussian_filter(glare, (2.5 * scale, 2.5 * scale, 0)) * (0.6 / light.gain)
    if light.blur_px > 0:
        soft = light.blur_px * scale**0.4
        image = gaussian_filter(image, (soft, soft, 0))
    v, u = np.mgrid[-1 : 1 : camera.height * 1j, -1 : 1 : camera.width * 1j].astype(np.float32)
    vignette = 1 - 0.09 * (u * u + v * v)
    image = image * (vignette[..., None] * light.tint) * (light.gain * camera.gain)
    image = np.clip(image, 0.0, 1.0) ** (1 / 2.2)
    image = image + light.contrast * (image - 0.5) * (1 - np.abs(2 * image - 1))
    grain = light.noise * np.sqrt(0.4 + 1.2 * np.clip(image, 0, 1))
    image += rng.normal(0, 1, image.shape).astype(np.float32) * grain
    levels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.asarray(levels)
