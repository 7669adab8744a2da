"""How fast logs are read, beside the bare library calls on the same files.

    python scripts/benchmarks/log_readers.py
    python scripts/benchmarks/log_readers.py --source nuscenes --root DIR --frames 20

Per frame: every image decoded, the key sweep read, all sweeps brought into the ego frame, and the
whole input of a network prepared. One process, files in the page cache (a first pass is not
counted); medians over frames.
"""

from __future__ import annotations

import functools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import reporting
from PIL import Image
from tqdm import tqdm

from datasets.cli.exit_codes import exit_code
from datasets.frames import Frame, SceneSource, points_in_ego
from datasets.model_inputs import prepare_frame
from datasets.sources import SOURCES
from datasets.sources.opening import open_source
from models.presets import PRESETS, preset


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    parser.add_argument("--source", choices=SOURCES, default="city")
    parser.add_argument("--root", type=Path, default=Path("runs/city"))
    parser.add_argument("--preset", choices=sorted(PRESETS), default="fusion_r18_occ3d")
    parser.add_argument("--frames", type=int, default=20, help="at most so many")
    args = parser.parse_args()

    spec = preset(args.preset).inputs
    source = open_source(args.source, args.root, past_sweeps=spec.past_sweeps)
    frames = [f for s in source.scene_ids("all") for f in source.scene(s).frames][: args.frames]
    jobs: dict[str, tuple[Callable[[Frame], object], Callable[[Frame], object] | None]] = {}
    if any(frame.cameras for frame in frames):
        jobs["images"] = (lambda f: images(source, f), bare_images)
    if any(frame.lidar for frame in frames):
        jobs["key sweep"] = (lambda f: key_sweep(source, f), bare_sweep)
        jobs["all sweeps, ego frame"] = (
            lambda f: points_in_ego(source, f, past=spec.past_sweeps),
            None,
        )
    jobs[f"inputs of {args.preset}"] = (lambda f: prepare_frame(source, f, spec), None)

    figures: dict[str, dict[str, float]] = {}
    for name, (read, bare) in tqdm(jobs.items(), desc="readers", leave=False):
        rate = 1 / median_seconds(read, frames)
        size = statistics.mean(megabytes(name, frame) for frame in frames)
        figures[name] = {"frames/s": round(rate, 1), "MB/s": round(rate * size, 1)}
        if bare is not None:
            bare_rate = 1 / median_seconds(bare, frames)
            figures[name] |= {
                "bare library calls, frames/s": round(bare_rate, 1),
                "share of their rate %": round(100 * rate / bare_rate),
            }
    print(f"{len(frames)} frames of {args.root}; medians per frame\n")
    print(reporting.table_of(figures, "read"))
    reporting.write_figures({"frames": len(frames), "medians": figures}, args.json)
    return 0


def median_seconds(read: Callable[[Frame], object], frames: list[Frame]) -> float:
    calls = {k: functools.partial(read, frame) for k, frame in enumerate(frames)}
    return statistics.median(reporting.median_seconds(calls, rounds=1).values())


def megabytes(name: str, frame: Frame) -> float:
    """Bytes of the files that are read for a frame."""
    files = {view.path for view in frame.cameras}
    sweeps = (frame.lidar, *frame.past_sweeps) if frame.lidar else ()
    if name == "key sweep":
        files, sweeps = set(), sweeps[:1]
    elif name == "images":
        sweeps = ()
    elif name.startswith("all sweeps"):
        files = set()
    return sum(p.stat().st_size for p in files | {s.path for s in sweeps}) / 1e6


def images(source: SceneSource, frame: Frame) -> None:
    for view in frame.cameras:
        source.read_image(view)


def bare_images(frame: Frame) -> None:
    for view in frame.cameras:
        with Image.open(view.path) as image:
            np.asarray(image.convert("RGB"))


def key_sweep(source: SceneSource, frame: Frame) -> None:
    if frame.lidar:
        source.read_points(frame.lidar)


def bare_sweep(frame: Frame) -> None:
    if frame.lidar:
        np.fromfile(frame.lidar.path, np.float32)


if __name__ == "__main__":
    sys.exit(exit_code(main))
