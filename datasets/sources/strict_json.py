"""Strict JSON: missing, unknown, duplicate or mistyped entries are errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.files.bounded_files import read_bytes
from datasets.files.json_files import MAX_JSON_BYTES
from datasets.geometry.transforms import Transform, from_quaternion

MAX_WHOLE = 2**62
"""Times and sizes are smaller; what is larger fits no array."""
T = TypeVar("T", str, int, list[Any], dict[str, Any])
_KINDS = {str: "a text", int: "a whole number", list: "a list", dict: "an object"}


class Record:
    """One JSON object, read key by key; ``done`` refuses the keys that nobody asked for.

    Args:
        value: what the parser gave.
        where: the file.
        at: the place in it (a frame's token, say), for messages.

    Raises:
        SceneError: from every method, naming file, place and key.
    """

    def __init__(self, value: object, *, where: str, at: str = "") -> None:
        self.where, self.at = where, at
        if not isinstance(value, dict):
            raise self.error(f"must be an object, is {_shown(value)}")
        self._left: dict[str, Any] = dict(value)

    def error(self, rule: str) -> SceneError:
        return SceneError(where=self.where, frame=self.at, rule=rule)

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._left))

    def take(self, key: str, kind: type[T]) -> T:
        value = self._pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(f"{key!r} must be {_KINDS[kind]}, is {_shown(value)}")
        if isinstance(value, int) and abs(value) >= MAX_WHOLE:
            raise self.error(f"{key!r} is too large a number: {_shown(value)}")
        if isinstance(value, str) and not _is_text(value):
            raise self.error(f"{key!r} holds characters that are no text: {_shown(value)}")
        return value

    def take_or_null(self, key: str, kind: type[T]) -> T | None:
        if key in self._left and self._left[key] is None:
            self._pop(key)
            return None
        return self.take(key, kind)

    def record(self, key: str, *, at: str | None = None) -> Record:
        return Record(self.take(key, dict), where=self.where, at=at or self.at or key)

    def records(self, key: str, *, at: str) -> Iterator[Record]:
        """The objects of a list; each is called ``at`` and its number."""
        for i, value in enumerate(self.take(key, list)):
            yield Record(value, where=self.where, at=f"{at} {i}")

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list)
        if not all(isinstance(v, str) and _is_text(v) for v in values):
            raise self.error(f"{key!r} must be a list of texts, is {_shown(values)}")
        return tuple(values)

    def number(self, key: str) -> float:
        return float(self.numbers(key, ()))

    def numbers(self, key: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Finite numbers in nested lists of a given shape."""
        return self._numbers(key, self._pop(key), shape)

    def pose(self, key: str) -> Transform:
        """``{"rotation_wxyz": [4], "translation_m": [3]}`` or a 4x4 matrix in nested lists."""
        value = self._pop(key)
        if isinstance(value, dict):
            inner = Record(value, where=self.where, at=self.at)
            q, t = inner.numbers("rotation_wxyz", (4,)), inner.numbers("translation_m", (3,))
            inner.done()
            try:
                return from_quaternion(q.tolist(), t.tolist())
            except ValueError as error:
                raise self.error(f"{key!r}: {error}") from None
        matrix = self._numbers(key, value, (4, 4))
        R = matrix[:3, :3]
        if np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
            raise self.error(f"{key!r}: the matrix's upper left 3x3 is not a rotation")
        if (matrix[3] != [0, 0, 0, 1]).any():
            raise self.error(f"{key!r}: the matrix's last row must be 0 0 0 1")
        return matrix

    def done(self) -> None:
        if self._left:
            raise self.error(f"unknown key {', '.join(map(repr, self._left))}")

    def _pop(self, key: str) -> Any:
        if key not in self._left:
            raise self.error(f"{key!r} is missing")
        return self._left.pop(key)

    def _numbers(self, key: str, value: object, shape: tuple[int, ...]) -> NDArray[np.float64]:
        if not _are_numbers(value, shape):
            size = " x ".join(map(str, shape)) + " " if shape else "one "
            raise self.error(f"{key!r} must be {size}finite number(s), is {_shown(value)}")
        return np.asarray(value, np.float64)


def read_json(path: Path, where: str, *, constants: bool = False) -> object:
    """What a JSON file holds.

    Args:
        where: what messages call the file.
        constants: let NaN and Infinity pass; a ``Record`` refuses them where they stand, so that
            one of them does not cost the whole file.

    Raises:
        SceneError: unreadable, no JSON, a key twice in one object, or NaN.
    """
    try:
        text = read_bytes(path, MAX_JSON_BYTES, "MAX_JSON_BYTES").decode("utf-8")
        value: object = json.loads(
            text,
            object_pairs_hook=_no_twins,
            parse_constant=float if constants else _no_constant,
        )
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SceneError(where=where, rule=f"no readable JSON: {reason}") from None
    return value


def read_record(path: Path, where: str, *, constants: bool = False) -> Record:
    """The object in a JSON file. Raises ``SceneError`` as ``read_json`` does, or for no object."""
    return Record(read_json(path, where, constants=constants), where=where)


def _are_numbers(value: object, shape: tuple[int, ...]) -> bool:
    if shape:
        return (
            isinstance(value, list)
            and len(value) == shape[0]
            and all(_are_numbers(v, shape[1:]) for v in value)
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < MAX_WHOLE
    return isinstance(value, float) and bool(np.isfinite(value))


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"the key {key!r} occurs twice in one object")
        out[key] = value
    return out


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _is_text(value: str) -> bool:
    """Without NUL, which no file name holds, and lone surrogates, which nothing can print."""
    return "\0" not in value and not any(0xD800 <= ord(c) < 0xE000 for c in value)


def _shown(value: object) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):  # a number of thousands of digits; too deep
        return f"a very long {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
