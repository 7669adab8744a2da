"""The options that training a teacher and training a student share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.cli.commands import COMMANDS
from datasets.cli.options import CommandParser, add_device, add_labeled, add_log, add_truth
from datasets.errors import SetupError
from models import RECIPE_NAMES


def training_parser(description: str, *, default: str, out: str) -> CommandParser:
    """The shared options; a command adds its own.

    Args:
        default: name of the recipe.
        out: default folder of the run.
    """
    parser = CommandParser(description, epilog=f"recipes: {', '.join(RECIPE_NAMES)}")
    log = parser.add_argument_group("log and labels")
    add_log(log)
    add_labeled(log)
    add_truth(log)
    add = parser.add_argument_group("training").add_argument
    add("--recipe", default=default, metavar="NAME", help="see below")
    add("--preset", help="network, if not the recipe's")
    add("--init", type=Path, metavar="WEIGHTS", help="start from a weights file: fine-tune")
    add("--init-parts", nargs="+", metavar="PART", help="only these of it: img_backbone, say")
    add("--steps", type=int, help="instead of the recipe's length")
    add("--epochs", type=float, help="instead of the recipe's length")
    add("--batch", type=int, help="frames of a step, over all processes and accumulated parts")
    add("--learning-rate", type=float, help="default: the recipe's times sqrt(batch ratio)")
    add(
        "--accumulation-steps",
        dest="parts",
        type=int,
        default=1,
        help="compute a batch in so many parts, for want of memory",
    )
    add(
        "--mix",
        type=float,
        metavar="SHARE",
        help="of the frames with ground truth that get a sector of another, and an object",
    )
    add(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        help="default: the recipe's; float32 where the device emulates bfloat16",
    )
    add("--seed", type=int, default=0)
    add("--validate-split", help="scenes with ground truth that are scored at the end")
    add("--validate-every", type=int, default=0, metavar="STEPS", help="and every so many steps")
    machine = parser.add_argument_group("machine")
    add = machine.add_argument
    add("--out", type=Path, default=Path(out), help="folder of the run")
    add_device(machine)
    add("--threads", type=int, default=0, help="of torch on a CPU; resume with as many")
    add("--loaders", type=int, default=1, help="processes that prepare data")
    add("--memory-gib", type=float, default=0.0, help="keep so much of what a loader has read")
    add(
        "--nproc",
        dest="num_workers",
        type=int,
        default=1,
        help="processes that train together, by Ray Train",
    )
    add("--save-every", type=int, default=200, metavar="STEPS", help="keep a state to go on from")
    add("--log-every", type=int, default=20, metavar="STEPS")
    parser.rename(parts="accumulation-steps", num_workers="nproc")
    return parser


def parse_training(
    parser: CommandParser, name: str, argv: Sequence[str] | None
) -> argparse.Namespace:
    """The command line, with the ``command`` itself.

    Raises:
        SetupError: an option is bad, or lacks another.
    """
    args = parser.parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    args.command = " ".join(["python", COMMANDS[name].file, *words])
    if args.validate_every and not args.validate_split:
        raise SetupError("--validate-every needs --validate-split NAME")
    return args
