"""What can be looked at: the labels of a store, or the ground truth of a log.

Legend: X forward, Y left, Z up.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Protocol

import numpy as np

from datasets.benchmarks.catalogue import Benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SetupError
from datasets.files.printable import printable
from datasets.frames import Frame, Scene, SceneSource, in_lidar_frame
from datasets.geometry.grid import VoxelGrid
from datasets.labels.store import FrameLabels, LabelStore, MaskBit, StoredScene
from datasets.storage.backend import StorePath
from datasets.taxonomy import Taxonomy


class SceneOfLabels(Protocol):
    """A scene, read frame by frame."""

    frame_tokens: tuple[str, ...]

    def __len__(self) -> int: ...

    def frame(self, k: int) -> FrameLabels:
        """Labels of frame k. Raises ``SceneError`` where they cannot be read."""
        ...


class LabelSet(Protocol):
    """Labels of scenes.

    Attributes:
        what: the set in the words of a message, e.g. ``label store runs/labels.zarr``.
        name: short, for a title.
        frame: of the grid, ``ego`` or ``lidar``.
        levels: P(label is right) of each confidence level; empty: a person vouches for them.
    """

    what: str
    name: str
    grid: VoxelGrid
    taxonomy: Taxonomy
    frame: str
    levels: tuple[float, ...]

    def scene_ids(self) -> tuple[str, ...]: ...

    def first_scene(self) -> str:
        """The first scene with labels. Raises ``SetupError`` where there is none."""
        ...

    def scene(self, scene_id: str) -> SceneOfLabels:
        """One of ``scene_ids``. Raises ``SceneError`` for bad data."""
        ...


class StoredLabels:
    """The labels of a store.

    Raises:
        SetupError: the store is missing, damaged or of another format version.
    """

    def __init__(self, where: StorePath) -> None:
        self.store = LabelStore.open(where)
        header = self.store.header
        self.what, self.name = f"label store {where}", str(where).rstrip("/").rsplit("/", 1)[-1]
        self.grid, self.taxonomy, self.levels = header.grid, header.taxonomy, header.levels
        self.frame: str = header.frame
        self.source = str(header.provenance.get("source", ""))
        """Kind of the log that was labelled; empty where the store does not tell."""
        self._named: set[str] = set()

    def scene_ids(self) -> tuple[str, ...]:
        """Those that can be read; the others are named on stderr, once."""
        committed, unreadable = self.store.looked_at()
        for scene_id in unreadable.keys() - self._named:
            print(printable(f"bad scene {scene_id}: {unreadable[scene_id]}"), file=sys.stderr)
        self._named |= unreadable.keys()
        return tuple(committed)

    def first_scene(self) -> str:
        if not (scene_ids := self.scene_ids()):
            raise SetupError(f"{self.what}: no scene is committed yet")
        return scene_ids[0]

    def scene(self, scene_id: str) -> StoredScene:
        return self.store.scene(scene_id)


class TrueLabels:
    """The ground truth of a log.

    Args:
        root: folder of the truth, as in ``Benchmark.labels``.
    """

    levels: tuple[float, ...] = ()

    def __init__(self, benchmark: Benchmark, root: Path, source: SceneSource) -> None:
        self._benchmark, self._root, self._source = benchmark, root, source
        self.what, self.name = f"{benchmark.name} labels in {root}", f"{benchmark.name} {root.name}"
        self.grid, self.taxonomy, self.frame = benchmark.grid, benchmark.taxonomy, benchmark.frame

    def scene_ids(self) -> tuple[str, ...]:
        return self._source.scene_ids("all")

    def first_scene(self) -> str:
        for scene_id in self.scene_ids():
            frames = self._source.scene(scene_id).frames
            if any(self._benchmark.path(self._root, self._source, f).is_file() for f in frames):
                return scene_id
        raise SetupError(f"{self.what}: there are none of any scene of the log")

    def scene(self, scene_id: str) -> SceneOfLabels:
        return _TrueScene(self._benchmark, self._root, self._source, self._source.scene(scene_id))


class _TrueScene:
    def __init__(self, benchmark: Benchmark, root: Path, source: SceneSource, scene: Scene) -> None:
        self._benchmark, self._root, self._source = benchmark, root, source
        self._frames = scene.frames
        self.frame_tokens = tuple(frame.token for frame in scene.frames)

    def __len__(self) -> int:
        return len(self._frames)

    def frame(self, k: int) -> FrameLabels:
        frame = self._frames[k]
        truth = self._benchmark.labels(self._root, self._source, frame)
        moved = in_lidar_frame(frame) if self._benchmark.frame == "lidar" else frame
        return _as_labels(truth, moved)


def _as_labels(truth: GroundTruth, frame: Frame) -> FrameLabels:
    """Trusted is what the benchmark scores."""
    mask = np.zeros(truth.grid.shape, np.uint8)
    for bit, where in (
        (MaskBit.TRUSTED, truth.scored()),
        (MaskBit.LIDAR_OBSERVED, truth.mask_lidar),
        (MaskBit.CAMERA_VISIBLE, truth.mask_camera),
        (MaskBit.DYNAMIC, np.isin(truth.semantics, truth.taxonomy.dynamic)),
    ):
        if where is not None:
            mask[where] |= np.uint8(bit)
    return FrameLabels(
        token=frame.token,
        timestamp_us=frame.timestamp_us,
        T_global_grid=frame.T_global_ego,
        semantics=truth.semantics,
        confidence=np.zeros(truth.grid.shape, np.uint8),
        mask=mask,
        flow=None if truth.flow is None else truth.flow.astype(np.float16),
    )
