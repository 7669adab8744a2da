"""Threads that work beside the network, and the memory in which its output waits for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TypeVar

from torch import Tensor, empty_like

A = TypeVar("A")
B = TypeVar("B")


class Stages(ExitStack):
    """Owns all threads of a pipeline and the streams that run on them.

    A context manager. On exit, also after an error, the streams are closed, last first; running
    work is waited for, waiting work is dropped.

    Args:
        threads: of each stage.
        depth: results that a stage makes before they are asked for.
    """

    def __init__(self, threads: int = 1, depth: int = 1) -> None:
        super().__init__()
        self.threads, self.depth = threads, depth

    def prefetch(
        self,
        work: Callable[[A], B],
        items: Iterable[A],
        *,
        threads: int | None = None,
        depth: int | None = None,
        inline: bool = False,
    ) -> Iterator[B]:
        """``map(work, items)`` in threads of its own, results in order.

        Items are drawn in the caller's thread. An error of an item or of the work on it is raised
        when its result is due.

        Args:
            threads, depth: None: as every stage.
            inline: work in the caller's thread, and nothing ahead.
        """
        if inline:
            return map(work, items)
        executor = self.enter_context(ThreadPoolExecutor(threads or self.threads))
        depth = self.depth if depth is None else depth
        return self.closing(_prefetch(executor, work, items, depth))

    def closing(self, stream: Generator[A, None, None]) -> Iterator[A]:
        """The stream itself, to be closed on exit."""
        return self.enter_context(closing(stream))


def _prefetch(
    executor: Executor, work: Callable[[A], B], items: Iterable[A], depth: int
) -> Generator[B, None, None]:
    pending: deque[Future[B]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(work, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


class LogitsPool:
    """CPU buffers for logits that another thread works on; frames reuse them.

    Arrays of the network itself would be freed at any moment of its next pass and fragment the
    heap: a long scene took a tenth more memory.
    """

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def copy(self, logits: Tensor) -> Tensor:
        """The logits in a buffer of the pool; on another device than the CPU, themselves."""
        if logits.device.type != "cpu":
            return logits
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = empty_like(logits)
        return buffer.copy_(logits)

    def release(self, logits: Tensor) -> None:
        """Give back what ``copy`` gave."""
        if logits.device.type == "cpu":
            self._free.append(logits)
