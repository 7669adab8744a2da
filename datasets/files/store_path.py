"""Where a label store lies: a folder, or the URL of an object store."""

from __future__ import annotations

from pathlib import Path

StorePath = str | Path


def parse_store_path(text: str) -> StorePath:
    """A command line's folder or URL."""
    return text if "://" in text else Path(text)
