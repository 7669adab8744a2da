"""Import official EFFOcc or FlashOcc weights.

    python scripts/import_checkpoint.py epoch_42_ema.pth --preset fusion_r18_occ3d -o T.safetensors

Takes checkpoints with or without optimizer, EMA files, bare state dicts and, from a distillation
file, the student or the teacher, as the preset is. Everything must fit; nothing in the file is run.
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
    add("file", type=Path, help="official checkpoint (.pth, or .safetensors)")
    add("--preset", required=True, help="the network that it is of (list_presets.py lists them)")
    add("-o", "--out", type=Path, required=True, help="weights file to write")
    add_version(parser)
    return parser.parse_args(argv)
