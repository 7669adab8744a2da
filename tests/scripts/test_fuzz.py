"""Spoiled inputs of every reader, a few of ``chaos.py --fuzz``, and that it notices."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="the waymo extra")
pytest.importorskip("waymo_open_dataset.dataset_pb2", reason="Waymo's protos")

from chaos_modes import fuzz
from chaos_modes.outcome import Options
from chaos_modes.readers import READERS, Reader

from datasets.errors import SetupError


def options(number: int) -> Options:
    return Options(number=number, seed=3, scenes=1, frames=2, every_s=(0, 0))


def test_sixty_spoiled_inputs_are_read_or_refused_in_good_order(tmp_path: Path) -> None:
    outcome = fuzz.run(options(60), tmp_path)
    assert outcome.bad == 0, outcome.text
    counts = outcome.facts["readers"]
    assert isinstance(counts, dict) and counts.keys() == READERS.keys()
    for name, one in counts.items():
        assert one["accepted"] + one["refused"] == 60 // len(READERS), name
        assert one["peak_mb"] < fuzz.MAX_BYTES >> 20, name
    assert sum(one["refused"] for one in counts.values()) > 20


def refuse() -> None:
    raise SetupError("no such thing")


def fail() -> None:
    raise KeyError("no such thing")


@pytest.mark.parametrize(
    ("read", "result"),
    [
        (lambda: None, "accepted"),
        (refuse, "refused"),
        (fail, "unexpected"),
        (lambda: sys.exit(3), "unexpected"),
        (lambda: np.ones(8 << 20), "memory"),
    ],
)
def test_whatever_a_reader_does_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[], object], result: str
) -> None:
    (tmp_path / "good/one").mkdir(parents=True)
    (tmp_path / "good/one/a.txt").write_text("a text")
    reader = Reader(make=lambda _: None, read=lambda _: (read(), None)[1])
    monkeypatch.setattr(fuzz, "READERS", {"one": reader})
    monkeypatch.setattr(fuzz, "NAMES", ("one",))
    monkeypatch.setattr(fuzz, "MAX_BYTES", 32 << 20)
    found = fuzz.attempt(3, 0, tmp_path / "good", tmp_path / "scratch")
    assert found.result == result, found.said


def test_a_process_that_dies_is_counted_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "READERS", {"lists": READERS["lists"]})
    monkeypatch.setattr(fuzz, "NAMES", ("lists",))
    monkeypatch.setattr(fuzz, "_work", die)
    outcome = fuzz.run(options(2), tmp_path)
    assert outcome.bad == 2 and outcome.text.count("the process died") == 2


def die(pipe: Connection, *_: object) -> None:
    pipe.recv()
    pipe.close()
    os._exit(11)


def test_a_reader_that_takes_too_long_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "READERS", {"lists": READERS["lists"]})
    monkeypatch.setattr(fuzz, "NAMES", ("lists",))
    monkeypatch.setattr(fuzz, "START_S", 0.0)
    monkeypatch.setattr(fuzz, "DEADLINE_S", 0.0)
    outcome = fuzz.run(options(2), tmp_path)
    assert outcome.bad == 2 and "hang" in outcome.text
    assert outcome.facts["repeated"] == 2
