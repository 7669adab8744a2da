"""A set of labels: those of a store, or the files of a benchmark's ground truth, read alike."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from datasets.benchmarks.catalogue import Benchmark
from datasets.errors import SceneError, SetupError
from datasets.files.store_path import StorePath
from datasets.frames import Frame, SceneSource
from datasets.geometry.grid import VoxelGrid
from datasets.labels.log_identity import LabeledFrames, T_global_grid
from datasets.labels.store import LabelStore, StoredScene
from datasets.labels.validity import validity
from datasets.labels.voxel_labels import FrameLabels, GridFrame, MaskBit
from datasets.taxonomy import Taxonomy


class LabeledScene(LabeledFrames, Protocol):
    """A scene, read frame by frame.

    Attributes:
        inputs: fingerprint of what the scene was labeled from; empty where it is not known.
    """

    @property
    def inputs(self) -> str: ...
    def __len__(self) -> int: ...
    def frame(self, k: int) -> FrameLabels:
        """Labels of frame k. Raises ``SceneError`` where they cannot be read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSetHeader:
    """What holds for every scene of a set.

    Attributes:
        what: the set in the words of a message, e.g. ``label store runs/labels.zarr``.
        name: short, for a title.
        frame: that the grid lies in.
        levels: P(label is right) of each confidence level; empty for ground truth.
        past_sweeps: that the labels were made with; None where it is not known.
    """

    what: str
    name: str
    grid: VoxelGrid
    taxonomy: Taxonomy
    frame: GridFrame
    levels: tuple[float, ...] = ()
    past_sweeps: int | None = None


class LabelSet(Protocol):
    """Labels of scenes."""

    @property
    def header(self) -> LabelSetHeader: ...

    def scene_ids(self) -> tuple[str, ...]: ...

    def first_scene(self) -> str:
        """Raises ``SetupError`` where there is none."""
        ...

    def scene(self, scene_id: str) -> LabeledScene:
        """One of ``scene_ids``. Raises ``SceneError`` for bad data, ``KeyError`` for another log's
        scene."""
        ...


class StoredLabels:
    """The labels of a store, which may grow meanwhile.

    Args:
        on_unreadable: is given each scene that cannot be read, and why, once. None: ``scene_ids``
            raises ``UnreadableError`` for it.

    Raises:
        SetupError: the store is missing, damaged or of another format version.
    """

    def __init__(
        self, where: StorePath, on_unreadable: Callable[[str, str], None] | None = None
    ) -> None:
        self.store = LabelStore.open(where)
        header = self.store.header
        config = header.provenance.get("config")
        past_sweeps = config.get("past_sweeps") if isinstance(config, dict) else None
        self.header = LabelSetHeader(
            what=f"label store {where}",
            name=str(where).rstrip("/").rsplit("/", 1)[-1],
            grid=header.grid,
            taxonomy=header.taxonomy,
            frame=header.frame,
            levels=header.levels,
            past_sweeps=past_sweeps if isinstance(past_sweeps, int) else None,
        )
        self._on_unreadable = on_unreadable
        self._reported: set[str] = set()

    @functools.cached_property
    def confidence_note(self) -> str:
        """Why confidence is not verified on the log of the scenes that are there now, one line;
        empty: it is."""
        try:
            return validity(self.store.header, self.store.looked_at()[0]).note
        except ValueError as error:
            return f"whether confidence is verified cannot be read: {error}"

    def scene_ids(self) -> tuple[str, ...]:
        if self._on_unreadable is None:
            return self.store.scene_ids()
        committed, unreadable = self.store.looked_at()
        for scene_id in unreadable.keys() - self._reported:
            self._on_unreadable(scene_id, str(unreadable[scene_id]))
        self._reported |= unreadable.keys()
        return tuple(committed)

    def first_scene(self) -> str:
        if not (scene_ids := self.scene_ids()):
            raise SetupError(f"{self.header.what}: no scene is committed yet")
        return scene_ids[0]

    def scene(self, scene_id: str) -> StoredScene:
        return self.store.scene(scene_id)


class GroundTruthLabels:
    """The ground truth of a log: its scenes that have a label file, and those that the log cannot
    give, which raise ``SceneError`` when they are read.

    Args:
        root: folder of the truth, as in ``Benchmark.labels``.
        every_frame: scenes also list the log's frames without a label file; reading one raises
            ``SceneError``. Frame numbers are the log's then.
    """

    def __init__(
        self, benchmark: Benchmark, root: Path, source: SceneSource, *, every_frame: bool = False
    ) -> None:
        self._benchmark, self._root, self._source = benchmark, root, source
        self._every_frame = every_frame
        self.header = LabelSetHeader(
            what=f"{benchmark.name} labels in {root}",
            name=f"{benchmark.name} {root.name}",
            grid=benchmark.grid,
            taxonomy=benchmark.taxonomy,
            frame=cast(GridFrame, benchmark.frame),
        )

    def scene_ids(self) -> tuple[str, ...]:
        return self._scene_ids

    @functools.cached_property
    def _scene_ids(self) -> tuple[str, ...]:
        return tuple(s for s in self._source.scene_ids("all") if self._is_listed(s))

    def _is_listed(self, scene_id: str) -> bool:
        try:
            return any(map(self._has_file, self._source.scene(scene_id).frames))
        except SceneError:
            return True

    def _has_file(self, frame: Frame) -> bool:
        return self._benchmark.path(self._root, self._source, frame).is_file()

    def first_scene(self) -> str:
        for scene_id in self._source.scene_ids("all"):
            if self._is_listed(scene_id):
                return scene_id
        raise SetupError(f"{self.header.what}: there are none of any scene of the log")

    def scene(self, scene_id: str) -> LabeledScene:
        scene = self._source.scene(scene_id)
        frames = scene.frames if self._every_frame else tuple(filter(self._has_file, scene.frames))
        return _GroundTruthScene(self._benchmark, self._root, self._source, frames)


class _GroundTruthScene:
    inputs = ""

    def __init__(
        self, benchmark: Benchmark, root: Path, source: SceneSource, frames: Sequence[Frame]
    ) -> None:
        self._benchmark, self._root, self._source = benchmark, root, source
        self._frames = frames
        self.frame_tokens = tuple(frame.token for frame in frames)
        self.timestamps_us = np.array([frame.timestamp_us for frame in frames], np.int64)
        poses = [T_global_grid(frame, cast(GridFrame, benchmark.frame)) for frame in frames]
        self.T_global_grid = np.array(poses).reshape(-1, 4, 4)

    def __len__(self) -> int:
        return len(self._frames)

    def frame(self, k: int) -> FrameLabels:
        """Trusted is what the benchmark scores; a sensor's bit is set where its mask is."""
        frame = self._frames[k]
        truth = self._benchmark.labels(self._root, self._source, frame)
        mask = np.zeros(truth.grid.shape, np.uint8)
        for bit, voxels in (
            (MaskBit.TRUSTED, truth.scored()),
            (MaskBit.LIDAR_OBSERVED, truth.mask_lidar),
            (MaskBit.CAMERA_VISIBLE, truth.mask_camera),
            (MaskBit.DYNAMIC, np.isin(truth.semantics, truth.taxonomy.dynamic)),
        ):
            if voxels is not None:
                mask[voxels] |= np.uint8(bit)
        return FrameLabels(
            token=frame.token,
            timestamp_us=frame.timestamp_us,
            T_global_grid=self.T_global_grid[k],
            semantics=truth.semantics,
            confidence=np.zeros(truth.grid.shape, np.uint8),
            mask=mask,
            flow=None if truth.flow is None else truth.flow.astype(np.float16),
        )
