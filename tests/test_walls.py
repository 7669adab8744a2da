"""The walls of the house: who may import whom, and names that must stay ours."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("datasets", "models", "autolabel", "viz", "scripts")
MAY_IMPORT = {
    "datasets": {"datasets"},
    "models": {"models", "datasets"},
    "autolabel": {"autolabel", "models", "datasets"},
    "viz": {"viz", "datasets"},
    "scripts": {"autolabel", "models", "datasets", "viz"},
}
MAY_USE_RAY = {"autolabel", "scripts"}


@cache
def statements(path: Path) -> list[ast.Import | ast.ImportFrom | ast.Call]:
    """Imports and method calls of a module, at any depth; a file is parsed once for all tests."""
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    ]


def imported_roots(path: Path) -> set[str]:
    roots: set[str] = set()
    for node in statements(path):
        if isinstance(node, ast.Import):
            roots.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            roots.add(node.module.split(".")[0])
    return roots


def sources() -> list[Path]:
    return [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def test_every_room_has_sources() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(ROOMS)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    roots = imported_roots(path)
    ours = roots & set(ROOMS)
    assert ours <= MAY_IMPORT[room], f"{path} imports {ours - MAY_IMPORT[room]}"
    if room not in MAY_USE_RAY:
        assert "ray" not in roots, f"{path} knows Ray"
    assert not roots & {"torchvision", "tensorflow", "pickle"}, f"{path} imports {roots}"


PACKAGE_ORDER = {
    "datasets": (
        "files",
        "geometry",
        "(room)",
        "storage benchmarks",
        "labels metrics ground_truth",
        "sources reviews",
        "store_ops loading log_checks cli",
    ),
    "models": ("ops", "networks", "(room)", "checkpoints", "training inference"),
    "autolabel": (
        "refinement",
        "instances",
        "confidence",
        "labeling auditing selection",
        "cluster calibration",
        "training",
        "commands",
        "(room)",
    ),
    "viz": (
        "session",
        "render",
        "review",
        "window browser html_report",
        "commands",
        "(room)",
    ),
}
"""Packages of a room; each imports those of earlier lines only. ``(room)``: modules beside them."""


OLD_PLACES = {"datasets/label_store.py"}
"""Kept for users' scripts, of what moved into a package."""


def package_of(room: str, parts: Sequence[str]) -> str:
    """Package of a path or dotted name below a room."""
    return parts[0] if parts and (ROOT / room / parts[0]).is_dir() else "(room)"


@pytest.mark.parametrize("room", PACKAGE_ORDER)
def test_packages_import_in_their_order(room: str) -> None:
    level = {package: k for k, line in enumerate(PACKAGE_ORDER[room]) for package in line.split()}
    for path in sorted((ROOT / room).rglob("*.py")):
        if path.relative_to(ROOT).as_posix() in OLD_PLACES:
            continue
        ours = package_of(room, path.relative_to(ROOT / room).parts)
        for node in statements(path):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            root, *rest = node.module.split(".")
            if root != room:
                continue
            for parts in [rest] if rest else [[alias.name] for alias in node.names]:
                theirs = package_of(room, parts)
                assert theirs == ours or level[theirs] < level[ours], f"{path}: {node.module}"


def test_no_folder_has_more_than_twenty_modules() -> None:
    for room in ROOMS:
        for folder in {path.parent for path in (ROOT / room).rglob("*.py")}:
            assert len(list(folder.glob("*.py"))) <= 20, folder


def test_a_forbidden_import_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        "def f():\n    from autolabel.cluster.ray_cluster import x\n    import ray.util\n"
    )
    assert imported_roots(path) == {"autolabel", "ray"}


@pytest.mark.parametrize(
    "room", ["autolabel", "viz", "scripts", "scripts/benchmarks", "scripts/conformance"]
)
def test_no_entry_folder_shadows_a_standard_module(room: str) -> None:
    names = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
    shadowing = names & set(sys.stdlib_module_names)
    assert shadowing == ({"inspect"} if room == "viz" else set())


def test_datasets_is_ours() -> None:
    import datasets

    assert Path(datasets.__file__ or "").resolve() == ROOT / "datasets" / "__init__.py"


def test_nothing_unpickles() -> None:
    for path in sources():
        for node in statements(path):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr != "load":
                continue
            where = f"{path}:{node.lineno}"
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if ast.unparse(node.func) == "torch.load":
                assert options.get("weights_only") == "True", where
            if ast.unparse(node.func) == "np.load":
                assert options.get("allow_pickle") == "False", where


COMMANDS = [
    "viz/inspect.py",
    "autolabel/run.py",
    *(
        path.relative_to(ROOT).as_posix()
        for folder in ("scripts", "scripts/benchmarks", "scripts/conformance")
        for path in sorted((ROOT / folder).glob("*.py"))
        if "__main__" in path.read_text()
    ),
]


@pytest.fixture(scope="module")
def asked() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Commands that were started; each loads much before it speaks, so the next ones are, too."""
    processes: dict[str, subprocess.Popen[str]] = {}
    yield processes
    for process in processes.values():
        if process.returncode is None:  # its test was not run
            process.kill()
            process.communicate()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_help_run_literally(
    command: str, asked: dict[str, subprocess.Popen[str]]
) -> None:
    k = COMMANDS.index(command)
    for one in COMMANDS[k : k + (os.cpu_count() or 1)]:
        if one not in asked:
            asked[one] = subprocess.Popen(
                [sys.executable, one, "--help"],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
    process = asked[command]
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "usage:" in out


def test_every_mode_of_chaos_finds_what_it_imports() -> None:
    folder = ROOT / "scripts" / "benchmarks"
    modes = sorted(path.stem for path in (folder / "chaos_modes").glob("*.py"))
    code = f"import sys; sys.path[0] = {str(folder)!r}; " + "; ".join(
        f"import chaos_modes.{mode}" for mode in modes
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=environment)
