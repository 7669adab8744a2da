"""What one looks at: a labeled frame, and its images and points where the log is at hand.

Legend: X forward, Y left, Z up; N points; H, W pixels of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.annotations import Box
from datasets.benchmarks.catalogue import voxels_in_words
from datasets.errors import SceneError, SetupError
from datasets.frames import SceneSource
from datasets.geometry.grid import VoxelGrid
from datasets.labels.label_set import LabeledScene, LabelSet, LabelSetHeader, StoredLabels
from datasets.labels.log_identity import require_same_frame
from datasets.labels.store import FrameLabels, LabelStore, MaskBit
from datasets.labels.voxel_labels import GridFrame
from datasets.reviews.overlay import FrameVerdict, Reviews
from datasets.taxonomy import IGNORE_ID, Taxonomy
from viz.session.grid_rotation import turned_grid, turned_labels
from viz.session.log_frames import CameraImage, Logged, LogOfLabels, open_log, read_images
from viz.session.lru_cache import LruCache

__all__ = [
    "MASKS",
    "CameraImage",
    "ReviewFrame",
    "ReviewSession",
    "class_counts",
    "open_log",
    "read_images",
    "shown_voxels",
]

MASKS: dict[str, MaskBit | None] = {
    "trusted": MaskBit.TRUSTED,
    "all": None,
    "lidar": MaskBit.LIDAR_OBSERVED,
    "camera": MaskBit.CAMERA_VISIBLE,
}
CACHE_BYTES = 512 << 20
_IMAGES_BYTES = 30 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewFrame:
    """A labeled frame with all there is to show of it.

    Attributes:
        name, grid, taxonomy, levels: of the labels, see ``LabelSetHeader``. A grid along a LiDAR's
            axes is turned so that X points most nearly forward, and all else with it.
        k, n_frames: its place in the scene.
        labels: as stored, with the edits of the reviews applied.
        images: any number, in the source's order; their poses are in the grid's frame.
        points_m: (N, 3) float32, returns of the frame's moment in the grid's frame, metres, without
            those from the vehicle itself; None if not at hand.
        lidar_m: (N, 3), or (3,) for all, where the LiDAR was that measured each; None without.
        notes: what could not be shown and why, one line each.
        truth, second: ground truth and a second store's labels of the same frame, if asked for
            and there.
        boxes: marked in the log, ``T_ego_box`` in the grid's frame; ``box_taxonomy``: what their
            class ids mean, None where the log has no boxes.
        verdict: of the reviewers; None where nobody judged the frame.
        turns: right angles by which the stored grid was turned (``viz.session.grid_rotation``).
        grid_frame: origin and axes of the grid, ``ego`` or ``lidar``.
        heading_known: X points most nearly forward. Of a grid along a LiDAR's axes only the log
            tells that.
    """

    name: str
    grid: VoxelGrid
    taxonomy: Taxonomy
    levels: tuple[float, ...]
    scene_id: str
    k: int
    n_frames: int
    labels: FrameLabels
    images: tuple[CameraImage, ...] = ()
    points_m: NDArray[np.float32] | None = None
    lidar_m: NDArray[np.float64] | None = None
    notes: tuple[str, ...] = ()
    truth: FrameLabels | None = None
    second: FrameLabels | None = None
    boxes: tuple[Box, ...] = ()
    box_taxonomy: Taxonomy | None = None
    verdict: FrameVerdict | None = None
    turns: int = 0
    grid_frame: GridFrame = "ego"
    heading_known: bool = True


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
    """Labels and, where it is at hand, the log that they are of. Threads may share it.

    What was read of the last frames is kept; the reviews are applied anew whenever a frame is
    asked for.

    Args:
        log: the log, or why it is not at hand. The labels are then shown alone.
        truth, second: labels to compare with.
        reviews: the verdicts and edits on a store's labels.

    Attributes:
        notes: that go with every frame.

    Raises:
        SetupError: truth or second have other voxels or classes.
    """

    def __init__(
        self,
        labels: LabelSet,
        log: SceneSource | str,
        *,
        truth: LabelSet | None = None,
        second: LabelSet | None = None,
        reviews: Reviews | None = None,
    ) -> None:
        self.labels, self.truth, self.second, self.reviews = labels, truth, second, reviews
        for other in (truth, second):
            if other is not None:
                _check_comparable(labels.header, other.header)
        self._grid_frame = labels.header.frame
        unverified = labels.confidence_note if isinstance(labels, StoredLabels) else ""
        self.notes = (unverified,) if unverified else ()
        self._log = LogOfLabels(log, self._grid_frame)
        n_bytes = 9 * labels.header.grid.n_voxels
        self._scenes: LruCache[tuple[int, str], LabeledScene] = LruCache(16)
        self._stored: LruCache[tuple[int, str, int], FrameLabels] = LruCache(
            max(4, min(64, CACHE_BYTES // n_bytes))
        )
        self._logged: LruCache[tuple[str, str], Logged] = LruCache(
            max(4, min(16, CACHE_BYTES // (n_bytes + _IMAGES_BYTES)))
        )

    def scene_ids(self) -> tuple[str, ...]:
        return self.labels.scene_ids()

    def n_frames(self, scene_id: str) -> int:
        """Frames with labels. Raises as ``frame``."""
        return len(self._scene(scene_id))

    def tokens(self, scene_id: str) -> tuple[str, ...]:
        """Tokens of the scene's frames in their order. Raises as ``frame``."""
        return self._scene(scene_id).frame_tokens

    def tokens_by_scene(self) -> Mapping[str, tuple[str, ...]]:
        """``tokens`` of every scene; a scene is opened when it is asked for."""
        return _TokensByScene(self)

    def frame(self, scene_id: str, k: int) -> ReviewFrame:
        """Frame k of a scene.

        Raises:
            SetupError: there are no labels of that scene or frame.
            SceneError: the labels cannot be read.
        """
        shown = self.labels.header
        labels = self.stored(scene_id, k)
        token = labels.token
        logged = self._logged.get((scene_id, token), lambda: self._log.of(scene_id, labels))
        turns = logged.turns or 0
        notes = [*self.notes, *logged.notes]
        truth = self._beside(self.truth, "ground truth", scene_id, labels, notes)
        second = self._beside(self.second, "labels of the second store", scene_id, labels, notes)
        verdicts = {} if self.reviews is None else self.reviews.verdicts(scene_id)
        return ReviewFrame(
            name=shown.name,
            grid=turned_grid(shown.grid, turns),
            taxonomy=shown.taxonomy,
            levels=shown.levels,
            scene_id=scene_id,
            k=k,
            n_frames=self.n_frames(scene_id),
            labels=turned_labels(labels, turns),
            images=logged.images,
            points_m=logged.points_m,
            lidar_m=logged.lidar_m,
            notes=tuple(notes),
            truth=None if truth is None else turned_labels(truth, turns),
            second=None if second is None else turned_labels(second, turns),
            boxes=logged.boxes,
            box_taxonomy=logged.box_taxonomy,
            verdict=verdicts.get(token),
            turns=turns,
            grid_frame=self._grid_frame,
            heading_known=self._grid_frame == "ego" or logged.turns is not None,
        )

    def require_log_of(self, store: LabelStore, scene_id: str) -> None:
        """Raises ``SetupError``: the log is at hand, and is not the one that a scene of the store
        was labeled from."""
        self._log.require(store, scene_id)

    def stored(self, scene_id: str, k: int) -> FrameLabels:
        """Reviewed labels of a frame on the store's own grid, not turned. Raises as ``frame``."""
        scene = self._scene(scene_id)
        if not 0 <= k < len(scene):
            raise SetupError(
                f"{self.labels.header.what}: scene {scene_id} has no frame {k}; "
                f"it has frames 0..{len(scene) - 1}"
            )
        labels = self._stored.get((0, scene_id, k), lambda: scene.frame(k))
        return labels if self.reviews is None else self.reviews.reviewed(labels, scene_id)

    def _scene(self, scene_id: str) -> LabeledScene:
        return self._scenes.get((0, scene_id), lambda: self._opened(scene_id))

    def _opened(self, scene_id: str) -> LabeledScene:
        scene_ids = self.labels.scene_ids()
        if scene_id not in scene_ids:
            raise SetupError(
                f"{self.labels.header.what}: unknown scene {scene_id!r}; it has "
                f"{_shortened(scene_ids)}"
            )
        return self.labels.scene(scene_id)

    def _beside(
        self,
        other: LabelSet | None,
        what: str,
        scene_id: str,
        labels: FrameLabels,
        notes: list[str],
    ) -> FrameLabels | None:
        """A frame's labels in another set; a note where it has none, or those of another log."""
        if other is None:
            return None
        cache_key = 1 if other is self.truth else 2
        try:
            scene = self._scenes.get((cache_key, scene_id), lambda: other.scene(scene_id))
            k = scene.frame_tokens.index(labels.token)
            frame = self._stored.get((cache_key, scene_id, k), lambda: scene.frame(k))
            require_same_frame(other.header.name, frame, labels, self._grid_frame)
            return frame
        except KeyError:
            notes.append(f"no {what}: {other.header.name} lacks this scene")
        except ValueError:
            notes.append(f"no {what}: {other.header.name} lacks this frame")
        except (SceneError, SetupError) as error:
            notes.append(f"no {what}: {error}")
        return None


class _TokensByScene(Mapping[str, tuple[str, ...]]):
    def __init__(self, session: ReviewSession) -> None:
        self._session = session

    def __getitem__(self, scene_id: str) -> tuple[str, ...]:
        return self._session.tokens(scene_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._session.scene_ids())

    def __len__(self) -> int:
        return len(self._session.scene_ids())


def _check_comparable(labels: LabelSetHeader, other: LabelSetHeader) -> None:
    """Raises ``SetupError`` unless both have the same voxels and classes."""
    labels_words = voxels_in_words(labels.grid, labels.taxonomy, labels.frame)
    other_words = voxels_in_words(other.grid, other.taxonomy, other.frame)
    if (labels.grid, labels.taxonomy.names, labels.frame) != (
        other.grid,
        other.taxonomy.names,
        other.frame,
    ):
        raise SetupError(f"{other.what} has {other_words}; {labels.what} has {labels_words}")


def _shortened(names: tuple[str, ...], limit: int = 8) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
