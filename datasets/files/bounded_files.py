"""Reading of untrusted files with a limit on their size.

A pipe named like a picture would be waited for without end, and a small file may promise gigabytes:
kinds and sizes are looked at first.
"""

from __future__ import annotations

import contextlib
import math
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

MAX_ARRAY_BYTES = 256 << 20
"""An array of a log's or a label's file is no larger."""
MAX_DIRECTORY_BYTES = 16 << 20
"""Of the list of members at the end of a zip file; read, an entry takes ten times its bytes."""

_HEADER_BYTES = 4096
_PIECE_BYTES = 1 << 20
_DIRECTORY_SIZE = 5


@contextlib.contextmanager
def parsing(*passed: type[Exception]) -> Iterator[None]:
    """Whatever parsers of numpy, zip, JSON, pictures and the like raise on hostile bytes, as a
    ``ValueError``; ``OSError`` and ``passed`` stay what they are."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except passed:
        raise
    except Exception as error:  # nearly every type has been seen: Overflow, Syntax, Runtime, ...
        raise ValueError(str(error) or type(error).__name__) from error


def regular_size(path: Path, limit: int, constant: str) -> int:
    """Bytes of a file.

    Args:
        limit: at most so many; ``constant``: what raises the limit, for the message.

    Raises:
        OSError: it is missing.
        ValueError: it is no regular file, or larger.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("not a regular file; pipes, devices and folders are never opened")
    if status.st_size > limit:
        raise ValueError(f"{status.st_size:,} bytes, more than the {limit:,} of {constant}")
    return status.st_size


def read_bytes(path: Path, limit: int, constant: str) -> bytes:
    """All of a file. Args and raises as ``regular_size``."""
    regular_size(path, limit, constant)
    return path.read_bytes()


def refuse_zeros(path: Path) -> None:
    """Raise ``ValueError`` where a text has a zero byte, as a file with holes does.

    Who parses a text would first take memory for all of it.
    """
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            if b"\0" in piece:
                raise ValueError("it holds zero bytes, which no text has")


def check_zip(path: Path) -> None:
    """Raise ``ValueError`` where a zip file lists more members than anyone writes."""
    with path.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end is not None and end[_DIRECTORY_SIZE] > MAX_DIRECTORY_BYTES:
        raise ValueError(
            f"its list of members has {end[_DIRECTORY_SIZE]:,} bytes, more than the "
            f"{MAX_DIRECTORY_BYTES:,} of MAX_DIRECTORY_BYTES"
        )


def open_npz(path: Path) -> NpzFile:
    """An ``.npz`` file, to be closed by the caller. Wants ``parsing``.

    Raises:
        OSError, ValueError: it is missing, no regular file, or no such file.
    """
    regular_size(path, 4 * MAX_ARRAY_BYTES, "MAX_ARRAY_BYTES")
    check_zip(path)
    opened = np.load(path, allow_pickle=False)
    if not isinstance(opened, NpzFile):
        raise ValueError("a single array, not a zip file of arrays")
    return opened


def npz_member(opened: NpzFile, name: str, *, limit: int = MAX_ARRAY_BYTES) -> NDArray[Any]:
    """One array. Its header's promise is looked at before memory is taken for it.

    Raises:
        ValueError: it is larger than ``limit`` bytes.
    """
    assert opened.zip is not None
    if (size := opened.zip.getinfo(f"{name}.npy").file_size) > limit + _HEADER_BYTES:
        raise ValueError(f"array {name!r} unpacks to {size:,} bytes, more than {limit:,}")
    with opened.zip.open(f"{name}.npy") as file:
        check_header(file, name, limit=limit)
    return np.asarray(opened[name])


def check_header(file: Any, name: str, *, limit: int = MAX_ARRAY_BYTES) -> None:
    """Read an ``.npy`` header; ``ValueError`` where it promises more than ``limit`` bytes."""
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    readers: dict[tuple[int, int], Callable[[Any], tuple[tuple[int, ...], bool, Any]]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"array {name!r}: format version {version}")
    shape, _, dtype = readers[version](file)
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise ValueError(
            f"array {name!r} of shape {shape} takes {size:,} bytes, more than the {limit:,} of "
            "MAX_ARRAY_BYTES"
        )
