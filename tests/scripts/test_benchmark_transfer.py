"""The study on a real drive: what it trains on, what it scores, what it prints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# ruff: noqa: E402
import transfer as benchmark_transfer
from transfer import SHIPPED, Transfer, markdown, measure, teacher_of

TEST, LESSON = "002-65-79", "002-50-64"


@pytest.fixture
def transfer(tmp_path: Path) -> Transfer:
    return Transfer(
        out=tmp_path,
        log=tmp_path / "log",
        sequence="002",
        steps=3,
        student_steps=4,
        learning_rate=1e-3,
    )


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is run, instead of running it; scores are made up."""
    told: list[list[str]] = []

    def note(*words: object) -> None:
        told.append([str(word) for word in words])
        for kind, name in (("teacher", "city_small_teacher"), ("student", "camera_tiny_student")):
            if words[0] == f"scripts/train_{kind}.py":
                folder = Path(told[-1][told[-1].index("--out") + 1])
                folder.mkdir(parents=True)
                shutil.copy(ROOT / SHIPPED, folder / f"{name}.safetensors")
        if words[0] == "scripts/evaluate.py":
            path = Path(told[-1][told[-1].index("--out") + 1])
            path.parent.mkdir(parents=True, exist_ok=True)
            figures = {"mIoU[camera-visible]": float(len(told)), "mIoU[all]": None}
            by_class = {"IoU[camera-visible]": {"car": 12.5, "bus": None}}
            path.write_text(json.dumps(figures | by_class))

    monkeypatch.setattr(benchmark_transfer, "command", note)
    return told


def test_no_training_sees_what_it_is_scored_on(
    transfer: Transfer, commands: list[list[str]]
) -> None:
    measure(transfer, {"fusion": ROOT / SHIPPED})
    trainings = [c for c in commands if c[0].startswith("scripts/train_")]
    assert [c[0].removeprefix("scripts/train_") for c in trainings] == [
        *("teacher.py", "student.py", "student.py", "student.py")
    ]
    for training in trainings:
        assert not any(TEST in word for word in training)
    lessons = {c[c.index("--labels") + 1] for c in trainings if "--labels" in c}
    written = {c[c.index("--store") + 1]: c for c in commands if c[0] == "autolabel/run.py"}
    assert len(lessons) == 2
    for lesson in lessons:  # the stores that students learn from hold the middle part alone
        labelled = written[lesson]
        assert labelled[labelled.index("--split") + 1] == LESSON
    students = [c for c in commands if c[0] == "scripts/evaluate.py" and "--weights" in c]
    assert {c[c.index("--split") + 1] for c in students} == {TEST}


def test_every_version_of_every_teacher_is_scored(
    transfer: Transfer, commands: list[list[str]]
) -> None:
    found = measure(transfer, {"fusion": ROOT / SHIPPED})
    assert list(found["teachers"]) == ["fusion, city", "fusion, fine-tuned"]
    assert len(found["students"]) == 3
    n = len(commands)
    measure(transfer, {"fusion": ROOT / SHIPPED})
    assert not any(c[0] == "scripts/evaluate.py" for c in commands[n:])  # there already
    text = markdown(found, transfer)
    assert "| fusion, city | 17 classes, 0.4 m |" in text
    assert "| truth of 30-49 | 7 classes, 0.8 m |" in text
    assert "car" in text and "bus" not in text  # a class that does not occur has no column


def test_a_failed_command_stops_the_study() -> None:
    with pytest.raises(benchmark_transfer.SetupError, match="failed: python --bogus"):
        benchmark_transfer.command("--bogus")


def test_teachers_are_named() -> None:
    assert teacher_of("lidar=a/b=c.safetensors") == ("lidar", Path("a/b=c.safetensors"))
    with pytest.raises(Exception, match="not NAME=WEIGHTS"):
        teacher_of("weights.safetensors")
