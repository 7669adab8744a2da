"""Checks of image headers that bound the memory and time of decoding.

Pillow reads all tags of a TIFF file or of an EXIF block at once, and libtiff makes room for a tile
as its tags state it. A progressive JPEG may repeat its scans, each of which is decoded over the
whole picture.

Formats: TIFF 6.0 (section 2), BigTIFF, JPEG (ITU T.81, annex B).
"""

from __future__ import annotations

import io
import struct
from typing import IO

from PIL import Image

MAX_TAG_BYTES = 4 << 20
"""Of all tags of a TIFF file or an EXIF block, colour profiles included."""
MAX_SEGMENT_BYTES = 16 << 20
"""Of all that a JPEG says before its first scan."""
MAX_SCANS = 100
"""Of a progressive JPEG; encoders write about ten."""
_MOST_FOLDERS = 8  # of tags: the picture's, its EXIF, GPS and interoperability
_POINTERS = (34665, 34853, 40965)
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_LARGE_SIZES = {16: 8, 17: 8, 18: 8}
_EXIF = b"Exif\0\0"
_EXIF_SEGMENT, _SCAN, _END, _START = 0xE1, 0xDA, 0xD9, 0xD8
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_ALONE = (0x01, *range(0xD0, 0xD9))
_PIECE_BYTES = 1 << 20


def check_header(file: IO[bytes], max_pixels: int) -> None:
    """Look at a TIFF or JPEG file from its beginning; others pass. Leaves it where it was.

    Raises:
        ValueError: it states more than a limit, or ends inside its header.
    """
    begin = file.read(2)
    if begin in (b"II", b"MM"):
        check_tags(file, max_pixels)
    elif begin == b"\xff\xd8":
        _check_jpeg(file, max_pixels)
    file.seek(0)


def check_exif(image: Image.Image, max_pixels: int) -> None:
    """Look at the EXIF block that an open picture carries. Raises as ``check_header``."""
    blocks = [image.info.get("exif"), image.info.get("Raw profile type exif")]
    if isinstance(text := blocks[1], str):
        blocks[1] = bytes.fromhex("".join(text.split("\n")[3:]))
    for block in blocks:
        if isinstance(block, bytes):
            check_tags(io.BytesIO(block.removeprefix(_EXIF)), max_pixels)


def check_tags(file: IO[bytes], max_pixels: int) -> None:
    """Look at the tags of a TIFF file or an EXIF block. Raises as ``check_header``."""
    file.seek(0)
    head = file.read(16)
    if head[:2] not in (b"II", b"MM") or len(head) < 8:
        return
    order = "<" if head[:2] == b"II" else ">"
    large = head[2:4] in (b"\x2b\0", b"\0\x2b")
    if large and len(head) < 16:
        return
    pending = list(
        struct.unpack(f"{order}Q" if large else f"{order}L", head[8:] if large else head[4:8])
    )
    entry = struct.Struct(f"{order}HHQ8s" if large else f"{order}HHL4s")
    sizes = _SIZES | _LARGE_SIZES if large else _SIZES
    visited, total = set[int](), 0
    tile = {_TILE_WIDTH: 1, _TILE_LENGTH: 1}
    while pending and len(visited) < _MOST_FOLDERS:
        if (offset := pending.pop()) in visited or offset >= 1 << 62:
            continue
        visited.add(offset)
        file.seek(offset)
        width = 8 if large else 2
        (count,) = struct.unpack(
            f"{order}Q" if large else f"{order}H", file.read(width).ljust(width, b"\0")
        )
        if count * entry.size > MAX_TAG_BYTES:
            raise ValueError(
                f"{count:,} tags take more than the {MAX_TAG_BYTES:,} of MAX_TAG_BYTES"
            )
        entries = file.read(count * entry.size)
        n_bytes = len(entries) // entry.size * entry.size
        for tag, kind, n, value in entry.iter_unpack(entries[:n_bytes]):
            total += n * sizes.get(kind, 0)
            if tag in (*_POINTERS, *tile) and n == 1 and kind in (3, 4, 13, 16):
                size = sizes.get(kind, 4)
                number = int.from_bytes(value[:size], "little" if order == "<" else "big")
                if tag in tile:
                    tile[tag] = number
                else:
                    pending.append(number)
    if total > MAX_TAG_BYTES:
        raise ValueError(
            f"its tags say {total:,} bytes, more than the {MAX_TAG_BYTES:,} of MAX_TAG_BYTES"
        )
    if (pixels := tile[_TILE_WIDTH] * tile[_TILE_LENGTH]) > max_pixels:
        raise ValueError(
            f"a tile of {pixels:,} pixels is more than the {max_pixels:,} of MAX_PIXELS"
        )


def _check_jpeg(file: IO[bytes], max_pixels: int) -> None:
    offset, progressive, blocks = 2, False, list[bytes]()
    while True:
        file.seek(offset)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (_SCAN, _END):
            break
        if head[1] == 0xFF or head[1] in _ALONE:  # a fill byte, or a marker without a segment
            offset += 1 if head[1] == 0xFF else 2
            continue
        length = int.from_bytes(head[2:], "big")
        progressive |= head[1] in _PROGRESSIVE
        if head[1] == _EXIF_SEGMENT and (block := file.read(length - 2)).startswith(_EXIF):
            blocks.append(block.removeprefix(_EXIF))
        if (offset := offset + 2 + length) > MAX_SEGMENT_BYTES:
            raise ValueError(
                f"over {MAX_SEGMENT_BYTES:,} bytes before its first scan (MAX_SEGMENT_BYTES)"
            )
    if blocks:
        check_tags(io.BytesIO(b"".join(blocks)), max_pixels)
    if progressive and (scans := _count(file, offset, bytes((0xFF, _SCAN)))) > MAX_SCANS:
        raise ValueError(f"{scans} scans, more than the {MAX_SCANS} of MAX_SCANS")


def _count(file: IO[bytes], at: int, marker: bytes) -> int:
    file.seek(at)
    count, last = 0, b""
    while piece := file.read(_PIECE_BYTES):
        count += (last + piece).count(marker)
        last = piece[-1:]
    return count
