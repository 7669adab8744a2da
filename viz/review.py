"""What one looks at: a labelled frame, and its pictures and points where the log is at hand.

Legend: X forward, Y left, Z up; N points; H, W pixels of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.errors import AutolabelError, SceneError, SetupError
from datasets.frames import CameraView, Frame, Scene, SceneSource, in_lidar_frame, points_in_ego
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import apply
from datasets.label_store import FrameLabels, MaskBit
from datasets.sources.opening import open_source
from datasets.taxonomy import IGNORE_ID, Taxonomy
from viz.label_sets import LabelSet
from viz.turning import turned_frame, turned_grid, turned_labels, turns_to_forward

MASKS: dict[str, MaskBit | None] = {
    "trusted": MaskBit.TRUSTED,
    "all": None,
    "lidar": MaskBit.LIDAR_OBSERVED,
    "camera": MaskBit.CAMERA_VISIBLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A camera view with its pixels, (H, W, 3) uint8 RGB."""

    view: CameraView
    rgb: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFrame:
    """A labelled frame with all there is to show of it.

    Attributes:
        name, grid, taxonomy, levels: of the labels, see ``LabelSet``. A grid along a LiDAR's axes
            is turned so that X points most nearly forward, and all else with it.
        k, n_frames: its place in the scene.
        pictures: any number, in the source's order; their poses are in the grid's frame.
        points_m: (N, 3) float32, key LiDAR sweep in the grid's frame, metres; None if not at hand.
        notes: what could not be shown and why, one line each.
    """

    name: str
    grid: VoxelGrid
    taxonomy: Taxonomy
    levels: tuple[float, ...]
    scene_id: str
    k: int
    n_frames: int
    labels: FrameLabels
    pictures: tuple[Picture, ...] = ()
    points_m: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()


def shown_voxels(labels: FrameLabels, taxonomy: Taxonomy, mask: str) -> NDArray[np.bool_]:
    """Occupied voxels that a mask lets through: (X, Y, Z) bool. ``mask`` is a key of ``MASKS``."""
    occupied = (labels.semantics != taxonomy.free_id) & (labels.semantics != IGNORE_ID)
    bit = MASKS[mask]
    return np.asarray(occupied if bit is None else occupied & ((labels.mask & int(bit)) != 0))


def class_counts(
    labels: FrameLabels, shown: NDArray[np.bool_], taxonomy: Taxonomy
) -> dict[int, int]:
    """Shown voxels of every class but free space, by id; classes without any included."""
    counts = np.bincount(labels.semantics[shown], minlength=256)
    return {i: int(counts[i]) for i in taxonomy.semantic_ids}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """See ``ReviewFrame``; ``turns`` are right angles by which all of it is turned."""

    pictures: tuple[Picture, ...] = ()
    points_m: NDArray[np.float32] | None = None
    notes: tuple[str, ...] = ()
    turns: int = 0


class ReviewSession:
    """Labels and, where it is at hand, the log that they are of.

    Args:
        log: the log, or why it is not at hand. The labels are then shown alone.
    """

    def __init__(self, labels: LabelSet, log: SceneSource | str) -> None:
        self.labels, self._log = labels, log
        self._scenes: dict[str, Scene] = {}

    def frame(self, scene_id: str, k: int) -> ReviewFrame:
        """Frame k of a scene.

        Raises:
            SetupError: there are no labels of that scene or frame.
            SceneError: the labels cannot be read.
        """
        shown, known = self.labels, self.labels.scene_ids()
        if scene_id not in known:
            raise SetupError(
                f"{shown.what}: unknown scene {scene_id!r}; it has {_shortened(known)}"
            )
        scene = shown.scene(scene_id)
        n_frames = len(scene)
        if not 0 <= k < n_frames:
            raise SetupError(
                f"{shown.what}: scene {scene_id} has no frame {k}; it has frames 0..{n_frames - 1}"
            )
        labels = scene.frame(k)
        seen = self._seen(scene_id, labels.token)
        return ReviewFrame(
            name=shown.name,
            grid=turned_grid(shown.grid, seen.turns),
            taxonomy=shown.taxonomy,
            levels=shown.levels,
            scene_id=scene_id,
            k=k,
            n_frames=n_frames,
            labels=turned_labels(labels, seen.turns) if seen.turns else labels,
            pictures=seen.pictures,
            points_m=seen.points_m,
            notes=seen.notes,
        )

    def _seen(self, scene_id: str, token: str) -> _Seen:
        """What the log has of a frame."""
        try:
            source, frame = self._logged(scene_id, token)
            turns = 0
            if self.labels.frame == "lidar":
                turns = turns_to_forward(frame.lidar.T_ego_lidar) if frame.lidar else 0
                frame = in_lidar_frame(frame)
        except AutolabelError as error:
            return _Seen(notes=(f"no pictures or points: {error}",))
        T = turned_frame(turns)
        cameras = [replace(view, T_ego_camera=T @ view.T_ego_camera) for view in frame.cameras]
        pictures, notes = read_pictures(source, cameras)
        points = None
        try:
            points = apply(T, points_in_ego(source, frame)[:, :3]).astype(np.float32)
        except SceneError as error:
            notes.append(f"no LiDAR points: {error}")
        return _Seen(pictures=pictures, points_m=points, notes=tuple(notes), turns=turns)

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


def read_pictures(
    source: SceneSource, views: Sequence[CameraView]
) -> tuple[tuple[Picture, ...], list[str]]:
    """Every picture that can be read, and a line for each that cannot."""
    pictures, notes = [], []
    for view in views:
        try:
            pictures.append(Picture(view=view, rgb=source.read_image(view)))
        except SceneError as error:
            notes.append(f"no picture of {view.name}: {error}")
    return tuple(pictures), notes


def open_log(kind: str, root: Path) -> SceneSource:
    """A log to look at. The built-in city is not generated where there is none.

    Raises:
        SetupError: unknown kind, or no such log at ``root``.
    """
    if not root.is_dir():
        raise SetupError(f"there is no folder {root}; name the log with --root")
    return open_source("nuscenes" if kind == "city" else kind, root, past_sweeps=0)


def _shortened(names: tuple[str, ...], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
