"""A small file that promises gigabytes, or never ends, is refused before anyone believes it."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np
import pytest
import torch
import zarr
from bounded_reading import refusal_of
from label_scenes import GRID, as_older_code_wrote_it, header, scene
from PIL import Image
from test_pandaset import write_sequence
from zarr.storage import LocalStore

from autolabel.confidence.calibration import Calibration
from datasets.benchmarks import openoccupancy, surroundocc
from datasets.benchmarks.waymo_sequences import sequence_of
from datasets.errors import SceneError, UnreadableError
from datasets.files import bounded_files
from datasets.files.seals import sealed
from datasets.geometry.grid import VoxelGrid
from datasets.labels.log_identity import files_digest
from datasets.labels.shard_reader import _unpacked_size, check_layout
from datasets.labels.store import LabelStore
from datasets.sources import picture_headers
from datasets.sources.pandaset import PandasetSequence
from datasets.sources.pictures import decode_picture, picture_size
from datasets.sources.point_files import PointFormat, read_classes, read_points
from datasets.store_ops.maintenance import info
from models.checkpoints.checkpoint import metadata_json
from models.checkpoints.official import read_checkpoint
from models.training.report import TrainingLog

SPARSE_BYTES = 3 << 30
DEEP = "[" * 100_000 + "]" * 100_000


def sparse(path: Path, size: int = SPARSE_BYTES) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def pipe(path: Path) -> Path:
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


# what opening would wait for


def test_point_classes_in_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    pipe(tmp_path / "a.classes.npy")
    said = refusal_of(lambda: read_classes(tmp_path / "a.bin", n_points=3, n_classes=17))
    assert "not a regular file" in said


def test_a_pipe_has_no_content_of_a_log(tmp_path: Path) -> None:
    digests: list[str] = []
    path = pipe(tmp_path / "labels.npz")
    thread = threading.Thread(target=lambda: digests.append(files_digest([path])), daemon=True)
    thread.start()
    thread.join(10)
    assert digests


# pictures


def picture(path: Path, size: tuple[int, int] = (10, 10)) -> str:
    def read() -> None:
        picture_size(path)
        decode_picture(path, size=size, stated_by="scene.json", where=path.name)

    return refusal_of(read)


def tags(*more: tuple[int, int, int, int]) -> bytes:
    """A TIFF file's header and directory of 10 x 10 grey pixels at byte 1000."""
    own = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    own += [(277, 3, 1, 1), (278, 4, 1, 10)]
    entries = sorted({entry[0]: entry for entry in (*own, *more)}.values())
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


STRIP = ((273, 4, 1, 1000), (279, 4, 1, 100))


def test_a_tiff_of_millions_of_strips_or_tags_is_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.tiff"
    good.write_bytes(tags(*STRIP).ljust(1100, b"\x80"))
    assert decode_picture(good, size=(10, 10), stated_by="-", where="-").shape == (10, 10, 3)
    for name, entry in {
        "strips": (273, 4, 60_000_000, 1000),
        "tag": (33432, 3, 120_000_000, 9),
    }.items():
        path = tmp_path / f"{name}.tiff"
        path.write_bytes(tags(STRIP[1], entry) if name == "strips" else tags(*STRIP, entry))
        assert "MAX_TAG_BYTES" in picture(sparse(path, 255 << 20)), name


@pytest.mark.parametrize("pointer", [34665, 34853])
def test_tags_that_another_tag_leads_to_are_counted(tmp_path: Path, pointer: int) -> None:
    path = tmp_path / "a.tiff"
    below = struct.pack("<H", 1) + struct.pack("<HHII", 33432, 3, 120_000_000, 9) + bytes(4)
    path.write_bytes(tags(*STRIP, (pointer, 4, 1, 1200)).ljust(1200, b"\x80") + below)
    assert "MAX_TAG_BYTES" in picture(sparse(path, 255 << 20))


def test_a_tile_far_larger_than_its_picture_is_refused(tmp_path: Path) -> None:
    tile = ((322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 1000), (325, 4, 1, 1000))
    path = tmp_path / "a.tiff"
    path.write_bytes(tags((259, 3, 1, 5), *tile).ljust(5000, b"\x80"))
    assert "a tile of 1,600,000,000 pixels" in picture(path)


def test_an_exif_block_of_millions_of_values_is_refused(tmp_path: Path) -> None:
    image, whole = Image.new("RGB", (10, 10)), io.BytesIO()
    image.save(whole, "PNG")
    raw = whole.getvalue()
    block = tags((0x0112, 3, 1, 6), (33432, 3, 60_000_000, 60)) + bytes(130 << 20)
    chunk = b"eXIf" + block
    path = tmp_path / "a.png"
    path.write_bytes(
        raw[:33]
        + struct.pack(">I", len(block))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + raw[33:]
    )
    assert "MAX_TAG_BYTES" in picture(path)


def jpeg(path: Path, before: bytes = b"", **how: Any) -> bytes:
    whole = io.BytesIO()
    Image.new("L", how.pop("size", (10, 10))).save(whole, "JPEG", **how)
    raw = whole.getvalue()
    path.write_bytes(raw[:2] + before + raw[2:])
    return path.read_bytes()


def exif_segment(block: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block


def test_a_jpegs_exif_is_measured_before_pillow_joins_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    jpeg(path, exif_segment(bytes(65_000)) * 300)
    assert "MAX_SEGMENT_BYTES" in picture(path)
    jpeg(path, exif_segment(tags((33432, 3, 120_000_000, 9))))
    assert "MAX_TAG_BYTES" in picture(path)


def test_a_jpeg_that_repeats_its_scans_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    raw = jpeg(path, progressive=True, size=(2000, 2000))
    assert picture_size(path) == (2000, 2000)
    scan, end = raw.rfind(b"\xff\xda"), raw.rfind(b"\xff\xd9")
    table = raw.rfind(b"\xff\xc4", 0, scan)
    path.write_bytes(raw[:end] + raw[table:end] * 5000 + raw[end:])
    assert "MAX_SCANS" in picture(path, (2000, 2000))


def test_large_tiffs_of_other_byte_orders_are_measured_too() -> None:
    large = b"MM\0\x2b" + struct.pack(">HHQQ", 8, 0, 16, 1)
    large += struct.pack(">HHQQ", 273, 16, 1 << 40, 99)
    with pytest.raises(ValueError, match="8,796,093,022,208 bytes"):
        picture_headers.check_header(io.BytesIO(large), 100)
    with pytest.raises(ValueError, match="tags take more"):
        count = struct.pack(">Q", 1 << 50)
        picture_headers.check_header(io.BytesIO(large[:16] + count + large[24:]), 100)


# point files, zip files, lists


def test_a_zip_file_of_millions_of_members_is_refused(tmp_path: Path) -> None:
    entry = b"PK\1\2" + struct.pack("<6H3I5H2I", 20, 20, *[0] * 7, 1, *[0] * 6) + b"a"
    n = 4_000_000
    end = b"PK\5\6" + struct.pack("<4H2IH", 0, 0, n & 0xFFFF, n & 0xFFFF, n * len(entry), 4, 0)
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK\3\4" + entry * n + end)
    assert "MAX_DIRECTORY_BYTES" in refusal_of(lambda: read_points(path, PointFormat()))
    path.rename(tmp_path / "a.pth")
    assert "MAX_DIRECTORY_BYTES" in refusal_of(lambda: read_checkpoint(tmp_path / "a.pth"))


def ply(path: Path, count: int, columns: int, body: bytes) -> Path:
    names = ["x", "y", "z", "intensity", *(f"p{i}" for i in range(columns - 4))]
    lines = ["ply", "format ascii 1.0", f"element vertex {count}"]
    lines += [*(f"property float {name}" for name in names), "end_header", ""]
    path.write_bytes("\n".join(lines).encode() + body)
    return path


def test_text_points_of_one_endless_line_or_many_columns_are_refused(tmp_path: Path) -> None:
    path = ply(tmp_path / "a.ply", 4, 4, b"1 " * (100 << 20))
    assert "a line is not 4 values" in refusal_of(lambda: read_points(path, PointFormat()))
    path = ply(tmp_path / "b.ply", 300_000, 204, (b"1 " * 204 + b"\n") * 300_000)
    assert "MAX_COLUMNS" in refusal_of(lambda: read_points(path, PointFormat()))
    path = ply(tmp_path / "c.ply", 2, 5, b"1 2 3 4 5\n\n6 7 8 9 10\n3 1 2 3\n")
    points, _, _ = read_points(path, PointFormat())
    np.testing.assert_array_equal(points, [[1, 2, 3, 4], [6, 7, 8, 9]])


@pytest.mark.parametrize("fmt", [openoccupancy, surroundocc])
def test_a_list_of_more_voxels_than_any_grid_has_is_refused(tmp_path: Path, fmt: Any) -> None:
    np.save(tmp_path / "a.npy", np.zeros((60_000_000, 4), np.uint8))
    assert "MAX_ROWS" in refusal_of(lambda: fmt.read_labels(tmp_path / "a.npy"))


def test_a_grid_of_more_voxels_than_fit_is_none() -> None:
    with pytest.raises(ValueError, match="MAX_VOXELS"):
        VoxelGrid(min_m=(0, 0, 0), size_m=(1, 1, 1), shape=(2**31, 6, 4))


# tables


@pytest.mark.parametrize("spoil", [sparse, pipe])
def test_a_table_of_cuboids_is_measured_first(
    tmp_path: Path, spoil: Callable[[Path], Path]
) -> None:
    root = write_sequence(tmp_path / "in")
    spoil(root / "002/annotations/cuboids_csv/02.csv")
    sequence = PandasetSequence(root, "002")
    (tmp_path / "out").mkdir()
    damaged: dict[str, str] = {}

    def read() -> None:
        damaged.update(sequence.write_scene(tmp_path / "out"))
        raise SceneError(where="frames", rule=str(damaged))

    said = refusal_of(read)
    assert "MAX_CUBOIDS_BYTES" in said or "not a regular file" in said


@pytest.mark.parametrize("spoil", [sparse, pipe])
def test_a_picture_is_measured_before_it_is_copied(
    tmp_path: Path, spoil: Callable[[Path], Path]
) -> None:
    root = write_sequence(tmp_path / "in")
    sequence = PandasetSequence(root, "002")
    (tmp_path / "out/lidar").mkdir(parents=True)
    for path in root.glob("002/camera/front_camera/*.jpg"):
        spoil(path)
    said = refusal_of(lambda: [sequence.write_sweep(k, tmp_path / "out") for k in sequence.frames])
    assert "MAX_PICTURE_BYTES" in said or "not a regular file" in said


@pytest.mark.parametrize("time", ["1e999", "1" + "0" * 400, "true, 1e13"])
def test_times_of_pictures_that_no_clock_has_are_refused(tmp_path: Path, time: str) -> None:
    root = write_sequence(tmp_path / "in")
    path = root / "002/camera/front_camera/timestamps.json"
    path.write_text(f"[{time}, 1, 2, 3]")
    assert "list of seconds" in refusal_of(lambda: PandasetSequence(root, "002"))


@pytest.mark.parametrize("spoil", [sparse, pipe])
def test_the_list_of_sequences_is_measured_first(
    tmp_path: Path, spoil: Callable[[Path], Path]
) -> None:
    (tmp_path / "voxel04").mkdir()
    spoil(tmp_path / "voxel04/sequences.csv")
    said = refusal_of(lambda: sequence_of(tmp_path, None, "a"))  # type: ignore[arg-type]
    assert "MAX_SEQUENCES_BYTES" in said or "not a regular file" in said


# checkpoints and training


def test_a_tensor_of_more_values_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    tied = torch.arange(1000.0)
    torch.save({"state_dict": {"a": tied, "b": tied}}, path)
    assert set(read_checkpoint(path).tensors) == {"a", "b"}
    torch.save({"state_dict": {"a": torch.ones(1).expand(1 << 40)}}, path)
    assert "its tensors say 4,398,0" in refusal_of(lambda: read_checkpoint(path))


def test_a_tensor_is_not_made_by_its_type(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"a": torch.ones(1)}}, path)
    with zipfile.ZipFile(path) as old:
        members = {m.filename: old.read(m) for m in old.infolist()}
    made = b"ctorch\nFloatTensor\nJ" + struct.pack("<i", 1 << 28) + b"\x85R"
    with zipfile.ZipFile(path, "w") as new:
        for name, data in members.items():
            pickled = b"\x80\x02}X\x01\x00\x00\x00a" + made + b"s."
            new.writestr(name, pickled if name.endswith("data.pkl") else data)
    assert "makes a FloatTensor" in refusal_of(lambda: read_checkpoint(path))


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000 + "1" + "}" * 100_000, "1" * 6000, "{"])
def test_a_document_beside_the_weights_is_refused_by_name(tmp_path: Path, text: str) -> None:
    said = refusal_of(
        lambda: metadata_json({"calibration": text}, "calibration", Calibration.from_json, tmp_path)
    )
    assert said.startswith(f"{tmp_path}: damaged ") and len(said) < 300


@pytest.mark.parametrize("spoil", [sparse, pipe])
def test_a_log_of_training_is_measured_first(tmp_path: Path, spoil: Callable[[Path], Path]) -> None:
    spoil(tmp_path / "log.jsonl")
    log = TrainingLog.__new__(TrainingLog)
    log.silent, log.folder, log.start = False, tmp_path, 0
    said = refusal_of(log.__enter__)
    assert "MAX_LOG_BYTES" in said or "not a regular file" in said


# stores


@pytest.fixture()
def store(tmp_path: Path) -> Path:
    LabelStore.create(tmp_path / "a", header()).write_scene(scene("s1", frames=3))
    return tmp_path / "a"


def read_all(at: Path) -> None:
    stored = LabelStore.open(at).scene("s1")
    for k in range(len(stored)):
        stored.frame(k)


SHARD = "scenes/s1/mask/c/0/0/0/0"


@pytest.mark.parametrize(
    "name",
    [
        *("zarr.json", "scenes/s1/zarr.json", "scenes/s1/mask/zarr.json", SHARD),
        *("scenes/s1/timestamp_us/zarr.json", "scenes/s1/timestamp_us/c/0"),
    ],
)
@pytest.mark.parametrize("spoil", [sparse, pipe])
def test_no_part_of_a_store_is_waited_for_or_believed(
    store: Path, name: str, spoil: Callable[[Path], Path]
) -> None:
    assert (store / name).is_file()
    spoil(store / name)
    refusal_of(lambda: read_all(store))


def test_a_shard_whose_index_states_gigabytes_is_refused(store: Path) -> None:
    path = store / SHARD
    frames = json.loads((store / "scenes/s1/mask/zarr.json").read_text())["chunk_grid"]
    count = frames["configuration"]["chunk_shape"][0]
    sparse(path)
    index = np.tile(np.array([0, 2 << 30], "<u8"), (count, 1)).tobytes()
    with path.open("r+b") as file:
        file.seek(-len(index) - 4, os.SEEK_END)
        file.write(index + google_crc32c.value(index).to_bytes(4, "little"))
    as_older_code_wrote_it(store)
    assert "its index states 2,147,483,648 bytes" in refusal_of(lambda: read_all(store))


@pytest.mark.parametrize(
    ("axis", "n", "rule"),
    [(0, 2**20 + 1, "MAX_FRAMES"), (0, 2**70, "MAX_FRAMES"), (1, 2**40, "MAX_ARRAY_BYTES")],
)
def test_a_document_that_declares_giants_is_refused(
    store: Path, axis: int, n: int, rule: str
) -> None:
    path = store / "scenes/s1/mask/zarr.json"
    document = json.loads(path.read_text())
    document["shape"][axis] = document["chunk_grid"]["configuration"]["chunk_shape"][axis] = n
    if axis:
        document["codecs"][0]["configuration"]["chunk_shape"][axis] = n
    path.write_text(json.dumps(document))
    as_older_code_wrote_it(store)
    assert rule in refusal_of(lambda: read_all(store))


def another_layout(store: Path, **how: Any) -> Path:
    """The mask as zarr itself writes it, one chunk for all frames."""
    as_older_code_wrote_it(store)
    folder = store / "scenes/s1/mask"
    shutil.rmtree(folder)
    mask = scene("s1", frames=3).mask
    zarr.create_array(
        store=LocalStore(folder), data=mask, chunks=(3, *GRID.shape), zarr_format=3, **how
    )
    read = refusal_of if how else (lambda read: read())
    read(lambda: read_all(store))
    return folder


def test_arrays_that_zarr_reads_state_what_they_unpack_to(store: Path) -> None:
    chunk = another_layout(store) / "c/0/0/0/0"
    chunk.write_bytes(numcodecs.Zstd(1).encode(bytes(300 << 20)))
    assert "unpacks to 314,572,800 bytes" in refusal_of(lambda: read_all(store))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.labels.shard_reader._unpacked_size", lambda _: 0)
        assert "unpacks to" not in refusal_of(lambda: read_all(store))


def test_a_codec_that_states_no_size_is_refused(store: Path) -> None:
    folder = another_layout(store, compressors=[zarr.codecs.GzipCodec()])
    assert "codec 'gzip' is none of" in refusal_of(lambda: read_all(store))
    document = json.loads((folder / "zarr.json").read_text())
    document["codecs"] = document["codecs"][:1]
    document["chunk_grid"]["configuration"]["chunk_shape"] = [2**40, 1, 1, 1]
    with pytest.raises(ValueError, match="MAX_ARRAY_BYTES"):
        check_layout(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("flags", "stated", "size"),
    [
        (b"\x20", b"\x07", 7),
        (b"\x00", b"\x58", None),
        (b"\x60", b"\x00\x01", 512),
        (b"\x40", b"\x58\x00\x01", 512),
        (b"\xa1", b"\x09" + struct.pack("<I", 1 << 30), 1 << 30),
        (b"\xe3", b"\x00" * 4 + struct.pack("<Q", 1 << 40), 1 << 40),
    ],
)
def test_sizes_of_zstd_frames_are_read_as_rfc_8878_says(
    flags: bytes, stated: bytes, size: int | None
) -> None:
    assert _unpacked_size((b"\x28\xb5\x2f\xfd" + flags + stated).ljust(18, b"\0")) == size


@pytest.mark.parametrize(
    "counts",
    [
        {},
        {"frames": 3},
        {"frames": 3, "voxels": 1, "trusted": 1, "trusted_by_class": [0] * 17},
        {"frames": 3, "voxels": 1, "trusted": 1, "trusted_by_class": [2**63] * 18},
        [],
        None,
    ],
)
def test_counts_that_cannot_be_are_named_with_their_scene(store: Path, counts: object) -> None:
    path = store / "scenes/s1/zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["counts"] = counts
    document["attributes"] = sealed(document["attributes"])
    path.write_text(json.dumps(document))
    with pytest.raises(UnreadableError, match="scene s1: its counts are damaged"):
        info(LabelStore.open(store))


def test_zero_bytes_are_found_wherever_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[1]" * (1 << 20))
    bounded_files.refuse_zeros(path)
    with path.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match="zero bytes"):
        bounded_files.refuse_zeros(path)
