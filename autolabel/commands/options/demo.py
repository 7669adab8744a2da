"""Label the simulated city, train a student on the labels, score both and draw an image.

    python scripts/demo.py
    python scripts/demo.py --out runs/demo --steps 150

The city is generated in runs/city on first use. Takes about four minutes on two cores.
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
    add("--out", type=Path, default=Path("runs/demo"), help="folder of what it makes")
    add("--steps", type=int, default=150, help="of the student's training")
    add_version(parser)
    return parser.parse_args(argv)
