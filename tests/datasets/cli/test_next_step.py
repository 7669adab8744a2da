"""What a command says to run next works as printed, and errors name the option that helps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from folder_log import write_log

from autolabel.commands.options import label_log
from autolabel.commands.train_student import has_truth
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.launch import launch
from datasets.cli.next_step import print_next, print_next_job
from datasets.cli.options import DEFAULT_STORE
from datasets.cli.scenes import first_split, scenes_of
from datasets.errors import SceneError, SetupError
from datasets.sources.opening import open_source


@pytest.mark.parametrize(
    ("display", "line"),
    [
        (":0", "next: python viz/inspect.py s.zarr\n"),
        ("", "next: python viz/inspect.py s.zarr --serve\n"),
    ],
)
def test_labels_are_served_to_a_browser_where_there_is_no_display(
    display: str,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.argv", ["scripts/store.py"])
    print_next("inspect", "s.zarr")
    assert capsys.readouterr().out == line


def test_the_next_job_gets_a_store_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label_log.parse(["--split", "all"]).store == DEFAULT_STORE
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["scripts/check_log.py"])
    start = "next: python autolabel/run.py --split all"
    lines = []
    for name in ("labels", "labels-2", "labels-3"):
        print_next_job("--split", "all")
        lines.append(capsys.readouterr().out.strip())
        (tmp_path / "runs" / f"{name}.zarr").mkdir(parents=True)
    assert lines == [
        start,
        f"{start} --store runs/labels-2.zarr",
        f"{start} --store runs/labels-3.zarr",
    ]


def nuscenes_tables(root: Path) -> None:
    (root / "v1.0-mini").mkdir(parents=True)
    (root / "v1.0-mini" / "scene.json").write_text("[]")


def pandaset(root: Path) -> None:
    (root / "002" / "annotations" / "cuboids_csv").mkdir(parents=True)


def records(root: Path) -> None:
    (root / "training").mkdir(parents=True)
    (root / "training" / "segment.tfrecord").touch()


@pytest.mark.parametrize(
    ("kind", "make", "hint"),
    [
        ("folder", nuscenes_tables, "it looks like a log of --source nuscenes"),
        ("folder", pandaset, r"it looks like PandaSet: .* scripts/convert_pandaset\.py"),
        ("nuscenes", write_log, "it looks like a log of --source folder"),
        ("waymo", write_log, "it looks like a log of --source folder"),
        ("nuscenes", records, "it looks like a log of --source waymo"),
        ("city", nuscenes_tables, "it looks like a log of --source nuscenes"),
        ("folder", Path.mkdir, r"expected a folder log\)$"),
    ],
)
def test_a_log_of_another_kind_is_named(
    kind: str, make: Callable[[Path], object], hint: str, tmp_path: Path
) -> None:
    make(tmp_path / "log")
    with pytest.raises(SetupError, match=hint):
        open_source(kind, tmp_path / "log", past_sweeps=0)


def test_tables_that_a_root_does_not_have_are_answered_with_those_it_has(tmp_path: Path) -> None:
    nuscenes_tables(tmp_path)
    with pytest.raises(SetupError, match=r"no tables v1.0-trainval; --version can be v1.0-mini$"):
        open_source("nuscenes", tmp_path, past_sweeps=0, version="v1.0-trainval")
    (tmp_path / "v1.0-test").mkdir()
    (tmp_path / "v1.0-test" / "scene.json").write_text("[]")
    with pytest.raises(SetupError, match=r"v1.0-mini, v1.0-test; name one with --version"):
        open_source("nuscenes", tmp_path, past_sweeps=0)


def test_a_split_without_scenes_is_told_from_a_log_without(tmp_path: Path) -> None:
    source = open_source("folder", write_log(tmp_path / "log"), past_sweeps=0, labelled=("a",))
    with pytest.raises(
        SetupError, match=r"split 'unlabeled' has no scene; the log has 1 scenes in all"
    ):
        scenes_of(source, "unlabeled", root=tmp_path)
    assert first_split(source, "val", "unlabeled") == "all"
    assert first_split(source, "val", "labeled") == "labeled"


def test_ground_truth_is_looked_for_before_scoring_is_suggested(tmp_path: Path) -> None:
    root, truth = write_log(tmp_path / "log"), benchmark("occ3d_nuscenes")
    source = open_source("folder", root, past_sweeps=0)
    assert not has_truth(truth, root, source, "all")
    path = truth.path(root, source, source.scene("a").frames[0])
    with pytest.raises(SceneError, match="no such file; --truth names the folder"):
        truth.labels(root, source, source.scene("a").frames[0])
    path.parent.mkdir(parents=True)
    path.touch()
    assert has_truth(truth, root, source, "all")


def test_a_folder_of_ground_truth_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = ["--source", "folder", "--root", str(write_log(tmp_path / "log"))]
    words = ["--truth", str(tmp_path / "gone"), *log, "--screenshot", str(tmp_path / "a.png")]
    assert launch("inspect", words) == 2
    assert f"--truth {tmp_path / 'gone'}: there is no such folder" in capsys.readouterr().err
