"""A log that confidence was not calibrated on gets no promise."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run_script
from folder_log import write_log

from autolabel.commands.options.label_log import parse, shares
from datasets.errors import SetupError


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("log") / "mine")


def test_an_error_bound_is_refused_before_anything_is_labeled(log: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    words = ("--source", "folder", "--root", log, "--split", "all", "--store", store)
    done = run_script("autolabel/run.py", *words, "--max-error", "0.05")
    assert done.returncode == 2 and done.stdout == ""
    assert "confidence is not verified on this log" in done.stderr
    assert "--adapt" in done.stderr and "--accept-unverified" in done.stderr
    assert not store.exists()


def test_the_thresholds_can_be_had_without_a_promise(log: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    words = ("--source", "folder", "--root", log, "--split", "all", "--store", store)
    more = ("--max-error", "0.2", "--accept-unverified", "--dry-run")
    done = run_script("autolabel/run.py", *words, *more)
    assert done.returncode == 0, done.stderr
    assert "no bound on errors holds" in done.stderr and "error bound" not in done.stdout
    unknown = ("--max-error", "0.2,boats=0.1", "--accept-unverified")
    done = run_script("autolabel/run.py", *words, *unknown)
    assert done.returncode == 2 and "no group 'boats'" in done.stderr


def test_shares_by_group() -> None:
    assert shares("0.02") == {"every": 0.02}
    assert shares("0.02, vehicles=0.1") == {"every": 0.02, "vehicles": 0.1}
    for bad in ("", "vehicles", "0.1,0.2", "vehicles=x"):
        with pytest.raises((SetupError, Exception), match=r"share|twice"):
            shares(bad)
    with pytest.raises(SetupError, match="between 0 and 1"):
        parse(["--split", "all", "--max-error", "0.1,vehicles=1.5"])
    with pytest.raises(SetupError, match="goes with --max-error"):
        parse(["--split", "all", "--accept-unverified"])
