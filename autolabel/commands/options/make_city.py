"""Generate the simulated city: a nuScenes root with Occ3D and OpenOcc (flow) labels.

    python scripts/make_city.py --root data/city --scenes 30
    python scripts/make_city.py --root data/city-full --scenes 10 --seed 3 --profile full
    python scripts/make_city.py --root data/city-tiny --labeled 1 --unlabeled 1 --val 1 --frames 2
    python scripts/make_city.py --statistics data/city --sheet city.png

``--scenes N``: N training scenes, a fifth of them (at least one) labeled and the others not, and
as many validation scenes as labeled ones. ``--labeled``, ``--unlabeled`` and ``--val`` name the
three numbers instead. The ``tiny`` profile has images of 96x256 and 8 key-frames a scene, the
``full`` one the sizes of nuScenes: 900x1600 and 40. Both have 32 beams, 20 sweeps a second.

A folder that already holds the same city is kept as it is; one that holds anything else is refused.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.options import CommandParser, add_version
from datasets.sources.synthetic import PROFILES


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for a bad one."""
    parser = CommandParser(__doc__)
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--root", type=Path, help="folder to create")
    either.add_argument("--statistics", type=Path, metavar="ROOT", help="count classes and end")
    add = parser.add_argument
    add("--sheet", type=Path, help="write an image of the city to this file")
    add("--seed", type=int, default=0)
    add("--profile", choices=PROFILES, default="tiny")
    add("--scenes", type=int, help="training scenes, a fifth of them labeled")
    add("--labeled", type=int, default=0, help="training scenes with labels")
    add("--unlabeled", type=int, default=0, help="training scenes without")
    add("--val", type=int, default=0, help="validation scenes")
    add("--frames", type=int, help="key-frames of a scene")
    add("--image", metavar="HxW", type=_size, help="pixels of an image")
    add("--pose-noise-m", type=float, default=0.0, help="error of ego poses")
    add("--pose-noise-deg", type=float, default=0.0, help="error of headings")
    add("--flat-poses", action="store_true", help="ego poses at z = 0")
    add("--workers", type=int, help="processes; one per core by default")
    add_version(parser)
    return parser.parse_args(argv)


def _size(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 96x256")
    return int(match[1]), int(match[2])
