"""Train the LiDAR-camera teacher on the labeled share, calibrate it, write its weights.

    python scripts/train_teacher.py --out runs/teacher                      # the simulated city
    python scripts/train_teacher.py --source nuscenes --root DIR --recipe fusion_r18 ...
    python scripts/train_teacher.py --nproc 8 ...                           # 8 GPUs, by Ray Train

Scenes of the labeled split are divided: the last ones (``--held-out``) are never trained on;
they calibrate the confidence and give the printed scores. Stopped and started again with the
same options it goes on where it was. Exit codes: 0 trained; 1 trained, but some frames are bad and
were left out; 2 it could not be trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from autolabel.commands.options.training import parse_training, training_parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = training_parser(__doc__, default="city_teacher", out="runs/teacher")
    parser.add_argument("--split", default="labeled", help="scenes that carry ground truth")
    parser.add_argument("--held-out", type=int, default=2, help="scenes kept for calibration")
    return parse_training(parser, "train-teacher", argv)
