"""The last line of a command: what to run next."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from datasets.cli.commands import COMMANDS
from datasets.files.printable import printable

CONSOLE = "autolabel"


def command_line(name: str, *words: object) -> str:
    """A command as it is typed: ``autolabel NAME ...`` where this process was started so, else
    ``python FILE ...``."""
    start = [CONSOLE, name] if by_console() else ["python", COMMANDS[name].file]
    return shlex.join([*start, *map(str, words)])


def by_console() -> bool:
    """Whether this process was started as ``autolabel NAME``."""
    return Path(sys.argv[0]).name.startswith(f"{CONSOLE} ")


def print_next(name: str, *words: object) -> None:
    """Print ``next: COMMAND`` on standard output."""
    print(printable(f"next: {command_line(name, *words)}"))
