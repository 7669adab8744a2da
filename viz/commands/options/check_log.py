"""Check a log before labeling it: what is missing, damaged or implausible.

    python scripts/check_log.py DIR
    python scripts/check_log.py DIR --scene drive-07 --image overlay.png
    python scripts/check_log.py DIR --source nuscenes --frames 0

Per scene: files there and readable, times, poses and units, whether static structure of every
LiDAR stays in place under the stated poses and extrinsics (and how much less without them), height
and tilt of the ground, ranges and intensities, whether depth edges of the LiDAR lie on edges of
each image, and annotations that cannot be. A fault of one camera is told from three scenes on. A
frame that lacks a camera is only noted: it can be labeled. A cause is named where it fits clearly
better than what the log states; whether colors are BGR is not tested. --image draws a frame's
LiDAR and boxes over its cameras: points, colored by depth, must sit on what they hit.

Exit codes: 0 nothing bad found, 1 something missing or implausible, 2 the log cannot be opened.

The folder of one's own log (--source folder), in short; datasets/sources/folder.py has all of it:

  log.json                      {"format": "autolabel-folder", "version": 1, "name": "my-log",
                                 "licence": "ours"}
  scenes/<id>/scene.json        cameras, lidars, sweeps and frames with their poses and files
  scenes/<id>/annotations.json  boxes (optional)
  images as JPEG, PNG, TIFF, WEBP or BMP; points as .npz (points (N, 4) float32), .bin (float32)
  or .ply
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.options import CommandParser, add_table_version
from datasets.sources import SOURCES


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("root", type=Path, metavar="DIR", help="the log")
    add("--source", choices=SOURCES, default="folder", help="kind of log")
    add_table_version(parser)
    add("--scene", help="only this scene")
    add("--frames", type=int, default=20, help="open files of so many (0: all, and all sweeps)")
    add("--image", type=Path, metavar="PNG", help="draw LiDAR and boxes over the cameras")
    parser.rename(picture="image")
    args = parser.parse_args(argv)
    if args.frames < 0:
        parser.error(f"--frames must not be negative, got {args.frames}")
    return args
