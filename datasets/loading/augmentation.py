"""Augmentation for training: mirrored grids, warped images, fewer sweeps, weather.

Everything is drawn from a generator that the caller seeds; evaluation uses none of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from datasets.frames import Frame, in_lidar_frame
from datasets.model_inputs import FitImage, FrameInputs, InputSpec, fitted_map
from datasets.visibility import ray_origins

Matrix = NDArray[np.float64]
Points = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAugmentation:
    """How far pictures may be changed; each camera is drawn for itself.

    The defaults are the published ones (``PrepareImageInputs`` at 1600 to 704 pixels), the scale
    being relative to the one that fits the width: 0.44 - 0.06 to 0.44 + 0.11 there.

    Attributes:
        scale: smallest and largest relative scale. The crop keeps the bottom rows; its left edge
            is random.
        flip: chance to be mirrored.
        rotation_deg: largest angle, about the middle of the crop.
        brightness, contrast, saturation: largest relative change; not published.
    """

    scale: tuple[float, float] = (1 - 0.06 / 0.44, 1 + 0.11 / 0.44)
    flip: float = 0.5
    rotation_deg: float = 5.4
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be ascending and positive: {self.scale}")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"flip is a chance, 0..1: {self.flip}")
        if not all(0 <= x < 1 for x in (self.brightness, self.contrast, self.saturation)):
            raise ValueError(f"brightness, contrast and saturation lie in 0..1: {self}")

    def draw(self, rng: np.random.Generator) -> PictureView:
        """One camera's view."""
        colour = [1 + x * rng.uniform(-1, 1) for x in (self.brightness, self.contrast)]
        return PictureView(
            scale=float(rng.uniform(*self.scale)),
            left=float(rng.random()),
            mirrored=bool(rng.random() < self.flip),
            rotation_deg=float(rng.uniform(-1, 1)) * self.rotation_deg,
            brightness=float(colour[0]),
            contrast=float(colour[1]),
            saturation=float(1 + self.saturation * rng.uniform(-1, 1)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureView:
    """One way to bring a picture to network size; see ``ImageAugmentation``.

    Attributes:
        left: where the crop begins, as a share of the width there is to spare.
        rotation_deg: counter-clockwise as seen on the picture.
        brightness, contrast, saturation: factors.
    """

    scale: float = 1.0
    left: float = 0.5
    mirrored: bool = False
    rotation_deg: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    def __call__(
        self, pixels: NDArray[np.uint8], spec: InputSpec
    ) -> tuple[NDArray[np.uint8], Matrix]:
        """Like ``fit_image``: (H, W, 3) picture, black where the stored one ends, and the (3, 3)
        map from stored to network pixels."""
        h, w = pixels.shape[:2]
        H, W = spec.height, spec.width
        size = (max(1, round(self.scale * W)), max(1, round(self.scale * W * h / w)))
        image = Image.fromarray(pixels)
        if image.size != size:
            image = image.resize(size)
        cut = _shift(-int(self.left * max(0, size[0] - W)), H - size[1])
        placed = self._about_the_middle(W, H) @ cut
        if np.array_equal(placed[:2, :2], np.eye(2)):  # whole pixels: nothing to interpolate
            x, y = (-round(v) for v in placed[:2, 2])
            image = image.crop((x, y, x + W, y + H))
        else:
            inverse = np.linalg.inv(placed)[:2].flatten()
            image = image.transform(
                (W, H), Image.Transform.AFFINE, tuple(inverse), Image.Resampling.BICUBIC
            )
        for factor, enhance in (
            (self.brightness, ImageEnhance.Brightness),
            (self.contrast, ImageEnhance.Contrast),
            (self.saturation, ImageEnhance.Color),
        ):
            if factor != 1:
                image = enhance(image).enhance(factor)
        # Between corners of pixels, whose maps are exact: stored to here, stored to the plain fit.
        # From the plain fit's pixels to those here, centres being whole numbers:
        scaled = placed @ np.diag([size[0] / w, size[1] / h, 1.0])
        plain_h = int(h * W / w)
        plain = _shift(0, H - plain_h) @ np.diag([W / w, plain_h / h, 1.0])
        T = _shift(-0.5, -0.5) @ scaled @ np.linalg.inv(plain) @ _shift(0.5, 0.5)
        return np.asarray(image, np.uint8), T @ fitted_map(w, h, spec)

    def _about_the_middle(self, width: int, height: int) -> Matrix:
        angle = np.radians(self.rotation_deg)
        turn = np.array(
            [
                [np.cos(angle), np.sin(angle), 0],
                [-np.sin(angle), np.cos(angle), 0],
                [0, 0, 1],
            ]
        )
        mirror = np.diag([-1.0 if self.mirrored else 1.0, 1.0, 1.0])
        middle = _shift(width / 2, height / 2)
        about_middle: Matrix = middle @ turn @ mirror @ np.linalg.inv(middle)
        return about_middle


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True, kw_only=True)
class AirborneReturns:
    """Returns from rain, snow, spray or exhaust, which few labeled scenes may not have shown.

    A share of the rays ends in the air before it reaches what it met: near the LiDAR, and weaker.
    Measured depth of the pictures keeps the true range.

    Attributes:
        chance: share of the frames that get any.
        share: largest share of their rays; drawn evenly up to it. Heavy rain takes a few percent.
        range_m: mean range of the returns, exponential beyond ``nearest_m``.
    """

    chance: float = 0.5
    share: float = 0.03
    range_m: float = 4.0
    nearest_m: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.chance <= 1 and 0 <= self.share <= 1):
            raise ValueError(f"chance and share lie in 0..1: {self}")
        if self.range_m <= 0 or self.nearest_m < 0:
            raise ValueError(f"ranges must be positive: {self}")

    def __call__(
        self, points: Points, origins: NDArray[np.float64], rng: np.random.Generator
    ) -> Points:
        """The points (P, 5 or more) with some drawn nearer to where their rays began, (P, 3) or
        (3,) for all; lags stay."""
        if rng.random() >= self.chance:
            return points
        caught = np.flatnonzero(rng.random(len(points)) < rng.random() * self.share)
        starts = np.broadcast_to(origins.astype(np.float32), (len(points), 3))[caught]
        rays = points[caught, :3] - starts
        ranges = np.linalg.norm(rays, axis=1)
        near = self.nearest_m + rng.exponential(self.range_m, len(caught)).astype(np.float32)
        weaker = rng.uniform(0, 0.3, len(caught)).astype(np.float32)
        shorter = near < ranges
        caught, rays, ranges, starts = (a[shorter] for a in (caught, rays, ranges, starts))
        out = points.copy()
        out[caught, :3] = rays * (near[shorter] / ranges)[:, None] + starts
        out[caught, 3] *= weaker[shorter]
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What training changes at random about a frame.

    Attributes:
        flip: mirror x and y of the BEV frame, each with an even chance: points, labels, masks,
            flow and the lift alike.
        images: None leaves the pictures as they are.
        random_sweeps: where a frame has more past sweeps than the network reads, draw which ones
            instead of taking the newest, as published.
        fewer_sweeps: share of the frames that are given fewer past sweeps, any number of them, as
            at the start of a log.
        airborne: returns from the air among the points; None: none. Not published.
    """

    flip: bool = True
    images: ImageAugmentation | None = None
    random_sweeps: bool = False
    fewer_sweeps: float = 0.5
    airborne: AirborneReturns | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fewer_sweeps <= 1:
            raise ValueError(f"fewer_sweeps is a share, 0..1: {self.fewer_sweeps}")

    def draw(self, frame: Frame, spec: InputSpec, rng: np.random.Generator) -> DrawnView:
        """How a frame is seen this time."""
        flip = (self.flip and bool(rng.random() < 0.5), self.flip and bool(rng.random() < 0.5))
        if spec.lidar:
            frame = self._with_sweeps(frame, spec.past_sweeps, rng)
        fit = None if self.images is None else [self.images.draw(rng) for _ in frame.cameras]
        seed = 0 if self.airborne is None else int(rng.integers(2**63))
        return DrawnView(frame=frame, flip=flip, fit=fit, airborne=self.airborne, air_seed=seed)

    def _with_sweeps(self, frame: Frame, count: int, rng: np.random.Generator) -> Frame:
        """Sweeps are drawn by their number back in time, of every LiDAR the same."""
        counts: Counter[str] = Counter()
        numbers = []
        for sweep in frame.past_sweeps:
            numbers.append(counts[sweep.lidar])
            counts[sweep.lidar] += 1
        most_points = max(counts.values(), default=0)
        chosen = list(range(min(count, most_points)))
        if self.random_sweeps and most_points > count:
            chosen = sorted(rng.choice(most_points, count, replace=False))
        if rng.random() < self.fewer_sweeps:
            chosen = chosen[: int(rng.integers(count + 1))]
        drawn = zip(frame.past_sweeps, numbers, strict=True)
        return replace(frame, past_sweeps=tuple(s for s, number in drawn if number in chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnView:
    """A frame as it is seen in one step.

    Attributes:
        frame: with the sweeps drawn.
        flip: mirror x, mirror y.
        fit: how each camera's picture is brought to network size; None: ``fit_image``.
        airborne, air_seed: returns from the air, and the seed that draws them.
    """

    frame: Frame
    flip: tuple[bool, bool] = (False, False)
    fit: Sequence[FitImage] | None = None
    airborne: AirborneReturns | None = None
    air_seed: int = 0

    def in_the_air(self, inputs: FrameInputs, spec: InputSpec) -> FrameInputs:
        """The frame's inputs with returns from the air among their points."""
        if self.airborne is None or inputs.points is None or self.frame.lidar is None:
            return inputs
        frame = in_lidar_frame(self.frame) if spec.frame == "lidar" else self.frame
        rng = np.random.default_rng(self.air_seed)
        origins = ray_origins(frame, inputs.points)
        return replace(inputs, points=self.airborne(inputs.points, origins, rng))
