"""TFRecord files: what is read back, and what is refused."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from bounded_reading import refusal_of

from datasets.errors import SceneError
from datasets.sources.waymo import tfrecord
from datasets.sources.waymo.tfrecord import TFRecordFile, masked_crc


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    parts = (length, struct.pack("<I", masked_crc(length)), data)
    return b"".join((*parts, struct.pack("<I", masked_crc(data))))


def bitwise_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


@pytest.fixture()
def file(tmp_path: Path) -> Path:
    path = tmp_path / "log.tfrecord"
    path.write_bytes(record(b"first") + record(b"") + record(bytes(range(256)) * 9))
    return path


def test_the_checksum_is_the_published_crc32c_masked() -> None:
    assert bitwise_crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C (RFC 3720)
    for data in (b"", b"123456789", bytes(range(256))):
        crc = bitwise_crc32c(data)
        rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
        assert masked_crc(data) == (rotated + 0xA282EAD8) % 2**32


def test_records_are_read_back_in_any_order(file: Path) -> None:
    records = TFRecordFile(file)
    assert len(records) == 3
    assert records.read(2) == bytes(range(256)) * 9
    assert records.read(0) == b"first"
    assert records.read(1) == b""


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_truncated_file_names_itself_and_the_record(file: Path, cut: int) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-cut])
    with pytest.raises(SceneError, match=r"record 2.*truncated") as caught:
        TFRecordFile(file)
    assert str(file) in str(caught.value)


def test_a_file_that_ends_inside_a_header_is_truncated(file: Path) -> None:
    file.write_bytes(record(b"first") + b"1234567")
    with pytest.raises(SceneError, match=r"record 1.*truncated"):
        TFRecordFile(file)


def test_a_changed_byte_of_the_data_is_found(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[12] ^= 1
    file.write_bytes(raw)
    records = TFRecordFile(file)
    assert len(records.read(2)) == 256 * 9
    with pytest.raises(SceneError, match=r"record 0.*checksum of its data"):
        records.read(0)


@pytest.mark.parametrize("byte", [0, 7, 8, 11])
def test_a_changed_byte_of_a_header_is_found(file: Path, byte: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(record(b"first")) + byte] ^= 64
    file.write_bytes(raw)
    with pytest.raises(SceneError, match=r"record 1.*checksum of its length"):
        TFRecordFile(file)


def test_no_file_and_an_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="cannot be read"):
        TFRecordFile(tmp_path / "absent.tfrecord")
    (tmp_path / "empty.tfrecord").touch()
    with pytest.raises(SceneError, match="no record"):
        TFRecordFile(tmp_path / "empty.tfrecord")


def test_a_record_that_states_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    length = struct.pack("<Q", (3 << 30) - 16)
    path.write_bytes(length + struct.pack("<I", masked_crc(length)))
    os.truncate(path, 3 << 30)
    said = refusal_of(lambda: TFRecordFile(path).read(0))
    assert "more than the 268,435,456 of MAX_RECORD_BYTES" in said
    length = struct.pack("<Q", 2**64 - 1)
    path.write_bytes(length + struct.pack("<I", masked_crc(length)))
    assert "truncated" in refusal_of(lambda: TFRecordFile(path).read(0))


def test_pipes_and_files_over_the_limit_are_not_opened(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tfrecord, "MAX_FILE_BYTES", 10)
    assert "more than the 10 of MAX_FILE_BYTES" in refusal_of(lambda: TFRecordFile(file))
    file.unlink()
    os.mkfifo(file)
    assert "not a regular file" in refusal_of(lambda: TFRecordFile(file))
