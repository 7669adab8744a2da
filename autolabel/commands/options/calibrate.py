"""Give weights a calibration table: what does their confidence mean on labeled scenes?

    python scripts/calibrate.py imported.safetensors --source nuscenes --root DIR -o OUT.safetensors

Imported weights have none, so their softmax is taken at its word. Use scenes that the weights were
not trained on. ``scripts/train_teacher.py`` does this itself, on scenes it holds out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.options import CommandParser, add_device, add_log, add_truth


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("weights", type=Path)
    add("-o", "--out", type=Path, required=True, help="weights file to write")
    add_log(parser)
    add("--split", default="val", help="scenes with ground truth")
    add_truth(parser)
    add("--fast", action="store_true", help="for labels made with --fast")
    add("--flips", action="store_true", help="for labels made with --flips")
    add(
        "--refine",
        action="store_true",
        help="learn what other frames of a drive say about each, for labels made with them",
    )
    add_device(parser)
    return parser.parse_args(argv)
