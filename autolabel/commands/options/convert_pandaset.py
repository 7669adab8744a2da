"""Turn PandaSet sequences into a folder log that every command reads.

    python scripts/convert_pandaset.py PANDASET runs/pandaset
    python scripts/convert_pandaset.py PANDASET runs/parts --parts 30-49 50-79   # two scenes each
    python scripts/check_log.py runs/pandaset --image runs/pandaset.png
    python autolabel/run.py --source folder --root runs/pandaset --split all --store OUT.zarr

PANDASET holds NNN/ (images, poses, cuboids as CSV) and NNN_compact/ (exported points). The
published .pkl.gz files are pickles, which are never opened: datasets/sources/pandaset.py says what
to export. Every 10 Hz sweep is kept; the key-frames are those with images, or all of them. One
whose cuboids are damaged is named and written as not annotated; the exit code is then 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.options import CommandParser, add_version


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("source", type=Path, metavar="PANDASET")
    add("out", type=Path, help="folder to make; must not hold a log yet")
    add(
        "--parts",
        nargs="+",
        type=_part,
        default=[None],
        metavar="FIRST-LAST",
        help="scenes of these frames only, such as 30-49 50-79, instead of whole sequences",
    )
    add(
        "--key-frames",
        choices=("image", "sweep"),
        default="image",
        help="frames to label: those with an image (default), or every sweep",
    )
    add_version(parser)
    return parser.parse_args(argv)


def _part(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST-LAST")
    return int(first), int(last)
