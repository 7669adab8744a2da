"""Measure the review window: milliseconds from a key press to the next frame, frames/s in orbit.

    python scripts/benchmarks/viewer.py runs/quickstart/labels.zarr --root runs/city
    xvfb-run -s '-screen 0 1920x1080x24' python scripts/benchmarks/viewer.py STORE --root LOG \\
        --json scripts/benchmarks/viewer-cpu.json

Three scenes: the store's grid; the same labels refined to 512x512x40; nothing at all, the bound of
this machine's renderer. A step waits until the next frame was made ahead, as it is when a person
looks at each (``prefetched``), or leaps to one that was never read (``cold``). What counts is what
the X server shows: the middle of the 3D view is read back until it differs.
"""

from __future__ import annotations

import ctypes
import math
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import reporting
from open3d.visualization import gui

from datasets.cli.exit_codes import exit_code
from datasets.files.json_files import json_text
from datasets.geometry.grid import VoxelGrid
from datasets.labels.label_set import StoredLabels
from datasets.labels.store import FrameLabels
from viz.render.layers import LayerSettings
from viz.review.keys import Action
from viz.review.shared_review import SharedReview
from viz.review.state import ReviewState
from viz.review.writer import BackgroundWriter
from viz.session.session import ReviewSession, open_log
from viz.window.render_jobs import MadeView
from viz.window.saved_views import View
from viz.window.window import ReviewWindow

FINE = (512, 512, 40)
STEPS = 10
ORBIT_S = 5.0


class Refined:
    """The labels of a store on finer voxels, each frame by its nearest voxels."""

    def __init__(self, labels: StoredLabels, shape: tuple[int, int, int]) -> None:
        self._labels = labels
        coarse = labels.header.grid
        low, high = np.asarray(coarse.min_m), np.asarray(coarse.max_m)
        x, y, z = (float(s) for s in (high - low) / shape)
        self.header = replace(
            labels.header,
            name=f"{labels.header.name} refined",
            grid=VoxelGrid(min_m=coarse.min_m, size_m=(x, y, z), shape=shape),
        )
        nearest = [np.arange(n) * m // n for n, m in zip(shape, coarse.shape, strict=True)]
        self._index = np.ix_(*nearest)
        self.scene_ids, self.first_scene = labels.scene_ids, labels.first_scene

    def scene(self, scene_id: str) -> RefinedScene:
        return RefinedScene(self._labels.scene(scene_id), self._index)


class RefinedScene:
    def __init__(self, scene: Any, index: Any) -> None:
        self._scene, self._index = scene, index
        self.frame_tokens: tuple[str, ...] = scene.frame_tokens
        self.timestamps_us, self.T_global_grid = scene.timestamps_us, scene.T_global_grid
        self.inputs = scene.inputs

    def __len__(self) -> int:
        return len(self._scene)

    def frame(self, k: int) -> FrameLabels:
        labels: FrameLabels = self._scene.frame(k)
        fine = {
            name: getattr(labels, name)[self._index]
            for name in ("semantics", "confidence", "mask", "hits", "passes")
            if getattr(labels, name) is not None
        }
        finer: FrameLabels = replace(labels, flow=None, **fine)
        return finer


class Screen:
    """Pixels of a part of the X server's screen."""

    def __init__(self, left: int, top: int, width: int, height: int) -> None:
        self._x11 = ctypes.CDLL("libX11.so.6")
        self._x11.XOpenDisplay.restype = ctypes.c_void_p
        self._x11.XDefaultRootWindow.argtypes = [ctypes.c_void_p]
        self._x11.XDefaultRootWindow.restype = ctypes.c_ulong
        self._x11.XFree.argtypes = [ctypes.c_void_p]
        number = ctypes.c_int
        self._x11.XGetImage.argtypes = [ctypes.c_void_p, ctypes.c_ulong, number, number]
        self._x11.XGetImage.argtypes += [ctypes.c_uint, ctypes.c_uint, ctypes.c_ulong, number]
        self._x11.XGetImage.restype = ctypes.POINTER(_XImage)
        self._display = self._x11.XOpenDisplay(None)
        self._root = self._x11.XDefaultRootWindow(self._display)
        self._area = (left, top, width, height)

    def pixels(self) -> bytes:
        """As the server has them."""
        image = self._x11.XGetImage(self._display, self._root, *self._area, 2**32 - 1, 2)
        width, height = self._area[2:]
        pixels = ctypes.string_at(image.contents.data, 4 * width * height)
        self._x11.XFree(image.contents.data)
        self._x11.XFree(image)
        return pixels


class _XImage(ctypes.Structure):
    """The beginning of Xlib's struct."""

    _fields_ = (
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("xoffset", ctypes.c_int),
        ("format", ctypes.c_int),
        ("data", ctypes.c_void_p),
    )


class Bench:
    """Drives a window from a thread of its own."""

    def __init__(
        self, session: ReviewSession, show: LayerSettings, size_px: tuple[int, int]
    ) -> None:
        scene_id = session.labels.first_scene()
        frame = session.frame(scene_id, 0)
        tokens = {scene_id: session.tokens(scene_id)}
        self.state = ReviewState.of_frame(frame, tokens, show=show)
        writer = BackgroundWriter(SharedReview(None), "benchmark", lambda: None)
        self.window = ReviewWindow(
            session, self.state, writer, size_px=size_px, on_shown=self._on_shown
        )
        self.figures: dict[str, Any] = {}
        self._faces = 0

    def run(self) -> None:
        """In another thread than the interface."""
        self._idle(20.0)
        window, scene = self.window.window.os_frame, self.window.scene.widget.frame
        self._screen = Screen(
            window.x + scene.x + scene.width // 2 - 200,
            window.y + scene.y + scene.height // 2 - 150,
            400,
            300,
        )
        prefetched, cold = [math.nan], [math.nan]
        n = 0 if self.state.show.voxels == "none" else min(STEPS, self.state.n_frames - 1)
        for _ in range(n):
            self._idle(5.0)
            prefetched.append(self._step(lambda: self.window.act(Action.NEXT_FRAME)))
        for k in range(self.state.k + 2, self.state.n_frames if n else 0, 2):
            self._idle(5.0)
            cold.append(self._step(partial(self._go, k)))
        self._idle(5.0)
        self.figures = {
            "grid": list(self.state.grid.shape),
            "rectangles": self._faces,
            "step_ms_prefetched": _ms(prefetched),
            "step_ms_cold": _ms(cold),
            "orbit_fps": round(self._orbit(), 1),
            "steps": n,
        }
        self._post(self.window.window.close)

    def _on_shown(self, view: MadeView) -> None:
        meshes = [mesh for mesh, _ in view.geometry.values() if hasattr(mesh, "triangle")]
        self._faces = sum(len(mesh.triangle.indices) // 2 for mesh in meshes)

    def _go(self, k: int) -> None:
        """To a frame that was not made ahead."""
        self.state.go(self.state.scene_id, k)
        self.window.refresh()

    def _step(self, act: Callable[[], None]) -> float:
        before = self._screen.pixels()
        begin = time.perf_counter()
        self._post(act)
        self._changed(before)
        return time.perf_counter() - begin

    def _orbit(self) -> float:
        """Frames/s while the camera circles; each is waited for."""
        scene, count = self.window.scene, 0
        view = scene.view()
        eye, target = np.asarray(view.eye_m), np.asarray(view.target_m)
        begin = time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < ORBIT_S:
            count += 1
            angle = 0.05 * count
            c, s = np.cos(angle), np.sin(angle)
            offset = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ (eye - target)
            x, y, z = (float(v) for v in target + offset)
            before = self._screen.pixels()
            self._post(partial(self._look, replace(view, eye_m=(x, y, z))))
            self._changed(before)
        return count / elapsed

    def _look(self, view: View) -> None:
        self.window.scene.look(view)
        self.window.window.post_redraw()

    def _changed(self, before: bytes) -> None:
        end = time.monotonic() + 60
        while self._screen.pixels() == before:
            if time.monotonic() > end:
                raise TimeoutError("the screen did not change within 60 s")
            time.sleep(0.001)

    def _idle(self, limit_s: float) -> None:
        """Until this process rests: what can be made ahead is made."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            before = time.process_time()
            time.sleep(0.3)
            if time.process_time() - before < 0.04:
                return

    def _post(self, act: Callable[[], Any]) -> None:
        """Have the interface do it, and wait until it did."""
        done = threading.Event()

        def run() -> None:
            act()
            done.set()

        gui.Application.instance.post_to_main_thread(self.window.window, run)
        done.wait(120)


def _ms(seconds: list[float]) -> float | None:
    measured = seconds[1:]
    return round(1e3 * statistics.median(measured), 1) if measured else None


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    parser.add_argument("store", type=Path, help="label store")
    parser.add_argument("--root", type=Path, help="its log, for images and points")
    parser.add_argument("--source", default="city")
    parser.add_argument("--size", default="1920x1080", metavar="WxH", help="of the window")
    options = parser.parse_args()
    width, height = (int(n) for n in options.size.split("x"))
    labels = StoredLabels(options.store)
    log = open_log(options.source, options.root) if options.root else "no log"
    gui.Application.instance.initialize()
    results: dict[str, Any] = {}
    fine = Refined(labels, FINE)
    for name, session, show in (
        (
            "empty",
            ReviewSession(labels, log),
            LayerSettings(voxels="none", points="off", rings=False),
        ),
        ("store", ReviewSession(labels, log), LayerSettings()),
        ("refined", ReviewSession(fine, log), LayerSettings()),
    ):
        bench = Bench(session, show, (width, height))
        thread = threading.Thread(target=bench.run, daemon=True)
        thread.start()
        gui.Application.instance.run()
        bench.window.end()
        thread.join(5)
        results[name] = bench.figures
        print(name, json_text(bench.figures), flush=True)
    results["machine"] = f"{platform.processor() or platform.machine()}, window {options.size}"
    reporting.write_figures(results, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
