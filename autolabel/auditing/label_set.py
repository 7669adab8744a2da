"""What can be audited: the labels of a store, or the files of a benchmark's ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.catalogue import Benchmark
from datasets.errors import SetupError
from datasets.frames import Scene, SceneSource, in_lidar_frame
from datasets.geometry.grid import VoxelGrid
from datasets.labels.store import LabelStore, StoredScene
from datasets.labels.voxel_labels import FrameLabels, GridFrame, MaskBit
from datasets.storage.backend import StorePath
from datasets.taxonomy import Taxonomy


class LabelledScene(Protocol):
    """A scene, read frame by frame."""

    @property
    def frame_tokens(self) -> Sequence[str]: ...
    @property
    def timestamps_us(self) -> NDArray[np.int64]: ...
    @property
    def T_global_grid(self) -> NDArray[np.float64]: ...  # noqa: N802  (T, 4, 4)
    def frame(self, k: int) -> FrameLabels:
        """Labels of frame k. Raises ``SceneError`` where they cannot be read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What holds for every scene.

    Attributes:
        what: the labels in the words of a message.
        levels: P(label is right) of each confidence level; fewer than two tell nothing.
        past_sweeps: that the labels were made with; None where nothing tells.
    """

    what: str
    grid: VoxelGrid
    taxonomy: Taxonomy
    frame: GridFrame
    levels: tuple[float, ...]
    past_sweeps: int | None


class AuditedLabels(Protocol):
    """Labels of scenes."""

    header: Header

    def scene_ids(self) -> tuple[str, ...]: ...

    def scene(self, scene_id: str) -> LabelledScene:
        """One of ``scene_ids``. Raises ``SceneError`` for bad data, ``KeyError`` for another log's
        scene."""
        ...

    def inputs(self, scene_id: str) -> str:
        """Fingerprint of what the scene was labelled from; empty where nothing tells."""
        ...


class StoredLabels:
    """The labels of a store. Raises ``SetupError`` as ``LabelStore.open``."""

    def __init__(self, where: StorePath) -> None:
        self._store = LabelStore.open(where)
        header = self._store.header
        config = header.provenance.get("config")
        past = cast(dict[str, Any], config).get("past_sweeps") if isinstance(config, dict) else None
        self._committed = self._store.committed()
        self.header = Header(
            what=f"label store {where}",
            grid=header.grid,
            taxonomy=header.taxonomy,
            frame=header.frame,
            levels=header.levels,
            past_sweeps=past if isinstance(past, int) else None,
        )

    def scene_ids(self) -> tuple[str, ...]:
        return tuple(self._committed)

    def scene(self, scene_id: str) -> StoredScene:
        return self._store.scene(scene_id)

    def inputs(self, scene_id: str) -> str:
        return str(self._committed[scene_id].get("inputs", ""))


class TrueLabels:
    """The ground truth of a log: what the benchmark observed is observed, nothing has a doubt.

    Args:
        root: folder of the truth, as in ``Benchmark.labels``.

    Raises:
        SetupError: no scene of the log has a label file.
    """

    def __init__(self, benchmark: Benchmark, root: Path, source: SceneSource) -> None:
        self._benchmark, self._root, self._source = benchmark, root, source
        self.header = Header(
            what=f"{benchmark.name} labels in {root}",
            grid=benchmark.grid,
            taxonomy=benchmark.taxonomy,
            frame=cast(GridFrame, benchmark.frame),
            levels=(),
            past_sweeps=None,
        )
        self._ids = tuple(s for s in source.scene_ids("all") if self._labelled(s))
        if not self._ids:
            raise SetupError(f"{self.header.what}: there are none of any scene of the log")

    def _labelled(self, scene_id: str) -> bool:
        frames = self._source.scene(scene_id).frames
        return any(self._benchmark.path(self._root, self._source, f).is_file() for f in frames)

    def scene_ids(self) -> tuple[str, ...]:
        return self._ids

    def scene(self, scene_id: str) -> LabelledScene:
        return _TrueScene(self._benchmark, self._root, self._source, self._source.scene(scene_id))

    def inputs(self, scene_id: str) -> str:
        return ""


class _TrueScene:
    def __init__(self, benchmark: Benchmark, root: Path, source: SceneSource, scene: Scene) -> None:
        self._benchmark, self._root, self._source = benchmark, root, source
        frames = scene.frames
        self._frames = tuple(f for f in frames if benchmark.path(root, source, f).is_file())
        self.frame_tokens = tuple(f.token for f in self._frames)
        self.timestamps_us = np.array([f.timestamp_us for f in self._frames], np.int64)
        placed = [in_lidar_frame(f) if benchmark.frame == "lidar" else f for f in self._frames]
        self.T_global_grid = np.array([f.T_global_ego for f in placed]).reshape(-1, 4, 4)

    def frame(self, k: int) -> FrameLabels:
        frame = self._frames[k]
        truth = self._benchmark.labels(self._root, self._source, frame)
        mask = truth.observed().astype(np.uint8) * np.uint8(MaskBit.CAMERA_VISIBLE)
        mask[truth.scored()] |= np.uint8(MaskBit.TRUSTED)
        return FrameLabels(
            token=frame.token,
            timestamp_us=frame.timestamp_us,
            T_global_grid=self.T_global_grid[k],
            semantics=truth.semantics,
            confidence=np.zeros(truth.grid.shape, np.uint8),
            mask=mask,
        )
