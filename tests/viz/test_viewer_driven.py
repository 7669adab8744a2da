"""The review window driven as a person would, by keys and clicks on a display of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from datasets.geometry.grid import VoxelGrid
from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.reviews.overlay import EditEntry, Reviews, Verdict, VerdictEntry
from datasets.taxonomy import OCC3D_NUSCENES
from viz.render.offscreen import Open3DProcess
from viz.render.scene3d import Scene3D

REPOSITORY = Path(__file__).resolve().parents[2]
GRID = VoxelGrid(min_m=(-10.0, -10.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(40, 40, 8))
N_FRAMES = 24
PATIENCE_S = 300.0
"""Processor seconds, of all its threads, that the window may need for anything: a busy machine
takes longer for them."""
LONGEST_S = 900.0
WIDTH, HEIGHT = 1100, 620


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A display that nobody else uses; skips where there is no Xvfb, xdotool or 3D drawing."""
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (apt install xvfb xdotool)")
    nothing = Scene3D(
        meshes=(), points=(), lines=(), eye_m=np.array([1.0, 0, 1]), target_m=np.zeros(3)
    )
    with Open3DProcess() as process:
        why = process.draw(nothing, width=64, height=64)
    if isinstance(why, str):
        pytest.skip(f"Open3D cannot draw on this machine: {why}")
    read, write = os.pipe()
    screen = ["-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-nolisten", "tcp"]
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), *screen],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    try:
        with os.fdopen(read) as output:
            number = output.readline().strip()
        if not number:
            pytest.skip("Xvfb does not start here")
        yield f":{number}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "labels.zarr"
    header = StoreHeader(
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        levels=(0.0, 0.5, 1.0),
        licence="none",
        provenance={},
        run_id="test",
    )
    semantics = np.full((N_FRAMES, *GRID.shape), OCC3D_NUSCENES.free_id, np.uint8)
    semantics[:, :, :, 1] = OCC3D_NUSCENES.id_of("driveable_surface")
    for k in range(N_FRAMES):
        semantics[k, 5 + k : 11 + k, 28:32, 2:5] = OCC3D_NUSCENES.id_of("car")
    LabelStore.create(path, header).write_scene(
        SceneLabels(
            scene_id="scene-a",
            frame_tokens=tuple(f"t{k}" for k in range(N_FRAMES)),
            timestamps_us=np.arange(N_FRAMES),
            T_global_grid=np.stack([np.eye(4)] * N_FRAMES),
            semantics=semantics,
            confidence=np.full(semantics.shape, 1, np.uint8),
            mask=np.full(semantics.shape, MaskBit.TRUSTED, np.uint8),
        )
    )
    return path


class Person:
    """Presses keys and clicks, and reads the window's title."""

    def __init__(self, display: str, window: subprocess.Popen[str]) -> None:
        self._env = {**os.environ, "DISPLAY": display}
        self._window = window

    def press(self, *keys: str) -> None:
        self._xdotool("key", *keys)

    def click(self, x: int, y: int) -> None:
        self._xdotool("mousemove", str(x), str(y))
        time.sleep(0.3)  # a person's hand: the press comes after the pointer has arrived
        self._xdotool("click", "1")

    def title(self) -> str:
        found = self._xdotool("search", "--onlyvisible", "--name", "frame").split()
        return self._xdotool("getwindowname", found[0]).strip() if found else ""

    def sees(self, title: str) -> None:
        """Waits until the window says so."""
        self.waits(lambda: self.title() == title, f"the title {title!r}")

    def waits(self, happened: Callable[[], object], what: str) -> None:
        """Waits until something happened, as long as the window may still compute on it."""
        computed, end = self._computed_s(), time.monotonic() + LONGEST_S
        while not happened():
            patient = self._computed_s() - computed < PATIENCE_S and time.monotonic() < end
            assert patient, f"waited in vain for {what}; the title is {self.title()!r}"
            time.sleep(0.05)

    def _computed_s(self) -> float:
        """Processor time of the window, seconds; 0 once it has ended."""
        try:
            with Path(f"/proc/{self._window.pid}/stat").open() as file:
                ticks = file.read().rpartition(")")[2].split()[11:13]
        except OSError:
            return 0.0
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def _xdotool(self, *arguments: str) -> str:
        if self._window.poll() is not None:
            assert self._window.stderr is not None
            pytest.fail(f"the window is gone: {self._window.stderr.read()}")
        return subprocess.run(
            ["xdotool", *arguments], env=self._env, capture_output=True, text=True, check=False
        ).stdout


@contextmanager
def opened(store: Path, display: str) -> Iterator[tuple[Person, subprocess.Popen[str]]]:
    environment = {
        **{k: v for k, v in os.environ.items() if k != "WAYLAND_DISPLAY"},
        "DISPLAY": display,
        "XDG_CONFIG_HOME": str(store.parent / "config"),
    }
    window = subprocess.Popen(
        [
            *(sys.executable, "viz/inspect.py", str(store), "--reviewer", "ann"),
            *("--size", f"{WIDTH}x{HEIGHT}", "--root", str(store.parent / "no-log")),
        ],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Person(display, window), window
    finally:
        if window.poll() is None:
            window.kill()
        window.communicate()


def checksums(store: Path) -> dict[str, str]:
    """Of every file of the store but the overlay."""
    return {
        str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(store.rglob("*"))
        if path.is_file() and "reviews" not in path.relative_to(store).parts
    }


def entries(store: Path, kind: type) -> list[object]:
    found = Reviews(LabelStore.open(store)).entries()
    return [entry.what for entry in found if isinstance(entry.what, kind)]


def test_a_person_steps_rejects_paints_undoes_and_finds_it_all_again(
    store: Path, display: str
) -> None:
    before = checksums(store)
    with opened(store, display) as (person, window):
        person.waits(person.title, "the window")
        person.sees("scene-a frame 0 not judged")
        for k in range(1, 21):
            person.press("Right")
            person.sees(f"scene-a frame {k} not judged")
        person.press("x")
        person.sees("scene-a frame 21 not judged")
        person.press("x")
        person.sees("scene-a frame 22 not judged")
        person.waits(lambda: len(entries(store, VerdictEntry)) == 2, "two verdicts")

        person.press("i", "i")  # box, then component
        person.press("Escape")  # drops the tool and closes nothing
        person.press("i", "i")
        person.click(WIDTH // 3, HEIGHT // 2)

        def painted() -> bool:  # until the selection is made, there is nothing to paint
            person.press("Return")
            time.sleep(0.5)
            return bool(entries(store, EditEntry))

        person.waits(painted, "the edit")
        (edit,) = entries(store, EditEntry)
        assert isinstance(edit, EditEntry)
        assert edit.token == "t22" and len(edit.voxels) > 50
        person.press("a")
        person.sees("scene-a frame 23 not judged")
        person.press("z")
        person.waits(lambda: len(entries(store, VerdictEntry)) == 2, "the verdict taken back")
        assert len(entries(store, EditEntry)) == 1
        person.press("z")
        person.waits(lambda: not entries(store, EditEntry), "the edit taken back")
        person.press("q")
        person.waits(lambda: window.poll() is not None, "the window's end")
        assert window.returncode == 0

    assert checksums(store) == before
    verdicts = Reviews(LabelStore.open(store)).verdicts("scene-a")
    assert {t: v.verdict for t, v in verdicts.items()} == {
        "t20": Verdict.REJECT,
        "t21": Verdict.REJECT,
    }

    with opened(store, display) as (person, _):
        person.waits(person.title, "the window")
        person.press("End")
        person.sees(f"scene-a frame {N_FRAMES - 1} not judged")
        for k in (22, 21):
            person.press("Left")
            said = "reject" if k == 21 else "not judged"
            person.sees(f"scene-a frame {k} {said}")
