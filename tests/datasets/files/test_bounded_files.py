"""Files are opened only if they are files, and read only if their size can be."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from folder_log import edit_json, write_log

from datasets.errors import SceneError
from datasets.sources import point_files, strict_json
from datasets.sources.folder import FolderSource
from datasets.sources.point_files import PointFormat
from datasets.sources.strict_json import read_json, read_record


def npy_header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (63 - (10 + len(text)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin1")


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(f"{name}.npy", content)
    return path


def test_a_promise_of_gigabytes_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", points=npy_header((150_000_000, 4)))
    with pytest.raises(SceneError, match=r"2,400,000,000 bytes, more than .* MAX_ARRAY_BYTES"):
        point_files.read_points(path, PointFormat())
    path = npz(tmp_path / "b.npz", points=npy_header((2, 4)) + bytes(300 << 20))
    with pytest.raises(SceneError, match="unpacks to 314,5"):
        point_files.read_points(path, PointFormat())


@pytest.mark.parametrize("suffix", [".bin", ".ply", ".npz"])
def test_a_sparse_file_is_refused_by_its_size(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(SceneError, match=r"3,221,225,472 bytes, more than the .* of MAX_"):
        point_files.read_points(path, PointFormat())


def test_more_points_than_any_lidar_gives_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_files, "MAX_POINTS", 9)
    np.savez(tmp_path / "a.npz", points=np.ones((10, 4), np.float32))
    with pytest.raises(SceneError, match="10 points, more than the 9 of MAX_POINTS"):
        point_files.read_points(tmp_path / "a.npz", PointFormat())


@pytest.mark.parametrize("name", ["scene.json", "lidar/000.npz", "annotations.json"])
def test_a_pipe_is_never_opened(tmp_path: Path, name: str) -> None:
    """Reading one would wait for ever."""
    log = write_log(tmp_path / "log")
    path = log / "scenes/a" / name
    path.unlink()
    os.mkfifo(path)
    source = FolderSource(log, past_sweeps=0)
    with pytest.raises(SceneError, match="not a regular file"):
        frame = source.scene("a").frames[0]
        source.annotations(frame)


def test_json_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_json, "MAX_JSON_BYTES", 100)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(["x" * 200]))
    with pytest.raises(SceneError, match="more than the 100 of MAX_JSON_BYTES"):
        read_json(path, "a.json")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"t": ' + "9" * 5000 + "}",
        '{"t": 1' + "0" * 400 + "}",
        '{"t": ' + str(10**30) + "}",
        '{"t": [1' + "0" * 400 + "]}",
        '{"t": "\\ud800"}',
        '{"t": "a\\u0000b"}',
    ],
)
def test_numbers_and_texts_that_nothing_can_hold_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(SceneError, match=r"a\.json") as caught:
        record = read_record(path, "a.json")
        if '"' in text[6:]:
            record.take("t", str)
        elif "[" in text:
            record.numbers("t", (1,))
        else:
            record.take("t", int)
    assert len(str(caught.value)) < 300
    str(caught.value).encode("utf-8")


def test_a_time_of_the_far_future_is_refused_where_it_stands(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")

    def far(document: dict[str, list[dict[str, int]]]) -> None:
        document["sweeps"][2]["timestamp_us"] = 10**30

    edit_json(log / "scenes/a/scene.json", far)
    with pytest.raises(SceneError, match=r"lidar/002\.npz.*too large"):
        FolderSource(log, past_sweeps=0).scene("a")
