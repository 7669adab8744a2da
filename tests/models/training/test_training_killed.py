"""The real command, on a log whose LiDAR files are gone: killed, continued, fed torn files."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file
from training_command import run, start, write_labelled_log

STEPS = 24
LONG = ("--steps", str(STEPS), "--batch", "2", "--save-every", "3", "--threads", "2")
ONE_EPOCH = ("--steps", "1", "--batch", "6", "--loaders", "0")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_log(tmp_path_factory.mktemp("logs") / "log", ("a", "b"))


def steps_done(out: Path) -> int:
    path = out / "log.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def sha256_of_weights(out: Path) -> str:
    tensors = load_file(out / "camera_coarse_student.safetensors")
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].tobytes())
    return digest.hexdigest()


@pytest.mark.slow  # five starts of Python and torch
def test_killed_three_times_it_ends_with_the_same_weights(log: Path, tmp_path: Path) -> None:
    code, said = run(log, tmp_path / "whole", *LONG)
    assert code == 0, said
    rng, killed_at = random.Random(time.time_ns()), []
    for part in range(3):
        process = start(log, tmp_path / "killed", *LONG)
        goal = rng.randint(part * STEPS // 3 + 1, (part + 1) * STEPS // 3 - 1)
        while steps_done(tmp_path / "killed") < goal:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed_at.append(steps_done(tmp_path / "killed"))
        assert not list((tmp_path / "killed").glob("*.safetensors")), killed_at
    code, said = run(log, tmp_path / "killed", *LONG)
    assert code == 0, said
    assert sha256_of_weights(tmp_path / "killed") == sha256_of_weights(tmp_path / "whole"), (
        f"killed at steps {killed_at}"
    )
    whole, killed = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    )
    assert [line["step"] for line in killed] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in killed] == [line["loss"] for line in whole]


def test_a_student_learns_from_a_store_where_no_point_file_is_left(
    log: Path, tmp_path: Path
) -> None:
    assert not list(log.rglob("lidar/*"))
    code, said = run(log, tmp_path / "out", *ONE_EPOCH)
    assert code == 0, said
    assert (tmp_path / "out/camera_coarse_student.safetensors").exists()


def test_torn_pictures_are_named_and_the_exit_code_says_so(log: Path, tmp_path: Path) -> None:
    picture = log / "scenes/b/front/005.png"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:100])
    try:
        code, said = run(log, tmp_path / "out", *ONE_EPOCH)
    finally:
        picture.write_bytes(whole)
    assert code == 1, said
    assert "1 bad frames were left out" in said and "b b5" in said
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert [bad["frame"] for bad in report["bad_frames"]] == ["b5"]


def test_no_good_frame_at_all_is_an_error(log: Path, tmp_path: Path) -> None:
    pictures = {path: path.read_bytes() for path in log.rglob("front/*.png")}
    for path in pictures:
        path.write_bytes(b"torn")
    try:
        code, said = run(log, tmp_path / "out", *ONE_EPOCH)
    finally:
        for path, data in pictures.items():
            path.write_bytes(data)
    assert code == 2
    assert "error: every one of the 6 frames is bad" in said
    assert "Traceback" not in said
