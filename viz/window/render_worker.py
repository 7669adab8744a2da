"""A thread that makes what was asked for last, then what will likely be asked for next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

J = TypeVar("J", bound=Hashable)
R = TypeVar("R")


class LatestWorker(Generic[J, R]):
    """Makes results of jobs off the caller's thread, most urgent first, and keeps the last ones.

    A job that nobody wants any more is not begun; one that was begun ends and is kept.

    Args:
        make: the work; what it raises is delivered.
        deliver: called in the worker's thread with every job and its result or exception.
        keep: how many results to remember.
    """

    def __init__(
        self, make: Callable[[J], R], deliver: Callable[[J, R | Exception], None], *, keep: int
    ) -> None:
        self._make, self._deliver, self._keep = make, deliver, keep
        self._made: OrderedDict[J, R] = OrderedDict()
        self._wanted: tuple[J, ...] = ()
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="latest-worker", daemon=True)
        self._thread.start()

    def want(self, jobs: Sequence[J]) -> None:
        """Replace all earlier wishes; the first is the most urgent."""
        with self._changed:
            self._wanted = tuple(jobs)
            self._changed.notify()

    def made(self, job: J) -> R | None:
        """The result, if it is at hand."""
        with self._changed:
            if job in self._made:
                self._made.move_to_end(job)
            return self._made.get(job)

    def close(self) -> None:
        """End after the job at hand."""
        with self._changed:
            self._ended, self._wanted = True, ()
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (job := self._next()) is not None:
            try:
                result: R | Exception = self._make(job)
            except Exception as error:
                result = error
            with self._changed:
                self._wanted = tuple(wanted for wanted in self._wanted if wanted != job)
                if not isinstance(result, Exception):
                    self._made[job] = result
                    while len(self._made) > self._keep:
                        self._made.popitem(last=False)
                if self._ended:
                    return
            self._deliver(job, result)

    def _next(self) -> J | None:
        with self._changed:
            while not self._ended:
                for job in self._wanted:
                    if job not in self._made:
                        return job
                    self._made.move_to_end(job)
                self._changed.wait()
            return None
