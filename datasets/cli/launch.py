"""Start a command: supervised, its options first, what is slow to import last."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from datasets.cli import supervisor
from datasets.cli.commands import COMMANDS
from datasets.cli.exit_codes import exit_code


def launch(name: str, argv: Sequence[str] | None = None, **keywords: Any) -> int:
    """Run a command of ``COMMANDS``; gives the exit code.

    Args:
        argv: its words; None: those of this process.
        keywords: handed to its ``run`` as well.
    """
    command = COMMANDS[name]
    if command.supervised:
        supervisor.supervise(goes_on=command.resumable)

    def run() -> int:
        options = importlib.import_module(f"{command.package}.options.{command.module}")
        args = options.parse(argv)
        implementation = importlib.import_module(f"{command.package}.{command.module}")
        code: int = implementation.run(args, **keywords)
        return code

    return exit_code(run, goes_on=command.resumable, leaves=command.leaves)
