"""Stores on an S3 server of this machine, for tests."""

from __future__ import annotations

from pathlib import Path

from chaos_modes.s3_server import Fault, Proxy, s3_bucket

from datasets.storage.backend import as_backend

__all__ = ["Fault", "Proxy", "remote_tree", "s3_bucket", "upload"]


def remote_tree(url: str) -> dict[str, bytes]:
    at = as_backend(url)
    return {key: at.read(key) for key, _ in at.files("")}


def upload(folder: Path, url: str) -> None:
    """Every file below a folder, under the same name below the URL."""
    at = as_backend(url)
    for path in folder.rglob("*"):
        if path.is_file():
            at.write(path.relative_to(folder).as_posix(), path.read_bytes())
