"""Damaged and hostile label files of every benchmark end in a ``SceneError`` that names the file.

Nothing is unpickled on the way. Run with ``-s`` to see how many files were tried.
"""

from __future__ import annotations

import io
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from datasets.benchmarks import (
    occ3d_nuscenes,
    occ3d_waymo,
    openocc_flow,
    openoccupancy,
    semantic_kitti,
    surroundocc,
)
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SceneError

Arrays = dict[str, NDArray[Any]]
BOMB_WENT_OFF = Path("bomb-went-off")


class Bomb:
    """Unpickling it leaves a file behind."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (BOMB_WENT_OFF,))


def good_npz(module: ModuleType) -> Arrays:
    shape = module.GRID.shape
    rng = np.random.default_rng(0)

    def mask() -> NDArray[Any]:
        return rng.integers(0, 2, shape, np.uint8)

    if module is occ3d_waymo:
        arrays = {"voxel_label": rng.choice(np.array([0, 3, 14, 23], np.uint8), shape)}
        return {
            **arrays,
            **{n: mask() for n in ("origin_voxel_state", "final_voxel_state", "infov")},
        }
    arrays = {"semantics": rng.integers(0, module.TAXONOMY.n_classes, shape, np.uint8)}
    if module is occ3d_nuscenes:
        return {**arrays, "mask_lidar": mask(), "mask_camera": mask()}
    flow = rng.normal(size=(*shape, 2)).astype(np.float32)
    return {**arrays, "flow": flow, "instances": rng.integers(0, 50, shape, np.int32)}


def good_rows(module: ModuleType, width: int) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    shape = module.GRID.shape[::-1] if module is openoccupancy else module.GRID.shape
    index = np.stack([rng.integers(0, n, 200) for n in shape], axis=1)
    classes = rng.integers(0, 17, (200, 1))
    return np.concatenate([index, rng.normal(size=(200, width - 4)), classes], axis=1)


def put(array: NDArray[Any], dtype: Any, value: Any, column: int | None = None) -> NDArray[Any]:
    """A copy as another type with one value changed."""
    out = array.astype(dtype)
    at = (len(out) // 2, *(array.shape[i] // 2 for i in range(1, array.ndim)))
    out[at if column is None else (at[0], column)] = value
    return out


def npz(arrays: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as z:
        for name, data in members.items():
            z.writestr(name, data)
    return file.getvalue()


def claiming(shape: str, descr: str = "'|u1'") -> bytes:
    """A .npy whose header claims more than there is, or nonsense."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)


HEADERS = [
    claiming("(10**3, 10**3)"),
    claiming("(1000000, 1000000, 1000000)"),
    claiming("(99999999999999999999, 9)"),
    claiming("(200, 200, 16)"),
    claiming("(-2, 3)"),
    claiming("(8, 4)", "'|O'"),
    claiming("(8, 4)", "'<f99'"),
    claiming("(8, 4)", "[('x', '<f4')]"),
    claiming("(8, 4"),
    claiming("[" * 500),
    claiming("(8, 4)", "__import__('os')"),
    b"\x93NUMPY\x07\x00" + bytes(64),
    b"\x93NUMPY\x01\x00\xff\xff" + bytes(10),
    b"\x93NUMPY",
]


def any_garbage(good: bytes) -> Iterator[bytes]:
    """What may lie where a label file should, whatever the format."""
    rng = np.random.default_rng(1)
    yield b""
    yield b"\n"
    yield b"not a label file"
    yield bytes(64)
    yield b"PK\x03\x04"
    yield b"PK\x05\x06" + bytes(18)  # an empty zip file
    yield b"<html>404</html>"
    yield pickle.dumps(Bomb())
    yield pickle.dumps({"semantics": Bomb()})
    yield from HEADERS
    for size in (1, 16, 64, 128, 1000, 4096):
        yield rng.bytes(size)
    for share in np.linspace(0.001, 0.999, 12):
        yield good[: int(len(good) * share)]
    yield good[:-1]
    yield good[len(good) // 2 :]
    yield zipped({"x.txt": b"hello"})
    yield zipped({"../../semantics.npy": b"hello"})
    objects = np.array([Bomb(), 1], object)
    file = io.BytesIO()
    np.save(file, objects, allow_pickle=True)
    yield file.getvalue()
    yield zipped({"semantics.npy": file.getvalue()})
    yield npy(np.zeros(3, np.uint8))
    yield npy(np.array(5))


def bad_values(
    array: NDArray[Any], too_high: int, columns: list[int | None], signed: bool
) -> Iterator[NDArray[Any]]:
    """The array with a value that is no class, no index or no flag."""
    for column in columns:
        for value in (too_high, 256, 300, 65536 + 1, 2**40):
            yield put(array, np.int64, value, column)
        for value in (np.nan, np.inf, -np.inf, 0.5, 1e30, -0.5):
            yield put(array, np.float64, value, column)
        yield put(array, np.float32, np.nan, column)
        yield put(array, np.float16, np.inf, column)
        yield put(array, np.uint64, 2**64 - 1, column)
        if not signed:
            yield put(array, np.int8, -1, column)
            yield put(array, np.int64, -1, column)
            yield put(array, np.int64, -(2**63), column)


def bad_types(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for dtype in ("S3", "U3", "complex64", "datetime64[s]", "timedelta64[s]", "V4"):
        yield array.astype("i8").astype(dtype)
    yield np.zeros(array.shape, [("a", "u1"), ("b", "f4")])


def bad_npz(module: ModuleType, good: Arrays) -> Iterator[bytes]:
    members = {f"{name}.npy": npy(array) for name, array in good.items()}

    def with_array(name: str, array: NDArray[Any]) -> bytes:
        return zipped({**members, f"{name}.npy": npy(array)})

    for name, array in good.items():
        file = f"{name}.npy"
        if name != "instances":
            yield zipped({k: v for k, v in members.items() if k != file})
        for other in (
            array.reshape(-1),
            array[:-1],
            array[None],
            array.swapaxes(0, 2),
            array[..., :1],
            array[:0],
            np.uint8(3),
        ):
            yield with_array(name, np.asarray(other))
        for other in bad_types(array):
            yield with_array(name, other)
        for data in (*HEADERS, b"", b"not numpy", members[file][:-9]):
            yield zipped({**members, file: data})
        objects = np.full(array.shape, None, object)
        objects[0, 0, 0] = Bomb()
        yield with_array(name, objects)
    for name, array in good.items():
        if name == "flow":
            for value in (np.nan, np.inf, 1e300):
                yield with_array(name, put(array, np.float64, value))
        elif name == "instances":
            for value in (np.nan, 0.5, 2**40, -(2**40)):
                yield with_array(name, put(array, np.float64, value))
        elif name in ("semantics", "voxel_label"):
            top = 15 if module is occ3d_waymo else module.TAXONOMY.n_classes
            for other in bad_values(array, top, [None], signed=False):
                yield with_array(name, other)
            yield with_array(name, put(array, np.uint8, 254))
            yield with_array(name, array > 0)
        else:
            for other in bad_values(array, 2, [None], signed=False):
                yield with_array(name, other)
    whole = npz(good)
    at = whole.rindex(b"PK\x01\x02")
    yield whole[: at + 8] + b"\x01\x00" + whole[at + 10 :]  # the last array says it is encrypted
    yield whole[: at + 10] + b"\x63\x00" + whole[at + 12 :]  # compressed in an unknown way
    bomb = claiming("(200, 200, 16)") + bytes(50_000_000)
    yield zipped({**members, f"{next(iter(good))}.npy": bomb}, zipfile.ZIP_DEFLATED)


def bad_rows(rows: NDArray[Any], high: list[int]) -> Iterator[bytes]:
    yield npy(rows[:, :3])
    yield npy(rows[:, :0])
    yield npy(rows.reshape(-1))
    yield npy(rows[None])
    yield npy(np.concatenate([rows, rows], axis=1)[:, :6])
    for other in bad_types(rows):
        yield npy(other)
    for column, top in enumerate(high):
        if top == 0:  # a velocity
            for value in (np.nan, np.inf, -np.inf, 1e300):
                yield npy(put(rows, np.float64, value, column))
            continue
        for other in bad_values(rows, top, [column], signed=False):
            if not (top > 300 and other[len(rows) // 2, column] in (256, 300)):
                yield npy(other)
    yield npz({"rows": rows})
    yield npy(rows)[:-1]
    yield npy(rows) + b"\0"
    yield npy(rows) * 2


class Tried:
    """Reads bad files and counts them."""

    def __init__(self, read: Callable[[Path], GroundTruth], path: Path) -> None:
        self.read, self.path, self.count = read, path, 0

    def refuses(self, content: bytes | None, says: Path | None = None) -> None:
        if content is not None:
            self.path.write_bytes(content)
        with pytest.raises(SceneError) as error:
            self.read(self.path)
        assert error.value.where == str(says or self.path), error.value
        assert error.value.rule and "\x00" not in error.value.rule
        self.count += 1

    def refuses_what_is_no_file(self) -> None:
        self.path.unlink(missing_ok=True)
        self.refuses(None)  # absent
        self.path.mkdir()
        self.refuses(None)  # a folder
        self.path.rmdir()
        self.path.symlink_to(self.path)
        self.refuses(None)  # a link to itself
        self.path.unlink()

    def survives_flipped_bytes(self, good: bytes, times: int) -> None:
        """A flipped byte is refused, or leaves labels that keep every rule."""
        rng = np.random.default_rng(2)
        ends = [*range(0, 160, 4), *range(len(good) - 160, len(good), 4)]
        for at in [*ends, *rng.integers(0, len(good), times)]:
            data = bytearray(good)
            data[at] ^= int(rng.integers(1, 256))
            self.path.write_bytes(data)
            try:
                assert isinstance(self.read(self.path), GroundTruth)
            except SceneError as error:
                assert error.where == str(self.path)
            self.count += 1

    def report(self, name: str, least: int) -> None:
        print(f"\n{name}: {self.count} bad files, each refused by name or within the rules")
        assert self.count >= least
        assert not BOMB_WENT_OFF.exists(), "something was unpickled"


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "module", [occ3d_nuscenes, occ3d_waymo, openocc_flow], ids=lambda m: m.__name__.split(".")[-1]
)
def test_bad_npz_files_are_refused_by_name(module: ModuleType, tmp_path: Path) -> None:
    good = good_npz(module)
    tried = Tried(module.read_labels, tmp_path / "labels.npz")
    tried.path.write_bytes(npz(good))
    module.read_labels(tried.path)
    tried.refuses_what_is_no_file()
    for content in any_garbage(npz(good)):
        tried.refuses(content)
    for content in bad_npz(module, good):
        tried.refuses(content)
    tried.survives_flipped_bytes(npz(good), 20)
    tried.report(tried.read.__module__, 150)


@pytest.mark.parametrize(
    ("module", "high"),
    [
        (openoccupancy, [40, 512, 512, 17]),
        (openoccupancy, [40, 512, 512, 0, 0, 0, 17]),
        (surroundocc, [200, 200, 16, 17]),
    ],
    ids=["openoccupancy", "openoccupancy-flow", "surroundocc"],
)
def test_bad_lists_of_voxels_are_refused_by_name(
    module: ModuleType, high: list[int], tmp_path: Path
) -> None:
    good = good_rows(module, len(high))
    tried = Tried(module.read_labels, tmp_path / "labels.npy")
    tried.path.write_bytes(npy(good))
    module.read_labels(tried.path)
    tried.refuses_what_is_no_file()
    for content in any_garbage(npy(good)):
        tried.refuses(content)
    for content in bad_rows(good, high):
        tried.refuses(content)
    tried.survives_flipped_bytes(npy(good), 40)
    tried.report(tried.read.__module__, 150)


def test_bad_semantic_kitti_files_are_refused_by_name(tmp_path: Path) -> None:
    n = semantic_kitti.GRID.n_voxels
    rng = np.random.default_rng(0)
    raw = rng.choice(np.array([*semantic_kitti.LEARNING_MAP], "<u2"), n)
    label, invalid = raw.tobytes(), rng.bytes(n // 8)
    tried = Tried(semantic_kitti.read_labels, tmp_path / "0.label")
    beside = tmp_path / "0.invalid"
    beside.write_bytes(invalid)
    tried.path.write_bytes(label)
    semantic_kitti.read_labels(tried.path)
    tried.refuses_what_is_no_file()
    sizes = (0, 1, n - 1, n, 2 * n - 1, 2 * n + 1, 2 * n + 2, 4 * n)
    for content in (*any_garbage(label), *((label * 2)[:size] for size in sizes)):
        tried.refuses(content)
    for other in [*range(2, 10), *range(100, 130), *range(260, 300), 1000, 32768, 65535]:
        changed = raw.copy()
        changed[rng.integers(n)] = other
        tried.refuses(changed.tobytes())
    tried.path.write_bytes(label)
    for content in (*any_garbage(invalid), invalid[:-1], invalid + b"0", invalid * 2):
        beside.write_bytes(content)
        tried.refuses(None, says=beside)
    beside.unlink()
    tried.refuses(None, says=beside)
    beside.mkdir()
    tried.refuses(None, says=beside)
    shutil.rmtree(beside)
    tried.report("datasets.benchmarks.semantic_kitti", 150)
