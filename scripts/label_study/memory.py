"""Pictures, points and targets read once and kept in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.annotations import AnnotatedSource
from datasets.frames import CameraView, Frame, LidarSweep
from datasets.training_sets import LabelSource, Target


class RememberedSource:
    """A log that opens each picture and sweep once."""

    def __init__(self, source: AnnotatedSource) -> None:
        self._source = source
        self._pictures: dict[Path, NDArray[np.uint8]] = {}
        self._sweeps: dict[Path, NDArray[np.float32]] = {}

    def __getattr__(self, name: str) -> Any:
        if name == "_source":  # asked for while this is unpickled
            raise AttributeError(name)
        return getattr(self._source, name)

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        if view.path not in self._pictures:
            self._pictures[view.path] = self._source.read_image(view)
        return self._pictures[view.path]

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        if sweep.path not in self._sweeps:
            self._sweeps[sweep.path] = self._source.read_points(sweep)
        return self._sweeps[sweep.path]


class RememberedLabels:
    """A label source that makes each target once."""

    def __init__(self, labels: LabelSource) -> None:
        self._labels = labels
        self._targets: dict[str, Target] = {}

    def scene_ids(self) -> tuple[str, ...]:
        return self._labels.scene_ids()

    def target(self, frame: Frame) -> Target:
        if frame.token not in self._targets:
            self._targets[frame.token] = self._labels.target(frame)
        return self._targets[frame.token]
