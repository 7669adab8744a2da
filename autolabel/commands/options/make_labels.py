"""Build Occ3D label files from a log's LiDAR, boxes and, where it has them, point classes.

    python scripts/make_labels.py --source nuscenes --root DIR --split train --out DIR
    python scripts/make_labels.py --source folder --root DIR --split all --out DIR --past-sweeps 4
    python scripts/make_labels.py --root DIR --split SCENE --out DIR --hold-out TOKEN

What cannot be known is said: returns that measure nothing, scenes that nobody annotated (what moves
leaves trails there), key-frames without annotations (boxes between annotated ones are moved evenly;
elsewhere the frame is quarantined).

Labels go to ``OUT/gts/<scene>/<token>/labels.npz``. How they are built, and what is left out of the
recipe of Occ3D: datasets/ground_truth/scene_reconstruction.py. A frame or scene whose data are bad
is quarantined and named in ``OUT/make_labels.json``; the others go on, and the exit code is 1.

The returns of a key-frame that is held out are not used; it is labeled from the others, and the
share of its returns that end in occupied voxels of the right class is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.options import CommandParser, add_log


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add_log(parser, source="nuscenes", required=True)
    add = parser.add_argument
    add("--split", required=True, help="a split, or scenes separated by commas")
    add("--out", type=Path, required=True, help="folder for gts/")
    add("--past-sweeps", type=int, default=9, help="sweeps beside each key sweep, if there")
    add("--no-height-correction", action="store_true", help="trust the heights of the poses")
    add("--hold-out", nargs="+", default=[], metavar="TOKEN", help="key-frames not to use")
    add("--evidence", action="store_true", help="hits and passes beside, in evidence.npz")
    add(
        "--vehicle",
        nargs=6,
        type=float,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="the vehicle itself, lower and upper corner in its frame, meters (default: as the "
        "log states)",
    )
    args = parser.parse_args(argv)
    if args.past_sweeps < 0:
        parser.error("--past-sweeps must not be negative")
    return args
