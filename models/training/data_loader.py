"""Batches of a training set, prepared ahead in other processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from datasets.errors import AutolabelError
from datasets.loading.batch import Batch
from datasets.loading.frame_dataset import FrameDataset


class _Steps(Dataset[Batch | AutolabelError]):
    """A set whose errors come back as values, so that they leave a loader's process whole."""

    def __init__(self, dataset: FrameDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, step: int) -> Batch | AutolabelError:
        try:
            return self.dataset[step]
        except AutolabelError as error:
            return error


def steps_loader(dataset: FrameDataset, start: int, stop: int, loaders: int) -> Iterator[Batch]:
    """Batches of steps ``start`` to ``stop - 1``, prepared ahead in ``loaders`` other processes.

    The processes are forked from a clean server: zarr in a plain fork can deadlock.

    Raises:
        SetupError: every frame is bad.
    """
    if start >= stop:
        return
    steps = _Steps(dataset)
    parallel: dict[str, Any] = {
        "multiprocessing_context": "forkserver",
        "prefetch_factor": 4,
        "worker_init_fn": _end_with_parent,
    }
    for item in DataLoader(
        steps,
        batch_size=None,
        sampler=range(start, stop),
        num_workers=loaders,
        **(parallel if loaders else {}),
    ):
        if isinstance(item, AutolabelError):
            raise item
        yield item


def _end_with_parent(worker: int) -> None:
    """A loader whose trainer is killed would wait for ever: its own parent is the fork server."""
    trainer = multiprocessing.parent_process()
    assert trainer is not None

    def watch() -> None:
        trainer.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
