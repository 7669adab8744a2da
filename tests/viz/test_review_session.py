"""The frames that a review goes through: the labels with all that is beside them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from folder_log import LIDAR_AT, write_log
from label_scenes import GRID, header, scene
from small_stores import TAXONOMY, write_store, write_truth

from datasets.benchmarks.catalogue import benchmark
from datasets.errors import SetupError
from datasets.geometry.transforms import apply, from_yaw, inverse
from datasets.labels.label_set import GroundTruthLabels, StoredLabels
from datasets.labels.store import LabelStore
from datasets.reviews.overlay import EditEntry, Reviews, Verdict, VerdictEntry
from datasets.sources.folder import FolderSource
from viz.session.lru_cache import LruCache
from viz.session.session import ReviewSession


def store(path: Path, *scene_ids: str, frames: int = 3, seed: int = 0) -> StoredLabels:
    made = LabelStore.create(path, header())
    for scene_id in scene_ids or ("scene-a",):
        made.write_scene(scene(scene_id, frames=frames, seed=seed))
    return StoredLabels(path)


def test_session_tells_its_scenes_and_frames(tmp_path: Path) -> None:
    session = ReviewSession(store(tmp_path / "a.zarr", "scene-a", "scene-b"), "no log")
    assert session.scene_ids() == ("scene-a", "scene-b")
    assert session.n_frames("scene-b") == 3
    assert session.tokens("scene-a") == ("scene-a-0", "scene-a-1", "scene-a-2")
    with pytest.raises(SetupError, match="scene-c"):
        session.tokens("scene-c")


def test_second_store_is_found_by_token_and_what_it_lacks_is_noted(tmp_path: Path) -> None:
    first = store(tmp_path / "a.zarr", "scene-a", "scene-b")
    second = store(tmp_path / "b.zarr", "scene-a", frames=2, seed=1)
    session = ReviewSession(first, "no log", second=second)
    one = session.frame("scene-a", 1)
    assert one.second is not None
    np.testing.assert_array_equal(one.second.semantics, second.scene("scene-a").frame(1).semantics)
    for scene_id, k, lacks in (("scene-a", 2, "lacks this frame"), ("scene-b", 0, "this scene")):
        other = session.frame(scene_id, k)
        assert other.second is None
        assert sum(lacks in note and "second store" in note for note in other.notes) == 1


def test_stores_of_other_voxels_or_classes_are_not_compared(tmp_path: Path) -> None:
    first = store(tmp_path / "a.zarr")
    folder = write_log(tmp_path / "log")
    other = write_store(tmp_path / "b.zarr", FolderSource(folder, past_sweeps=0), "folder")
    with pytest.raises(SetupError, match=r"200x200x16 .* 8x6x4"):
        ReviewSession(first, "no log", second=StoredLabels(other))


def test_truth_and_boxes_lie_beside_the_labels(tmp_path: Path) -> None:
    source = FolderSource(write_log(tmp_path / "log"), past_sweeps=0)
    path = write_store(tmp_path / "labels.zarr", source, "folder")
    folder = write_truth(tmp_path / "truth", source, "a")
    truth = GroundTruthLabels(benchmark("occ3d_nuscenes"), folder, source)
    session = ReviewSession(StoredLabels(path), source, truth=truth)
    first, second = session.frame("a", 0), session.frame("a", 1)
    assert first.truth is None and any("no ground truth" in note for note in first.notes)
    assert second.truth is not None and second.notes == session.notes
    assert second.truth.semantics.shape == second.grid.shape
    assert [box.track for box in first.boxes] == ["7", "8"] and second.boxes == ()
    np.testing.assert_allclose(first.boxes[0].T_ego_box, from_yaw(0.1, [20, 0, 1]), atol=1e-9)
    assert first.box_taxonomy == TAXONOMY
    assert first.lidar_m is not None
    np.testing.assert_allclose(first.lidar_m - LIDAR_AT[:3, 3], 0, atol=1e-9)


def test_boxes_turn_with_a_grid_along_the_lidars_axes(tmp_path: Path) -> None:
    source = FolderSource(write_log(tmp_path / "log"), past_sweeps=0)
    path = write_store(tmp_path / "labels.zarr", source, "folder", frame="lidar")
    one = ReviewSession(StoredLabels(path), source).frame("a", 0)
    assert one.turns % 4 != 0 and one.heading_known
    assert not ReviewSession(StoredLabels(path), "no log").frame("a", 0).heading_known
    logged = source.scene("a").frames[0]
    place = apply(logged.T_global_ego, np.array([20.0, 0, 1]))
    there = apply(inverse(one.labels.T_global_grid), place)
    np.testing.assert_allclose(one.boxes[0].T_ego_box[:3, 3], there, atol=1e-9)
    assert one.lidar_m is not None
    np.testing.assert_allclose(one.lidar_m, 0, atol=1e-9)


def test_reviews_are_applied_whenever_a_frame_is_asked_for(tmp_path: Path) -> None:
    labels = store(tmp_path / "a.zarr")
    reviews = Reviews(labels.store)
    session = ReviewSession(labels, "no log", reviews=reviews)
    before = session.frame("scene-a", 1)
    assert before.verdict is None
    painted = np.array([0, 7, GRID.n_voxels - 1])
    stroke = EditEntry(scene_id="scene-a", token="scene-a-1", voxels=painted, class_id=4)
    reviews.add(stroke, reviewer="me")
    reviews.add(
        VerdictEntry(scene_id="scene-a", tokens=("scene-a-1",), verdict=Verdict.REJECT),
        reviewer="me",
    )
    after = session.frame("scene-a", 1)
    assert after.verdict is not None and after.verdict.verdict is Verdict.REJECT
    flat = after.labels.semantics.reshape(-1)
    assert (flat[painted] == 4).all()
    np.testing.assert_array_equal(
        np.delete(flat, painted),
        np.delete(before.labels.semantics.reshape(-1), painted),
    )
    assert session.frame("scene-a", 0).verdict is None
    reviews.undo("me")
    assert session.frame("scene-a", 1).verdict is None


def test_threads_get_the_frames_they_ask_for(tmp_path: Path) -> None:
    source = FolderSource(write_log(tmp_path / "log", n_frames=4), past_sweeps=0)
    path = write_store(tmp_path / "labels.zarr", source, "folder")
    session = ReviewSession(StoredLabels(path), source)
    asked = [k % 4 for k in range(40)]
    with ThreadPoolExecutor(8) as pool:
        frames = list(pool.map(lambda k: session.frame("a", k), asked))
    assert [frame.labels.token for frame in frames] == [f"a{5 * k}" for k in asked]
    assert all(frame.notes == session.notes and len(frame.images) == 1 for frame in frames)
    # read once: the same pixels
    assert frames[0].images[0].rgb is frames[4].images[0].rgb


def test_cache_makes_each_value_once_and_forgets_the_oldest() -> None:
    made = list[int]()

    def make(key: int) -> int:
        made.append(key)
        return 10 * key

    recent = LruCache[int, int](2)
    assert [recent.get(k, lambda k=k: make(k)) for k in (1, 2, 1, 3, 1, 2)] == [  # type: ignore[misc]
        10,
        20,
        10,
        30,
        10,
        20,
    ]
    assert made == [1, 2, 3, 2]


def test_threads_that_want_the_same_value_wait_for_the_first() -> None:
    recent, started, go = LruCache[str, object](2), threading.Event(), threading.Event()
    made = list[object]()

    def make() -> object:
        started.set()
        assert go.wait(10)
        made.append(object())
        return made[-1]

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(recent.get, "a", make)
        assert started.wait(10)
        others = [pool.submit(recent.get, "a", make) for _ in range(3)]
        go.set()
        assert {id(f.result()) for f in (first, *others)} == {id(made[0])}
    assert len(made) == 1


def test_what_could_not_be_made_is_tried_again() -> None:
    recent = LruCache[str, int](2)

    def fail() -> int:
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        recent.get("a", fail)
    assert recent.get("a", lambda: 5) == 5
    with pytest.raises(ValueError, match="at least one"):
        LruCache[str, int](0)
