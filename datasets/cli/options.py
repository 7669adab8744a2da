"""Options that several commands have, and how all of them are understood.

Nothing here is slow to import: whoever asks for ``--help`` waits for no library.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from datasets.benchmarks import NAMES
from datasets.errors import SetupError
from datasets.names import did_you_mean
from datasets.sources import SOURCES

DEFAULT_CITY = Path("runs/city")
DEFAULT_STORE = Path("runs/labels.zarr")
_SPELLINGS = (("labelled", "labeled"), ("colour", "color"), ("licence", "license"))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Names the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        plain = action.default is None or action.default is argparse.SUPPRESS
        if plain or isinstance(action.default, bool) or not action.option_strings:
            return text
        if "default" in text or action.default in ("", [None]):
            return text
        return f"{text} (default: %(default)s)".strip()


class CommandParser(argparse.ArgumentParser):
    """A command line. A bad one raises ``SetupError``, which suggests what may be meant."""

    def __init__(self, description: str | None = None, **keywords: Any) -> None:
        super().__init__(
            description=description, allow_abbrev=False, formatter_class=_Help, **keywords
        )
        self._old_names: dict[str, str] = {}

    def rename(self, **names: str) -> None:
        """Understand old names of options: ``rename(readers="io-threads")``."""
        for old, new in names.items():
            self._old_names[f"--{old.replace('_', '-')}"] = f"--{new}"

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As of ``argparse``, but old names and British or American spelling are understood."""
        if args is not None:
            args = [self._present_name(word) for word in args]
        return super().parse_known_args(args, namespace)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As of ``argparse``. Raises ``SetupError`` for an unknown or bad option."""
        words = sys.argv[1:] if args is None else list(args)
        parsed, unknown = self.parse_known_args(words, namespace)
        if unknown:
            self.error(f"there is no option {unknown[0]}{self._suggest(unknown[0])}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raise ``SetupError``."""
        if bad := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            choices = re.findall(r"'([^']*)'", bad[2])
            message += did_you_mean(bad[1], choices)
        raise SetupError(f"{message}; see --help")

    def _present_name(self, word: str) -> str:
        flag, equals, value = word.partition("=")
        known = self._option_string_actions
        if not flag.startswith("--") or flag in known:
            return word
        flag = self._old_names.get(flag, flag)
        for spelled, other in (*_SPELLINGS, *(pair[::-1] for pair in _SPELLINGS)):
            if flag not in known and (swapped := flag.replace(spelled, other)) in known:
                flag = swapped
        return f"{flag}{equals}{value}"

    def _suggest(self, word: str) -> str:
        flags = list(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    flags.extend(parser._option_string_actions)
        return did_you_mean(word.partition("=")[0], flags) if word.startswith("-") else ""


class _Version(argparse.Action):
    """``--version`` alone prints this software's version; with a value it is kept."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Print and end, or keep the value."""
        if values is None:
            print(software_version())
            parser.exit()
        setattr(namespace, self.dest, values)


def software_version() -> str:
    """Name and version of this software."""
    try:
        return f"effocc-autolabel {metadata.version('effocc-autolabel')}"
    except metadata.PackageNotFoundError:
        return "effocc-autolabel (not installed)"


def add_version(parser: argparse.ArgumentParser) -> None:
    """``--version`` of a command that reads no log."""
    parser.add_argument("--version", action="version", version=software_version())


def add_log(
    parser: argparse._ActionsContainer,
    *,
    source: str = "city",
    root: Path | None = DEFAULT_CITY,
    required: bool = False,
) -> None:
    """``--source``, ``--root`` and ``--version``, of the log that a command reads.

    Args:
        source: kind of log if none is named.
        root: its folder if none is named.
        required: ``--root`` must be named.
    """
    add = parser.add_argument
    add("--source", choices=SOURCES, default=source, help="kind of log")
    add(
        "--root",
        type=Path,
        required=required,
        default=None if required else root,
        help="folder of the log, or s3://BUCKET/PREFIX",
    )
    add_table_version(parser)


def add_log_of_store(parser: argparse._ActionsContainer) -> None:
    """The same options for the log of a store, which says itself where it was."""
    add = parser.add_argument
    add("--source", choices=SOURCES, help="kind of log (default: as the store says)")
    add("--root", type=Path, help="folder of the log (default: where it was when it was labeled)")
    add_table_version(parser)


def add_table_version(parser: argparse._ActionsContainer) -> None:
    """``--version``: tables of a nuScenes root, or this software's version."""
    parser.add_argument(
        "--version",
        action=_Version,
        nargs="?",
        metavar="NAME",
        help="table folder of a nuScenes root that has several, such as v1.0-mini; without a NAME "
        "print the version of this software",
    )


def add_labeled(parser: argparse._ActionsContainer) -> None:
    """``--labeled``: which training scenes count as labeled."""
    parser.add_argument(
        "--labeled",
        dest="labelled",
        metavar="SHARE",
        help="share in %% or file of the scenes in the split labeled (default: 20, as published)",
    )


def add_truth(parser: argparse._ActionsContainer) -> None:
    """``--benchmark`` and ``--truth``: the ground truth to compare with or learn from."""
    add = parser.add_argument
    add("--benchmark", choices=NAMES, default=NAMES[0], help="of the ground truth's files")
    add("--truth", type=Path, metavar="DIR", help="folder of ground truth (default: the log's own)")


def add_device(parser: argparse._ActionsContainer) -> None:
    """``--device``; None: ``datasets.cli.options`` knows no torch, the command decides."""
    parser.add_argument("--device", help="cuda or cpu (default: cuda where there is one)")
