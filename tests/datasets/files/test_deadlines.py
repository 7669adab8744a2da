"""Reading with a deadline: a log that hangs is named, and the others go on."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from datasets.errors import SceneError, SetupError
from datasets.frames import SceneSource
from datasets.sources.deadlines import HUNG, TimedSource, open_within, within

NEVER = threading.Event()
SECONDS = 0.2


class HangingLog:
    """Scenes whose names begin with ``h`` never answer."""

    name, licence = "hanging", "none"

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return self._answer(split, ("a", "h0"))

    def n_frames(self, scene_id: str) -> int:
        return self._answer(scene_id, 3)

    def fingerprint(self, scene_id: str) -> str:
        return self._answer(scene_id, "print")

    def _answer(self, name: str, answer: Any) -> Any:
        if name == "bad":
            raise SceneError(where="bad", rule="torn")
        if name.startswith("h"):
            NEVER.wait()
        return answer


@pytest.fixture
def log() -> TimedSource:
    return TimedSource(cast(SceneSource, HangingLog()), SECONDS, root="LOG")


def test_scene_that_hangs_is_bad_and_the_others_answer(log: TimedSource) -> None:
    with pytest.raises(SceneError, match=r"h0: its files did not answer within 0\.2 s"):
        log.n_frames("h0")
    assert log.n_frames("a") == 3
    with pytest.raises(SceneError, match="torn"):
        log.n_frames("bad")


def test_log_of_which_many_scenes_hang_is_given_up(log: TimedSource) -> None:
    for n in range(HUNG - 1):
        with pytest.raises(SceneError):
            log.n_frames(f"h{n}")
    with pytest.raises(SetupError, match=r"LOG: the log did not answer"):
        log.n_frames("hlast")
    with pytest.raises(SetupError):  # without waiting for more
        log.n_frames("a")


def test_what_cannot_be_done_without_stops_the_job(log: TimedSource) -> None:
    assert log.fingerprint("a") == "print" and log.scene_ids("all") == ("a", "h0")
    for call in (log.fingerprint, log.scene_ids):
        with pytest.raises(SetupError, match=r"did not answer.*--stall-timeout"):
            call("hangs")
    with pytest.raises(SetupError, match=r"LOG: the log did not answer"):
        open_within(SECONDS, lambda: cast(SceneSource, NEVER.wait()), root="LOG")


def test_errors_and_answers_come_through_a_deadline() -> None:
    assert within(60.0, lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        within(60.0, lambda: 1 // 0)
