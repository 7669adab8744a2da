"""Deadlines of reading: a disk or network that does not answer is an error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError, SetupError
from datasets.frames import CameraView, LidarSweep, Scene, SceneSource

T = TypeVar("T")

HUNG = 4
"""So many scenes whose reading hangs are a log that does not answer."""


class DeadlineError(Exception):
    """A call did not come back in time."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call gives, or raises, if it comes back in time.

    It runs in a thread of its own, which is left behind when it does not: nothing ends a thread
    that waits for a disk. Such a thread does not keep the process.

    Raises:
        DeadlineError: it took longer.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    came = threading.Event()

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)
        came.set()

    threading.Thread(target=run, daemon=True, name="deadline").start()
    if not came.wait(seconds):
        raise DeadlineError
    if errors:
        raise errors[0]
    return results[0]


def open_within(seconds: float, opener: Callable[[], SceneSource], *, root: object) -> SceneSource:
    """Open a log. Raises ``SetupError`` as ``opener``, or if it does not answer in time."""
    try:
        return within(seconds, opener)
    except DeadlineError as error:
        raise SetupError(_silence(f"{root}: the log", seconds)) from error


class TimedSource:
    """A log as the driver asks it: lengths, scenes and fingerprints have a deadline.

    A scene that hangs raises ``SceneError``; ``HUNG`` of them, or the list of scenes, raise
    ``SetupError``. So does a fingerprint: without it nobody knows whether a scene's labels are
    still of its files.
    """

    def __init__(self, source: SceneSource, seconds: float, *, root: object) -> None:
        self.name, self.licence = source.name, source.licence
        self._source, self._seconds, self._root = source, seconds, root
        self._hung: set[str] = set()

    def scene_ids(self, split: str) -> tuple[str, ...]:
        try:
            return within(self._seconds, lambda: self._source.scene_ids(split))
        except DeadlineError as error:
            raise SetupError(_silence(f"{self._root}: split {split}", self._seconds)) from error

    def n_frames(self, scene_id: str) -> int:
        return self._of_scene(scene_id, lambda: self._source.n_frames(scene_id))

    def scene(self, scene_id: str) -> Scene:
        return self._of_scene(scene_id, lambda: self._source.scene(scene_id))

    def fingerprint(self, scene_id: str) -> str:
        try:
            return within(self._seconds, lambda: self._source.fingerprint(scene_id))
        except DeadlineError as error:
            raise SetupError(_silence(f"{self._root}: scene {scene_id}", self._seconds)) from error

    def read_image(self, view: CameraView) -> NDArray[np.uint8]:
        return self._source.read_image(view)

    def read_points(self, sweep: LidarSweep) -> NDArray[np.float32]:
        return self._source.read_points(sweep)

    def _of_scene(self, scene_id: str, call: Callable[[], T]) -> T:
        if scene_id not in self._hung and len(self._hung) < HUNG:
            try:
                return within(self._seconds, call)
            except DeadlineError:
                self._hung.add(scene_id)
        if len(self._hung) >= HUNG:
            raise SetupError(_silence(f"{self._root}: the log", self._seconds))
        raise SceneError(where=scene_id, rule=_silence("its files", self._seconds))


def _silence(what: str, seconds: float) -> str:
    return (
        f"{what} did not answer within {seconds:g} s; see to its disk or network, or give it "
        "longer (--stall-timeout)"
    )
