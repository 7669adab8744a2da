"""Records of a TFRecord file, checked, without TensorFlow.

Format (TensorFlow ``record_writer``): per record the length of its data as uint64, the masked
crc32c of these 8 bytes as uint32, the data, the masked crc32c of the data; all little-endian.
"""

from __future__ import annotations

import struct
from pathlib import Path

from datasets.errors import SceneError, SetupError
from datasets.files.bounded_files import regular_size

try:
    import google_crc32c
except ImportError:
    google_crc32c = None

MAX_FILE_BYTES = 64 << 30
"""Of a file: a segment of Waymo's takes about one."""
MAX_RECORD_BYTES = 256 << 20
"""Of a record: fifty times a frame of Waymo's."""
HEADER_BYTES = 12
FOOTER_BYTES = 4


def masked_crc(data: bytes) -> int:
    """The checksum of the format: crc32c rotated right by 15 bits plus a constant.

    Raises:
        SetupError: the ``waymo`` extra is not installed.
    """
    if google_crc32c is None:
        raise SetupError(
            "TFRecord files need google-crc32c: pip install -c constraints.txt -e '.[waymo]'"
        )
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class TFRecordFile:
    """The records of a file, indexed by their number.

    Opening reads only the 12 bytes before each record.

    Raises:
        SceneError: the file cannot be read, is empty, ends inside a record, or the checksum of a
            length is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: list[tuple[int, int]] = []  # where the data begin; how many bytes
        try:
            size = regular_size(path, MAX_FILE_BYTES, "MAX_FILE_BYTES")
            with path.open("rb") as file:
                offset = 0
                while offset < size:
                    self._places.append(self._place(file.read(HEADER_BYTES), offset, size))
                    offset = sum(self._places[-1]) + FOOTER_BYTES
                    file.seek(offset)
        except (OSError, ValueError) as error:
            raise SceneError(where=str(path), rule=f"cannot be read: {error}") from None
        if not self._places:
            raise SceneError(where=str(path), rule="it has no record")

    def _place(self, header: bytes, at: int, size: int) -> tuple[int, int]:
        number = len(self._places)
        if len(header) < HEADER_BYTES:
            raise self._bad(number, f"truncated: the file ends {len(header)} bytes into it")
        length, crc = struct.unpack("<QI", header)
        if crc != masked_crc(header[:8]):
            raise self._bad(number, "the checksum of its length is wrong")
        if (missing := at + HEADER_BYTES + length + FOOTER_BYTES - size) > 0:
            raise self._bad(number, f"truncated: {missing} of its {length} bytes are missing")
        if length > MAX_RECORD_BYTES:
            raise self._bad(
                number,
                f"{length:,} bytes, more than the {MAX_RECORD_BYTES:,} of MAX_RECORD_BYTES in "
                "datasets/sources/waymo/tfrecord.py",
            )
        return at + HEADER_BYTES, length

    def _bad(self, number: int, rule: str) -> SceneError:
        return SceneError(where=str(self.path), frame=f"record {number}", rule=rule)

    def __len__(self) -> int:
        return len(self._places)

    def read(self, number: int) -> bytes:
        """The data of a record.

        Raises:
            SceneError: they cannot be read, or their checksum is wrong.
        """
        offset, length = self._places[number]
        data = self._bytes(offset, length + FOOTER_BYTES)
        if len(data) < length + FOOTER_BYTES:
            raise self._bad(number, "truncated since the file was opened")
        data, crc = data[:length], struct.unpack("<I", data[length:])[0]
        if crc != masked_crc(data):
            raise self._bad(number, "the checksum of its data is wrong")
        return data

    def checksums(self) -> bytes:
        """The stored checksums of all records' data: tells contents apart, reads no data."""
        try:
            with self.path.open("rb") as file:
                out = []
                for offset, length in self._places:
                    file.seek(offset + length)
                    out.append(file.read(FOOTER_BYTES))
        except OSError as error:
            raise SceneError(where=str(self.path), rule=f"cannot be read: {error}") from None
        return b"".join(out)

    def _bytes(self, offset: int, count: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(count)
        except OSError as error:
            raise SceneError(where=str(self.path), rule=f"cannot be read: {error}") from None
