"""How commands end, which scenes a split gives them, and compiled functions without a cache."""

from __future__ import annotations

import errno
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from failing_commands import failing, write_log
from label_scenes import header, scene

from datasets.cli.exit_codes import exit_code
from datasets.cli.scenes import scenes_in, scenes_of, usable_scenes_of
from datasets.errors import SceneError, SetupError, UnwritableError
from datasets.files.temporary import private_folder
from datasets.labels.store import LabelStore
from datasets.sources.folder import FolderSource
from datasets.storage.backend import writing

ROOT = Path(__file__).resolve().parents[3]
WEIGHTS = ROOT / "models" / "weights" / "city_small_teacher.safetensors"
ODD = "Stra\N{LATIN SMALL LETTER SHARP S}e 7"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SetupError("no such split"), 2, "error: no such split"),
        (SceneError(where="f.json", rule="torn"), 2, "error: f.json: torn"),
        (OSError(errno.ENOSPC, "No space left on device", "out.json"), 2, "error: out.json: No "),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "error: x: Permission"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_a_fault_is_one_line_and_an_exit_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(failing(error)) == code
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(line)


def test_our_own_bugs_stay_tracebacks() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_code(failing(ZeroDivisionError()))


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM]
)
def test_a_place_that_takes_no_more_is_told_from_a_failure_that_may_pass(code: int) -> None:
    says = r"store x: cannot be written: .*goes on"
    with pytest.raises(UnwritableError, match=says), writing("store x"):
        raise OSError(code, os.strerror(code))
    with pytest.raises(OSError, match="output") as caught, writing("store x"):
        raise OSError(errno.EIO, "Input/output error")
    assert not isinstance(caught.value, UnwritableError)


def test_a_split_without_a_scene_or_a_frame_is_refused(tmp_path: Path) -> None:
    root = write_log(tmp_path, ("a", "none"), splits={"val": [], "hollow": ["none"], "b": ["a"]})
    source = FolderSource(root, past_sweeps=0)
    with pytest.raises(SetupError, match=r"split 'val' has no scene"):
        scenes_of(source, "val", root=root)
    with pytest.raises(SetupError, match=r"split 'hollow' has no frame in its 1 scenes"):
        scenes_of(source, "hollow", root=root)
    assert scenes_of(source, "b", root=root) == ("a",)
    assert scenes_of(source, "all", root=root) == ("a", "none")


def test_scenes_of_odd_ids_are_set_aside_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_log(tmp_path, (ODD, "plain", "a,b"), splits={"odd": [ODD]})
    source = FolderSource(root, past_sweeps=0)
    assert source.scene_ids("all") == (ODD, "a,b", "plain")
    for read in (source.scene, source.n_frames):
        with pytest.raises(SceneError, match="scene id 'Stra"):
            read(ODD)
    assert usable_scenes_of(source, "all", root=root) == ("plain",)
    assert f"quarantined: {ODD}: scene id" in capsys.readouterr().err
    with pytest.raises(SetupError, match="no scene whose id can be used"):
        usable_scenes_of(source, "odd", root=root)


@pytest.mark.parametrize("token", ["../../../elsewhere", "cam/0001", "", "a\0b"])
def test_a_folder_logs_tokens_are_checked_where_it_is_read(token: str, tmp_path: Path) -> None:
    root = write_log(tmp_path, ("a", "b"))
    path = root / "scenes" / "a" / "scene.json"
    data = json.loads(path.read_text())
    data["frames"][0]["token"] = token
    path.write_text(json.dumps(data))
    source = FolderSource(root, past_sweeps=0)
    with pytest.raises(SceneError, match=r"scenes/a/scene\.json \(frame .*token"):
        source.scene("a")
    assert len(source.scene("b").frames) == 1


def test_a_store_without_a_scene_is_refused(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "labels.zarr", header())
    with pytest.raises(SetupError, match="no scene is committed yet"):
        scenes_in(store)
    store.write_scene(scene("s1"))
    assert scenes_in(store) == ("s1",)


SPLIT_COMMANDS = [
    ("autolabel/run.py", "--split", "val", "--store", "{out}/l.zarr"),
    ("autolabel/run.py", "--split", "val", "--store", "{out}/l.zarr", "--dry-run"),
    ("scripts/evaluate.py", "--weights", str(WEIGHTS), "--split", "val"),
    ("scripts/make_labels.py", "--split", "val", "--out", "{out}/gt"),
    ("scripts/calibrate.py", str(WEIGHTS), "--split", "val", "-o", "{out}/c.safetensors"),
    ("scripts/train_teacher.py", "--split", "val", "--out", "{out}/t"),
    ("scripts/train_student.py", "--labeled-split", "val", "--out", "{out}/s"),
]


@pytest.mark.parametrize("command", SPLIT_COMMANDS, ids=lambda c: f"{c[0]} {c[-1]}")
def test_every_command_ends_with_2_and_one_line_for_a_split_without_a_scene(
    command: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root = write_log(tmp_path / "log", ("a",), splits={"train": ["a"], "val": []})
    where = ["--source", "folder", "--root", str(root)]
    script, *options = (part.format(out=tmp_path) for part in command)
    monkeypatch.setattr(sys, "argv", [script, *options, *where])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert end.value.code == 2
    assert f"error: {root}: split 'val' has no scene" in capsys.readouterr().err.splitlines()[-1]
    assert {p.name for p in tmp_path.iterdir()} <= {"log", "t", "s"}


def test_a_private_folder_is_ones_own(tmp_path: Path) -> None:
    folder = private_folder("x", temporary=tmp_path)
    assert folder is not None and folder.stat().st_mode & 0o777 == 0o700
    assert private_folder("x", temporary=tmp_path) == folder
    folder.chmod(0o777)  # others could have put something there
    assert private_folder("x", temporary=tmp_path) is None
    folder.rmdir()
    folder.symlink_to(tmp_path)
    assert private_folder("x", temporary=tmp_path) is None
    assert private_folder("x", temporary=tmp_path / "missing") is None


NO_LOCATOR = """
import numba.core.caching as caching
caching.CacheImpl._locator_classes = [caching.UserProvidedCacheLocator]
import tempfile
tempfile.tempdir = {tmp!r}
from datasets.geometry.compiled import compiled

@compiled
def twice(x):
    return 2 * x

assert twice(21) == 42

"""


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_cache_folder_functions_are_compiled_all_the_same(
    exists: bool, tmp_path: Path
) -> None:
    tmp = tmp_path / "tmp"
    if exists:
        tmp.mkdir()
    script = tmp_path / "script.py"
    script.write_text(NO_LOCATOR.format(tmp=str(tmp)))
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr and exists == (str(tmp) in done.stderr)
    assert exists == any(tmp.rglob("*.nbc"))


def test_every_compiled_function_lives_without_a_cache_folder() -> None:
    for room in ("datasets", "autolabel", "viz", "scripts", "models"):
        for path in (ROOT / room).rglob("*.py"):
            if path.name != "compiled.py":
                assert "numba.njit" not in path.read_text(), f"{path}: use compiled()"
