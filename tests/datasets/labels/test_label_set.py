"""One reader of labels: those of a store, and ground truth by the benchmark's definitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folder_log import write_log
from small_stores import GRID, ROAD, TAXONOMY, road, write_store, write_truth

from autolabel.auditing.lidar_votes import observed
from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.occ3d_nuscenes import labels_path, write_labels
from datasets.errors import SceneError, SetupError, UnreadableError
from datasets.labels.label_set import GroundTruthLabels, StoredLabels
from datasets.labels.store import MaskBit
from datasets.sources.folder import FolderSource
from datasets.taxonomy import IGNORE_ID

OCC3D = benchmark("occ3d_nuscenes")


@pytest.fixture
def source(tmp_path: Path) -> FolderSource:
    return FolderSource(write_log(tmp_path / "log", ("a", "b", "c")), past_sweeps=0)


def test_ground_truth_lists_the_scenes_and_frames_that_have_a_file(
    source: FolderSource, tmp_path: Path
) -> None:
    labels = GroundTruthLabels(OCC3D, write_truth(tmp_path / "truth", source, "b"), source)
    assert labels.scene_ids() == ("b",) and labels.first_scene() == "b"
    scene = labels.scene("b")
    assert scene.frame_tokens == ("b5", "b10") and len(scene) == 2
    assert scene.timestamps_us.shape == (2,) and scene.T_global_grid.shape == (2, 4, 4)
    assert scene.frame(0).token == "b5" and scene.inputs == ""
    assert len(labels.scene("a")) == 0


def test_with_every_frame_numbers_are_the_logs_and_a_missing_file_is_an_error(
    source: FolderSource, tmp_path: Path
) -> None:
    root = write_truth(tmp_path / "truth", source, "b")
    labels = GroundTruthLabels(OCC3D, root, source, every_frame=True)
    assert labels.scene_ids() == ("b",)
    scene = labels.scene("b")
    assert scene.frame_tokens == ("b0", "b5", "b10")
    assert scene.frame(1).token == "b5"
    with pytest.raises(SceneError, match="b0"):
        scene.frame(0)


def test_ground_truth_of_no_scene_says_so(source: FolderSource, tmp_path: Path) -> None:
    labels = GroundTruthLabels(OCC3D, tmp_path / "nothing", source)
    assert labels.scene_ids() == ()
    with pytest.raises(SetupError, match="none of any scene"):
        labels.first_scene()


def test_a_scene_that_the_log_cannot_give_is_listed_and_fails_when_it_is_read(
    source: FolderSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = source.scene

    def scene(scene_id: str) -> object:
        if scene_id == "a":
            raise SceneError(where="scene a", rule="damaged")
        return read(scene_id)

    monkeypatch.setattr(source, "scene", scene)
    labels = GroundTruthLabels(OCC3D, write_truth(tmp_path / "truth", source, "b"), source)
    assert labels.scene_ids() == ("a", "b")
    with pytest.raises(SceneError, match="damaged"):
        labels.scene("a")


def test_seen_by_lidar_is_not_seen_by_a_camera_and_only_what_cameras_see_is_scored(
    source: FolderSource, tmp_path: Path
) -> None:
    lidar, camera = np.zeros((2, *GRID.shape), bool)
    lidar[:50], camera[25:75] = True, True
    semantics = road()
    semantics[30] = IGNORE_ID
    truth = GroundTruth(
        grid=GRID, taxonomy=TAXONOMY, semantics=semantics, mask_lidar=lidar, mask_camera=camera
    )
    write_labels(labels_path(tmp_path, "a", "a0"), truth)
    frame = GroundTruthLabels(OCC3D, tmp_path, source).scene("a").frame(0)

    def bit(which: MaskBit) -> np.ndarray:
        return (frame.mask & which) > 0

    np.testing.assert_array_equal(bit(MaskBit.LIDAR_OBSERVED), lidar)
    np.testing.assert_array_equal(bit(MaskBit.CAMERA_VISIBLE), camera)
    np.testing.assert_array_equal(bit(MaskBit.TRUSTED), truth.scored())
    assert not bit(MaskBit.TRUSTED)[:25].any() and not bit(MaskBit.TRUSTED)[30].any()
    np.testing.assert_array_equal(observed(frame), truth.observed())


def test_without_visibility_masks_every_labeled_voxel_is_trusted_and_counts_as_observed(
    source: FolderSource, tmp_path: Path
) -> None:
    surround = benchmark("surroundocc")
    frame = source.scene("a").frames[0]
    semantics = np.full(surround.grid.shape, surround.taxonomy.free_id, np.uint8)
    semantics[:, :, 2] = ROAD
    truth = GroundTruth(grid=surround.grid, taxonomy=surround.taxonomy, semantics=semantics)
    assert surround.write is not None
    surround.write(surround.path(tmp_path, source, frame), truth)
    labels = GroundTruthLabels(surround, tmp_path, source).scene("a").frame(0)
    assert not (labels.mask & (MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE)).any()
    np.testing.assert_array_equal(observed(labels), truth.observed())


def test_a_scene_of_a_store_that_cannot_be_read_is_told_once_or_raised(tmp_path: Path) -> None:
    log = FolderSource(write_log(tmp_path / "log"), past_sweeps=0)
    store = write_store(tmp_path / "labels.zarr", log, "folder")
    bad: list[str] = []
    strict, lenient = StoredLabels(store), StoredLabels(store, lambda name, why: bad.append(name))
    assert strict.scene_ids() == lenient.scene_ids() == ("a",)
    (store / "scenes" / "a" / "zarr.json").write_text("{")
    with pytest.raises(UnreadableError, match="scenes/a"):
        strict.scene_ids()
    assert lenient.scene_ids() == lenient.scene_ids() == () and bad == ["a"]
