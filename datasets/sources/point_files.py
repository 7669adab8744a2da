"""Point files of a user's log: .npz, raw .bin and .ply, and the classes of their points."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.files.bounded_files import (
    check_header,
    npz_member,
    open_npz,
    parsing,
    read_bytes,
    regular_size,
)
from datasets.returns import DroppedReturns, measuring
from datasets.taxonomy import IGNORE_ID

SUFFIXES = (".npz", ".bin", ".ply")
NEEDED = ("x", "y", "z", "intensity")
MAX_POINTS = 4_000_000
"""Returns of one sweep: the densest LiDARs of vehicles give a tenth of it."""
POINT_BYTES = 64
"""Of one return in a file: at most so many."""
MAX_COLUMNS = 32
"""Properties of a vertex of a PLY file."""
_LINE_BYTES = 64 * MAX_COLUMNS
_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "<i1"),
    **dict.fromkeys(("uchar", "uint8"), "<u1"),
    **dict.fromkeys(("short", "int16"), "<i2"),
    **dict.fromkeys(("ushort", "uint16"), "<u2"),
    **dict.fromkeys(("int", "int32"), "<i4"),
    **dict.fromkeys(("uint", "uint32"), "<u4"),
    **dict.fromkeys(("float", "float32"), "<f4"),
    **dict.fromkeys(("double", "float64"), "<f8"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PointFormat:
    """What the files themselves do not say.

    Attributes:
        intensity_max: what the LiDAR writes for the brightest return; read as 255.
        bin_columns: the float32 columns of ``.bin`` files, in order.

    Raises:
        ValueError: the maximum is not positive, or a column is missing or named twice.
    """

    intensity_max: float = 255.0
    bin_columns: tuple[str, ...] = NEEDED

    def __post_init__(self) -> None:
        if not self.intensity_max > 0:
            raise ValueError(f"intensity_max must be positive, is {self.intensity_max}")
        if not set(NEEDED) <= set(self.bin_columns) or len(set(self.bin_columns)) != len(
            self.bin_columns
        ):
            raise ValueError(
                f"bin_columns must name {', '.join(NEEDED)} once, are {', '.join(self.bin_columns)}"
            )


def read_points(
    path: Path, form: PointFormat
) -> tuple[NDArray[np.float32], NDArray[np.bool_], DroppedReturns]:
    """The returns of a point file that measure something (``datasets.returns``).

    Returns:
        (K, 4) x, y, z metres and intensity scaled to 0..255; which of the file's N points they
        are, (N,); and what was left out.

    Raises:
        SceneError: missing, damaged, truncated, empty, too many points that are not finite, or an
            intensity outside 0..``intensity_max``.
    """
    if path.suffix == ".npz":
        points = _npz_array(path, "points")
        if points is None or points.ndim != 2 or points.shape[1] != 4 or points.dtype != np.float32:
            raise SceneError(
                where=str(path), rule="needs an array 'points' (N, 4) of float32 x, y, z, intensity"
            )
    elif path.suffix == ".bin":
        width = 4 * len(form.bin_columns)
        raw = _bytes(path)
        if len(raw) % width:
            raise SceneError(
                where=str(path),
                rule=f"truncated, or of other columns: {len(raw)} bytes is no multiple of {width} "
                f"({', '.join(form.bin_columns)} as float32); 'bin_columns' under 'points' in "
                "log.json names them",
            )
        columns = [form.bin_columns.index(name) for name in NEEDED]
        points = np.frombuffer(raw, "<f4").reshape(-1, len(form.bin_columns))[:, columns]
    elif path.suffix == ".ply":
        points = _read_ply(path)
    else:
        raise SceneError(where=str(path), rule=f"a point file ends in {', '.join(SUFFIXES)}")
    if len(points) > MAX_POINTS:
        raise SceneError(
            where=str(path),
            rule=f"{len(points):,} points, more than the {MAX_POINTS:,} of MAX_POINTS",
        )
    points = points.astype(np.float32)
    if not len(points):
        raise SceneError(where=str(path), rule="it holds no point")
    valid, dropped = measuring(points, str(path))
    points = points[valid]
    good = (points[:, 3] >= 0) & (points[:, 3] <= form.intensity_max)
    if not good.all():
        i = int(np.flatnonzero(valid)[np.argmin(good)])
        brightest = float(points[:, 3].max())
        raise SceneError(
            where=str(path),
            rule=f"point {i}: intensity {points[np.argmin(good), 3]:g} is not in "
            f"0..{form.intensity_max:g}; the brightest is {brightest:g}: state 'intensity_max' "
            "under 'points' in log.json"
            + (", or the file's columns in 'bin_columns'" if path.suffix == ".bin" else ""),
        )
    points[:, 3] *= np.float32(255 / form.intensity_max)
    return points, valid, dropped


def read_classes(
    path: Path,
    *,
    n_points: int,
    n_classes: int,
    class_map: Mapping[int, int] | None = None,
) -> NDArray[np.uint8] | None:
    """(N,) class ids of a point file, 255 where nobody said; None where there are none.

    They are the array ``classes`` inside an ``.npz``, else the file beside it that ends in
    ``.classes.npy``.

    Args:
        class_map: what the file's own ids mean; None: they are the taxonomy's.

    Raises:
        SceneError: damaged, not uint8, of another length than the points, or an unknown id.
    """
    if path.suffix == ".npz":
        classes = _npz_array(path, "classes")
        if classes is None:
            return None
    else:
        path = path.with_suffix(".classes.npy")
        if not path.exists():
            return None
        try:
            regular_size(path, MAX_POINTS, "MAX_POINTS")  # before it is opened: a pipe would wait
            with parsing(), path.open("rb") as file:
                check_header(file, "classes", limit=MAX_POINTS)
                file.seek(0)
                classes = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise SceneError(where=str(path), rule=f"damaged: {error}") from None
    if not isinstance(classes, np.ndarray) or classes.dtype != np.uint8:
        raise SceneError(where=str(path), rule="classes must be an array of uint8")
    if classes.shape != (n_points,):
        raise SceneError(
            where=str(path), rule=f"classes of shape {classes.shape} for {n_points} points"
        )
    if class_map is not None:
        table = np.full(256, -1, np.int64)
        table[[*class_map, IGNORE_ID]] = [*class_map.values(), IGNORE_ID]
        mapped = table[classes]
        if (mapped < 0).any():
            raise SceneError(
                where=str(path),
                rule=f"class {classes[mapped < 0][0]} is not in 'class_map' of log.json",
            )
        return np.asarray(mapped, np.uint8)
    bad = (classes >= n_classes) & (classes != IGNORE_ID)
    if bad.any():
        raise SceneError(
            where=str(path),
            rule=f"class {classes[bad][0]} is neither in 0..{n_classes - 1} nor {IGNORE_ID}; "
            "'class_map' in log.json maps ids of one's own",
        )
    return classes


def _npz_array(path: Path, name: str) -> NDArray[Any] | None:
    try:
        with parsing(), open_npz(path) as arrays:
            if name not in arrays.files:
                return None
            return npz_member(arrays, name, limit=MAX_POINTS * POINT_BYTES)
    except (OSError, ValueError) as error:
        raise SceneError(where=str(path), rule=f"cannot be read: {_why(error)}") from None


def _bytes(path: Path) -> bytes:
    try:
        return read_bytes(path, MAX_POINTS * POINT_BYTES, "MAX_POINTS")
    except (OSError, ValueError) as error:
        raise SceneError(where=str(path), rule=f"cannot be read: {_why(error)}") from None


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _read_ply(path: Path) -> NDArray[np.float32]:
    """PLY 1.0, ascii or binary_little_endian; vertices first, scalar properties."""
    raw = _bytes(path)
    end = raw.find(b"end_header")
    start = raw.find(b"\n", end) + 1
    lines = raw[:end].decode("ascii", "replace").splitlines()
    if end < 0 or start == 0 or not lines or lines[0].strip() != "ply":
        raise SceneError(where=str(path), rule="no PLY header")
    words = [line.split() for line in lines[1:]]
    forms = [w[1] for w in words if w[:1] == ["format"] and len(w) == 3]
    elements = [i for i, w in enumerate(words) if w[:1] == ["element"]]
    try:
        count = int(words[elements[0]][2]) if words[elements[0]][1] == "vertex" else -1
        last = elements[1] if len(elements) > 1 else len(words)
        properties = [w for w in words[elements[0] : last] if w[:1] == ["property"]]
        fields = [(name.lower(), _PLY_TYPES[kind]) for _, kind, name in properties]
        layout = np.dtype(fields)
    except (IndexError, KeyError, ValueError):
        count, layout = -1, np.dtype([])
    if count < 0 or forms not in (["ascii"], ["binary_little_endian"]):
        raise SceneError(
            where=str(path),
            rule="needs PLY ascii or binary_little_endian with scalar vertex properties first",
        )
    names = layout.names or ()
    if len(names) > MAX_COLUMNS or count > MAX_POINTS:
        rule = f"{count:,} vertices of {len(names)} properties, more than the {MAX_POINTS:,} of "
        rule += f"MAX_POINTS or the {MAX_COLUMNS} of MAX_COLUMNS"
        raise SceneError(where=str(path), rule=rule)
    if lacking := [name for name in NEEDED if name not in names]:
        raise SceneError(where=str(path), rule=f"no vertex property {', '.join(lacking)}")
    try:
        if forms == ["ascii"]:
            file = io.BytesIO(raw)
            file.seek(start)
            columns: Sequence[Any] = _ascii_columns(file, names, count)
        else:
            vertices = np.frombuffer(raw, layout, count, start)
            columns = [vertices[name] for name in NEEDED]
    except ValueError as error:
        raise SceneError(
            where=str(path), rule=f"truncated or damaged: {count} vertices promised, {error}"
        ) from None
    points: NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32)
    return points


def _ascii_columns(file: io.BytesIO, names: Sequence[str], count: int) -> list[NDArray[np.float64]]:
    """(count,) x, y, z and intensity of the lines that follow. Raises ``ValueError``."""

    def lines() -> Iterator[str]:
        while line := file.readline(_LINE_BYTES):
            if len(line) == _LINE_BYTES or len(values := line.split()) not in (0, len(names)):
                raise ValueError(f"a line is not {len(names)} values")
            if values:
                yield line.decode("ascii")

    if not count:
        return [np.empty(0)] * len(NEEDED)
    wanted = [names.index(name) for name in NEEDED]
    table = np.loadtxt(lines(), max_rows=count, ndmin=2, usecols=wanted)
    if len(table) != count:
        raise ValueError(f"{len(table)} rows")
    return list(table.T)
