"""Every result is whole or as it was before, also after the machine died at any moment."""

from __future__ import annotations

import ast
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from label_scenes import header, scene
from matplotlib.figure import Figure
from PIL import Image

from autolabel.cluster.events import Events
from datasets.benchmarks.label_files import write_npz, write_rows
from datasets.benchmarks.semantic_kitti import GRID, write_bits
from datasets.files.json_files import write_json
from datasets.files.replacing import make_folder, replacing, write_file, write_text
from datasets.labels.store import LabelStore
from datasets.storage.backend import LocalBackend
from models.checkpoints.checkpoint import save_checkpoint
from models.training.report import TrainingLog, draw_curves
from models.training.resume_state import save_state
from viz.commands.write_report import _write as write_report
from viz.window.saved_views import write_views

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("datasets", "models", "autolabel", "viz", "scripts")

Steps = list[tuple[str, Path]]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """What reaches the disk, in order: ``fsync`` of a path, ``replace`` by a final name."""
    found: Steps = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def synced(descriptor: int) -> None:
        found.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    def moved(how: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
        def move(old: Path, new: Path) -> None:
            found.append(("from", Path(old)))
            found.append(("to", Path(new)))
            how(old, new)

        return move

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved(replace))
    monkeypatch.setattr(os, "rename", moved(rename))
    return found


def save_figure(path: Path) -> None:
    with replacing(path) as partial:
        Figure().savefig(partial)


def save_picture(path: Path) -> None:
    with replacing(path) as partial:
        Image.new("RGB", (2, 2)).save(partial)


WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "JSON report": ("report.json", lambda path: write_json(path, {"a": 1})),
    "list of scenes": ("chosen.txt", lambda path: write_text(path, "s1\n")),
    "HTML report": ("report.html", lambda path: write_report(path, "<html>")),
    "training state": ("state.pt", lambda path: save_state(path, {"step": 1})),
    "weights": (
        "w.safetensors",
        lambda path: save_checkpoint(path, torch.nn.Linear(2, 2), "city_tiny", {}),
    ),
    "curves": ("curves.png", lambda path: draw_curves([{"step": 1, "lr": 0.1, "loss": 1.0}], path)),
    "figure": ("figure.png", save_figure),
    "screenshot": ("shot.png", save_picture),
    "export, npz": ("labels.npz", lambda path: write_npz(path, {"a": np.zeros(2)})),
    "export, npy": ("rows.npy", lambda path: write_rows(path, np.zeros((2, 3)))),
    "export, bits": ("f.invalid", lambda path: write_bits(path, np.zeros(GRID.shape, np.bool_))),
    "views": ("views.json", lambda path: write_views(path, {})),
    "store document": ("zarr.json", lambda path: LocalBackend(path.parent).write(path.name, b"{}")),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_result_is_on_the_disk_before_it_takes_its_place(
    kind: str, tmp_path: Path, steps: Steps
) -> None:
    name, write = WRITERS[kind]
    path = tmp_path / name
    path.write_bytes(b"before")
    steps.clear()
    write(path)
    partial = next(p for what, p in steps if what == "from")
    assert partial.parent == tmp_path and partial.name[0] == "."
    assert steps == [
        ("fsync", partial),
        ("from", partial),
        ("to", path),
        ("fsync", tmp_path),
    ]
    assert path.read_bytes() != b"before"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_scene_is_on_the_disk_before_its_folder_appears(tmp_path: Path, steps: Steps) -> None:
    store = LabelStore.create(tmp_path / "labels.zarr", header())
    steps.clear()
    store.write_scene(scene("s1"))
    at = next(k for k, (what, p) in enumerate(steps) if what == "to" and p.name == "s1")
    partial = steps[at - 1][1]
    synced = {p for what, p in steps[:at] if what == "fsync"}
    final = tmp_path / "labels.zarr" / "scenes" / "s1"
    written = {partial / p.relative_to(final) for p in final.rglob("*")}
    marker = partial / "zarr.json"
    assert written - synced == {marker}  # it has its own name before it is renamed
    assert ("to", marker) in steps[:at] and ("fsync", partial) in steps[:at]
    assert ("fsync", final.parent) in steps[at:]


def test_events_and_the_lines_of_a_training_are_on_the_disk_at_their_end(
    tmp_path: Path, steps: Steps
) -> None:
    events = Events(tmp_path / "events.jsonl")
    events("job ended")
    assert steps == []  # not for each line
    events.close()
    assert ("fsync", tmp_path / "events.jsonl") in steps
    with TrainingLog(tmp_path / "run", start=0, steps=1, log_every=1):
        steps.clear()
    assert ("fsync", tmp_path / "run" / "log.jsonl") in steps


def test_new_folders_last_as_well(tmp_path: Path, steps: Steps) -> None:
    write_file(tmp_path / "a" / "b" / "f", b"x")
    folders = [p for what, p in steps if what == "fsync" and p.is_dir()]
    assert folders == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    steps.clear()
    make_folder(tmp_path / "a" / "b")
    assert steps == []


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_a_failed_writer_leaves_what_was_there(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "f.txt"
    path.write_text("before")
    with pytest.raises(type(error)), replacing(path) as partial:
        partial.write_text("half")
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"] and path.read_text() == "before"


def test_a_link_is_followed_and_a_pipe_written_to(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("before")
    (tmp_path / "link.txt").symlink_to("real.txt")
    write_text(tmp_path / "link.txt", "after")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "after"
    os.mkfifo(tmp_path / "pipe")
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_text(tmp_path / "pipe", "hello")
    reader.join(10)
    assert told == ["hello"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


MAY_RENAME = {
    "datasets/files/replacing.py": "the helper itself",
    "datasets/storage/atomic_files.py": "folders, and files that must not be there yet",
    "datasets/storage/remote_path.py": "copies of a log, which go with the process",
    "datasets/sources/synthetic/city.py": "a folder that is made again at will",
}
MAY_WRITE = {
    "datasets/files/replacing.py": "the helper itself",
    "datasets/sources/synthetic/export/nuscenes_tables.py": "of a folder renamed as a whole",
    "datasets/sources/synthetic/export/nuscenes_writer.py": "as above",
    "viz/render/scene3d.py": "a file for a child process",
    "viz/render/video.py": "is given the helper's file",
    "scripts/benchmarks/label_study/running.py": "what a part printed",
    "datasets/files/appending.py": "lines and records that follow others",
    "datasets/storage/atomic_files.py": "files that must not be there yet",
    "datasets/storage/remote_path.py": "copies of a log, which go with the process",
    "viz/render/offscreen.py": "what a child process prints",
}
DIRECT = {"write_text", "write_bytes", "savez", "savez_compressed", "savefig", "save_file"} | {
    "tofile",
}
FUNCTIONS = {"np.save", "torch.save", "cv2.imwrite", "cv2.VideoWriter", "json.dump", "pickle.dump"}


def opens_to_write(node: ast.Call, name: str) -> bool:
    """``open(path, "w")``, ``path.open("ab")`` and the like."""
    if name != "open":
        return False
    given = [*node.args, *(k.value for k in node.keywords if k.arg == "mode")]
    texts = [one.value for one in given[:2] if isinstance(one, ast.Constant)]
    modes = (set(text) for text in texts if isinstance(text, str))
    return any(mode <= set("wxabt+") and mode & set("wxa") for mode in modes)


def calls(path: Path) -> set[str]:
    """``moves`` and ``writes`` that a source has outside a ``with replacing(...)``."""
    found: set[str] = set()

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.With):
            inside = inside or any("replacing(" in ast.unparse(i) for i in node.items)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            name = node.func.id if isinstance(node.func, ast.Name) else name
            method = isinstance(node.func, ast.Attribute)
            if method and name in ("replace", "rename") and len(node.args) == 1:
                found.add("moves")
            if ast.unparse(node.func) in ("os.replace", "os.rename"):
                found.add("moves")
            if name in DIRECT and not inside and (method or name == "save_file"):
                found.add("writes")
            if (ast.unparse(node.func) in FUNCTIONS or opens_to_write(node, name)) and not inside:
                found.add("writes")
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(path.read_text()), inside=False)
    return found


def test_results_are_written_by_the_one_helper() -> None:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            name, found = path.relative_to(ROOT).as_posix(), calls(path)
            if "chaos_modes" in name or path.name.startswith("label_store"):
                continue  # they make damage, or measure bare writers
            assert "moves" not in found or name in MAY_RENAME, (
                f"{name}: use datasets.files.replacing"
            )
            assert "writes" not in found or name in MAY_WRITE, (
                f"{name}: use datasets.files.replacing"
            )


def test_a_write_past_the_helper_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("p.write_text('x')\nq.replace(p)\n")
    assert calls(path) == {"moves", "writes"}
    path.write_text("with replacing(p) as q:\n    q.write_text('x')\ns = s.replace('a', 'b')\n")
    assert calls(path) == set()
    opened = ["p.open('w')", "open(p, 'ab')", "p.open(mode='x')"]
    for text in [*opened, "np.save(p, a)", "a.tofile(p)"]:
        path.write_text(text)
        assert calls(path) == {"writes"}, text
        path.write_text(f"with replacing(p) as q:\n    {text}")
        assert calls(path) == set(), text
    path.write_text("open(p)\nopen(p, 'rb')\np.open()\np.open('r', encoding='utf-8')\n")
    assert calls(path) == set()
