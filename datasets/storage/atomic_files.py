"""Atomic commit of folders, and documents of zarr groups.

A folder is built under ``<root>/.partial`` and renamed into place. Its name there carries the
writer's process, so that a later job can tell a killed writer's leftovers from one at work.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets.files.json_files import json_text
from datasets.files.replacing import sync

PARTIAL = ".partial"
_ABANDONED_S = 24 * 3600.0


def group_document(attributes: dict[str, Any]) -> bytes:
    """The ``zarr.json`` of a zarr 3 group."""
    document = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return (json_text(document, indent=2) + "\n").encode("ascii")


def parse_group(document: bytes) -> dict[str, Any]:
    """Attributes of a zarr 3 group.

    Raises:
        ValueError, KeyError, TypeError: not a group's document.
    """
    parsed = json.loads(document.decode("ascii"))
    if parsed["zarr_format"] != 3 or parsed["node_type"] != "group":
        raise ValueError("not the metadata of a zarr 3 group")
    return dict(parsed["attributes"])


def commit_file(draft: Path, final: Path, data: bytes) -> bool:
    """Write a file that is not there yet in one atomic step, on the disk when it returns; whether
    it was not there.

    Args:
        draft: in a folder of the writer's own, on the same file system.

    Raises:
        OSError: it could not be written.
    """
    with draft.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, final)
    except FileExistsError:
        return False
    except OSError:  # a file system without links, which cannot tell who was first
        if final.exists():
            return False
        draft.rename(final)
    sync(final.parent)
    return True


def visible_files(folder: Path) -> list[str]:
    """Sorted names of the visible files inside; none if the folder is missing."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name for entry in entries if entry.name[0] != "." and entry.is_file()
            )
    except FileNotFoundError:
        return []


def subfolders(folder: Path) -> list[str]:
    """Sorted names of the visible folders inside; none if the folder is missing."""
    if not folder.is_dir():
        return []
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")


def files_below(folder: Path) -> Iterator[tuple[str, int]]:
    """Relative names and bytes of all files below; none if the folder is missing.

    Raises:
        OSError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # gone meanwhile
            raise error

    for directory, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(FileNotFoundError):
                yield path.relative_to(folder).as_posix(), path.stat().st_size


def new_partial(root: Path, name: str) -> Path:
    """An empty folder of this process under ``root/.partial``.

    Raises:
        OSError: the root is gone or cannot be written.
    """
    partial = root / PARTIAL / f"{name}-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"
    while True:
        try:
            partial.parent.mkdir(exist_ok=True)
            partial.mkdir()
            return partial
        except (FileNotFoundError, FileExistsError):
            # another writer tidied .partial away, perhaps just after we had found it there
            if not root.is_dir():
                raise FileNotFoundError(f"{root} is gone") from None
            if partial.parent.exists() and not partial.parent.is_dir():
                raise


def commit_folder(partial: Path, final: Path, *, is_committed: Callable[[], bool]) -> None:
    """Rename a finished folder into place. Where another writer was first, its folder stays.

    Raises:
        OSError: the rename failed and nobody else's commit is there.
    """
    if final.exists() and not is_committed():
        # no writer of ours leaves this; half a copy made by hand, say
        debris = partial.with_name(partial.name + "-debris")
        final.rename(debris)
        shutil.rmtree(debris, ignore_errors=True)
    try:
        partial.rename(final)
    except OSError:
        if not is_committed():
            raise
    else:
        sync(final.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder if it is there, and an emptied ``.partial`` above it."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.name == PARTIAL:
        with contextlib.suppress(OSError):
            folder.parent.rmdir()  # fails while another writer is at work


def sweep_partial(root: Path) -> None:
    """Remove what killed writers left; folders of writers that may be at work are spared."""
    folder = root / PARTIAL
    for name in subfolders(folder):
        with contextlib.suppress(OSError):
            if _abandoned(folder / name):
                remove_folder(folder / name)
    with contextlib.suppress(OSError):
        folder.rmdir()


def sync_tree(folder: Path) -> None:
    """Push a folder's files to the disk, so that a marker written next is never ahead of them."""
    for path in sorted(folder.rglob("*")):
        sync(path)


def _abandoned(partial: Path) -> bool:
    """Whether the writer is gone: by its process here, by age on another machine."""
    parts = partial.name.removesuffix("-debris").rsplit("-", 3)
    if len(parts) != 4 or parts[1] != _host() or not parts[2].isdecimal():
        return time.time() - _last_change(partial) > _ABANDONED_S
    try:
        os.kill(int(parts[2]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _last_change(folder: Path) -> float:
    """Of a folder and all below it, in seconds."""
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            times.append(path.stat().st_mtime)
    return max(times)


def _host() -> str:
    """Where a process id means something: a machine since it was started, and on it a container,
    which may share its name and its disks with others."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]
