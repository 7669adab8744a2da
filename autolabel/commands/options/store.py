"""Look after a label store.

    python scripts/store.py info STORE
    python scripts/store.py verify STORE                     # every committed scene, every byte,
                                                             # and every review
    python scripts/store.py diff STORE OTHER                 # by class and distance
    python scripts/store.py merge OUT STORE STORE ...        # parts that one job made apart
    python scripts/store.py prune STORE                      # what killed writers left
    python scripts/store.py export STORE --out DIR --format occ3d_nuscenes

A store is a folder or a URL such as s3://BUCKET/PREFIX. Exit codes: 0 all is well, 1 something is
not (it is named), 2 the command could not be carried out.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from datasets.benchmarks import WRITABLE
from datasets.cli.options import CommandParser, add_log_of_store, add_version
from datasets.files.store_path import parse_store_path


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        if name != "merge":
            sub.add_argument("store", type=parse_store_path)
        if name in ("verify", "export"):
            cores = len(os.sched_getaffinity(0))
            sub.add_argument("--workers", type=int, default=cores, help="processes (all cores)")
        return sub

    info = command("info", "what is in a store, and how it came about")
    info.add_argument("--json", action="store_true", help="for programs")
    command("verify", "read every byte of every scene and every review")
    other = command("diff", "compare two stores by class and distance")
    other.add_argument("other", type=parse_store_path)
    merge = command("merge", "put together parts that one job made apart")
    merge.add_argument("out", type=parse_store_path)
    merge.add_argument("stores", type=parse_store_path, nargs="+")
    prune = command("prune", "remove what killed writers left")
    prune.add_argument("--dry-run", action="store_true", help="only name it")
    export = command("export", "write the files of a benchmark")
    export.add_argument("--format", choices=WRITABLE, default=WRITABLE[0], help="of the files")
    add_log_of_store(export)
    export.add_argument("--out", type=Path, required=True)
    export.add_argument(
        "--no-reviews", action="store_true", help="as the teacher wrote them, whatever people said"
    )
    return parser.parse_args(argv)
