"""Command lines: quick to answer, forgiving of spelling, told by stores where their logs are."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from report_stores import header

import autolabel.console as console
from autolabel.commands.options import label_log, select_scenes, train_student
from autolabel.commands.options import store as store_options
from autolabel.selection.active_learning import STRATEGIES
from datasets import benchmarks
from datasets.benchmarks.catalogue import BENCHMARKS
from datasets.cli.commands import COMMANDS
from datasets.cli.launch import launch
from datasets.cli.logs import log_words_of, name_log_of, provenance_of, truth_folder
from datasets.cli.next_step import command_line
from datasets.errors import SetupError
from datasets.labels.calibration_record import Test as RiskTest
from models import RECIPE_NAMES
from models.training.recipes import RECIPES
from viz.commands.options import inspect_labels
from viz.session.session import MASKS

ROOT = Path(__file__).resolve().parents[3]
SLOW = ("torch", "ray", "numpy", "scipy", "numba", "zarr", "obstore", "matplotlib", "PIL", "open3d")
ALL_HELP = f"""
import importlib, sys
from datasets.cli.commands import COMMANDS
for command in COMMANDS.values():
    try:
        importlib.import_module(f"{{command.package}}.options.{{command.module}}").parse(["--help"])
    except SystemExit:
        pass
print(sorted(set({SLOW!r} + ("nuscenes", "sklearn", "pandas")) & set(sys.modules)))
"""


def test_help_of_no_command_imports_what_is_slow() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALL_HELP], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("usage:") == len(COMMANDS)


def test_every_command_has_its_file_and_modules() -> None:
    for command in COMMANDS.values():
        assert (ROOT / command.file).is_file()
        folder = ROOT / command.package.replace(".", "/")
        assert (folder / f"{command.module}.py").is_file()
        assert (folder / "options" / f"{command.module}.py").is_file()


def test_choices_of_options_are_those_of_the_libraries() -> None:
    assert tuple(b.name for b in BENCHMARKS) == benchmarks.NAMES
    assert tuple(b.name for b in BENCHMARKS if b.write is not None) == benchmarks.WRITABLE
    assert tuple(RECIPES) == RECIPE_NAMES
    assert select_scenes.STRATEGIES == STRATEGIES
    assert tuple(MASKS) == inspect_labels.MASKS
    assert get_args(RiskTest) == ("t", "exact")


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        ("label --split val --weigths T", "--weights"),
        ("label --split val --source nuscene", "nuscenes"),
        ("store exprot S", "export"),
        ("store export S --out O --fromat occ3d_nuscenes", "--format"),
        ("store export S --out O --format occ3d_nuscene", "occ3d_nuscenes"),
        ("train-student --recipes flashocc", "--recipe"),
    ],
)
def test_near_misses_are_suggested(
    words: str, suggested: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = words.split()
    assert launch(name, rest) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and f"did you mean {suggested}?" in line


def test_old_names_and_both_spellings_of_options_are_understood() -> None:
    args = label_log.parse(
        [
            "--split",
            "val",
            "--labelled",
            "10",
            "--readers",
            "3",
            "--max-error",
            ".1",
            "--promise-test=exact",
        ]
    )
    assert (args.labelled, args.readers, args.risk_test) == ("10", 3, "exact")
    args = train_student.parse(
        [
            "--labelled-split",
            "a",
            "--unlabelled-split",
            "b",
            "--num-workers",
            "2",
            "--parts",
            "3",
            "--human-share",
            ".5",
        ]
    )
    assert (args.labelled_split, args.unlabelled_split) == ("a", "b")
    assert (args.num_workers, args.parts, args.human_share) == (2, 3, 0.5)
    assert inspect_labels.parse(["s.zarr", "--colour", "evidence"]).color == "evidence"


def test_version_is_told_or_names_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert label_log.parse(["--split", "val", "--version", "v1.0-mini"]).version == "v1.0-mini"
    for parse, words in ((label_log.parse, ["--version"]), (store_options.parse, ["--version"])):
        with pytest.raises(SystemExit) as end:
            parse(words)
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith("effocc-autolabel ")


def log_args(**changes: object) -> argparse.Namespace:
    return argparse.Namespace(**({"source": None, "root": None, "version": None} | changes))


def test_a_store_says_where_its_log_is(tmp_path: Path) -> None:
    labeled = log_args(source="nuscenes", root=tmp_path, version="v1.0-mini")
    store = header(provenance={"source": "nuscenes"} | provenance_of(labeled))
    args = log_args()
    name_log_of(args, store)
    assert (args.source, args.root, args.version) == ("nuscenes", tmp_path, "v1.0-mini")
    words = ["--source", "nuscenes", "--root", str(tmp_path), "--version", "v1.0-mini"]
    assert log_words_of(store) == words
    args = log_args(root=tmp_path / "copy")
    name_log_of(args, store)
    assert args.root == tmp_path / "copy"


def test_a_log_that_is_gone_or_unknown_is_asked_for(tmp_path: Path) -> None:
    gone = header(provenance={"source": "folder", "root": str(tmp_path / "gone")})
    with pytest.raises(SetupError, match=r"folder log was at .*gone.* --root"):
        name_log_of(log_args(), gone)
    with pytest.raises(SetupError, match="name the waymo log with --root"):
        name_log_of(log_args(), header(provenance={"source": "waymo"}))
    with pytest.raises(SetupError, match="name the waymo log with --root"):
        name_log_of(log_args(source="waymo"), gone)  # the hint is of another kind of log
    with pytest.raises(SetupError, match="--source nuscenes needs --root"):
        name_log_of(log_args(source="nuscenes"), None)
    args = log_args()
    name_log_of(args, None)
    assert (args.source, args.root) == ("city", Path("runs/city"))


def test_credentials_of_a_log_are_not_kept_in_the_store() -> None:
    args = log_args(source="nuscenes", root=Path("s3://KEY:SECRET@bucket/log"))
    assert "SECRET" not in str(provenance_of(args))


def test_missing_ground_truth_is_named_with_the_option_that_helps(tmp_path: Path) -> None:
    args = log_args(root=tmp_path / "gone", truth=None)
    with pytest.raises(SetupError, match=r"no such folder; name the ground truth .* --truth"):
        truth_folder(args, next(b for b in BENCHMARKS if b.name == "openocc_flow"))


def test_the_next_command_is_told_as_this_one_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["autolabel/run.py"])
    assert command_line("inspect", "a b.zarr") == "python viz/inspect.py 'a b.zarr'"
    monkeypatch.setattr(sys, "argv", ["autolabel label"])
    assert command_line("inspect", Path("s.zarr")) == "autolabel inspect s.zarr"


def test_the_console_command_lists_and_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert console.main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in COMMANDS)
    assert console.main(["--version"]) == 0
    assert console.main(["lable"]) == 2
    assert "did you mean label?" in capsys.readouterr().err


def test_another_package_called_datasets_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").touch()
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import autolabel.console as c; "
        f"sys.path.insert(0, {str(tmp_path)!r}); sys.exit(c.main(['store', 'info', 'x']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "Hugging Face" in line


PAGES = (
    "README.md",
    *(f"{room}/README.md" for room in ("autolabel", "datasets", "models", "viz", "scripts")),
    "scripts/benchmarks/README.md",
)


def commands_in(text: str) -> list[list[str]]:
    """The command lines of a text, indented or in backticks, as words from the file on."""
    text = text.replace("\\\n", " ")
    lines = re.findall(r"^ {4}(?:\.venv/bin/)?python (\S+\.py.*)$", text, re.M)
    lines += re.findall(r"`python (\S+\.py [^`]*)`", text)
    lines = [line for line in lines if "..." not in line and "SOURCE" not in line]
    return [shlex.split(line, comments=True) for line in lines]


def assert_understood(commands: list[list[str]]) -> None:
    by_file = {command.file: command for command in COMMANDS.values()}
    for file, *words in commands:
        assert (ROOT / file).is_file(), file
        if (command := by_file.get(file)) is not None:
            options = importlib.import_module(f"{command.package}.options.{command.module}")
            options.parse(words)


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_of_pages_are_understood(page: str) -> None:
    assert_understood(commands_in((ROOT / page).read_text()))


@pytest.mark.parametrize("name", COMMANDS)
def test_command_lines_of_help_are_understood(name: str) -> None:
    command = COMMANDS[name]
    options = importlib.import_module(f"{command.package}.options.{command.module}")
    assert options.__doc__ is not None
    assert_understood(commands_in(options.__doc__))
