"""Work ahead in threads, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(executor: Executor, make: Callable[[A], B], items: Iterable[A], most: int) -> Iterator[B]:
    """``map(make, items)`` with up to ``most`` results made before they are asked for.

    Items are drawn in the caller's thread. An error of ``make`` or of the items is raised when its
    result is due; what was begun after it is waited for, what was not is dropped.
    """
    waiting: deque[Future[B]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(make, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
