"""What one looks at: a stored frame, and its pictures and points where the log is at hand.

Legend: X forward, Y left, Z up; N points; H, W pixels of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError, SetupError
from datasets.frames import CameraView, Frame, Scene, SceneSource, points_in_ego
from datasets.label_store import FrameLabels, LabelStore, MaskBit, StoreHeader
from datasets.taxonomy import IGNORE_ID, Taxonomy

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
    """A stored frame with all there is to show of it.

    Attributes:
        k, n_frames: its place in the scene.
        pictures: any number, in the source's order.
        points_m: (N, 3) float32, key LiDAR sweep in the ego frame, metres; None if not at hand.
        notes: what could not be shown and why, one line each.
    """

    store_name: str
    scene_id: str
    k: int
    n_frames: int
    header: StoreHeader
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


class ReviewSession:
    """A store and, where it is at hand, the log it was made from.

    Args:
        store_path: the label store.
        root: nuScenes-format root of the log. It may be missing: labels are then shown alone.

    Raises:
        SetupError: the store is missing, damaged, of another format version, or holds no scene.
    """

    def __init__(self, store_path: Path, root: Path) -> None:
        self.store = LabelStore.open(store_path)
        self.scene_ids = self.store.scene_ids()
        if not self.scene_ids:
            raise SetupError(f"label store {store_path}: no scene is committed yet")
        self.root = root
        self._source, self._source_note = _open_source(root)
        self._scenes: dict[str, Scene | str] = {}

    def first_scene(self) -> str:
        return self.scene_ids[0]

    def frame(self, scene_id: str, k: int) -> ReviewFrame:
        """Frame k of a scene.

        Raises:
            SetupError: no such scene or frame in the store.
            SceneError: the stored labels cannot be read.
        """
        if scene_id not in self.scene_ids:
            raise SetupError(
                f"label store {self.store.path}: unknown scene {scene_id!r}; "
                f"it has {_shortened(self.scene_ids)}"
            )
        scene = self.store.scene(scene_id)
        n_frames = len(scene)
        if not 0 <= k < n_frames:
            raise SetupError(
                f"label store {self.store.path}: scene {scene_id} has no frame {k}; "
                f"it has frames 0..{n_frames - 1}"
            )
        labels = scene.frame(k)
        pictures: tuple[Picture, ...] = ()
        points = None
        notes = []
        logged = self._logged_frame(scene_id, labels.token)
        if isinstance(logged, str):
            notes.append(logged)
        else:
            assert self._source is not None
            pictures, picture_notes = read_pictures(self._source, logged)
            notes += picture_notes
            try:
                points = points_in_ego(self._source, logged)[:, :3]
            except SceneError as error:
                notes.append(f"no LiDAR points: {error}")
        return ReviewFrame(
            store_name=self.store.path.name,
            scene_id=scene_id,
            k=k,
            n_frames=n_frames,
            header=self.store.header,
            labels=labels,
            pictures=pictures,
            points_m=points,
            notes=tuple(notes),
        )

    def _logged_frame(self, scene_id: str, token: str) -> Frame | str:
        if self._source is None:
            return self._source_note
        if scene_id not in self._scenes:
            try:
                self._scenes[scene_id] = self._source.scene(scene_id)
            except KeyError:
                self._scenes[scene_id] = f"no pictures or points: {self.root} lacks this scene"
            except SceneError as error:
                self._scenes[scene_id] = f"no pictures or points: {error}"
        scene = self._scenes[scene_id]
        if isinstance(scene, str):
            return scene
        for frame in scene.frames:
            if frame.token == token:
                return frame
        return f"no pictures or points: {self.root} lacks frame {token} of this scene"


def read_pictures(source: SceneSource, frame: Frame) -> tuple[tuple[Picture, ...], list[str]]:
    """Every picture of a frame that can be read, and a line for each that cannot."""
    pictures, notes = [], []
    for view in frame.cameras:
        try:
            pictures.append(Picture(view=view, rgb=source.read_image(view)))
        except SceneError as error:
            notes.append(f"no picture of {view.name}: {error}")
    return tuple(pictures), notes


def _open_source(root: Path) -> tuple[SceneSource | None, str]:
    if not root.is_dir():
        return None, f"no pictures or points: there is no folder {root}; name the log with --root"
    from datasets.sources.nuscenes import NuScenesSource

    try:
        return NuScenesSource(root, past_sweeps=0), ""
    except SetupError as error:
        return None, f"no pictures or points: {error}"


def _shortened(names: tuple[str, ...], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
