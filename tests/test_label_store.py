"""The label store: what is written is read, whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from datasets.atomic_groups import new_partial
from datasets.errors import SceneError, SetupError
from datasets.geometry.grid import VoxelGrid
from datasets.label_store import LabelStore, MaskBit, SceneLabels, StoredScene, StoreHeader
from datasets.taxonomy import OCC3D_NUSCENES

GRID = VoxelGrid(min_m=(-2.0, -2.0, -1.0), size_m=(0.5, 0.5, 0.5), shape=(8, 6, 4))
LEVELS = (0.0, 0.5, 0.9, 0.99)


def header(**changes: object) -> StoreHeader:
    fields: dict[str, object] = {
        "grid": GRID,
        "taxonomy": OCC3D_NUSCENES,
        "levels": LEVELS,
        "licence": "CC0",
        "provenance": {"config": {"min_confidence": 0.5}, "weights": "ab" * 32},
        "run_id": "run-1",
    }
    return StoreHeader(**(fields | changes))  # type: ignore[arg-type]


def scene(
    scene_id: str = "scene-0001",
    *,
    frames: int = 3,
    grid: VoxelGrid = GRID,
    seed: int = 0,
    evidence: bool = False,
) -> SceneLabels:
    rng = np.random.default_rng(seed)
    shape = (frames, *grid.shape)
    counts = rng.integers(0, 256, (2, *shape), dtype=np.uint8)
    return SceneLabels(
        scene_id=scene_id,
        frame_tokens=tuple(f"{scene_id}-{i}" for i in range(frames)),
        timestamps_us=np.arange(frames, dtype=np.int64) * 500_000 + 1_533_000_000_000_000,
        T_global_ego=rng.normal(size=(frames, 4, 4)),
        semantics=rng.integers(0, 18, shape, dtype=np.uint8),
        confidence=rng.integers(0, 4, shape, dtype=np.uint8),
        mask=rng.integers(0, 16, shape, dtype=np.uint8),
        hits=counts[0] if evidence else None,
        passes=counts[1] if evidence else None,
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def assert_equal(stored: StoredScene, labels: SceneLabels) -> None:
    assert stored.frame_tokens == labels.frame_tokens
    np.testing.assert_array_equal(stored.timestamps_us, labels.timestamps_us)
    np.testing.assert_array_equal(stored.T_global_ego, labels.T_global_ego)
    for k in range(len(labels)):
        frame = stored.frame(k)
        assert (frame.token, frame.timestamp_us) == (
            labels.frame_tokens[k],
            labels.timestamps_us[k],
        )
        for name in ("semantics", "confidence", "mask", "hits", "passes"):
            want, got = getattr(labels, name), getattr(frame, name)
            assert (want is None) == (got is None)
            if want is not None:
                assert got.dtype == np.uint8
                np.testing.assert_array_equal(got, want[k])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    frames=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    evidence=st.booleans(),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    frames: int,
    seed: int,
    evidence: bool,
) -> None:
    grid = VoxelGrid(min_m=(0.0, 0.0, 0.0), size_m=(1.0, 1.0, 1.0), shape=shape)
    labels = scene(frames=frames, grid=grid, seed=seed, evidence=evidence)
    path = tmp_path_factory.mktemp("store") / "labels.zarr"
    LabelStore.create(path, header(grid=grid)).write_scene(labels)
    store = LabelStore.open(path, expect_grid=grid)
    assert store.header == header(grid=grid)
    assert store.scene_ids() == ("scene-0001",)
    stored = store.scene("scene-0001")
    stored.verify()
    assert_equal(stored, labels)
    assert stored.index_of(labels.frame_tokens[-1]) == frames - 1


def test_equal_labels_give_equal_bytes_and_nothing_is_left_over(tmp_path: Path) -> None:
    for name in ("a", "elsewhere/b"):
        store = LabelStore.create(tmp_path / name, header())
        for scene_id in ("s1", "s2"):
            store.write_scene(scene(scene_id))
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


def test_uncommitted_scene_is_invisible(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(scene("s1"))
    store.write_scene(scene("s2"))
    marker = tmp_path / "a/scenes/s1/zarr.json"
    marker.write_text(marker.read_text().replace('"committed": true', '"committed": false'))
    assert store.scene_ids() == ("s2",)
    with pytest.raises(KeyError, match="s1"):
        store.scene("s1")
    store.write_scene(scene("s1"))  # debris gives way
    assert_equal(store.scene("s1"), scene("s1"))


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
from test_label_store import header, scene
from datasets.label_store import LabelStore
store = LabelStore.open_or_create(Path({path!r}), header())
print("ready", flush=True)
for i in range(10**6):
    store.write_scene(scene(f"s{{i:06d}}", frames=6, seed=i))
"""


def test_killed_writer_leaves_no_visible_scene_or_exact_bytes(tmp_path: Path) -> None:
    tests = Path(__file__).parent
    rng = random.Random(0)
    leftovers = attempt = 0
    while attempt < 3 or (not leftovers and attempt < 30):
        attempt += 1
        path = tmp_path / str(attempt)
        code = WRITE_FOREVER.format(root=str(tests.parent), tests=str(tests), path=str(path))
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
        store = LabelStore.open_or_create(path, header())
        assert not (path / ".partial").exists()
        ids = store.scene_ids()
        assert ids
        assert sorted(p.name for p in (path / "scenes").iterdir() if p.is_dir()) == list(ids)
        for scene_id in ids:
            stored = store.scene(scene_id)
            stored.verify()
            assert_equal(stored, scene(scene_id, frames=6, seed=int(scene_id[1:])))
    assert leftovers, "no writer was killed while it wrote"


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
        ({"format_version": 2}, "format version 2, this code reads 1"),
        ({"format_version": None}, "format version None"),
        ({"format": "pictures"}, "another kind of zarr group"),
        ({"grid": {}}, "damaged attributes: KeyError"),
        ({"taxonomy": 3}, "damaged attributes: TypeError"),
        ({"levels": [0.5, 0.1]}, "damaged attributes: ValueError"),
    ],
)
def test_open_refuses_what_it_cannot_read(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    LabelStore.create(tmp_path / "a", header())
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
    with pytest.raises(SetupError, match="no such folder"):
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
    assert store.scene_ids() == ()
    assert not (tmp_path / "a/.partial").exists()


@pytest.mark.parametrize("scene_id", ["", ".hidden", "../up", "a/b", "-x", "x" * 201])
def test_scene_ids_that_are_no_folder_names_are_refused(scene_id: str) -> None:
    with pytest.raises(ValueError, match="scene id"):
        scene(scene_id)


def test_a_flipped_bit_on_disk_is_noticed(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(scene())
    shard = tmp_path / "a/scenes/scene-0001/semantics/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(SceneError, match="semantics"):
        store.scene("scene-0001").verify()


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
