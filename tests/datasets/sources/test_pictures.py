"""Pictures of every kind that a log may hold: decoded rightly, or refused with the reason."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from datasets.errors import SceneError
from datasets.sources.pictures import applied_orientation, decode_picture, picture_size

GREY = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (8, 1))
SKY_ABOVE = np.concatenate([np.full((8, 32, 3), (90, 150, 255)), np.full((8, 32, 3), 60)])


def decoded(path: Path, size: tuple[int, int] = (32, 8)) -> np.ndarray:
    return decode_picture(path, size=size, stated_by="scene.json", where=path.name)


def save_png16(path: Path, values: np.ndarray) -> Path:
    """A 16-bit PNG of (H, W) grey or (H, W, 3) RGB values, which Pillow itself cannot write."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = 0 if values.ndim == 2 else 2

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def save(path: Path, picture: Image.Image, **how: object) -> Path:
    picture.save(path, **how)  # type: ignore[arg-type]
    return path


def test_grey_of_sixteen_bits_is_scaled_to_eight(tmp_path: Path) -> None:
    wide = GREY.astype(np.uint16) * 257
    files = [
        save_png16(tmp_path / "grey.png", wide),
        save_png16(tmp_path / "rgb.png", np.repeat(wide[..., None], 3, axis=2)),
        save(tmp_path / "grey.tif", Image.fromarray(wide)),
        save(tmp_path / "inverted.tif", Image.fromarray(65535 - wide), tiffinfo={262: 0}),
    ]
    for path in files:
        assert np.abs(decoded(path).astype(int) - GREY[..., None]).max() <= 1, path.name


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_palette_and_alpha_become_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    black_and_white = Image.fromarray(np.where(GREY > 127, 255, 0).astype(np.uint8))
    path = save(tmp_path / f"a{suffix}", black_and_white.convert("RGB").convert(mode))
    expected = np.asarray(black_and_white)[..., None]
    assert np.abs(decoded(path).astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("name", "picture", "says"),
    [
        ("a.tif", Image.fromarray((GREY / 255).astype(np.float32)), "floats .mode F.: which value"),
        ("a.tif", Image.fromarray(GREY.astype(np.int32) * 65536), "32-bit integers .mode I."),
        ("a.tif", Image.fromarray(GREY).convert("CMYK"), "picture of CMYK .* store 8-bit grey"),
        ("a.tif", Image.fromarray(GREY.astype(np.uint16) * 16), "4080 of 65535: .* unscaled"),
        ("a.gif", Image.fromarray(GREY), "none of JPEG, PNG, TIFF, WEBP, BMP"),
        ("a.eps", Image.fromarray(GREY), "none of JPEG, PNG, TIFF, WEBP, BMP"),
    ],
)
def test_a_picture_without_a_known_white_or_of_another_format_is_refused(
    tmp_path: Path, name: str, picture: Image.Image, says: str
) -> None:
    with pytest.raises(SceneError, match=says):
        decoded(save(tmp_path / name, picture))


def test_colours_of_a_twelve_bit_camera_stored_unscaled_are_refused(tmp_path: Path) -> None:
    counts = np.repeat(GREY.astype(np.uint16)[..., None] * 16, 3, axis=2)
    with pytest.raises(SceneError, match=r"16-bit RGB picture .* scale them to 8 bits"):
        decoded(save_png16(tmp_path / "a.png", counts))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_upright_as_its_exif_orientation_says(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    upright = Image.fromarray(SKY_ABOVE.astype(np.uint8))
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / f"a{suffix}", stored, exif=exif)
    pixels = decoded(path, (32, 16)).astype(int)
    assert np.abs(pixels[2, 8:24] - SKY_ABOVE[2, 8:24]).max() < 20
    assert np.abs(pixels[-3, 8:24] - SKY_ABOVE[-3, 8:24]).max() < 20
    assert picture_size(path) == (32, 16)
    assert applied_orientation(path) == orientation


def test_a_size_that_fits_only_the_stored_side_is_refused_with_the_orientation(
    tmp_path: Path,
) -> None:
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "a.jpg", Image.fromarray(SKY_ABOVE.astype(np.uint8)), exif=exif)
    with pytest.raises(SceneError, match=r"16x32 once turned as its EXIF orientation 6 .* 32x16"):
        decoded(path, (32, 16))


def test_what_is_missing_cut_or_no_picture_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(GREY))
    path.write_bytes(path.read_bytes()[:60])
    for wrong in (path, tmp_path / "none.png"):
        with pytest.raises(SceneError, match="cannot be decoded"):
            decoded(wrong)
    assert applied_orientation(tmp_path / "none.png") == 1
    with pytest.raises(SceneError, match="cannot be read"):
        picture_size(tmp_path / "none.png")


def test_a_giant_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    giant, large = tmp_path / "giant.png", tmp_path / "large.png"
    Image.new("1", (13_000, 13_000)).save(giant)
    Image.new("1", (5_000, 5_000)).save(large)
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    monkeypatch.setattr(PngImageFile, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(SceneError, match=r"5000x5000, scene\.json says 64x48"):
        decoded(large, (64, 48))
    with pytest.raises(SceneError, match="MAX_PIXELS"):
        decoded(giant, (13_000, 13_000))
    with pytest.raises(SceneError, match="MAX_PIXELS"):
        picture_size(giant)


def test_no_picture_is_opened_without_a_list_of_formats() -> None:
    root = Path(__file__).resolve().parents[3]
    for room in ("datasets", "autolabel", "models", "viz"):
        for path in (root / room).rglob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                own = path.name in ("offscreen.py", "class_statistics.py")  # of files just written
                assert "Image.open(" not in line or "formats=" in line or own, f"{path}:{number}"
                assert "imread(" not in line.replace("``cv2.imread``", ""), f"{path}:{number}"
