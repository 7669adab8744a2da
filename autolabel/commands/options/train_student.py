"""Train a camera-only student on pseudo-labels, ground truth, a teacher, or all of them.

    python scripts/train_student.py --labels runs/labels.zarr --out runs/student
    python scripts/train_student.py --labels DIR.zarr --labeled-split labeled ...
    python scripts/train_student.py --labeled-split labeled --unlabeled-split unlabeled \\
        --distill TEACHER.safetensors ...

Of a store, the trusted voxels that a camera sees count, each with its calibrated confidence as
weight; voxels that reviewers painted and frames that they rejected count as they said, unless
``--no-reviews``. ``--labeled-split`` adds scenes with ground truth. Without ``--distill`` no LiDAR
file and no teacher is opened. The log is the one that the store was made from, unless named.
Stopped and started again with the same options, and the same reviews, it goes on where it was.
Exit codes: 0 trained; 1 trained, but some frames are bad and were left out; 2 it could not be
trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from autolabel.commands.options.training import parse_training, training_parser
from datasets.files.store_path import parse_store_path


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = training_parser(__doc__, default="city_student", out="runs/student")
    parser.set_defaults(source=None, root=None)
    add = parser.add_argument
    add("--labels", type=parse_store_path, help="label store to learn from")
    add(
        "--balance",
        type=float,
        help="weigh classes that trust drops or trusts little, up to so much (10 where the store "
        "was made with --max-error, else 1: not at all)",
    )
    add("--no-reviews", action="store_true", help="labels as the teacher wrote them")
    add(
        "--labeled-split",
        dest="labelled_split",
        help="scenes whose ground truth is used as well",
    )
    add(
        "--ground-truth-share",
        dest="human_share",
        type=float,
        help="share of the frames drawn that have ground truth (as many as there are)",
    )
    _add_distillation(parser)
    parser.rename(human_share="ground-truth-share")
    return parse_training(parser, "train-student", argv)


def _add_distillation(parser: argparse.ArgumentParser) -> None:
    """``--distill`` and the switches of its parts; the defaults are the published choice."""
    add = parser.add_argument_group("distillation").add_argument
    add("--distill", type=Path, metavar="TEACHER", help="weights of the teacher to learn from")
    add(
        "--unlabeled-split",
        dest="unlabelled_split",
        help="scenes that the teacher alone teaches, without a label loss",
    )
    add("--no-inherit-head", action="store_true", help="do not begin with the teacher's head")
    add("--distill-bev", choices=("regions", "plain", "none"), default="regions")
    add("--no-distill-logits", action="store_true")
    add("--distill-regions", choices=("labels", "teacher"), default="labels")
    add(
        "--distill-where",
        choices=("all", "used"),
        default="all",
        help="all voxels, or those that the label loss reads",
    )
