"""Threads beside the network: order, errors, and what is left of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch
from flat_ground import Ground, teacher

from autolabel.confidence.calibration import Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import label_frames
from autolabel.labeling.stages import LogitsPool, Stages
from models.inference.predictor import OccupancyPredictor


def test_results_come_in_order_and_no_more_are_made_than_asked_for() -> None:
    drawn = []

    def items() -> Iterator[int]:
        for k in range(20):
            drawn.append(k)
            yield k

    def slow_when_even(k: int) -> int:
        time.sleep(0.01 * (k % 2 == 0))
        return 10 * k

    with Stages(threads=3, depth=2) as stages:
        results = stages.prefetch(slow_when_even, items())
        assert next(results) == 0 and drawn == [0, 1, 2]
        assert list(results) == [10 * k for k in range(1, 20)]


def test_an_error_is_raised_when_its_result_is_due_and_ends_the_threads() -> None:
    before = threading.active_count()

    def work(k: int) -> float:
        return 1 / (k - 2)

    with pytest.raises(ZeroDivisionError), Stages(threads=2, depth=3) as stages:
        inner = stages.prefetch(work, range(9))
        for result in stages.prefetch(abs, inner):
            assert result in (0.5, 1)
    assert threading.active_count() == before


def test_inline_work_is_done_in_the_callers_thread_when_asked_for() -> None:
    with Stages() as stages:
        idents = stages.prefetch(lambda _: threading.get_ident(), range(3), inline=True)
        assert set(idents) == {threading.get_ident()}


@pytest.mark.parametrize("frames", [0, 1, 3])
def test_a_scene_that_is_left_midway_leaves_the_network_and_no_thread(frames: int) -> None:
    log, model, lock = Ground(frames=6), teacher(), threading.Lock()
    predictor = OccupancyPredictor(model.module, model.preset)
    before = threading.active_count()
    labels = label_frames(
        log.scene("s1"),
        log,
        predictor,
        Calibration.uncalibrated(18),
        LabelingConfig(),
        network_lock=lock,
    )
    for _ in range(frames):
        next(labels)
    assert lock.locked() == (frames > 0)
    labels.close()
    assert not lock.locked() and threading.active_count() == before


def test_frames_share_few_buffers() -> None:
    pool = LogitsPool()
    first = pool.copy(torch.ones(3))
    second = pool.copy(torch.full((3,), 2.0))
    assert first.tolist() == [1, 1, 1] and second.tolist() == [2, 2, 2]
    pool.release(first)
    assert pool.copy(torch.zeros(3)).data_ptr() == first.data_ptr()
