"""The same work on many scenes, in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def map_in_processes(
    work: Callable[[A], B], items: Iterable[A], workers: int, on_each: Callable[[], None]
) -> Iterator[B]:
    """``map`` over processes, in order."""
    if workers <= 1:
        for item in items:
            yield work(item)
            on_each()
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for result in pool.map(work, items):
            yield result
            on_each()
