"""Append-only files: each record is written wholly or not at all, also on a full disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from datasets.files.replacing import make_folder, naming_file


class AppendedFile:
    """A file to append to; every write goes to the operating system at once.

    Args:
        path: made, with its folder, where it is missing.
        lines: the file holds lines. A last one that a killed process has left without its end
            stays a line of its own.

    Raises:
        OSError: it cannot be opened; ``path`` is its ``filename``.
    """

    def __init__(self, path: Path, *, lines: bool = True) -> None:
        self.path = path
        make_folder(path.parent)
        self._file = path.open("ab", buffering=0)
        self._start = b"\n" if lines and _ends_within_a_line(path) else b""

    def write(self, data: bytes) -> None:
        """Append all of it or nothing.

        Raises:
            OSError: it does not fit, or cannot be written; ``path`` is its ``filename``.
        """
        remaining, file = memoryview(self._start + data), self._file.fileno()
        size, written = os.fstat(file).st_size, 0
        try:
            with naming_file(self.path):
                while remaining:
                    done = os.write(file, remaining)
                    written, remaining = written + done, remaining[done:]
        except BaseException:
            with contextlib.suppress(OSError):
                if written and os.fstat(file).st_size == size + written:  # nobody else's follows
                    os.ftruncate(file, size)
            raise
        self._start = b""

    def close(self) -> None:
        """What was written is on the disk afterwards. Raises ``OSError``, closed all the same."""
        try:
            with naming_file(self.path):
                os.fsync(self._file.fileno())
        finally:
            self._file.close()


def _ends_within_a_line(path: Path) -> bool:
    if not path.is_file():  # reading a pipe would wait
        return False
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    return False
