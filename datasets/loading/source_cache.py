"""Caches what is read from a log, so that no file is opened twice."""

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


class ByteBudgetCache:
    """Keeps computed values up to a number of bytes. Pickles without its values.

    Args:
        gib: budget in GiB; a value beyond it is computed again each time.
    """

    def __init__(self, gib: float) -> None:
        self.room = int(gib * 2**30)
        self._values: dict[Hashable, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        used = sum(value.nbytes for value in self._values.values())
        return {"room": self.room + used, "_values": {}}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of ``key``, from ``make`` unless it is cached."""
        if key in self._values:
            cached: T = self._values[key]
            return cached
        value = make()
        if value.nbytes <= self.room:
            self.room -= value.nbytes
            self._values[key] = value
        return value


def cached_source(source: SceneSource, cache: ByteBudgetCache) -> SceneSource:
    """A source whose images and sweeps are decoded once; the arrays are read-only."""
    if isinstance(source, ElongationSource):
        return _CachedElongationSource(source, cache)
    if isinstance(source, KeepsDropOuts):
        return _CachedDropOutSource(source, cache)
    return CachedSource(source, cache)


class CachedSource:
    def __init__(self, source: SceneSource, cache: ByteBudgetCache) -> None:
        self.source, self.cache = source, cache
        self.name, self.licence = source.name, source.licence

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return self.source.scene_ids(split)

    def n_frames(self, scene_id: str) -> int:
        return self.source.n_frames(scene_id)

    def scene(self, scene_id: str) -> Scene:
        return self.source.scene(scene_id)

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        key = view.path, view.name, view.timestamp_us  # a file may hold a whole scene
        return self.cache.get(key, lambda: _read_only(self.source.read_image(view)))

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        return self.cache.get(_key(sweep), lambda: _read_only(self.source.read_points(sweep)))

    def fingerprint(self, scene_id: str) -> str:
        return self.source.fingerprint(scene_id)


class _CachedElongationSource(CachedSource):
    def read_points_and_elongation(self, sweep: LidarSweep) -> NDArray[np.float32]:
        source, key = self.source, (*_key(sweep), "elongation")
        assert isinstance(source, ElongationSource)
        return self.cache.get(key, lambda: _read_only(source.read_points_and_elongation(sweep)))


class _CachedDropOutSource(CachedSource):
    def read_all_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        source, key = self.source, (*_key(sweep), "all")
        assert isinstance(source, KeepsDropOuts)
        return self.cache.get(key, lambda: _read_only(source.read_all_points(sweep)))


def _key(sweep: LidarSweep) -> tuple[Hashable, ...]:
    """A file may hold a whole scene, and several LiDARs measure at one time."""
    return sweep.path, sweep.lidar, sweep.timestamp_us


A = TypeVar("A", bound=NDArray[Any])


def _read_only(array: A) -> A:
    array.flags.writeable = False
    return array
