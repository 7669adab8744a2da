"""What a log has of a labeled frame: images, LiDAR points, boxes, in the grid's frame.

Legend: N points; H, W pixels of an image.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from datasets.annotations import AnnotatedSource, Box
from datasets.errors import AutolabelError, SceneError, SetupError
from datasets.frames import CameraView, Frame, Scene, SceneSource, in_lidar_frame, points_in_ego
from datasets.geometry.transforms import apply, inverse
from datasets.labels.log_identity import require_log_of, require_same_frame
from datasets.labels.store import LabelStore
from datasets.labels.voxel_labels import FrameLabels, GridFrame
from datasets.sources.opening import open_source
from datasets.taxonomy import Taxonomy
from datasets.visibility import ray_origins
from viz.session.grid_rotation import turned_frame, turns_to_forward


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraImage:
    """A camera view with its pixels, (H, W, 3) uint8 RGB."""

    view: CameraView
    rgb: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """What the log has of one frame; see ``viz.session.session.ReviewFrame``.

    Attributes:
        turns: right angles by which the grid and all of this is turned; None: the log does not have
            the frame.
    """

    images: tuple[CameraImage, ...] = ()
    points_m: NDArray[np.float32] | None = None
    lidar_m: NDArray[np.float64] | None = None
    boxes: tuple[Box, ...] = ()
    box_taxonomy: Taxonomy | None = None
    notes: tuple[str, ...] = ()
    turns: int | None = None


class LogOfLabels:
    """A log, asked for what it has of labeled frames. Threads may share it.

    Args:
        log: the log, or why it is not at hand.
        grid_frame: that the labels' grid lies in, ``ego`` or ``lidar``.
    """

    def __init__(self, log: SceneSource | str, grid_frame: GridFrame) -> None:
        self._log, self._grid_frame = log, grid_frame
        self._scenes: dict[str, Scene] = {}
        self._lock = threading.Lock()

    def of(self, scene_id: str, labels: FrameLabels) -> Logged:
        """All there is of a labeled frame; ``notes`` say what there is not. A frame of another log
        that bears its name is not there."""
        try:
            with self._lock:  # sources are not made for threads; reading their files is
                source, frame = self._logged(scene_id, labels.token)
                require_same_frame(
                    f"scene {scene_id}, frame {labels.token}", labels, frame, self._grid_frame
                )
                marked, taxonomy, notes = _boxes(source, frame)
            turns, T_ego_frame = 0, np.eye(4)
            if self._grid_frame == "lidar":
                ego, frame = frame, in_lidar_frame(frame)
                assert ego.lidar is not None
                turns = turns_to_forward(ego.lidar.T_ego_lidar)
                T_ego_frame = ego.lidar.T_ego_lidar
            T = turned_frame(turns)
            T_turned_ego = T @ inverse(T_ego_frame)
        except AutolabelError as error:
            return Logged(notes=(f"no images or points: {error}",))
        cameras = [replace(view, T_ego_camera=T @ view.T_ego_camera) for view in frame.cameras]
        images, missing = read_images(source, cameras)
        notes += missing
        points = lidar = None
        try:
            returns = points_in_ego(source, frame)
            points = apply(T, returns[:, :3]).astype(np.float32)
            lidar = apply(T, ray_origins(frame, returns))
        except SceneError as error:
            notes.append(f"no LiDAR points: {error}")
        return Logged(
            images=images,
            points_m=points,
            lidar_m=lidar,
            boxes=tuple(replace(box, T_ego_box=T_turned_ego @ box.T_ego_box) for box in marked),
            box_taxonomy=taxonomy,
            notes=tuple(notes),
            turns=turns,
        )

    def require(self, store: LabelStore, scene_id: str) -> None:
        """Raises ``SetupError``: a scene of the store was labeled from another log than this."""
        if isinstance(self._log, str):
            return
        with self._lock:
            require_log_of(store, scene_id, self._log)

    def _logged(self, scene_id: str, token: str) -> tuple[SceneSource, Frame]:
        """Raises ``SetupError`` or ``SceneError`` where the log does not have it."""
        if isinstance(self._log, str):
            raise SetupError(self._log)
        if scene_id not in self._scenes:
            try:
                self._scenes[scene_id] = self._log.scene(scene_id)
            except KeyError:
                raise SetupError("the log lacks this scene") from None
        for frame in self._scenes[scene_id].frames:
            if frame.token == token:
                return self._log, frame
        raise SetupError(f"the log lacks frame {token} of this scene")


def _boxes(source: SceneSource, frame: Frame) -> tuple[tuple[Box, ...], Taxonomy | None, list[str]]:
    """Marked boxes, what their classes mean, and why there are none."""
    if not hasattr(source, "annotations"):
        return (), None, []
    annotated = cast(AnnotatedSource, source)
    try:
        return annotated.annotations(frame).boxes, annotated.taxonomy, []
    except AutolabelError as error:
        return (), None, [f"no boxes: {error}"]


def read_images(
    source: SceneSource, views: Sequence[CameraView]
) -> tuple[tuple[CameraImage, ...], list[str]]:
    """Every image that can be read, and a line for each that cannot."""
    images, notes = [], []
    for view in views:
        try:
            images.append(CameraImage(view=view, rgb=source.read_image(view)))
        except SceneError as error:
            notes.append(f"no image of {view.name}: {error}")
    return tuple(images), notes


def open_log(kind: str, root: Path, version: str | None = None) -> SceneSource:
    """A log to look at. The simulated city is not generated where there is none.

    Raises:
        SetupError: unknown kind, or no such log at ``root``.
    """
    if not root.is_dir():
        raise SetupError(f"there is no folder {root}; name the log with --root")
    kind = "nuscenes" if kind == "city" else kind
    return open_source(kind, root, past_sweeps=0, version=version)
