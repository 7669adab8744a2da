"""Export a camera student to ONNX for runtimes on board, and check it against PyTorch.

    python scripts/export_onnx.py --weights S.safetensors -o S.onnx --source nuscenes --root DIR
    python scripts/export_onnx.py --weights S.safetensors -o S.onnx --calibration input
    python scripts/export_onnx.py --preset flashocc_r50 -o untrained.onnx

With ``--calibration constant`` the graph is for one rig and has images as its only input. The rig
is that of the log at ``--root``, as mounted: the vehicle's motion between the cameras' captures is
not part of it. With ``--calibration input`` index tables computed from the calibration are inputs
as well (models/inference/onnx_export.py: rig_tables), and one file serves any rig with as many
cameras.

The file is checked in onnxruntime on the CPU before it is put in place: same images, same rig.
Without ``--root``, which only trained weights for one rig need, both are made up. The file's
metadata say how images must be prepared.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.options import CommandParser, add_log


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--weights", type=Path, help="student weights")
    either.add_argument("--preset", help="an untrained student, to try a runtime")
    add = parser.add_argument
    add("-o", "--out", type=Path, required=True, help="ONNX file to write")
    add("--calibration", choices=("constant", "input"), default="constant")
    add("--argmax", action="store_true", help="give classes instead of logits")
    add_log(parser, root=None)
    add("--scene", help="scene of the log (default: the first)")
    add("--frame", help="token of a key-frame of it (default: the first)")
    add("--threads", type=int, default=2, help="of PyTorch and of onnxruntime")
    args = parser.parse_args(argv)
    if args.root is None and (args.scene or args.frame):
        parser.error("--scene and --frame need --root")
    return args
