"""Review the labels of a store: see a frame's voxels in 3D and over its images, judge, edit.

    python viz/inspect.py STORE
    python viz/inspect.py STORE --queue --audit audit.json
    python viz/inspect.py STORE --scene ID --frame 0 --screenshot FILE.png
    python viz/inspect.py STORE --scene ID --frames 0:20 --video FILE.mp4
    python viz/inspect.py STORE --serve
    python viz/inspect.py STORE --second OTHER --voxels difference
    python viz/inspect.py --truth DIR --source folder --root LOG

A window opens, unless an image, a video or a page for the browser is asked for: these need no
display. The log, for images and points, is the one that the store was made from, unless named; the
labels of a store whose log is gone are shown alone.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path

from datasets.benchmarks import NAMES
from datasets.cli.options import CommandParser, add_log_of_store
from datasets.files.store_path import parse_store_path

MASKS = ("trusted", "all", "lidar", "camera")
DEFAULT_SIZE_PX = (1920, 1080)
DEFAULT_FPS = 2.0
DEFAULT_PORT = 8080
MIN_SIZE_PX = (960, 540)
MAX_SIZE_PX = (7680, 4320)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = _parser()
    args = parser.parse_args(argv)
    if fault := _check(args):
        parser.error(fault)
    return args


def _parser() -> CommandParser:
    p = CommandParser(__doc__)
    add = p.add_argument
    add(
        "store",
        type=parse_store_path,
        nargs="?",
        metavar="STORE",
        help="label store, e.g. runs/labels.zarr",
    )
    add(
        "--truth",
        type=Path,
        metavar="DIR",
        help="instead of a store: folder of ground truth, e.g. the one of scripts/make_labels.py "
        "that holds gts/",
    )
    add("--benchmark", choices=NAMES, help=f"of the ground truth's files (default {NAMES[0]})")
    add("--scene", metavar="ID", help="scene id (default: the first of the store)")
    add("--frame", type=int, metavar="K", help="frame of the scene, from 0 (default 0)")
    add_log_of_store(p)

    beside = p.add_argument_group("to compare with")
    beside.add_argument(
        "--second", type=parse_store_path, metavar="STORE", help="a second store of the same log"
    )
    beside.add_argument(
        "--with-truth", type=Path, metavar="DIR", help="folder of ground truth, see --truth"
    )

    review = p.add_argument_group("review")
    review.add_argument(
        "--queue",
        action="store_true",
        help="review in this order: most suspect first, with frames drawn by chance between",
    )
    review.add_argument(
        "--audit",
        type=Path,
        nargs="+",
        metavar="FILE.json",
        help="reports of autolabel/audit.py or scripts/select_scenes.py that order the queue "
        "(default: the store's own confidence)",
    )
    review.add_argument(
        "--reviewer", metavar="NAME", help="who judges (default: the name of the user)"
    )

    layers = p.add_argument_group("layers, as they are at the start")
    layers.add_argument(
        "--mask",
        choices=MASKS,
        help="which occupied voxels to show: trusted, those the store trusts for training or the "
        "benchmark scores (default for a store); all (default for ground truth); lidar, those "
        "LiDAR observed; camera, those a camera sees",
    )
    layers.add_argument(
        "--voxels",
        choices=("labels", "truth", "second", "difference", "none"),
        default="labels",
        help="whose voxels; difference: against the second store, else the ground truth",
    )
    layers.add_argument(
        "--color",
        choices=("class", "confidence", "evidence", "object"),
        help="of the labels' voxels (default class); evidence: hit or passed by LiDAR; object: a "
        "color for each object that can move",
    )
    layers.add_argument(
        "--points",
        choices=("off", "height", "class", "hit"),
        default="height",
        help="LiDAR points by height (default), class of their voxel, or whether it is occupied",
    )
    layers.add_argument("--flow", action="store_true", help="arrows of the voxels that move")
    layers.add_argument("--boxes", action="store_true", help="boxes marked in the log")
    layers.add_argument(
        "--height", type=_heights, metavar="LO:HI", help="clip: metres of the grid's frame"
    )
    layers.add_argument("--classes", metavar="NAME,NAME", help="only these classes")

    out = p.add_argument_group("output")
    out.add_argument("--screenshot", type=Path, metavar="FILE.png", help="write an image")
    out.add_argument("--video", type=Path, metavar="FILE", help="write a video, .mp4 or .gif")
    out.add_argument(
        "--frames", type=_frames, metavar="A:B", help="of the video: A to B - 1 (default all)"
    )
    out.add_argument(
        "--fps", type=_fps, metavar="N", help=f"of the video, frames/s (default {DEFAULT_FPS:g})"
    )
    out.add_argument(
        "--serve",
        type=_port,
        nargs="?",
        const=DEFAULT_PORT,
        metavar="PORT",
        help=f"review in a browser on this machine, e.g. over ssh (default {DEFAULT_PORT})",
    )
    out.add_argument(
        "--size",
        type=_size,
        metavar="WxH",
        help="of the window, the screenshot or the video in pixels (default "
        f"{DEFAULT_SIZE_PX[0]}x{DEFAULT_SIZE_PX[1]})",
    )
    out.add_argument(
        "--renderer",
        choices=("auto", "open3d", "plain"),
        help="who draws the 3D view of a screenshot or video: auto (default) takes Open3D where "
        "it works here and our plain rasteriser elsewhere; the image says which",
    )
    return p


def _check(options: argparse.Namespace) -> str:
    """What is wrong with the options together, in one line; empty if nothing is."""
    given = {n for n, value in vars(options).items() if value is not None and value is not False}
    if ("store" in given) == ("truth" in given):
        return "name a STORE, or a folder with --truth"
    if "benchmark" in given and not given & {"truth", "with_truth"}:
        return "--benchmark needs --truth or --with-truth"
    outputs = [name for name in ("screenshot", "video", "serve") if name in given]
    if len(outputs) > 1:
        return f"--{outputs[0]} and --{outputs[1]} do not go together"
    drawn = bool(given & {"screenshot", "video"})
    for name, needed, why in (
        ("frames", "video" in given, "--video"),
        ("fps", "video" in given, "--video"),
        ("renderer", drawn, "--screenshot or --video"),
        ("audit", "queue" in given, "--queue"),
    ):
        if name in given and not needed:
            return f"--{name} needs {why}"
    if "truth" in given:
        for name in ("second", "with_truth", "queue", "reviewer"):
            if name in given:
                return f"--{name.replace('_', '-')} needs a STORE"
    for first, others in (
        ("video", ("frame",)),
        ("serve", ("size",)),
        ("queue", ("scene", "frame", "screenshot", "video")),
        ("reviewer", ("screenshot", "video")),
    ):
        for other in others:
            if first in given and other in given:
                return f"--{first} and --{other} do not go together"
    return _check_layers(options, given)


def _check_layers(options: argparse.Namespace, given: set[str]) -> str:
    voxels = options.voxels
    if voxels == "truth" and "with_truth" not in given:
        return "--voxels truth needs --with-truth"
    if voxels == "second" and "second" not in given:
        return "--voxels second needs --second"
    if voxels == "difference" and not given & {"second", "with_truth"}:
        return "--voxels difference needs --second or --with-truth"
    if options.color is not None and voxels != "labels":
        return f"--color is of labels; --voxels {voxels} has its own colors"
    if voxels == "none" and "flow" in given:
        return "--flow needs voxels"
    return ""


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


def _frames(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B with A below B, e.g. 0:20")
    return int(match[1]), int(match[2])


def _heights(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise argparse.ArgumentTypeError(f"{text!r} is not LO:HI with LO below HI, e.g. -1:2.5")
    return low, high


def _fps(text: str) -> float:
    try:
        fps = float(text)
    except ValueError:
        fps = math.nan
    if not 0.1 <= fps <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.1 to 60")
    return fps


def _port(text: str) -> int:
    if not (text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
