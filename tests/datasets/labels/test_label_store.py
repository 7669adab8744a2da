"""The label store: what is written is read, whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_scenes import GRID, as_older_code_wrote_it, assert_equal, header, scene, tree
from torch.utils.data import DataLoader, Dataset
from zarr.storage import LocalStore

from datasets.errors import SceneError, SetupError, UnreadableError
from datasets.files.seals import digest_of
from datasets.geometry.grid import VoxelGrid
from datasets.labels import scene_writer
from datasets.labels.shard_reader import ShardedFrames
from datasets.labels.store import GridFrame, LabelStore, MaskBit, SceneLabels, StoredScene
from datasets.reviews.overlay import NoteEntry, Reviews
from datasets.storage.atomic_files import new_partial
from datasets.storage.backend import LocalBackend
from datasets.store_ops.maintenance import info, prune, verify
from datasets.taxonomy import OCC3D_NUSCENES


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    frames=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    evidence=st.booleans(),
    flow=st.booleans(),
    frame=st.sampled_from(["ego", "lidar"]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    frames: int,
    seed: int,
    evidence: bool,
    flow: bool,
    frame: GridFrame,
) -> None:
    grid = VoxelGrid(min_m=(0.0, 0.0, 0.0), size_m=(1.0, 1.0, 1.0), shape=shape)
    labels = scene(frames=frames, grid=grid, seed=seed, evidence=evidence, flow=flow, frame=frame)
    path = tmp_path_factory.mktemp("store") / "labels.zarr"
    written = header(grid=grid, flow=flow, frame=frame)
    LabelStore.create(path, written).write_scene(labels)
    store = LabelStore.open(path, expect_grid=grid, expect_frame=frame)
    assert store.header == written
    assert store.scene_ids() == ("scene-0001",)
    stored = store.scene("scene-0001")
    stored.verify()
    assert_equal(stored, labels)
    assert stored.index_of(labels.frame_tokens[-1]) == frames - 1


def test_numbers_of_objects_are_kept_where_there_are_any(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    labels = scene("s1", instances=True)
    store.write_scene(labels)
    store.write_scene(scene("s2"))
    stored = LabelStore.open(tmp_path / "a").scene("s1")
    stored.verify()
    assert_equal(stored, labels)
    assert labels.instances is not None
    np.testing.assert_array_equal(stored.frame(1).instances, labels.instances[1])
    assert store.scene("s2").frame(0).instances is None
    with pytest.raises(ValueError, match="instances is int64"):
        replace(labels, instances=labels.instances.astype(np.int64))
    frames = list(labels.frames())
    with (
        pytest.raises(ValueError, match="those before"),
        store.writer("s3", 2, inputs="") as writer,
    ):
        writer.append(frames[0])
        writer.append(replace(frames[1], instances=None))
    assert store.scene_ids() == ("s1", "s2"), "half a scene is none"


@pytest.mark.parametrize("flow", [False, True])
def test_equal_labels_give_equal_bytes_and_nothing_is_left_over(tmp_path: Path, flow: bool) -> None:
    for name in ("a", "elsewhere/b"):
        store = LabelStore.create(tmp_path / name, header(flow=flow))
        for scene_id in ("s1", "s2"):
            store.write_scene(scene(scene_id, flow=flow))
    assert tree(tmp_path / "a") == tree(tmp_path / "elsewhere/b")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["scenes", "zarr.json"]


def test_one_shard_per_array_and_one_chunk_per_frame(tmp_path: Path) -> None:
    LabelStore.create(tmp_path / "a", header()).write_scene(scene())
    array = tmp_path / "a/scenes/scene-0001/semantics"
    assert [p.name for p in (array / "c").rglob("*") if p.is_file()] == ["0"]
    metadata = json.loads((array / "zarr.json").read_text())
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [3, *GRID.shape]
    (codec,) = metadata["codecs"]
    assert codec["configuration"]["chunk_shape"] == [1, *GRID.shape]


def test_attributes_count_the_mask(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    labels = scene()
    store.write_scene(labels)
    counts = store.scene("scene-0001").attributes["counts"]
    assert counts["frames"] == 3
    assert counts["voxels"] == 3 * GRID.n_voxels
    assert counts["trusted"] == int(((labels.mask & MaskBit.TRUSTED) > 0).sum())
    assert counts["dynamic"] == int(((labels.mask & MaskBit.DYNAMIC) > 0).sum())


def test_long_scenes_are_written_in_shards_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_writer, "SHARD_BYTES", 2 * GRID.n_voxels + 5)
    labels = scene(frames=5, flow=True, evidence=True)
    store = LabelStore.create(tmp_path / "a", header(flow=True))
    store.write_scene(labels)
    stored = store.scene("scene-0001")
    stored.verify()
    assert_equal(stored, labels)
    for array, shards in (("semantics", ["0", "1", "2"]), ("flow", ["0", "1", "2", "3", "4"])):
        folder = tmp_path / f"a/scenes/scene-0001/{array}/c"
        assert sorted(p.name for p in folder.iterdir()) == shards


def test_frames_are_read_as_zarr_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_writer, "SHARD_BYTES", 2 * GRID.n_voxels)
    labels = scene(frames=5, flow=True)
    labels.mask[0] = 0  # chunks that are not written
    labels.semantics[2:4] = 0  # a shard that is not written
    assert labels.flow is not None
    labels.flow[4] = 0
    LabelStore.create(tmp_path / "a", header(flow=True)).write_scene(labels)
    folder = tmp_path / "a/scenes/scene-0001"
    assert not (folder / "semantics/c/1").exists()
    for name in ("semantics", "confidence", "mask", "flow"):
        document = (folder / name / "zarr.json").read_bytes()
        frames = ShardedFrames(LocalBackend(folder), name, document, lambda _: True)
        array = zarr.open_array(LocalStore(folder / name), mode="r")
        for k in range(5):
            np.testing.assert_array_equal(frames[k], array[k])
            assert frames[k].dtype == array.dtype


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_shard_that_is_cut_off_is_noticed(tmp_path: Path, cut: int) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(scene())
    (shard,) = (tmp_path / "a/scenes/scene-0001/mask/c").rglob("0/0/0/0")
    shard.write_bytes(shard.read_bytes()[:-cut])
    with pytest.raises(SceneError, match="mask"):
        store.scene("scene-0001").verify()


def test_arrays_of_another_layout_are_read_by_zarr(tmp_path: Path) -> None:
    labels = scene()
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(labels)
    as_older_code_wrote_it(tmp_path / "a")
    store = LabelStore.open(tmp_path / "a")
    folder = tmp_path / "a/scenes/scene-0001/mask"
    shutil.rmtree(folder)
    zarr.create_array(
        store=LocalStore(folder), data=labels.mask, chunks=(2, *GRID.shape), zarr_format=3
    )
    with pytest.raises(NotImplementedError):
        document = (folder / "zarr.json").read_bytes()
        ShardedFrames(LocalBackend(folder.parent), "mask", document, lambda _: True)
    assert_equal(store.scene("scene-0001"), labels)


def test_a_scene_of_too_few_or_repeated_frames_is_not_committed(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    first = next(scene().frames())
    for n, frames, says in ((2, [first], "1 of 2 frames"), (2, [first, first], "unique")):
        with (
            pytest.raises(ValueError, match=says),
            store.writer("scene-0001", n) as writer,
        ):
            for frame in frames:
                writer.append(frame)
    assert tree(tmp_path / "a").keys() == {"zarr.json", "scenes/zarr.json"}


def test_uncommitted_scene_is_invisible(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(scene("s1"))
    store.write_scene(scene("s2"))
    (tmp_path / "a/scenes/s1/zarr.json").unlink()
    assert store.scene_ids() == ("s2",)
    with pytest.raises(KeyError, match="s1"):
        store.scene("s1")
    store.write_scene(scene("s1"))  # debris gives way
    assert_equal(store.scene("s1"), scene("s1"))


def test_a_scene_that_cannot_be_read_is_neither_there_nor_absent(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(scene("s1"))
    store.write_scene(scene("s2"))
    marker = tmp_path / "a/scenes/s1/zarr.json"
    whole = marker.read_bytes()
    altered = (
        whole.replace(b'"committed": true', b'"committed": false'),
        whole.replace(b'"committed": true', b'"committed": trve'),
        whole.replace(b"s1-0", b"s1-9"),
        b"[" * 50_000,
        b"[]",
        b"",
    )
    for content in altered:
        marker.write_bytes(content)
        before = tree(tmp_path / "a")
        for use in (
            store.scene_ids,
            lambda: "s1" in store,
            lambda: store.scene("s1"),
            lambda: store.write_scene(scene("s1")),
            lambda: prune(store),
            lambda: info(store),
        ):
            with pytest.raises(UnreadableError, match=r"scenes/s1/zarr\.json"):
                use()
        assert list(verify(tmp_path / "a")) == ["s1"]
        assert tree(tmp_path / "a") == before
    marker.write_bytes(whole)
    assert verify(tmp_path / "a") == {} and prune(store) == []


def test_a_scene_that_is_listed_and_answered_as_missing_is_not_absent(tmp_path: Path) -> None:
    """A wrong answer 404: two requests must agree before a scene counts as left over."""

    class Forgetful(LocalBackend):
        def read(self, key: str) -> bytes:
            if key == "scenes/s1/zarr.json":
                raise FileNotFoundError(key)
            return super().read(key)

    LabelStore.create(tmp_path / "a", header()).write_scene(scene("s1"))
    store = LabelStore.open(Forgetful(tmp_path / "a"))
    for use in (store.scene_ids, lambda: prune(store)):
        with pytest.raises(UnreadableError, match=r"s1.*listed"):
            use()
    assert verify(Forgetful(tmp_path / "a")).keys() == {"s1"}
    assert (tmp_path / "a/scenes/s1/semantics").is_dir()


def test_a_refused_request_takes_no_scene_away(tmp_path: Path) -> None:
    """One answer 403 from an object store: every use of the scene says so, nothing is removed."""

    class Refusing(LocalBackend):
        def read(self, key: str) -> bytes:
            if key == "scenes/s1/zarr.json":
                raise PermissionError(13, "Forbidden")
            return super().read(key)

    LabelStore.create(tmp_path / "a", header()).write_scene(scene("s1"))
    store = LabelStore.open(Refusing(tmp_path / "a"))
    for use in (store.scene_ids, lambda: prune(store)):
        with pytest.raises(UnreadableError, match="Forbidden"):
            use()
    assert verify(Refusing(tmp_path / "a")).keys() == {"s1"}
    assert (tmp_path / "a/scenes/s1/semantics").is_dir()


@pytest.mark.parametrize("older", [False, True])
def test_a_lost_shard_is_no_shard_of_class_zero(tmp_path: Path, older: bool) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    labels = scene()
    labels.confidence[:] = 0  # never written, and no fault
    store.write_scene(labels)
    if older:
        as_older_code_wrote_it(tmp_path / "a")
        store = LabelStore.open(tmp_path / "a")
    assert_equal(store.scene("scene-0001"), labels)
    folder = tmp_path / "a/scenes/scene-0001"
    assert not (folder / "confidence/c").exists()
    shutil.rmtree(folder / "semantics/c")
    with pytest.raises(SceneError, match=r"semantics.*missing"):
        store.scene("scene-0001").frame(0)
    assert verify(tmp_path / "a").keys() == {"scene-0001"}


def test_edits_of_what_is_said_of_labels_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    LabelStore.create(path, header()).write_scene(scene())
    scene_file, root = path / "scenes/scene-0001/zarr.json", path / "zarr.json"
    mask = path / "scenes/scene-0001/mask/zarr.json"

    def reversed_tokens(a: dict[str, Any]) -> None:
        a["attributes"]["frame_tokens"].reverse()

    def other_counts(a: dict[str, Any]) -> None:
        a["attributes"]["counts"]["trusted"] += 1

    def other_inputs(a: dict[str, Any]) -> None:
        a["attributes"]["inputs"] = "another log"

    def no_checksum(a: dict[str, Any]) -> None:
        del a["attributes"]["sha256"]["semantics"]

    def no_digest(a: dict[str, Any]) -> None:
        del a["attributes"]["digest"]

    def other_type(a: dict[str, Any]) -> None:
        a["data_type"] = "int8"

    def other_axes(a: dict[str, Any]) -> None:
        a["dimension_names"].reverse()

    def other_levels(a: dict[str, Any]) -> None:
        a["attributes"]["levels"][1] = 0.25

    def other_classes(a: dict[str, Any]) -> None:
        a["attributes"]["taxonomy"]["names"].reverse()

    def other_origin(a: dict[str, Any]) -> None:
        a["attributes"]["grid"]["min_m"][0] += 0.5

    edits = {
        scene_file: (reversed_tokens, other_counts, other_inputs, no_checksum, no_digest),
        mask: (other_type, other_axes),
        root: (other_levels, other_classes, other_origin),
    }
    for file, changes in edits.items():
        whole = file.read_bytes()
        for change in changes:
            document = json.loads(whole)
            change(document)
            file.write_text(json.dumps(document))
            if file == root:
                with pytest.raises(SetupError, match="altered"):
                    verify(path)
            else:
                assert verify(path).keys() == {"scene-0001"}, change.__name__
        file.write_bytes(whole)
    assert verify(path) == {}


def test_a_file_that_vanishes_before_the_commit_fails_the_writer(tmp_path: Path) -> None:
    """Another machine's sweep took a live draft away: nothing half is ever committed."""
    store = LabelStore.create(tmp_path / "a", header())
    with (
        pytest.raises(OSError, match="is gone before the scene was committed"),
        store.writer("scene-0001", 3) as writer,
    ):
        for frame in scene().frames():
            writer.append(frame)
        shutil.rmtree(next((tmp_path / "a/.partial").iterdir()) / "mask")
    assert store.scene_ids() == ()
    store.write_scene(scene())
    assert_equal(store.scene("scene-0001"), scene())


def test_a_torn_note_on_a_scene_set_aside_is_named(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.quarantine("s1", "bad pose", "")
    path = tmp_path / "a/quarantine/s1/zarr.json"
    group = b'{"zarr_format": 3, "node_type": "group"}'
    altered = path.read_bytes().replace(b"bad pose", b"bad post")
    for torn in (b'{"zarr_', b"[]", b"[" * 50_000, group, altered):
        path.write_bytes(torn)
        assert "cannot be read" in store.quarantined()["s1"]["reason"]
        assert store.torn_notes().keys() == {"s1"}


def test_bits_that_flip_in_documents_are_named_or_change_nothing(tmp_path: Path) -> None:
    """``scripts/benchmarks/chaos.py --flips`` does so at length, with shards and all readers."""
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(scene("s1"))
    store.quarantine("s2", "bad pose", "trace")
    Reviews(store).add(NoteEntry(scene_id="s1", token="s1-0", note="a ghost"), reviewer="ann")

    def content() -> object:
        opened = LabelStore.open(tmp_path / "a")
        attributes = {k: v for k, v in opened.committed()["s1"].items() if k != "digest"}
        reviews = Reviews(opened)
        reviews.require_whole()
        said = opened.header, attributes, opened.quarantined(), reviews.entries()
        stored = opened.scene("s1")
        stored.verify()
        return *said, stored.frame(0).semantics.tobytes()

    whole, rng = content(), random.Random(5)
    documents = sorted((tmp_path / "a").rglob("*.json"))
    assert len(documents) == 12
    named = 0
    for path in [path for path in documents for _ in range(8)]:
        before = path.read_bytes()
        data, bit = bytearray(before), rng.randrange(8 * len(before))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            now = content()
        except (SetupError, SceneError):
            named += 1
        else:
            torn = LabelStore.open(tmp_path / "a").torn_notes()
            named += bool(torn)
            assert torn or now == whole, f"bit {bit} of {path}"
        path.write_bytes(before)
    assert content() == whole and named > 60


def test_what_cannot_be_listed_or_removed_is_no_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LabelStore.create(tmp_path / "a", header()).write_scene(scene("s1"))
    place, scandir, unlink = LocalBackend(tmp_path / "a"), os.scandir, os.unlink

    def refusing(path: Any) -> Any:
        if str(path).endswith("semantics"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError):
        place.files("scenes")
    with pytest.raises(SceneError, match="cannot be listed"):
        LabelStore.open(place).scene("s1").verify()
    monkeypatch.setattr(os, "scandir", scandir)

    def stuck(path: Any, **more: Any) -> None:
        if str(path).endswith("zarr.json"):
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", stuck)
    with pytest.raises(PermissionError):
        place.remove("scenes/s1")


def test_only_one_of_two_jobs_gets_a_new_store(tmp_path: Path) -> None:
    """Both found nothing there; the second to write its header must see the first one's."""
    first = LabelStore.create(tmp_path / "a", header())

    class Late(LocalBackend):
        def list_root(self) -> list[str] | None:
            return None  # as it was when this driver looked

    with pytest.raises(SetupError, match="made by another job"):
        LabelStore.open_or_create(Late(tmp_path / "a"), header(run_id="run-2"))
    same = LabelStore.open_or_create(Late(tmp_path / "a"), header())
    assert same.header == first.header


def _note_and_clear(path: Path, scene_id: str) -> None:
    store = LabelStore.open(path)
    for _ in range(40):
        store.quarantine(scene_id, "bad", "")
        store._clear_quarantine(scene_id)


def test_notes_come_and_go_at_the_same_time(tmp_path: Path) -> None:
    LabelStore.create(tmp_path / "a", header())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda k: _note_and_clear(tmp_path / "a", f"s{k}"), range(4)))
    store = LabelStore.open(tmp_path / "a")
    assert store.quarantined() == {}
    store.quarantine("s1", "bad", "")
    assert list(store.quarantined()) == ["s1"]


def test_first_commit_of_a_scene_stays(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(scene(seed=1))
    before = tree(tmp_path / "a")
    store.write_scene(scene(seed=2))
    assert tree(tmp_path / "a") == before


def _write_same_scene(path: Path, barrier: object) -> None:
    store = LabelStore.open(path)
    for i in range(6):
        barrier.wait()  # type: ignore[attr-defined]
        store.write_scene(scene(f"s{i}", seed=i))


def test_two_writers_of_one_scene_leave_one_whole_scene(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=_write_same_scene, args=(tmp_path / "a", barrier)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
        assert worker.exitcode == 0
    assert store.scene_ids() == tuple(f"s{i}" for i in range(6))
    for i in range(6):
        assert_equal(store.scene(f"s{i}"), scene(f"s{i}", seed=i))
    assert not (tmp_path / "a/.partial").exists()


WRITE_FOREVER = """
import sys
from pathlib import Path
sys.path[:0] = [{root!r}, {tests!r}]
from label_scenes import header, scene
from datasets.labels.store import LabelStore
store = LabelStore.open_or_create(Path({path!r}), header(flow=True))
print("ready", flush=True)
for i in range(10**6):
    store.write_scene(scene(f"s{{i:06d}}", frames=6, seed=i, flow=True))
"""


def test_killed_writer_leaves_no_visible_scene_or_exact_bytes(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    rng = random.Random(0)
    leftovers = attempt = 0
    while attempt < 3 or (not leftovers and attempt < 30):
        attempt += 1
        path = tmp_path / str(attempt)
        code = WRITE_FOREVER.format(
            root=str(root), tests=str(root / "tests" / "helpers"), path=str(path)
        )
        writer = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        while not any((path / "scenes").glob("s*")):
            time.sleep(0.005)
        time.sleep(rng.random() * 0.2)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        leftovers += len(list(path.glob(".partial/*")))
        store = LabelStore.open_or_create(path, header(flow=True))
        assert not (path / ".partial").exists()
        ids = store.scene_ids()
        assert ids
        assert sorted(p.name for p in (path / "scenes").iterdir() if p.is_dir()) == list(ids)
        for scene_id in ids:
            stored = store.scene(scene_id)
            stored.verify()
            assert_equal(stored, scene(scene_id, frames=6, seed=int(scene_id[1:]), flow=True))
    assert leftovers, "no writer was killed while it wrote"


def test_a_writer_whose_folder_another_tidies_away_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, failures = Path.mkdir, [FileExistsError(), FileNotFoundError()]

    def mkdir(self: Path, *args: Any, **kwargs: Any) -> None:
        if self.parent == tmp_path and failures:  # it was there, and is gone
            raise failures.pop()
        make(self, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert new_partial(tmp_path, "s1").is_dir() and not failures
    monkeypatch.undo()
    root = tmp_path / "other"
    root.mkdir()
    (root / ".partial").write_text("a file")
    with pytest.raises(FileExistsError):
        new_partial(root, "s1")


def test_sweep_spares_a_writer_at_work(tmp_path: Path) -> None:
    LabelStore.create(tmp_path / "a", header())
    mine = new_partial(tmp_path / "a", "s1")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-4194305-"))
    dead.mkdir()
    LabelStore.open_or_create(tmp_path / "a", header())
    assert mine.exists()
    assert not dead.exists()


def edit_root(path: Path, **changes: object) -> None:
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"].update(changes)
    (path / "zarr.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_version": 3}, "format version 3, this code reads 1 and 2"),
        ({"format_version": None}, "format version None"),
        ({"format": "pictures"}, "another kind of zarr group"),
        ({"licence": "mine"}, "it was altered: its digest differs"),
        ({"frame": "camera"}, "damaged attributes: ValueError: unknown frame 'camera'"),
        ({"grid": {}}, "damaged attributes: KeyError"),
        ({"taxonomy": 3}, "damaged attributes: TypeError"),
        ({"levels": [0.5, 0.1]}, "damaged attributes: ValueError"),
    ],
)
def test_open_refuses_what_it_cannot_read(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    LabelStore.create(tmp_path / "a", header())
    if "licence" not in changes:
        as_older_code_wrote_it(tmp_path / "a")
    edit_root(tmp_path / "a", **changes)
    for again in (False, True):
        with pytest.raises(SetupError, match=says) as caught:
            if again:
                LabelStore.open_or_create(tmp_path / "a", header())
            else:
                LabelStore.open(tmp_path / "a")
        assert str(tmp_path / "a") in str(caught.value)
        assert "\n" not in str(caught.value)


def test_open_names_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="nothing of that name"):
        LabelStore.open(tmp_path / "nowhere")
    with pytest.raises(SetupError, match=r"it has no zarr\.json"):
        LabelStore.open(tmp_path)
    (tmp_path / "zarr.json").write_text("{")
    with pytest.raises(SetupError, match=r"damaged zarr\.json"):
        LabelStore.open(tmp_path)
    with pytest.raises(SetupError, match="something else is there"):
        LabelStore.create(tmp_path, header())


def test_other_grid_is_refused(tmp_path: Path) -> None:
    LabelStore.create(tmp_path / "a", header())
    other = VoxelGrid(min_m=GRID.min_m, size_m=(0.25, 0.5, 0.5), shape=GRID.shape)
    with pytest.raises(SetupError, match="its grid is 8x6x4 of"):
        LabelStore.open(tmp_path / "a", expect_grid=other)


def test_other_frame_is_refused(tmp_path: Path) -> None:
    LabelStore.create(tmp_path / "a", header(frame="lidar"))
    with pytest.raises(SetupError, match="lie in the lidar frame, expected the ego frame"):
        LabelStore.open(tmp_path / "a", expect_frame="ego")
    with pytest.raises(ValueError, match="unknown frame 'camera'"):
        header(frame="camera")


VERSION_1 = {  # as the first release wrote it
    "format": "occupancy-labels",
    "format_version": 1,
    "run_id": "run-1",
    "frame": "ego at the LiDAR key-frame: X forward, Y left, Z up",
    "grid": {"min_m": [-2.0, -2.0, -1.0], "size_m": [0.5, 0.5, 0.5], "shape": [8, 6, 4]},
    "taxonomy": OCC3D_NUSCENES.to_json(),
    "levels": [0.0, 0.5, 0.9, 0.99],
    "licence": "CC0",
    "provenance": {"config": {"min_confidence": 0.5}, "weights": "ab" * 32},
}


def test_stores_in_the_ego_frame_without_flow_stay_version_1(tmp_path: Path) -> None:
    LabelStore.create(tmp_path / "a", header()).write_scene(scene())
    document = json.loads((tmp_path / "a/zarr.json").read_text())
    assert digest_of(VERSION_1) == document["attributes"].pop("digest")
    assert json.dumps(document["attributes"]) == json.dumps(VERSION_1)
    assert (tmp_path / "a/scenes/scene-0001/T_global_ego").is_dir()
    for _ in range(2):
        again = LabelStore.open_or_create(tmp_path / "a", header())
        assert_equal(again.scene("scene-0001"), scene())
        as_older_code_wrote_it(tmp_path / "a")


@pytest.mark.parametrize("new", [{"frame": "lidar"}, {"flow": True}])
def test_older_code_does_not_take_new_stores_for_what_it_knows(
    tmp_path: Path, new: dict[str, object]
) -> None:
    LabelStore.create(tmp_path / "a", header(**new))
    document = json.loads((tmp_path / "a/zarr.json").read_text())
    assert document["attributes"]["format_version"] == 2


def test_same_run_continues_and_another_job_is_refused(tmp_path: Path) -> None:
    LabelStore.open_or_create(tmp_path / "a", header()).write_scene(scene())
    assert LabelStore.open_or_create(tmp_path / "a", header()).scene_ids() == ("scene-0001",)
    other = header(
        run_id="run-2", provenance={"config": {"min_confidence": 0.7}, "weights": "ab" * 32}
    )
    with pytest.raises(SetupError, match=r"another job \(provenance.config.min_confidence 0.5"):
        LabelStore.open_or_create(tmp_path / "a", other)


def test_a_killed_create_can_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "a/scenes").mkdir(parents=True)
    (tmp_path / "a/scenes/zarr.json").write_text("{")
    (tmp_path / "a/.zarr.json.1.ab").write_text("{")
    assert LabelStore.open_or_create(tmp_path / "a", header()).scene_ids() == ()


def test_quarantine_is_kept_until_the_scene_succeeds(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.quarantine("s1", "CAM_FRONT: cannot be decoded", "traceback\nlines")
    store.quarantine("s2", "truncated", "")
    reopened = LabelStore.open(tmp_path / "a")
    assert reopened.quarantined() == {
        "s1": {"reason": "CAM_FRONT: cannot be decoded", "detail": "traceback\nlines"},
        "s2": {"reason": "truncated", "detail": ""},
    }
    assert reopened.scene_ids() == ()
    for scene_id in ("s1", "s2"):
        store.write_scene(scene(scene_id))
    assert reopened.quarantined() == {}
    LabelStore.create(tmp_path / "b", header())
    for scene_id in ("s1", "s2"):
        LabelStore.open(tmp_path / "b").write_scene(scene(scene_id))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_labels_that_do_not_fit_the_store_are_refused(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    wide = VoxelGrid(min_m=(0.0, 0.0, 0.0), size_m=(1.0, 1.0, 1.0), shape=(9, 6, 4))
    with pytest.raises(ValueError, match="grid"):
        store.write_scene(scene(grid=wide))
    labels = scene()
    labels.confidence[0, 0, 0, 0] = 4
    with pytest.raises(ValueError, match="beyond 4 levels"):
        store.write_scene(labels)
    labels = scene()
    labels.semantics[0, 0, 0, 0] = 18
    with pytest.raises(ValueError, match="class id 18"):
        store.write_scene(labels)
    with pytest.raises(ValueError, match="in the lidar frame, not ego"):
        store.write_scene(scene(frame="lidar"))
    with pytest.raises(ValueError, match="flow is unexpected"):
        store.write_scene(scene(flow=True))
    assert store.scene_ids() == ()
    assert not (tmp_path / "a/.partial").exists()


def test_flow_that_does_not_fit_the_store_is_refused(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header(flow=True))
    with pytest.raises(ValueError, match="flow is absent"):
        store.write_scene(scene())
    labels = scene(flow=True)
    assert labels.flow is not None
    with pytest.raises(ValueError, match="flow is float32"):
        replace(labels, flow=labels.flow.astype(np.float32))
    with pytest.raises(ValueError, match=r"flow is float16 \(3, 8, 6, 4\)"):
        replace(labels, flow=labels.flow[..., 0])
    labels.flow[1, 0, 0, 0, 1] = np.inf
    with pytest.raises(ValueError, match="frame 1: a velocity is not finite"):
        store.write_scene(labels)
    assert store.scene_ids() == ()


@pytest.mark.parametrize("scene_id", ["", ".hidden", "../up", "a/b", "-x", "x" * 201])
def test_scene_ids_that_are_no_folder_names_are_refused(scene_id: str) -> None:
    with pytest.raises(ValueError, match="scene id"):
        scene(scene_id)


@pytest.mark.parametrize("array", ["semantics", "flow"])
def test_a_flipped_bit_on_disk_is_noticed(tmp_path: Path, array: str) -> None:
    store = LabelStore.create(tmp_path / "a", header(flow=True))
    store.write_scene(scene(flow=True))
    (shard,) = (p for p in (tmp_path / f"a/scenes/scene-0001/{array}/c").rglob("*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(SceneError, match=array):
        store.scene("scene-0001").verify()


def test_memory_for_frames_of_ten_million_voxels_is_bounded(tmp_path: Path) -> None:
    fine = VoxelGrid(min_m=(-51.2, -51.2, -5.0), size_m=(0.2,) * 3, shape=(512, 512, 40))
    T, shape = 4, (4, *fine.shape)
    flow = np.zeros((*shape, 2), np.float16)
    flow[:, 100:200, 100:200, 10:20] = 1.5
    labels = SceneLabels(
        scene_id="s",
        frame_tokens=("a", "b", "c", "d"),
        timestamps_us=np.arange(T),
        T_global_grid=np.zeros((T, 4, 4)),
        semantics=np.full(shape, 17, np.uint8),
        confidence=np.full(shape, 3, np.uint8),
        mask=np.full(shape, 7, np.uint8),
        flow=flow,
        frame="lidar",
    )
    whole = sum(array.nbytes for array in labels.arrays().values())
    store = LabelStore.create(tmp_path / "a", header(grid=fine, frame="lidar", flow=True))
    tracemalloc.start()
    store.write_scene(labels)
    writing = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    scene = store.scene("s")
    scene.verify()
    frame = scene.frame(1)
    reading = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(frame.flow, labels.flow[1])
    assert writing < 1.5 * whole
    assert reading < 0.75 * whole


class Frames(Dataset[torch.Tensor]):
    """Opens nothing before it is asked for an item, in whichever process that is."""

    def __init__(self, scene: StoredScene) -> None:
        self.scene = scene

    def __len__(self) -> int:
        return len(self.scene)

    def __getitem__(self, k: int) -> torch.Tensor:
        return torch.from_numpy(self.scene.frame(k).semantics)


def test_spawned_data_loader_workers_read_the_store(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(scene())
    stored = store.scene("scene-0001")
    stored.frame(0)  # an opened scene must travel as well
    loader = DataLoader(
        Frames(stored), batch_size=None, num_workers=2, multiprocessing_context="spawn", timeout=60
    )
    for k, got in enumerate(loader):
        np.testing.assert_array_equal(got.numpy(), scene().semantics[k])


def test_a_store_and_its_frames_are_shown_in_a_line(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "s.zarr", header())
    labels = scene()
    store.write_scene(labels)
    assert repr(store) == f"<LabelStore {tmp_path / 's.zarr'}, run {header().run_id[:12]}>"
    shown = repr(store.scene(labels.scene_id).frame(0))
    assert shown.startswith("<FrameLabels ") and len(shown) < 120 and "\n" not in shown
