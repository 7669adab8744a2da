"""The order of scenes, and when a failed one is given up."""

from __future__ import annotations

import pytest

from autolabel.cluster.scene_queue import MAX_LOST_NODES, SceneQueue
from autolabel.cluster.worker import OutcomeKind


def test_longest_scenes_come_first_then_by_id() -> None:
    queue = SceneQueue({"b": 5, "c": 9, "a": 5}, retries=0)
    assert [queue.take((), 1) for _ in range(4)] == ["c", "a", "b", None]


@pytest.mark.parametrize(
    ("in_flight", "workers", "isolated", "taken"),
    [
        (("x",), 2, (), True),
        (("x",), 4, (), False),  # fewer scenes than workers
        (("x", "y"), 1, (), False),
        (("x",), 2, ("x",), False),
        (("x",), 2, ("a",), False),
        ((), 9, ("a", "x"), True),
    ],
)
def test_a_second_scene_only_if_enough_are_left_and_neither_may_have_killed_a_worker(
    in_flight: tuple[str, ...], workers: int, isolated: tuple[str, ...], taken: bool
) -> None:
    queue = SceneQueue({"a": 3, "b": 2, "c": 1}, retries=0)
    queue.isolate(isolated)
    assert (queue.take(in_flight, workers) == "a") == taken
    assert len(queue) == 3 - taken


@pytest.mark.parametrize(
    ("kind", "tries"), [("bad", 0), ("setup", 0), ("failed", 2), ("lost", MAX_LOST_NODES)]
)
def test_a_scene_is_tried_again_as_often_as_its_kind_of_failure_allows(
    kind: OutcomeKind, tries: int
) -> None:
    queue = SceneQueue({"a": 1}, retries=2)
    for _ in range(tries):
        assert queue.take((), 1) == "a"
        assert queue.retry("a", kind)
    assert queue.take((), 1) == "a"
    assert not queue.retry("a", kind) and len(queue) == 0
