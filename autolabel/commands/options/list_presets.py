"""Print every network that can be built by name, with its size, and every training recipe.

    python scripts/list_presets.py

Sizes are counted from the built network. Exit code 1 if a count is not the one that its preset
states, which for published networks is the one that the published code gives.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from datasets.cli.options import CommandParser, add_version


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add_version(parser)
    return parser.parse_args(argv)
