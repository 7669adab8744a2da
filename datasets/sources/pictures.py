"""Decoding of camera images to 8-bit RGB.

The formats are those that logs hold: JPEG, PNG, TIFF, WEBP and BMP. 8-bit grey, palette and
bilevel pictures become RGB; transparency is dropped. 16-bit pictures are full range by their
formats (0..65535) and are scaled to 8 bits. Whose brightest value stays below 4096 is refused: most
likely a camera of 12 bits or fewer wrote its counts unscaled, and the picture would be all but
black. Pictures of 32-bit integers or of floats have no stated white, so they are refused, as are
CMYK, Lab and HSV, which no camera of a log writes.

The EXIF orientation is applied, as ``cv2.imread`` and viewers do, through which calibrations are
made: a size, and the intrinsics that go with it, hold for the upright picture.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from datasets.errors import SceneError
from datasets.files.bounded_files import parsing, regular_size
from datasets.sources.picture_headers import check_exif, check_header

MAX_PIXELS = 32 << 20
"""Of a picture, as its header states them: three times those of a vehicle's largest cameras."""
MAX_PICTURE_BYTES = 256 << 20
"""Of a picture's file: more than MAX_PIXELS take without compression."""
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "La", "RGBa", "YCbCr")
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
LEAST_WHITE = 4096
"""A 16-bit picture without one value so high holds the counts of a camera of at most 12 bits."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE_IS_ZERO = 0
_PHOTOMETRIC = 262
_TURNED = (5, 6, 7, 8)


def decode_picture(
    file: Path | IO[bytes], *, size: tuple[int, int], stated_by: str, where: str, frame: str = ""
) -> NDArray[np.uint8]:
    """(H, W, 3) RGB.

    Args:
        size: width and height that the log states, in pixels of the upright picture.
        stated_by: who states the size; ``where`` and ``frame``: what to name in a message.

    Raises:
        SceneError: missing, cannot be decoded, no 8-bit or 16-bit picture, or of another size.
    """
    try:
        with opened(file) as image:
            if sorted(image.size) != sorted(size):  # before a pixel is decoded
                width, height = image.size
                raise SceneError(
                    where=where,
                    frame=frame,
                    rule=f"picture is {width}x{height}, {stated_by} says {size[0]}x{size[1]}",
                )
            sixteen_bits = image.mode in SIXTEEN_BITS or (
                image.format == "PNG" and image.mode == "I"  # 16-bit grey to Pillow before 11.3
            )
            cut_to_eight = not sixteen_bits and any(";16" in str(tile[-1]) for tile in image.tile)
            orientation = _orientation(image)  # loads a PNG
            rule = ""
            pixels = np.empty((0, 0, 3), np.uint8)
            image.load()
            turn = _TURNS.get(_orientation(image))  # a TIFF is upright once it is loaded
            upright = image if turn is None else image.transpose(turn)
            if sixteen_bits:
                pixels, rule = _from_sixteen_bits(upright, inverted=_white_is_zero(image))
            elif image.mode in EIGHT_BITS:
                pixels = np.asarray(upright.convert("RGB"), np.uint8)
                if cut_to_eight and pixels.max() < LEAST_WHITE >> 8:
                    rule = _too_dark("RGB", f"about {int(pixels.max()) * 256}")
            else:
                rule = _no_white(image.mode)
    except (OSError, ValueError) as error:
        rule = f"picture cannot be decoded: {error}"
        if isinstance(error, UnidentifiedImageError):
            rule = f"picture cannot be decoded: it is none of {', '.join(FORMATS)}"
    if rule:
        raise SceneError(where=where, frame=frame, rule=rule)
    if pixels.shape != (size[1], size[0], 3):
        rule = f"picture is {pixels.shape[1]}x{pixels.shape[0]}"
        if orientation in _TURNED:
            rule += f" once turned as its EXIF orientation {orientation} says"
        raise SceneError(
            where=where, frame=frame, rule=f"{rule}, {stated_by} says {size[0]}x{size[1]}"
        )
    return pixels


@contextlib.contextmanager
def opened(
    file: Path | IO[bytes], formats: tuple[str, ...] = FORMATS
) -> Iterator[ImageFile.ImageFile]:
    """A picture of which only the header is read yet, and whose size can be decoded.

    Raises:
        OSError: it cannot be read, or is of no such format.
        ValueError: it is no regular file, is too large, or was found to be damaged by whoever
            decoded it inside the ``with`` statement.
    """
    if isinstance(file, Path):
        regular_size(file, MAX_PICTURE_BYTES, "MAX_PICTURE_BYTES")
        with file.open("rb") as stream, opened(stream, formats) as image:
            yield image
        return
    with parsing(SceneError):
        check_header(file, MAX_PIXELS)
    with parsing(SceneError), Image.open(file, formats=formats) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(
                f"{width}x{height} are more pixels than the {MAX_PIXELS:,} of MAX_PIXELS in "
                "datasets/sources/pictures.py"
            )
        yield image


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture in pixels. Raises ``SceneError`` as
    ``decode_picture``."""
    try:
        with opened(path) as image:
            width, height = image.size
            # a TIFF's size is that of the upright picture as soon as it is opened
            turned = image.format != "TIFF" and _orientation(image) in _TURNED
            return (height, width) if turned else (width, height)
    except (OSError, ValueError) as error:
        raise SceneError(where=str(path), rule=f"picture cannot be read: {error}") from None


def applied_orientation(path: Path) -> int:
    """The EXIF orientation of a picture's file, 1..8; 1 where it states none or is no picture."""
    try:
        with opened(path) as image:
            return _orientation(image)
    except (OSError, ValueError):
        return 1


def _orientation(image: Image.Image) -> int:
    if image.format == "PNG":
        image.load()  # its EXIF block may follow the pixels
    check_exif(image, MAX_PIXELS)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _white_is_zero(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _from_sixteen_bits(image: Image.Image, *, inverted: bool) -> tuple[NDArray[np.uint8], str]:
    """The picture scaled to 8 bits, and why it must not be used, else empty."""
    stored = np.asarray(image).astype(np.int32)
    if inverted:  # Pillow inverts 8 bits only
        stored = 65535 - stored
    grey = ((stored + 128) // 257).astype(np.uint8)
    white = int(stored.max())
    rule = _too_dark("grey", str(white)) if white < LEAST_WHITE else ""
    return np.repeat(grey[..., None], 3, axis=2), rule


def _too_dark(kind: str, white: str) -> str:
    return (
        f"16-bit {kind} picture whose brightest value is {white} of 65535: the camera's counts "
        "were probably stored unscaled; scale them to 8 bits, or to 0..65535"
    )


def _no_white(mode: str) -> str:
    mode_text = {"I": "32-bit integers", "F": "floats"}.get(mode, mode)
    return (
        f"picture of {mode_text} (mode {mode}): which value is white is not stated; store 8-bit "
        "grey or RGB"
    )
