"""Checkpoints and training states are measured before they are loaded."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

import pytest
import torch

from datasets.errors import SetupError
from models.checkpoints import pickled
from models.checkpoints.checkpoint import load_checkpoint
from models.checkpoints.official import read_checkpoint
from models.training.resume_state import load_state


def spoil(path: Path, *, bytes_: bytes | None = None, kind: int = zipfile.ZIP_STORED) -> None:
    """The pickle of a file replaced, or its members compressed."""
    with zipfile.ZipFile(path) as old:
        members = {m.filename: old.read(m) for m in old.infolist()}
    with zipfile.ZipFile(path, "w", kind) as new:
        for name, data in members.items():
            new.writestr(name, bytes_ if bytes_ and name.endswith("data.pkl") else data)


def saved(path: Path) -> Path:
    torch.save({"state_dict": {"a": torch.ones(3)}}, path)
    return path


def test_a_bytearray_of_gigabytes_is_never_made(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth")
    size = struct.pack("<I", (2 << 30) - 1)
    spoil(path, bytes_=b"\x80\x02c__builtin__\nbytearray\nJ" + size + b"\x85R.")
    with pytest.raises(SetupError, match="bytearray"):
        read_checkpoint(path)


def test_compressed_members_are_refused_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth")
    spoil(path, kind=zipfile.ZIP_DEFLATED)
    with pytest.raises(SetupError, match="is compressed"):
        read_checkpoint(path)


def test_a_pickle_of_too_many_opcodes_names_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickled, "MAX_OPCODES", 5)
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        content = {"state_dict": {"a": torch.ones(3)}}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(SetupError, match="MAX_OPCODES"):
            read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_sparse_gigabytes_and_pipes_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.touch()
    os.truncate(path, 9 << 30)
    with pytest.raises(SetupError, match="MAX_FILE_BYTES"):
        read_checkpoint(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SetupError):
        read_checkpoint(path)


def test_a_header_of_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 31) + b"{")
    with pytest.raises(SetupError, match="MAX_HEADER_BYTES"):
        load_checkpoint(path)


@pytest.mark.parametrize("torn", [b"", b"PK\x03\x04", b"\x80\x02}", bytes(100)])
def test_a_torn_training_state_says_what_to_do(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(torn)
    with pytest.raises(SetupError, match="delete it to begin again"):
        load_state(tmp_path, {})
