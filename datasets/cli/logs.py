"""The log that a command line names, or that a label store was made from."""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets.annotations import AnnotatedSource
from datasets.benchmarks.catalogue import Benchmark
from datasets.cli.options import DEFAULT_CITY
from datasets.errors import SetupError
from datasets.files.printable import printable, redacted
from datasets.labels.header import StoreHeader
from datasets.sources.opening import open_source
from datasets.splits import Labelled
from datasets.storage.remote_path import absolute, remote_or_local

ROOT_KEY, VERSION_KEY = "root", "version"
"""Of a store's provenance: where its log was, and the table folder of a nuScenes root."""


def open_log(
    args: argparse.Namespace,
    *,
    past_sweeps: int = 0,
    future_sweeps: int = 0,
    labelled: Labelled | None = None,
) -> AnnotatedSource:
    """The log of ``--source``, ``--root`` and ``--version``. Raises ``SetupError``."""
    return open_source(
        args.source,
        args.root,
        past_sweeps=past_sweeps,
        future_sweeps=future_sweeps,
        labelled=labelled,
        version=args.version,
    )


def name_log_of(args: argparse.Namespace, header: StoreHeader | None) -> None:
    """Fill in what the command line leaves out of ``--source``, ``--root`` and ``--version``.

    Args:
        header: of the store whose log is read; None: the simulated city is meant.

    Raises:
        SetupError: the store does not say where its log is, or it is there no more.
    """
    said = {} if header is None else header.provenance
    if args.source is None:
        args.source = str(said.get("source") or "city")
    if args.source != said.get("source"):
        said = {}
    if args.version is None and VERSION_KEY in said:
        args.version = str(said[VERSION_KEY])
    if args.root is not None:
        return
    if hint := str(said.get(ROOT_KEY) or ""):
        args.root = Path(hint)
        if not remote_or_local(args.root).is_dir():
            raise SetupError(
                f"the {args.source} log was at {printable(hint)} when it was labeled, and is there "
                "no more: name its folder with --root"
            )
    elif args.source == "city":
        args.root = DEFAULT_CITY
    elif header is None:
        raise SetupError(f"--source {args.source} needs --root DIR")
    else:
        raise SetupError(f"name the {args.source} log with --root DIR: the store does not")


def provenance_of(args: argparse.Namespace) -> dict[str, str]:
    """What a store keeps of the command line's log, for ``name_log_of``."""
    log = {ROOT_KEY: redacted(str(absolute(args.root)))}
    return log | ({} if args.version is None else {VERSION_KEY: args.version})


def log_words(args: argparse.Namespace) -> list[str]:
    """The log's options as another command takes them."""
    words = [] if args.source == "city" else ["--source", args.source]
    if args.root is not None:
        words += ["--root", str(args.root)]
    return words + ([] if args.version is None else ["--version", args.version])


def log_words_of(header: StoreHeader) -> list[str]:
    """The log that a store was made from, as a command takes it."""
    said = header.provenance
    root = said.get(ROOT_KEY)
    return log_words(
        argparse.Namespace(
            source=said.get("source") or "city",
            root=None if root is None else Path(root),
            version=said.get(VERSION_KEY),
        )
    )


def truth_folder(args: argparse.Namespace, benchmark: Benchmark) -> Path:
    """The folder of ``--truth``, or that of the log. Raises ``SetupError`` where there is none."""
    folder: Path = args.truth or args.root / benchmark.folder
    if not remote_or_local(folder).is_dir():
        raise SetupError(
            f"{folder}: no such folder; name the ground truth of {benchmark.name} with --truth DIR"
        )
    return folder
