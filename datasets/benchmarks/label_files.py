"""Reading and writing of untrusted label files: nothing is unpickled, every value is checked.

The functions raise what numpy, zip and the checks raise; ``naming`` turns all of it into a
``SceneError`` that names the file.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.files.bounded_files import (
    MAX_ARRAY_BYTES,
    check_header,
    npz_member,
    open_npz,
    parsing,
    regular_size,
)
from datasets.files.replacing import replacing

MAX_ROWS = 10 << 20
"""Of a list of voxels: as many as the largest grid (OpenOccupancy's) has."""
_WIDEST = 8  # bytes of one value


@contextlib.contextmanager
def naming(path: Path, what: str) -> Iterator[None]:
    """Raise ``SceneError`` naming the file for whatever is wrong while it is read."""
    try:
        yield
    except FileNotFoundError as error:
        rule = "no such file; --truth names the folder of ground truth"
        raise SceneError(where=str(path), rule=rule) from error
    except (OSError, ValueError) as error:
        raise SceneError(where=str(path), rule=f"not {what}: {error}") from error


def read_npz(
    path: Path, shapes: Mapping[str, tuple[int, ...]], *, optional: tuple[str, ...] = ()
) -> dict[str, NDArray[Any]]:
    """The named arrays of an ``.npz`` file, in these shapes; others are left unread.

    Raises:
        ValueError: it is no such file, or an array is absent or of another shape or size.
    """
    with parsing(), open_npz(path) as opened:
        present = {name for name in shapes if name in opened.files}
        if missing := shapes.keys() - present - set(optional):
            raise ValueError(f"{sorted(missing)} absent; it has {sorted(opened.files)}")
        return {name: _member(opened, name, shapes[name]) for name in shapes if name in present}


def _member(opened: NpzFile, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    array = npz_member(opened, name, limit=_WIDEST * math.prod(shape))
    if array.shape != shape:
        raise ValueError(f"array {name!r} has shape {array.shape}, must be {shape}")
    return array


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any] | np.generic]) -> None:
    """Write or replace a compressed ``.npz`` file, creating its folder. Raises ``OSError``."""
    with replacing(path) as partial:
        packed = io.BytesIO()  # zipfile prints a traceback where a disk is full
        np.savez_compressed(packed, **arrays)
        partial.write_bytes(packed.getbuffer())


def read_rows(path: Path, widths: tuple[int, ...]) -> NDArray[Any]:
    """The (N, W) array of an ``.npy`` file, W one of the widths.

    Raises:
        ValueError: it is no such file, the array has another shape, or more follows it.
    """
    regular_size(path, 2 * MAX_ARRAY_BYTES, "MAX_ARRAY_BYTES")
    with parsing(), path.open("rb") as file:
        check_header(file, "rows")
        file.seek(0)
        rows = np.load(file, allow_pickle=False)
        if not isinstance(rows, np.ndarray):
            raise ValueError("a zip file, not a single array")
        if file.read(1):
            raise ValueError("there is more behind the array")
    if rows.ndim != 2 or rows.shape[1] not in widths:
        wanted = " or ".join(f"(N, {w})" for w in widths)
        raise ValueError(f"the array has shape {rows.shape}, must be {wanted}")
    if len(rows) > MAX_ROWS:
        raise ValueError(f"{len(rows):,} rows, more than the {MAX_ROWS:,} of MAX_ROWS")
    return rows


def write_rows(path: Path, rows: NDArray[Any]) -> None:
    """Write or replace an ``.npy`` file, creating its folder. Raises ``OSError``."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, rows)


def whole(name: str, values: NDArray[Any], low: int, high: int) -> NDArray[Any]:
    """The values, when they are whole numbers in low..high; else ``ValueError``.

    Real files keep them in one of many number types, so the type alone is not held against one.
    """
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{name}: {values.dtype} are not whole numbers")
    if values.dtype.kind == "f" and not (np.isfinite(values).all() and (values % 1 == 0).all()):
        raise ValueError(f"{name}: a value is not a whole number")
    if values.size and ((smallest := values.min()) < low or (largest := values.max()) > high):
        raise ValueError(
            f"{name}: {smallest if smallest < low else largest} is not in {low}..{high}"
        )
    return values


def class_ids(name: str, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Class ids of any number type as uint8; ``GroundTruth`` knows which of 0..255 are classes."""
    return np.ascontiguousarray(whole(name, values, 0, 255), np.uint8)


def flags(name: str, values: NDArray[Any]) -> NDArray[np.bool_]:
    """A mask of 0 and 1, of any number type."""
    return (values if values.dtype == bool else whole(name, values, 0, 1)).astype(bool)


def velocities(name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    """Finite numbers as float32; ``ValueError`` where they are not."""
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{name}: {values.dtype} are not numbers")
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(out).all():
        raise ValueError(f"{name}: a velocity is not finite")
    return out
