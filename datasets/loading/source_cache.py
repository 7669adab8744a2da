"""What is read from a log, kept in memory so that no file is opened twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from datasets.frames import (
    CameraView,
    ElongationSource,
    KeepsDropOuts,
    LidarSweep,
    Scene,
    SceneSource,
)


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


T = TypeVar("T", bound=Sized)


class Memory:
    """Values that were made once, as long as there is room. Travels empty to other processes.

    Args:
        gib: room in GiB; what does not fit any more is made again each time.
    """

    def __init__(self, gib: float) -> None:
        self.room = int(gib * 2**30)
        self._kept: dict[Hashable, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        used = sum(value.nbytes for value in self._kept.values())
        return {"room": self.room + used, "_kept": {}}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of that key; made now if it is not kept."""
        if key in self._kept:
            kept: T = self._kept[key]
            return kept
        value = make()
        if value.nbytes <= self.room:
            self.room -= value.nbytes
            self._kept[key] = value
        return value


def cached_source(source: SceneSource, memory: Memory) -> SceneSource:
    """A log whose pictures and sweeps are decoded once; they must not be written to."""
    if isinstance(source, ElongationSource):
        return _RememberedWithElongation(source, memory)
    if isinstance(source, KeepsDropOuts):
        return _RememberedWithDropOuts(source, memory)
    return _Remembered(source, memory)


class _Remembered:
    def __init__(self, source: SceneSource, memory: Memory) -> None:
        self.source, self.memory = source, memory
        self.name, self.licence = source.name, source.licence

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return self.source.scene_ids(split)

    def n_frames(self, scene_id: str) -> int:
        return self.source.n_frames(scene_id)

    def scene(self, scene_id: str) -> Scene:
        return self.source.scene(scene_id)

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        key = view.path, view.name, view.timestamp_us  # a file may hold a whole scene
        return self.memory.get(key, lambda: _kept(self.source.read_image(view)))

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        return self.memory.get(_key(sweep), lambda: _kept(self.source.read_points(sweep)))

    def fingerprint(self, scene_id: str) -> str:
        return self.source.fingerprint(scene_id)


class _RememberedWithElongation(_Remembered):
    def read_points_and_elongation(self, sweep: LidarSweep) -> NDArray[np.float32]:
        source, key = self.source, (*_key(sweep), "elongation")
        assert isinstance(source, ElongationSource)
        return self.memory.get(key, lambda: _kept(source.read_points_and_elongation(sweep)))


class _RememberedWithDropOuts(_Remembered):
    def read_all_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        source, key = self.source, (*_key(sweep), "all")
        assert isinstance(source, KeepsDropOuts)
        return self.memory.get(key, lambda: _kept(source.read_all_points(sweep)))


def _key(sweep: LidarSweep) -> tuple[Hashable, ...]:
    """A file may hold a whole scene, and several LiDARs measure at one time."""
    return sweep.path, sweep.lidar, sweep.timestamp_us


A = TypeVar("A", bound=NDArray[Any])


def _kept(array: A) -> A:
    array.flags.writeable = False
    return array
