"""The command line of ``viz/inspect.py``: options in, a window or a picture out."""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.benchmarks.catalogue import NAMES, benchmark
from datasets.errors import AutolabelError, SetupError
from datasets.frames import SceneSource
from datasets.places import parse_where
from datasets.sources.opening import SOURCES
from viz.label_sets import StoredLabels, TrueLabels
from viz.layers import Show
from viz.review import MASKS, ReviewSession, open_log

DEFAULT_ROOT = Path("runs/city")
MIN_SIZE_PX = (960, 540)
MAX_SIZE_PX = (7680, 4320)


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, e.g. 1920x1080")
    width, height = int(match[1]), int(match[2])
    low, high = MIN_SIZE_PX, MAX_SIZE_PX
    if not (low[0] <= width <= high[0] and low[1] <= height <= high[1]):
        raise argparse.ArgumentTypeError(
            f"{text}: must lie between {low[0]}x{low[1]} and {high[0]}x{high[1]}"
        )
    return width, height


def parser() -> argparse.ArgumentParser:
    """Options of the command."""
    p = argparse.ArgumentParser(
        prog="python viz/inspect.py",
        description="Look at the labels of a store, or at a log's ground truth: voxels in 3D, "
        "LiDAR points, and the camera pictures with the labels drawn over them.",
        allow_abbrev=False,
    )
    p.add_argument(
        "store",
        type=parse_where,
        nargs="?",
        metavar="STORE",
        help="label store, e.g. runs/labels.zarr",
    )
    p.add_argument(
        "--truth",
        type=Path,
        metavar="DIR",
        help="instead of a store: folder of ground truth, e.g. the one of scripts/make_labels.py "
        "that holds gts/",
    )
    p.add_argument(
        "--benchmark", choices=NAMES, help=f"of the ground truth's files (default {NAMES[0]})"
    )
    p.add_argument("--scene", metavar="ID", help="scene id (default: the first of the store)")
    p.add_argument(
        "--frame", type=int, default=0, metavar="K", help="frame of the scene, from 0 (default 0)"
    )
    p.add_argument(
        "--source",
        choices=SOURCES,
        help="kind of the log (default: what the store says, else city)",
    )
    p.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="the log that was labelled, for its pictures and points (default for a city "
        f"{DEFAULT_ROOT}); without it the labels of a store are shown alone",
    )
    p.add_argument(
        "--mask",
        choices=tuple(MASKS),
        help="which occupied voxels to show: trusted, those the store trusts for training or the "
        "benchmark scores (default for a store); all (default for ground truth); lidar, those "
        "LiDAR observed; camera, those a camera sees",
    )
    p.add_argument(
        "--screenshot", type=Path, metavar="FILE.png", help="write a picture, open no window"
    )
    p.add_argument(
        "--size",
        type=_size,
        default=(1920, 1080),
        metavar="WxH",
        help="size of the window or the screenshot in pixels (default 1920x1080)",
    )
    p.add_argument(
        "--renderer",
        choices=("auto", "open3d", "plain"),
        default="auto",
        help="who draws the screenshot's 3D view: auto takes Open3D where it works here and our "
        "plain rasteriser elsewhere; the picture says which",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 0, or 2 for a user's fault."""
    p = parser()
    options = p.parse_args(argv)
    if (options.store is None) == (options.truth is None):
        p.error("name a STORE, or a folder with --truth")
    if options.benchmark and options.truth is None:
        p.error("--benchmark needs --truth")
    try:
        _inspect(options)
    except AutolabelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _inspect(options: argparse.Namespace) -> None:
    window = options.screenshot is None
    if not window and options.screenshot.suffix.lower() != ".png":
        raise SetupError(f"--screenshot {options.screenshot}: the name must end in .png")
    session = _session(options)
    scene_id = options.scene if options.scene is not None else session.labels.first_scene()
    frame = session.frame(scene_id, options.frame)
    mask = options.mask or ("trusted" if options.truth is None else "all")
    if window and _no_display():
        raise SetupError("there is no display to open a window on; use --screenshot FILE.png")
    for note in frame.notes:
        print(f"note: {note}", file=sys.stderr)
    if window:
        try:
            from viz.viewer import show
        except (ImportError, OSError) as error:
            why = str(error).splitlines()[0]
            raise SetupError(
                f"Open3D does not load ({why}); on Debian: apt install libusb-1.0-0 libgl1 "
                "libgomp1; --screenshot FILE.png works without it"
            ) from error
        show(session, frame, mask=mask, size_px=options.size)
        return

    from viz.screenshot import screenshot

    shot = screenshot(frame, show=Show(mask=mask), size_px=options.size, renderer=options.renderer)
    if shot.note:
        print(f"note: {shot.note}", file=sys.stderr)
    try:
        options.screenshot.parent.mkdir(parents=True, exist_ok=True)
        shot.picture.save(options.screenshot)
    except OSError as error:
        raise SetupError(f"--screenshot {options.screenshot}: {error.strerror}") from error
    print(f"{options.screenshot} (3D view drawn by {shot.drawn_by})")


def _session(options: argparse.Namespace) -> ReviewSession:
    if options.truth is not None:
        source = _log(options.source or "city", options.root)
        truth = benchmark(options.benchmark or NAMES[0])
        return ReviewSession(TrueLabels(truth, options.truth, source), source)
    labels = StoredLabels(options.store)
    try:
        return ReviewSession(labels, _log(options.source or labels.source, options.root))
    except SetupError as error:
        return ReviewSession(labels, str(error))


def _log(kind: str, root: Path | None) -> SceneSource:
    if root is None and kind not in ("city", ""):
        raise SetupError(f"name the {kind} log with --root")
    return open_log(kind or "city", root or DEFAULT_ROOT)


def _no_display() -> bool:
    """Open3D without a display goes on with no window, for ever."""
    if not sys.platform.startswith("linux") or os.environ.get("WAYLAND_DISPLAY"):
        return False
    if not os.environ.get("DISPLAY"):
        return True
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return False  # it cannot be asked
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XCloseDisplay.argtypes = (ctypes.c_void_p,)
    display = x11.XOpenDisplay(None)
    if display:
        x11.XCloseDisplay(display)
    return not display
