"""A writer that fails or dies at every write: the store has no scene, or exactly its bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from faulty_places import Fault, FaultyPlace, Writes
from label_scenes import header, scene, tree

from datasets.labels.store import LabelStore
from datasets.storage.backend import LocalBackend

ROOT = Path(__file__).resolve().parents[3]
LABELS = {"frames": 4, "flow": True, "evidence": True}


def written(path: Path) -> dict[str, bytes]:
    """The files of an undisturbed store of the scene."""
    LabelStore.create(path, header(flow=True)).write_scene(scene("s1", **LABELS))  # type: ignore[arg-type]
    return tree(path)


def positions(path: Path) -> int:
    """How many writes a scene takes."""
    place = FaultyPlace(LocalBackend(path))
    LabelStore.create(place, header(flow=True)).write_scene(scene("s1", **LABELS))  # type: ignore[arg-type]
    return place.writes.count


@pytest.mark.parametrize("fault", ["fails", "is short"])
def test_a_writer_that_fails_anywhere_leaves_nothing(tmp_path: Path, fault: Fault) -> None:
    whole, n = written(tmp_path / "whole"), positions(tmp_path / "counted")
    assert n > 10
    empty = {"zarr.json", "scenes/zarr.json"}
    for at in range(n):
        path = tmp_path / f"{at}"
        store = LabelStore.create(
            FaultyPlace(LocalBackend(path), Writes(at, fault)), header(flow=True)
        )
        with pytest.raises(OSError, match=r"space|output"):
            store.write_scene(scene("s1", **LABELS))  # type: ignore[arg-type]
        assert tree(path).keys() == empty
        LabelStore.open(path).write_scene(scene("s1", **LABELS))  # type: ignore[arg-type]
        assert tree(path) == whole


END = """
import os, signal, sys, time
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from faulty_places import FaultyPlace, Writes
from label_scenes import header, scene
from datasets.labels.store import LabelStore
from datasets.storage.backend import LocalBackend
pids = []
for at in range({n}):
    pids.append(os.fork())
    if pids[-1] == 0:
        place = FaultyPlace(LocalBackend(Path({path!r}) / str(at)), Writes(at, {fault!r}))
        LabelStore.create(place, header(flow=True)).write_scene(scene("s1", **{labels!r}))
        os._exit(0)
if {fault!r} == "hangs":
    time.sleep(3.0)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
for pid in pids:
    print(abs(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])), flush=True)
"""


@pytest.mark.parametrize("fault", ["dies", "hangs"])
def test_a_writer_that_dies_or_hangs_anywhere_leaves_nothing_that_is_seen(
    tmp_path: Path, fault: Fault
) -> None:
    whole, n = written(tmp_path / "whole"), positions(tmp_path / "counted")
    tests = str(ROOT / "tests" / "helpers")
    code = END.format(
        root=str(ROOT), tests=tests, n=n, path=str(tmp_path), labels=LABELS, fault=fault
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["9"] * n, done.stderr
    for at in range(n):
        path = tmp_path / f"{at}"
        assert LabelStore.open(path).scene_ids() == ()
        store = LabelStore.open_or_create(path, header(flow=True))
        store.write_scene(scene("s1", **LABELS))  # type: ignore[arg-type]
        assert tree(path) == whole
