"""Files that are replaced in one step and outlast a power cut: every result is written this way.

The new content is written beside the file, flushed to the disk, renamed over it, and the folder's
list of names is flushed. Whoever reads at any moment, and whoever reads after the machine died, has
the whole old file or the whole new one.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden file beside ``path`` to write to; at the end it takes the path's place. Folders that
    are missing are made; a link is followed.

    It has the same ending, by which writers of pictures and arrays tell the format. If the body
    fails, the file before stays and nothing else is left. What is no file (``/dev/stdout``, a
    pipe) cannot be replaced and is given itself.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    make_folder(path.parent)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)  # noqa: PTH105 - the one place that does
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write or replace a file. Raises ``OSError``."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write or replace a file of UTF-8 text. Raises ``OSError``."""
    write_file(path, text.encode())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, to last. Raises ``OSError``."""
    missing = []
    for path in (folder, *folder.parents):
        if path.is_dir():
            break
        missing.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync(path.parent)


def sync(path: Path) -> None:
    """Push a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
