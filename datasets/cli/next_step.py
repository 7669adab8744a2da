"""The last line of a command: what to run next."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from pathlib import Path

from datasets.cli.commands import COMMANDS
from datasets.cli.options import DEFAULT_STORE
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
    """Print ``next: COMMAND`` on standard output; what opens a window is served to a browser where
    there is no display."""
    if name == "inspect" and not _has_display():
        words = (*words, "--serve")
    print(printable(f"next: {command_line(name, *words)}"))


def print_next_job(*words: object) -> None:
    """Print the command that labels a log, into a store that is not there yet."""
    store = DEFAULT_STORE
    for k in itertools.count(2):
        if not store.exists():
            break
        store = DEFAULT_STORE.with_name(f"{DEFAULT_STORE.stem}-{k}{DEFAULT_STORE.suffix}")
    print_next("label", *words, *([] if store == DEFAULT_STORE else ["--store", store]))


def _has_display() -> bool:
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(display) or not sys.platform.startswith("linux")
