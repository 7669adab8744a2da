"""Functions that numba compiles, with a cache wherever one can be had.

numba keeps machine code beside the source, else in the user's cache folder, and raises where it
may write to neither: an installation of root's, used by somebody without a home, as in a container
that runs under any user id. Then the cache lies in a private folder below the temporary one, or
there is none and every process compiles for itself.

``NUMBA_CACHE_DIR`` names another place.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

VARIABLE = "NUMBA_CACHE_DIR"


def compiled(function: Function) -> Function:
    """The function as machine code that does not hold Python's lock; cached if that can be."""
    try:
        return _cached(function)
    except RuntimeError as error:
        if "locator" not in str(error):
            raise
    folder = private_folder(Path(tempfile.gettempdir()))
    if folder is not None and str(folder) != numba.config.CACHE_DIR:
        note = f"no cache folder of numba's can be written: using {folder}"
        print(f"note: {note} ({VARIABLE} names another)", file=sys.stderr)
        # processes that this one starts are told, so they do not say so again
        os.environ[VARIABLE] = numba.config.CACHE_DIR = str(folder)
    try:
        return _cached(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


def _cached(function: Function) -> Function:
    return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]


def private_folder(temporary: Path) -> Path | None:
    """This user's own folder below a temporary one that all may write to; None if there is none.

    numba unpickles what it finds in its cache, so nobody else may be able to write there: a folder
    of that name that is another's, open to others or a link is not taken.
    """
    folder = temporary / f"autolabel-numba-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    is_mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return folder if is_mine and not found.st_mode & 0o077 else None
