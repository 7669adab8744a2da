"""JSON as this project writes it: a figure that does not exist is null (RFC 8259 has no NaN)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.files.bounded_files import parsing, read_bytes
from datasets.files.replacing import write_text

MAX_JSON_BYTES = 32 << 20
"""Parsed, JSON takes up to thirty times its bytes; what is written as JSON is far smaller."""


def json_text(value: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """One JSON document. NaN and infinities become null, numpy values and arrays plain ones.

    Raises:
        TypeError: a value is of no JSON kind.
    """
    return json.dumps(plain(value), indent=indent, sort_keys=sort_keys, allow_nan=False)


def canonical_text(value: Any) -> str:
    """The text that hashes are taken of: keys sorted, and an infinity is not the same as null.

    It goes into no file.

    Raises:
        TypeError: a value is of no JSON kind.
    """
    return json.dumps(value, sort_keys=True)


def write_json(path: Path, value: Any) -> None:
    """Write or replace one indented JSON document, and the folder it lies in.

    Raises:
        OSError: it cannot be written.
        TypeError: a value is of no JSON kind.
    """
    write_text(path, json_text(value, indent=1) + "\n")


def read_json_file(path: Path, *, limit: int = MAX_JSON_BYTES) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file, no JSON, too deep or too large.
    """
    data = read_bytes(path, limit, "MAX_JSON_BYTES")
    with parsing():
        return json.loads(data)


def json_lines(values: Iterable[Any]) -> str:
    """One JSON document a line."""
    return "".join(json_text(value) + "\n" for value in values)


def plain(value: Any) -> Any:
    """The same value of Python's own types, with None for every float that is not finite."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def is_figure(value: float | None) -> bool:
    """Whether there is such a figure: neither None, as null is read back, nor NaN or infinite."""
    return value is not None and math.isfinite(value)


def in_words(value: float | None, form: str, absent: str) -> str:
    """A figure in a format (``".3f"``), or ``absent`` where there is none."""
    return format(value, form) if is_figure(value) else absent
