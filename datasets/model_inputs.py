"""Input tensors of the networks from images and points of a frame.

Legend: B frames, N cameras, H and W network pixels, P points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datasets.errors import SceneError
from datasets.frames import Frame, PointFeatures, SceneSource, in_lidar_frame, points_in_ego
from datasets.geometry.transforms import Transform, apply, inverse

V = TypeVar("V", bound=np.generic)
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a network wants to see.

    Attributes:
        height, width: network pixels. Pictures are resized by width and cropped at the top.
        lidar: whether points and their depth maps are read at all.
        past_sweeps: earlier sweeps added to the key sweep.
        point_features: of a point after x, y, z: intensity and time lag, or the hyperbolic
            tangents of intensity and elongation, for logs that record elongation (Waymo).
        past_frames: earlier key-frames whose pictures are read as well.
        depth: whether LiDAR depth maps are made; with ``lidar``.
        depth_min_m, depth_max_m: their range.
        reference_parity: as the published code has it, which official weights need: pictures
            with blue first (and the RGB constants all the same), cameras in the vehicle pose of
            the first camera's capture time, points in that of ``CAM_FRONT``'s, depth maps
            without either, and the key sweep's returns from the vehicle itself kept. Otherwise
            RGB, and everything in the one ego frame of the LiDAR key-frame. In the LiDAR frame
            the published code has no such vehicle poses either.
        frame: of points, camera poses and voxels: the ego frame, or the axes of the key LiDAR
            (``in_lidar_frame``); what is named ``ego`` in the inputs means this frame.
    """

    height: int
    width: int
    lidar: bool
    past_sweeps: int = 9
    point_features: PointFeatures = "intensity_lag"
    past_frames: int = 0
    depth: bool = True
    depth_min_m: float = 1.0
    depth_max_m: float = 45.0
    reference_parity: bool = False
    frame: Literal["ego", "lidar"] = "ego"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInputs:
    """A batch of frames. The ego frame is that of the LiDAR key-frame throughout; colours and
    ego frame differ under ``InputSpec.reference_parity``.

    Attributes:
        images: (B, N, 3, H, W) float32, RGB, normalised with the ImageNet constants.
        T_ego_camera: (B, N, 4, 4) float32, camera to ego, metres.
        intrinsics: (B, N, 3, 3) float32, pixels of the stored picture.
        post_image: (B, N, 3, 3) float32, stored pixel (u, v, 1) to network pixel.
        T_bda: (B, 4, 4) float32, BEV augmentation: ego to augmented ego. Points, labels and
            everything the network outputs are in the augmented frame.
        points: per frame (P, 5) float32: x, y, z (augmented ego, metres), raw intensity, time
            lag in seconds, or what ``InputSpec.point_features`` says instead of these two; None
            for camera-only networks.
        depth: (B, N, H, W) float32 metres, 0 where no return; None for networks without such maps.
        previous: the same cameras at earlier key-frames, nearest first. Their poses are in this
            frame's ego frame, so they hold the ego motion; points and depth are None, ``T_bda`` and
            ``present`` are the same.
        present: (B, N) bool, where the frames have different counts of cameras: False for a picture
            that only fills the batch, black, which no network may read. None: all are there.
    """

    images: Tensor
    T_ego_camera: Tensor
    intrinsics: Tensor
    post_image: Tensor
    T_bda: Tensor
    points: tuple[Tensor, ...] | None
    depth: Tensor | None
    previous: tuple[ModelInputs, ...] = ()
    present: Tensor | None = None

    def pictures(self, per_view: Tensor | None = None) -> Tensor:
        """(B, N, ...) values of the views, the images when left out -> (M, ...) those of the M
        pictures that are there, in order; M = B N where all are."""
        values = self.images if per_view is None else per_view
        return values.flatten(0, 1) if self.present is None else values[self.present]

    def by_view(self, of_pictures: Tensor) -> Tensor:
        """(M, ...) values of the pictures that are there -> (B N, ...), 0 for the others."""
        if self.present is None:
            return of_pictures
        index = self.present.flatten().nonzero().flatten()
        out = of_pictures.new_zeros(self.present.numel(), *of_pictures.shape[1:])
        return out.index_copy(0, index, of_pictures)

    def to(self, device: torch.device | str) -> ModelInputs:
        """The same batch on another device."""
        return replace(
            self,
            images=self.images.to(device),
            T_ego_camera=self.T_ego_camera.to(device),
            intrinsics=self.intrinsics.to(device),
            post_image=self.post_image.to(device),
            T_bda=self.T_bda.to(device),
            points=None if self.points is None else tuple(p.to(device) for p in self.points),
            depth=None if self.depth is None else self.depth.to(device),
            previous=tuple(frame.to(device) for frame in self.previous),
            present=None if self.present is None else self.present.to(device),
        )

    def mirrored(self, *, x: bool, y: bool) -> ModelInputs:
        """The same frames in a mirrored BEV frame: x makes forward backward, y left right."""
        mirror = self.T_bda.new_tensor([1.0 - 2 * x, 1.0 - 2 * y, 1.0, 1.0])
        points = self.points
        if points is not None:
            signs = torch.cat((mirror[:3], mirror.new_ones(2)))
            points = tuple(p * signs.to(p) for p in points)
        previous = tuple(frame.mirrored(x=x, y=y) for frame in self.previous)
        return replace(self, T_bda=mirror.diag() @ self.T_bda, points=points, previous=previous)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameInputs:
    """One frame before batching and BEV augmentation; fields as in ``ModelInputs`` without B.

    Attributes:
        images: (N, H, W, 3) uint8 at network size, channels in the order of ``ModelInputs``.
        points: (P, 6) float32 in the (unaugmented) ego frame, as ``points_in_ego`` gives them, or
            None. Networks see the first five columns.
        depth: (N, H, W) float32 metres, or None.
        previous: earlier key-frames, nearest first.
    """

    images: NDArray[np.uint8]
    T_ego_camera: NDArray[np.float64]
    intrinsics: NDArray[np.float64]
    post_image: NDArray[np.float64]
    points: NDArray[np.float32] | None
    depth: NDArray[np.float32] | None
    previous: tuple[FrameInputs, ...] = ()


class FitImage(Protocol):
    """Brings a stored picture (h, w, 3) to network size (H, W, 3), and gives the (3, 3) map from
    stored to network pixels; ``fit_image`` is one."""

    def __call__(
        self, pixels: NDArray[np.uint8], spec: InputSpec, /
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]: ...


def prepare_frame(
    source: SceneSource,
    frame: Frame,
    spec: InputSpec,
    previous: Sequence[Frame] = (),
    fit: Sequence[FitImage] | None = None,
) -> FrameInputs:
    """Read one frame's pictures (and points when the spec asks for them).

    Cameras may come and go from frame to frame, and change their order. Where an earlier frame
    lacks one, the frame's own picture stands in for it, as the frame does where the scene has no
    earlier one.

    Args:
        previous: ``spec.past_frames`` earlier key-frames, from ``earlier_frames``.
        fit: of each camera, in earlier frames too; ``fit_image`` when left out.

    Raises:
        SceneError: a picture or point file is bad, there is no LiDAR to give the frame, or no
            camera for a network that reads nothing else.
        SetupError: the log does not record the spec's features of points.
        ValueError: the number of earlier frames is not what the spec asks for.
    """
    if len(previous) != spec.past_frames:
        raise ValueError(f"expected {spec.past_frames} earlier frames, got {len(previous)}")
    if not (frame.cameras or spec.lidar):
        raise SceneError(
            where=f"scene {frame.scene_id}",
            frame=frame.token,
            rule="it has no camera, and this network reads nothing else",
        )
    if spec.frame == "lidar":
        frame = in_lidar_frame(frame)
    fit = fit or [fit_image] * len(frame.cameras)
    if spec.reference_parity:
        inputs = _published_frame(source, frame, spec, fit)
    else:
        inputs = _clean_frame(source, frame, spec, fit)
    earlier_inputs = tuple(_earlier(source, frame, inputs, f, spec, fit) for f in previous)
    return replace(inputs, previous=earlier_inputs)


def _clean_frame(
    source: SceneSource, frame: Frame, spec: InputSpec, fit: Sequence[FitImage]
) -> FrameInputs:
    images, post_image = _fitted_images(source, frame, spec, fit)
    points = depth = None
    if spec.lidar:
        points = points_in_ego(source, frame, past=spec.past_sweeps, features=spec.point_features)
        if spec.depth:  # measured before any augmentation, so flips leave it alone
            mounts = [v.T_ego_camera for v in frame.cameras]
            depth = depth_maps(points[:, :3], mounts, _intrinsics(frame), post_image, spec)
    return FrameInputs(
        images=images,
        T_ego_camera=_stacked([v.T_ego_camera for v in frame.cameras]),
        intrinsics=_intrinsics(frame),
        post_image=post_image,
        points=points,
        depth=depth,
    )


def _published_frame(
    source: SceneSource, frame: Frame, spec: InputSpec, fit: Sequence[FitImage]
) -> FrameInputs:
    """The same as the published pipelines make it (see ``InputSpec.reference_parity``)."""
    images, post_image = _fitted_images(source, frame, spec, fit)
    cameras = frame.cameras
    first = front = np.eye(4)
    mounts = [v.T_ego_camera for v in cameras]
    if cameras and spec.frame == "ego":
        mounts = [inverse(v.T_ego_vehicle) @ v.T_ego_camera for v in cameras]
        first = cameras[0].T_ego_vehicle
        front = next((v.T_ego_vehicle for v in cameras if v.name == "CAM_FRONT"), first)
    points = depth = None
    if spec.lidar:
        points = points_in_ego(
            source,
            frame,
            past=spec.past_sweeps,
            vehicle="published",
            features=spec.point_features,
        )
        points[:, :3] = apply(inverse(front), points[:, :3])
        if spec.depth:
            depth = depth_maps(points[:, :3], mounts, _intrinsics(frame), post_image, spec)
    return FrameInputs(
        images=images[..., ::-1],
        T_ego_camera=_stacked([inverse(first) @ v.T_ego_camera for v in cameras]),
        intrinsics=_intrinsics(frame),
        post_image=post_image,
        points=points,
        depth=depth,
    )


def _earlier(
    source: SceneSource,
    frame: Frame,
    own: FrameInputs,
    earlier: Frame,
    spec: InputSpec,
    fit: Sequence[FitImage],
) -> FrameInputs:
    """The same cameras in an earlier frame, in the ego frame of ``own``, the frame's inputs."""
    by_name = {view.name: view for view in earlier.cameras}
    shared = [i for i, view in enumerate(frame.cameras) if view.name in by_name]
    earlier = replace(earlier, cameras=tuple(by_name[frame.cameras[i].name] for i in shared))
    images, post_image = _fitted_images(source, earlier, spec, [fit[i] for i in shared])
    T_ego_earlier = inverse(frame.T_global_ego) @ earlier.T_global_ego
    if spec.reference_parity:
        images = images[..., ::-1]
        if frame.cameras and spec.frame == "ego":
            T_ego_earlier = inverse(frame.cameras[0].T_ego_vehicle) @ T_ego_earlier
    inputs = FrameInputs(
        images=own.images.copy(),
        T_ego_camera=own.T_ego_camera.copy(),
        intrinsics=own.intrinsics.copy(),
        post_image=own.post_image.copy(),
        points=None,
        depth=None,
    )
    inputs.images[shared], inputs.post_image[shared] = images, post_image
    inputs.intrinsics[shared] = _intrinsics(earlier)
    inputs.T_ego_camera[shared] = _stacked(
        [T_ego_earlier @ v.T_ego_camera for v in earlier.cameras]
    )
    return inputs


def _fitted_images(
    source: SceneSource, frame: Frame, spec: InputSpec, fit: Sequence[FitImage]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """(N, H, W, 3) RGB and (N, 3, 3) stored to network pixels."""
    n = len(frame.cameras)
    images = np.empty((n, spec.height, spec.width, 3), np.uint8)
    posts = np.empty((n, 3, 3))
    for i, (view, fit_one) in enumerate(zip(frame.cameras, fit, strict=True)):
        images[i], posts[i] = fit_one(source.read_image(view), spec)
    return images, posts


def _intrinsics(frame: Frame) -> NDArray[np.float64]:
    return np.array([v.intrinsics for v in frame.cameras]).reshape(-1, 3, 3)


def _stacked(poses: Sequence[Transform]) -> NDArray[np.float64]:
    return np.array(poses).reshape(-1, 4, 4)


def fit_image(
    pixels: NDArray[np.uint8], spec: InputSpec
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Resize by width (bicubic) and keep the bottom rows, padding black above if too low.

    Args:
        pixels: (h, w, 3) stored picture.

    Returns:
        (H, W, 3) picture and the (3, 3) map from stored to network pixels.
    """
    h, w = pixels.shape[:2]
    scale = spec.width / w
    resized_h = int(h * scale)
    image = Image.fromarray(pixels)
    if (w, h) != (spec.width, resized_h):
        image = image.resize((spec.width, resized_h))
    cut = resized_h - spec.height
    image = image.crop((0, cut, spec.width, resized_h))
    return np.asarray(image, np.uint8), fitted_map(w, h, spec)


def fitted_map(width: int, height: int, spec: InputSpec) -> NDArray[np.float64]:
    """(3, 3) from the pixels of a stored picture of that size to those of ``fit_image``."""
    scale = spec.width / width
    cut = int(height * scale) - spec.height
    return np.array([[scale, 0.0, 0.0], [0.0, scale, -float(cut)], [0.0, 0.0, 1.0]])


def depth_maps(
    points_ego: NDArray[np.float32],
    T_ego_camera: Sequence[Transform],
    intrinsics: NDArray[np.float64],
    post_image: NDArray[np.float64],
    spec: InputSpec,
) -> NDArray[np.float32]:
    """LiDAR depth seen by each camera; the nearest return wins a pixel.

    Args:
        points_ego: (P, 3) metres.
        T_ego_camera: of each of the N cameras.
        intrinsics, post_image: (N, 3, 3), the latter from stored to network pixels.

    Returns:
        (N, H, W) float32 metres along the optical axis, 0 where there is no return.
    """
    maps = np.full((len(T_ego_camera), spec.height, spec.width), np.inf, np.float32)
    for out, T_camera, K_stored, post in zip(
        maps, T_ego_camera, intrinsics, post_image, strict=True
    ):
        T = inverse(T_camera).astype(np.float32)
        z = points_ego @ T[2, :3] + T[2, 3]
        keep = (z >= spec.depth_min_m) & (z < spec.depth_max_m)
        near = points_ego[keep] @ T[:3, :3].T + T[:3, 3]
        K = (post @ K_stored).astype(np.float32)
        uv = near @ K[:2].T / near[:, 2:]
        col, row = np.rint(uv).astype(np.int64).T
        inside = (col >= 0) & (col < spec.width) & (row >= 0) & (row < spec.height)
        np.minimum.at(out.ravel(), row[inside] * spec.width + col[inside], near[inside, 2])
    maps[np.isinf(maps)] = 0.0
    return maps


def collate(frames: Sequence[FrameInputs], T_bda: NDArray[np.float64] | None = None) -> ModelInputs:
    """Batch frames; those with fewer cameras are filled up, which ``present`` tells.

    Args:
        T_bda: (B, 4, 4) ego to augmented ego; identity when left out.

    Raises:
        ValueError: no frame, or frames with different counts of earlier frames.
    """
    if not frames:
        raise ValueError("a batch needs at least one frame")
    counts = [len(f.images) for f in frames]
    present = None
    if len(set(counts)) > 1:
        present = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        frames = [_filled(f, max(counts)) for f in frames]
    bda = np.tile(np.eye(4), (len(frames), 1, 1)) if T_bda is None else T_bda
    images = torch.from_numpy(np.stack([f.images for f in frames])).permute(0, 1, 4, 2, 3)
    mean = torch.tensor(IMAGENET_MEAN).view(1, 1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(1, 1, 3, 1, 1)
    earlier_frames = zip(*(f.previous for f in frames), strict=True)
    points = depth = None
    if all(f.points is not None for f in frames):
        points = tuple(_augmented(f.points, T) for f, T in zip(frames, bda, strict=True))
    if all(f.depth is not None for f in frames):
        depth = torch.from_numpy(np.stack([f.depth for f in frames if f.depth is not None]))
    return ModelInputs(
        images=((images.float() - mean) / std).contiguous(),
        T_ego_camera=_stack([f.T_ego_camera for f in frames]),
        intrinsics=_stack([f.intrinsics for f in frames]),
        post_image=_stack([f.post_image for f in frames]),
        T_bda=_stack(list(bda)),
        points=points,
        depth=depth,
        previous=tuple(replace(collate(inputs, bda), present=present) for inputs in earlier_frames),
        present=present,
    )


def _filled(frame: FrameInputs, n_cameras: int) -> FrameInputs:
    """The frame with black pictures after its own, from cameras at the origin."""
    missing = n_cameras - len(frame.images)

    def black(array: NDArray[V]) -> NDArray[V]:
        return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])

    def identity(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
        size = matrices.shape[-1]
        return np.concatenate([matrices, np.tile(np.eye(size), (missing, 1, 1))])

    return replace(
        frame,
        images=black(frame.images),
        T_ego_camera=identity(frame.T_ego_camera),
        intrinsics=identity(frame.intrinsics),
        post_image=identity(frame.post_image),
        depth=None if frame.depth is None else black(frame.depth),
        previous=tuple(_filled(inputs, n_cameras) for inputs in frame.previous),
    )


def _stack(arrays: Sequence[NDArray[np.float64]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).float()


def _augmented(points: NDArray[np.float32] | None, T_bda: NDArray[np.float64]) -> Tensor:
    assert points is not None
    out = points[:, :5].copy()
    T = T_bda.astype(np.float32)
    out[:, :3] = points[:, :3] @ T[:3, :3].T + T[:3, 3]
    return torch.from_numpy(out)
