"""What to label next: scenes, frames, and in them the voxels, told from a store of pseudo-labels.

    python scripts/select_scenes.py STORE --budget 10                       # scenes
    python scripts/select_scenes.py STORE --frames 40 --gap 5               # frames, apart in time
    python scripts/select_scenes.py STORE --budget 10 --voxels 1%           # 1 % of their voxels
    python scripts/select_scenes.py STORE --budget 10 --exclude labeled.txt \\
        --strategy disagreement --second OTHER_STORE

``entropy``: where the calibrated confidence is low; ``disagreement``: where a second teacher's
store, or else the frame before, says something else; ``audit``: the scores of an audit's report;
``diversity``: what differs most from all that is labeled or chosen; ``mix``: of the best by all
these scores the most diverse; ``random``. Classes count alike, whatever their voxels.

``--exclude`` names scenes that are labeled already. Those that are in the store count for
diversity, so label them too.

In ``--out``: ``chosen.txt``, one scene a line; with ``--budget`` ``labelled.txt``, these and the
excluded ones, for ``--labeled FILE`` of ``autolabel/run.py`` and of the trainings; with
``--frames`` ``frames.txt``, scene and frame token; ``voxels/SCENE/0007.npz`` for the frame of that
index with its ``token`` and ``mask``, (X, Y, Z) bool in the store's own voxels. Exit codes: 0
chosen; 1 chosen, but scenes are left out that cannot be judged (they are named); 2 the command
could not be carried out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.options import CommandParser, add_version
from datasets.files.store_path import parse_store_path

STRATEGIES = ("mix", "entropy", "disagreement", "audit", "diversity", "random")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("store", type=parse_store_path, metavar="STORE")
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--budget", type=int, metavar="N", help="scenes to choose")
    either.add_argument("--frames", type=int, metavar="N", help="frames to choose instead")
    add("--strategy", choices=STRATEGIES, default="mix")
    add(
        "--second",
        type=parse_store_path,
        metavar="STORE",
        help="the same scenes by another teacher",
    )
    add("--audit", type=Path, metavar="FILE", help="JSON with a score of each scene")
    add("--exclude", default="", metavar="FILE", help="scenes labeled already, or a comma list")
    add("--gap", type=int, default=4, help="frames between frames that are chosen in a scene")
    add("--voxels", default="", metavar="SHARE", help="of a frame's voxels, such as 1%%")
    add("--seed", type=int, default=0, help="of random, and of voxels that are equally unsure")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    add("--workers", type=int, default=cores, help="processes that read large stores (all cores)")
    add("--out", type=Path, default=Path("runs/selection"), metavar="DIR")
    add("--json", type=Path, metavar="FILE", help="the choice with its scores, for programs")
    add_version(parser)
    return parser.parse_args(argv)
