"""Give weights a calibration table: what does their confidence mean on labeled scenes?

    python scripts/calibrate.py imported.safetensors --source nuscenes --root DIR -o OUT.safetensors

Imported weights have none, so their softmax is taken at its word. Use scenes that the weights were
not trained on. ``scripts/train_teacher.py`` does this itself, on scenes it holds out.

    python scripts/calibrate.py T.safetensors --adapt runs/labels.zarr -o OUT.safetensors
    python scripts/calibrate.py T.safetensors --adapt DIR --source folder --split SCENES -o OUT

``--adapt`` moves a calibration to another log by a handful of frames of it: those of a label store
that were accepted, rejected or painted in ``viz/inspect.py``, or those of a log with ground truth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.options import CommandParser, add_device, add_log_of_store, add_truth
from datasets.files.store_path import parse_store_path


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add = parser.add_argument
    add("weights", type=Path)
    add("-o", "--out", type=Path, required=True, help="weights file to write")
    add_log_of_store(parser)
    add("--split", default="val", help="scenes with ground truth")
    add_truth(parser)
    add("--fast", action="store_true", help="for labels made with --fast")
    add("--flips", action="store_true", help="for labels made with --flips")
    add(
        "--refine",
        action="store_true",
        help="learn what other frames of a drive say about each, for labels made with them",
    )
    add(
        "--balance",
        action="store_true",
        help="shift the logits of the teacher's classes so that mIoU is best on these scenes: for "
        "weights whose training saw rare classes more often",
    )
    add(
        "--adapt",
        type=parse_store_path,
        metavar="STORE_OR_LOG",
        help="keep the calibration and move it to the log of a reviewed store, or to a log with "
        "ground truth",
    )
    add("--frames", type=int, metavar="N", help="with --adapt: at most N frames, evenly spread")
    add_device(parser)
    args = parser.parse_args(argv)
    if args.frames is not None and (args.adapt is None or args.frames < 1):
        parser.error("--frames N goes with --adapt, and is positive")
    if args.adapt is not None and (args.fast or args.flips or args.refine or args.balance):
        parser.error(
            "--adapt keeps how labels are made: leave out --fast, --flips, --refine and --balance"
        )
    return args
