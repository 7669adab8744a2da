"""Where a disk takes no more, results are whole or as before, the error names the file, and the
same command goes on. A limit on the size of files stands for the full disk: writes are cut off at
it, as there."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from chaos_modes import full_disk
from chaos_modes.result_files import differing, scalars, torn
from label_scenes import header, scene, tree
from PIL import Image
from safetensors.torch import save
from test_replacing import WRITERS
from toy_training import CONFIG, lines, run, same_weights, samples

from autolabel.cluster.events import Events
from datasets.cli.launch import launch
from datasets.errors import AutolabelError
from datasets.files.appending import AppendedFile
from datasets.files.replacing import replacing
from datasets.labels.store import LabelStore
from models.training.tensorboard_file import TensorboardFile
from viz.render.video import _write_mp4

ROOT = Path(__file__).resolve().parents[3]

__all__ = ["samples"]
FULL = "File too large"


@contextmanager
def limit(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_video(path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    with replacing(path) as partial:
        _write_mp4(partial, iter([picture] * 9), (64, 64), 5.0)


CUT_OFF: dict[str, tuple[str, int, Callable[[Path], object]]] = {
    **{kind: (name, 1, write) for kind, (name, write) in WRITERS.items()},
    "video": ("video.mp4", 5000, write_video),
}


@pytest.mark.parametrize("kind", CUT_OFF)
def test_a_result_that_does_not_fit_leaves_the_one_before_and_is_named(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, size, write = CUT_OFF[kind]
    path = tmp_path / name
    path.write_bytes(b"before")
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with limit(size), pytest.raises((OSError, AutolabelError)) as found:
        write(path)
    assert str(path) in str(found.value) and FULL in str(found.value)
    gc.collect()
    assert complaints == []
    assert tree(tmp_path) == {name: b"before"}
    write(path)
    assert path.read_bytes() != b"before"


def test_an_error_of_another_kind_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no good"), replacing(tmp_path / "f") as partial:
        partial.write_text("half")
        raise ValueError("no good")
    with pytest.raises(FileNotFoundError) as found, replacing(tmp_path / "f"):
        (tmp_path / "input").read_text()
    assert found.value.filename == str(tmp_path / "input")
    assert tree(tmp_path) == {}


def test_a_line_is_appended_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    file = AppendedFile(path)
    file.write(b"first\n")
    with limit(9), pytest.raises(OSError, match=FULL) as found:
        file.write(b"second\n")
    assert found.value.filename == str(path) and path.read_bytes() == b"first\n"
    file.write(b"third\n")
    file.close()
    assert path.read_bytes() == b"first\nthird\n"


def test_a_line_that_a_kill_has_torn_stays_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for before, after in ((b"a\nb", b"a\nb\nc\n"), (b"a\n", b"a\nc\n"), (b"", b"c\n")):
        path.write_bytes(before)
        file = AppendedFile(path)
        file.write(b"c\n")
        file.close()
        assert path.read_bytes() == after
    file = AppendedFile(tmp_path / "records", lines=False)
    for _ in range(2):
        file.write(b"\0")
    file.close()
    again = AppendedFile(tmp_path / "records", lines=False)
    again.write(b"\0")
    again.close()
    assert (tmp_path / "records").read_bytes() == b"\0\0\0"


def test_events_end_with_a_whole_line_and_go_on_in_the_next_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    events = Events(path)
    events("job started", scenes=1)
    with limit(path.stat().st_size + 10):
        events("scene done", scene="s1")
    events("job ended")
    events.close()
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"warning: {path}: no more events: {FULL}" in err
    again = Events(path)
    again("job started", scenes=0)
    again.close()
    assert [json.loads(line)["scenes"] for line in path.read_text().splitlines()] == [1, 0]


def test_records_for_tensorboard_are_whole(tmp_path: Path) -> None:
    board = TensorboardFile(tmp_path / "tensorboard", first_step=1)
    board.add("loss", 2.0, 1)
    (path,) = (tmp_path / "tensorboard").iterdir()
    whole = path.read_bytes()
    with limit(len(whole) + 20), pytest.raises(OSError, match=FULL) as found:
        board.add("loss", 1.0, 2)
    board.close()
    assert found.value.filename == str(path) and path.read_bytes() == whole
    assert scalars(whole) == [("", 1, 0.0), ("loss", 1, 2.0)]
    with pytest.raises(ValueError, match="torn"):
        scalars(whole[:-1])


def test_a_training_that_runs_out_of_room_says_so_and_goes_on_to_equal_weights(
    samples: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],  # the progress is no file
) -> None:
    rarely = dataclasses.replace(CONFIG, save_every=6)
    whole = run(samples, tmp_path / "whole")
    sizes = {name: len(data) for name, data in tree(tmp_path / "whole").items()}
    assert sizes["config.json"] < sizes["log.jsonl"] - 100 < sizes["state.pt"]
    named = set()
    for size, config in ((100, CONFIG), (sizes["log.jsonl"] - 50, rarely), (6000, CONFIG)):
        folder = tmp_path / f"cut-{size}"
        with limit(size), pytest.raises((OSError, AutolabelError), match=FULL) as found:
            run(samples, folder, config)
        there = tree(folder)
        for name, data in there.items():
            assert not torn(f"t/{name}", data, data), name
        said = str(found.value)
        assert str(folder) in said
        named |= {name for name in ("config.json", "tensorboard", "state.pt") if name in said}
        again = run(samples, folder)
        assert same_weights(whole.network, again.network)
        assert [line["step"] for line in lines(folder)] == [1, 2, 3, 4, 5, 6]
        assert differing(within("t", tree(folder)), within("t", tree(tmp_path / "whole"))) == []
    assert named == {"config.json", "tensorboard", "state.pt"}


def test_a_choice_that_cannot_be_written_leaves_the_earlier_one(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],  # what is printed is no file
) -> None:
    store = LabelStore.create(tmp_path / "labels.zarr", header())
    for i in range(3):
        store.write_scene(scene(f"s{i}", seed=i, frames=5))
    words = [str(tmp_path / "labels.zarr"), "--out", str(tmp_path / "out"), "--voxels", "1%"]
    assert launch("select", [*words, "--budget", "1"]) == 0
    earlier = tree(tmp_path / "out")
    assert len(earlier) == 7
    for size in (1, 60):  # not even the list; the lists, but no mask
        with limit(size):
            assert launch("select", [*words, "--frames", "4", "--gap", "1"]) == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
        assert line.startswith(f"error: {tmp_path / 'out'}/") and line.endswith(FULL)
        there = tree(tmp_path / "out")
        assert there.keys() >= earlier.keys()
        if size == 1:
            assert there == earlier
    assert launch("select", [*words, "--frames", "4", "--gap", "1"]) == 0
    assert "labelled.txt" not in tree(tmp_path / "out")


def within(folder: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": data for name, data in files.items()}


def weights(value: float, minutes: float) -> bytes:
    return save({"w": torch.tensor([value])}, {"training": json.dumps({"minutes": minutes})})


def log(*steps: int, seconds: float = 1.0) -> bytes:
    text = (json.dumps({"step": step, "seconds": seconds}) + "\n" for step in steps)
    return "".join(text).encode()


def note(reason: str, detail: str) -> bytes:
    return json.dumps({"attributes": {"reason": reason, "detail": detail}}).encode()


EQUAL = {
    "t/log.jsonl": (log(1, 2), log(1, 2, seconds=9.0)),
    "a/events.jsonl": (b'{"event": "a"}\n{"event": "z", "n": 1}\n', b'{"event": "z"}\n'),
    "t/w.safetensors": (weights(1.0, 2.0), weights(1.0, 3.0)),
    "a.zarr/quarantine/s/zarr.json": (note("bad", "line 1"), note("bad", "line 2")),
    "x/labels.npz": (b"abc", b"abc"),
}
OTHER = {
    "t/log.jsonl": (log(1, 2, 2), log(1, 2)),
    "a/events.jsonl": (b'{"event": "a"}\n', b'{"event": "z"}\n'),
    "t/w.safetensors": (weights(1.0, 2.0), weights(1.5, 2.0)),
    "a.zarr/quarantine/s/zarr.json": (note("bad", "line 1"), note("worse", "line 1")),
    "x/labels.npz": (b"abc", b"abd"),
}


def test_the_attack_tells_equal_files_from_others() -> None:
    for name, (one, other) in EQUAL.items():
        assert differing({name: one}, {name: other}) == [], name
    for name, (one, other) in OTHER.items():
        assert differing({name: one}, {name: other}) == [name]
        assert differing({name: one}, {}) == [name]
        assert differing({name: one[:-1]}, {name: one}) == [name]


def test_the_attack_tells_torn_files_from_whole_ones() -> None:
    assert not torn("t/log.jsonl", log(1), log(1, 2)) and not torn("events.jsonl", b"", None)
    assert "torn" in torn("t/log.jsonl", log(1, 2)[:-3], log(1, 2))
    assert torn("t/log.jsonl", b'{"st\n', log(1))
    assert torn("t/w.safetensors", weights(1.0, 2.0)[:-1], weights(1.0, 2.0))
    assert torn("x/labels.npz", b"ab", b"abc") and torn("x/.labels.1.npz", b"ab", None)


WHOLE = (
    "from datasets.files.replacing import write_text as w; w(Path(sys.argv[1]) / 'f', 'x' * 9000)"
)
TORN = "(Path(sys.argv[1]) / 'f').write_text('x' * 9000)"


@pytest.mark.parametrize(
    ("body", "promises"), [(WHOLE, []), (TORN, ["wrong_codes", "torn"])], ids=["whole", "torn"]
)
def test_the_attack_finds_a_command_that_tears_its_result(
    body: str, promises: list[str], tmp_path: Path
) -> None:
    if os.geteuid() or not may_mount(tmp_path):
        pytest.skip("no file system may be mounted here")
    script = tmp_path / "writer.py"
    head = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    head += "from pathlib import Path\nfrom datasets.cli.exit_codes import exit_code\n"
    script.write_text(f"{head}def main():\n    {body}\n    return 0\nsys.exit(exit_code(main))\n")
    attack = full_disk.Attack(tmp_path, seed=0)
    command = full_disk.Command(
        name="writer", line=lambda out: [str(script), str(out)], left=4096, before=("f",)
    )
    attack.attack(command, {"f": b"x" * 9000}, command.left)
    assert [case.split(":")[0] for case in attack.counts.cases] == promises, attack.counts.cases
    assert attack.counts.bad == len(promises)


def may_mount(folder: Path) -> bool:
    at = folder / "mount"
    at.mkdir()
    line = ["mount", "-t", "tmpfs", "tmpfs", str(at)]
    if subprocess.run(line, capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", str(at)], check=True)
    return True
