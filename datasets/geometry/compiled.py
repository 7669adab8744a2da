"""Compilation by numba, with an on-disk cache where a folder is writable.

numba keeps machine code beside the source, else in the user's cache folder, and raises where it
may write to neither: an installation of root's, used by somebody without a home, as in a container
that runs under any user id. Then the cache lies in a private folder below the temporary one, or
there is none and every process compiles for itself.

``NUMBA_CACHE_DIR`` names another place.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numba

from datasets.files.temporary import private_folder

Function = TypeVar("Function", bound=Callable[..., Any])

VARIABLE = "NUMBA_CACHE_DIR"


def compiled(function: Function) -> Function:
    """The function as machine code that does not hold Python's lock; cached if that can be."""
    try:
        return _cached(function)
    except RuntimeError as error:
        if "locator" not in str(error):
            raise
    if _use_private_folder():
        return _cached(function)
    return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


def _cached(function: Function) -> Function:
    return numba.njit(cache=True, nogil=True)(function)  # type: ignore[no-any-return]


@functools.cache
def _use_private_folder() -> bool:
    """Whether there is one; says so once, to whoever started this process and its children."""
    folder = private_folder("numba")
    cache_text = "every process compiles for itself" if folder is None else f"using {folder}"
    print(
        f"note: no cache folder of numba's can be written: {cache_text} ({VARIABLE} names another)",
        file=sys.stderr,
    )
    if folder is not None:
        os.environ[VARIABLE] = numba.config.CACHE_DIR = str(folder)
    return folder is not None
