"""Weather, time of day and the light that they make."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
WEATHERS = ("sun", "overcast", "rain", "fog", "dusk", "night")
_CHANCES = (0.34, 0.24, 0.14, 0.08, 0.1, 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Light:
    """Sun, sky and exposure of one scene.

    Attributes:
        weather: one of ``WEATHERS``.
        to_sun: unit vector.
        sun, sky: RGB strength of direct and of scattered light.
        horizon, zenith: RGB of the sky.
        fog_m: distance at which fog takes 63 %.
        lamps: strength of street lamps, windows and headlights, 0 by day.
        wet: 0 for a dry road, up to 1 for one that mirrors.
        rain: share of LiDAR rays that drops of rain send back.
        gain: exposure; ``tint``: RGB white balance; ``contrast``: of the tone curve.
        noise: standard deviation of the sensor noise at mid grey, 0..1.
        blur_px: standard deviation of the blur at a width of 256 pixels; grows slowly with it.
        asphalt, lawn, paving: RGB of the ground of this scene.
    """

    weather: str
    to_sun: Pixels
    sun: Pixels
    sky: Pixels
    horizon: Pixels
    zenith: Pixels
    fog_m: float
    lamps: float
    wet: float
    rain: float
    gain: float
    tint: Pixels
    contrast: float
    noise: float
    blur_px: float
    asphalt: Pixels
    lawn: Pixels
    paving: Pixels


def _rgb(values: object) -> Pixels:
    return np.asarray(values, np.float32)


def draw_light(rng: np.random.Generator) -> Light:
    """Weather at random."""
    weather = WEATHERS[int(rng.choice(len(WEATHERS), p=_CHANCES))]
    dark = weather == "night"
    overcast = {"sun": 0.15, "dusk": 0.4}.get(weather, 1.0) * float(rng.uniform(0.7, 1.0))
    top = 12 if weather == "dusk" else 65
    elevation = np.radians(rng.uniform(4 if weather == "dusk" else 16, top))
    azimuth = rng.uniform(0, 2 * np.pi)
    low = 1 - float(elevation) / np.radians(65)
    flat = np.cos(elevation)
    blue, grey = np.array([0.36, 0.54, 0.88]), np.array([0.7, 0.73, 0.78])
    zenith = blue * (1 - overcast) + grey * overcast
    horizon = 0.82 + 0.1 * overcast - np.array([0.06, 0.02, 0.0])
    sun = (1.2 - 1.08 * overcast) * np.array([1.0, 0.96 - 0.14 * low, 0.9 - 0.36 * low])
    sky = (0.4 + 0.42 * overcast) * np.array([0.92, 0.97, 1.06])
    level, lamps = 1.0, 0.0
    if weather == "dusk":
        level, lamps = float(rng.uniform(0.16, 0.45)), 0.5
        horizon = horizon * np.array([1.05, 0.82, 0.66])
        sun = sun * np.array([1.3, 0.8, 0.5])
    elif dark:
        level, lamps = float(rng.uniform(0.008, 0.03)), 1.0
        sun = sun * 0.2
        horizon = horizon * np.array([1.3, 1.05, 0.8])
    elif weather in ("rain", "fog"):
        level = float(rng.uniform(0.55, 0.9))
    wet = float(rng.uniform(0.6, 1.0)) if weather == "rain" else 0.0
    if dark and rng.random() < 0.35:
        wet = float(rng.uniform(0.4, 0.9))
    lawns = ((0.17, 0.24, 0.09), (0.27, 0.24, 0.13), (0.22, 0.25, 0.1), (0.29, 0.21, 0.15))
    lawn = np.array(lawns[int(rng.choice(4, p=(0.45, 0.2, 0.25, 0.1)))])
    wetness = 1 - 0.4 * wet
    asphalt = rng.uniform(0.12, 0.32) * np.array([1.0, 1.0, 1.02]) * rng.uniform(0.95, 1.05, 3)
    pavings = ((0.44, 0.42, 0.39), (0.36, 0.36, 0.37), (0.45, 0.36, 0.31), (0.52, 0.5, 0.45))
    exposure = {"dusk": 1.5, "night": 2.8}.get(weather, 1.0) / level ** (0.62 if not dark else 0.0)
    fog = {"fog": rng.uniform(22, 70), "rain": rng.uniform(90, 220)}.get(weather)
    return Light(
        weather=weather,
        to_sun=_rgb([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)]),
        sun=_rgb(level * sun),
        sky=_rgb(level * sky),
        horizon=_rgb(level * horizon),
        zenith=_rgb(level * zenith),
        fog_m=float(fog if fog is not None else rng.uniform(180, 600)),
        lamps=lamps,
        wet=wet,
        rain=float(rng.uniform(0.004, 0.015)) if weather == "rain" else 0.0,
        gain=float(rng.uniform(0.8, 1.35)) * exposure,
        tint=_rgb(1 + rng.uniform(-0.06, 0.06, 3)),
        contrast=float(rng.uniform(0.15, 0.5)),
        noise=float(rng.uniform(0.006, 0.016)) * {"dusk": 1.6, "night": 2.4}.get(weather, 1.0),
        blur_px=float(rng.choice((0.0, rng.uniform(0.25, 0.6)), p=(0.5, 0.5))),
        asphalt=_rgb(asphalt * wetness),
        lawn=_rgb(lawn * rng.uniform(0.75, 1.2) * wetness),
        paving=_rgb(np.array(pavings[int(rng.integers(4))]) * rng.uniform(0.8, 1.1) * wetness),
    )
