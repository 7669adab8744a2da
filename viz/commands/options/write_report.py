"""One self-contained HTML page on a label store: what is in it, how sure, how right, what to mend.

    python viz/report.py STORE
    python viz/report.py STORE --audit audit.json --truth DIR --out report.html

The page asks for nothing from anywhere and needs no script. Exit codes: 0 done, 1 done, and some
scene could not be read (the page names it), 2 cannot start.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.benchmarks import NAMES
from datasets.cli.options import CommandParser, add_log_of_store
from datasets.files.store_path import parse_store_path


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("store", type=parse_store_path, metavar="STORE", help="label store, e.g. runs/labels.zarr")
    add("--out", type=Path, default=Path("report.html"), metavar="FILE.html", help="the page")
    add_log_of_store(parser)
    add("--audit", type=Path, metavar="FILE.json", help="report of autolabel/audit.py --json")
    add("--truth", type=Path, metavar="DIR", help="folder of ground truth to compare with")
    add("--benchmark", choices=NAMES, help="of the ground truth (default: that with these voxels)")
    add(
        "--images",
        type=int,
        default=6,
        metavar="N",
        help="how many of the worst scenes to draw",
    )
    add(
        "--renderer",
        choices=("auto", "open3d", "plain"),
        default="auto",
        help="who draws 3D views: auto takes Open3D where it works here and our plain rasteriser "
        "elsewhere; the page says which",
    )
    parser.rename(pictures="images")
    args = parser.parse_args(argv)
    if args.benchmark and args.truth is None:
        parser.error("--benchmark needs --truth")
    if args.images < 0:
        parser.error("--images must not be negative")
    return args
