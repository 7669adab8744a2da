"""The console command ``autolabel``: every command of this software by its name."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``autolabel NAME ...``; gives the exit code."""
    if fault := _other_datasets():
        print(f"error: {fault}", file=sys.stderr)
        return 2
    # not before: another package of that name may be in the way
    from datasets.cli.commands import COMMANDS
    from datasets.cli.launch import launch
    from datasets.cli.options import software_version
    from datasets.names import did_you_mean

    name, *words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: autolabel COMMAND ...\n\ncommands:")
        for command, facts in COMMANDS.items():
            print(f"  {command:<18} {facts.summary}")
        print("\nautolabel COMMAND --help tells its options.")
        return 0
    if name == "--version":
        print(software_version())
        return 0
    if name not in COMMANDS:
        near = did_you_mean(name, tuple(COMMANDS))
        print(f"error: there is no command {name!r}{near}; see --help", file=sys.stderr)
        return 2
    sys.argv[0] = f"autolabel {name}"
    return launch(name, words)


def _other_datasets() -> str:
    """What is wrong if Python does not find the package ``datasets`` of this software."""
    spec = importlib.util.find_spec("datasets")
    here = Path(__file__).resolve().parents[1] / "datasets" / "__init__.py"
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != here:
        where = "nowhere" if spec is None else spec.origin
        return (
            f"Python finds the package 'datasets' at {where}, this software's is {here}: Hugging "
            "Face's package of that name cannot share an environment with it"
        )
    if (here.parent / "arrow_dataset.py").exists():
        return (
            f"{here.parent} holds files of Hugging Face's package 'datasets' too; install this "
            "software in an environment of its own"
        )
    return ""
