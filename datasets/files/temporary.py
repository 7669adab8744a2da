"""A private temporary folder of the user."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path


def private_folder(name: str, *, temporary: Path | None = None) -> Path | None:
    """This user's own folder of a name below a temporary one that all may write to; None if it
    cannot be had.

    Nobody else may be able to write to it, since what is found there is trusted (numba unpickles
    its cache): a folder of that name that is another's, open to others or a link is not taken.

    Args:
        temporary: None: the machine's.
    """
    folder = (temporary or Path(tempfile.gettempdir())) / f"autolabel-{name}-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    is_mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    return folder if is_mine and not status.st_mode & 0o077 else None
