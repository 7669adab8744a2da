"""What is done to whole stores: verify, compare, merge, tidy, export."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_line import run_script
from label_scenes import header, scene, tree

from datasets.benchmarks import occ3d_nuscenes
from datasets.benchmarks.catalogue import benchmark
from datasets.errors import SceneError, SetupError, UnreadableError
from datasets.files.seals import sealed
from datasets.frames import Frame, Scene
from datasets.labels.lidar_check import LidarEvidence
from datasets.labels.store import LabelStore, MaskBit, SceneLabels
from datasets.loading.targets import PseudoLabels
from datasets.reviews.edits import distrusted
from datasets.reviews.overlay import EditEntry, Reviews, Verdict, VerdictEntry
from datasets.store_ops.compare import diff
from datasets.store_ops.export import as_truth, export, sharing
from datasets.store_ops.maintenance import info, leftovers, prune, verify
from datasets.store_ops.merge import merge
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES

command = partial(run_script, "scripts/store.py")


def store_of(path: Path, *labels: SceneLabels) -> LabelStore:
    store = LabelStore.create(path, header())
    for one in labels:
        store.write_scene(one)
    return store


def test_info_counts_what_is_there(tmp_path: Path) -> None:
    labels = [scene("s1"), scene("s2", frames=2, seed=1)]
    store = store_of(tmp_path / "a", *labels)
    store.quarantine("s3", "no picture", "")
    found = info(store)
    trusted = sum(int((one.mask & MaskBit.TRUSTED > 0).sum()) for one in labels)
    assert (found.scenes, found.frames, found.trusted) == (2, 5, trusted)
    assert sum(found.trusted_by_class) == trusted
    assert found.quarantined == {"s3": "no picture"}
    files = tree(tmp_path / "a/scenes")
    assert found.bytes_ == sum(len(data) for name, data in files.items() if name != "zarr.json")
    shown = command("info", tmp_path / "a")
    assert shown.returncode == 0
    assert "2 scenes, 5 frames" in shown.stdout and "quarantined: s3: no picture" in shown.stdout


@pytest.mark.parametrize("workers", [1, 2])
def test_verify_names_the_scene_that_was_altered(tmp_path: Path, workers: int) -> None:
    store_of(tmp_path / "a", *(scene(f"s{i}", seed=i) for i in range(3)))
    assert verify(tmp_path / "a", workers=workers) == {}
    (shard,) = (p for p in (tmp_path / "a/scenes/s1/mask/c").rglob("*") if p.is_file())
    data = bytearray(shard.read_bytes())
    data[50] ^= 4
    shard.write_bytes(bytes(data))
    found = verify(tmp_path / "a", workers=workers)
    assert found.keys() == {"s1"} and "mask" in found["s1"]
    shown = command("verify", tmp_path / "a", "--workers", workers)
    assert shown.returncode == 1
    assert "damaged: s1" in shown.stdout and "2 of 3 scenes are whole" in shown.stdout


def test_verify_goes_on_after_what_cannot_be_read(tmp_path: Path) -> None:
    store = store_of(tmp_path / "a", scene("s1"), scene("s2"), scene("s3"))
    store.quarantine("s4", "bad pose", "")
    (tmp_path / "a/scenes/s1/zarr.json").write_text("{")
    (tmp_path / "a/scenes/s3/mask/zarr.json").write_text("{}")
    (tmp_path / "a/quarantine/s4/zarr.json").write_text("{")
    shown = command("verify", tmp_path / "a", "--workers", 1)
    assert shown.returncode == 1 and "Traceback" not in shown.stderr
    assert "damaged: s1: " in shown.stdout and "damaged: s3: " in shown.stdout
    assert "damaged note on a quarantined scene: s4: " in shown.stdout
    assert "1 of 3 scenes are whole" in shown.stdout


def test_a_scene_that_is_not_what_was_written_is_never_merged(tmp_path: Path) -> None:
    store = store_of(tmp_path / "a", scene("s1"))
    document = tmp_path / "a/scenes/s1/zarr.json"
    said = json.loads(document.read_text())
    said["attributes"]["sha256"]["mask"] = "0" * 64
    said["attributes"] = sealed(said["attributes"])
    document.write_text(json.dumps(said))
    for _ in range(2):
        with pytest.raises(SceneError, match="not those of its source"):
            merge([store], tmp_path / "m")
        assert LabelStore.open(tmp_path / "m").scene_ids() == ()


def test_prune_removes_leftovers_and_nothing_else(tmp_path: Path) -> None:
    store = store_of(tmp_path / "a", scene("s1"))
    before = tree(tmp_path / "a")
    for folder in ("scenes/s2/semantics", ".partial/s3-host-1-ab/mask"):
        (tmp_path / "a" / folder).mkdir(parents=True)
        (tmp_path / "a" / folder / "zarr.json").write_text("{}")
    left = ["scenes/s2", ".partial"]
    assert leftovers(store) == left
    assert "2 leftovers" in command("prune", tmp_path / "a", "--dry-run").stdout
    assert leftovers(store) == left
    assert prune(store) == left
    assert tree(tmp_path / "a") == before


def test_diff_counts_by_class_and_ring(tmp_path: Path) -> None:
    labels = scene("s1")
    labels.mask[:] |= np.uint8(MaskBit.LIDAR_OBSERVED)
    labels.mask[0, 1, 2, 3] &= ~np.uint8(MaskBit.TRUSTED)
    other = replace(labels, semantics=labels.semantics.copy(), mask=labels.mask.copy())
    other.semantics[0, 0, 0, 0] = (labels.semantics[0, 0, 0, 0] + 1) % 18
    other.mask[0, 1, 2, 3] |= np.uint8(MaskBit.TRUSTED)
    a = store_of(tmp_path / "a", labels, scene("s2"))
    b = store_of(tmp_path / "b", other, scene("s3"))
    found = diff(a, b)
    assert (found.only_a, found.only_b, found.frames) == (("s2",), ("s3",), 3)
    assert found.differ == 1
    assert found.confusion.sum() == labels.semantics.size
    assert found.confusion[1:].sum() == 0  # the grid reaches 3 m
    was = int(labels.semantics[0, 0, 0, 0])
    n = int((labels.semantics == was).sum())
    assert found.iou()[was] == pytest.approx((n - 1) / n)
    assert (found.trusted[0, 1], found.trusted[1, 0]) == (1, 0)
    shown = command("diff", tmp_path / "a", tmp_path / "b")
    assert shown.returncode == 1 and "1 of 576 observed voxels" in shown.stdout
    assert command("diff", tmp_path / "a", tmp_path / "a").returncode == 0


def test_frames_whose_grids_lie_elsewhere_are_not_compared(tmp_path: Path) -> None:
    poses = np.stack([np.eye(4)] * 3)
    labels = replace(scene("s1"), T_global_grid=poses.copy())
    poses[1, 0, 3] += 0.3
    a = store_of(tmp_path / "a", labels)
    b = store_of(tmp_path / "b", replace(labels, T_global_grid=poses))
    found = diff(a, b)
    assert found.frames == 2 and not found.same
    assert found.elsewhere == [f"s1 {labels.frame_tokens[1]}: 0.300 m and 0.00 degrees apart"]
    shown = command("diff", tmp_path / "a", tmp_path / "b")
    assert shown.returncode == 1
    assert "other poses or calibration" in shown.stdout and "0.300 m" in shown.stdout


def test_stores_without_a_common_frame_are_not_the_same(tmp_path: Path) -> None:
    store_of(tmp_path / "a")
    shown = command("diff", tmp_path / "a", tmp_path / "a")
    assert shown.returncode == 1
    assert "nothing is compared" in shown.stdout and "%" not in shown.stdout


def test_parts_of_one_job_are_merged_to_the_bytes_of_one_store(tmp_path: Path) -> None:
    scenes = [scene(f"s{i}", seed=i) for i in range(4)]
    store_of(tmp_path / "whole", *scenes)
    store_of(tmp_path / "a", *scenes[:3])
    store_of(tmp_path / "b", *scenes[2:])
    shown = command("merge", tmp_path / "m", tmp_path / "a", tmp_path / "b")
    assert shown.returncode == 0, shown.stderr
    assert tree(tmp_path / "m") == tree(tmp_path / "whole")


def test_other_jobs_and_other_labels_are_not_merged(tmp_path: Path) -> None:
    a = store_of(tmp_path / "a", scene("s1"))
    b = LabelStore.create(tmp_path / "b", header(run_id="run-2"))
    with pytest.raises(SetupError, match="of another job"):
        merge([a, b], tmp_path / "m")
    c = store_of(tmp_path / "c", scene("s1", seed=5))
    with pytest.raises(SetupError, match="other labels of scene s1"):
        merge([a, c], tmp_path / "m")
    d, e = (LabelStore.create(tmp_path / name, header(provenance={"log": name})) for name in "de")
    with pytest.raises(SetupError, match="of different logs: d, e"):
        merge([d, e], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_what_is_told_of_a_scene_as_a_whole_is_merged_too(tmp_path: Path) -> None:
    store, labels = LabelStore.create(tmp_path / "a", header()), scene("s1", frames=2)
    groups = len(header().taxonomy.class_groups()) - 1
    counts = np.ones((groups, 3, 3, 3), np.int64)
    check = LidarEvidence(counts=counts, claimed=0.5 * counts)
    with store.writer("s1", 2, inputs="x") as writer:
        for frame in labels.frames():
            writer.append(replace(frame, statistics={"LiDAR returns": 7.0}, lidar_check=check))
    merged = merge([store], tmp_path / "m")
    assert tree(tmp_path / "m") == tree(tmp_path / "a")
    attributes = merged.committed()["s1"]
    assert attributes["statistics"] == {"LiDAR returns": 7.0}
    assert attributes["lidar_check"]["frames"] == 2


def reject(store: LabelStore, scene_id: str, *frames: int) -> None:
    tokens = tuple(f"{scene_id}-{k}" for k in frames)
    what = VerdictEntry(scene_id=scene_id, tokens=tokens, verdict=Verdict.REJECT, note="fog")
    Reviews(store).add(what, reviewer="ann")


def paint(store: LabelStore, scene_id: str, k: int, voxels: list[int], class_id: int) -> None:
    what = EditEntry(
        scene_id=scene_id,
        token=f"{scene_id}-{k}",
        voxels=np.array(voxels, np.int64),
        class_id=class_id,
    )
    Reviews(store).add(what, reviewer="bob")


def test_reviews_are_counted_verified_and_no_leftovers(tmp_path: Path) -> None:
    store = store_of(tmp_path / "a", scene("s1"), scene("s2", seed=1))
    bytes_ = info(store).bytes_
    reject(store, "s1", 0, 1)
    paint(store, "s2", 0, [3, 4, 5], 4)
    found = info(store)
    assert found.bytes_ == bytes_ and found.reviews.rejected == 2
    assert found.reviews.reviewers == ("ann", "bob")
    before = tree(tmp_path / "a")
    assert leftovers(store) == [] == prune(store)
    store = LabelStore.open_or_create(tmp_path / "a", header())  # a job that goes on
    store.write_scene(scene("s1"))
    store.quarantine("s3", "no picture", "")
    store.write_scene(scene("s3", seed=3))
    assert before.items() <= tree(tmp_path / "a").items()
    (tmp_path / "a/reviews/torn.json").write_text("{")
    shown = command("verify", tmp_path / "a", "--workers", 1)
    assert shown.returncode == 1
    assert "damaged review: torn.json: not a document" in shown.stdout
    assert "3 of 3 scenes are whole" in shown.stdout and "2 reviews are whole" in shown.stdout
    shown = command("info", tmp_path / "a")
    assert "reviewed by ann, bob: 0 frames accepted, 2 rejected, 0 unsure" in shown.stdout
    assert "2 frames rejected and left out; 3 voxels given a class" in shown.stdout
    assert "1 damaged reviews; verify names them" in shown.stdout


def test_who_acts_on_reviews_refuses_torn_ones(tmp_path: Path) -> None:
    """A torn entry may have been a rejection."""
    store = store_of(tmp_path / "a", scene("s1"))
    reject(store, "s1", 0)
    (entry,) = (tmp_path / "a/reviews").glob("*-*.json")
    entry.write_bytes(entry.read_bytes().replace(b"reject", b"accept"))
    (tmp_path / "a/reviews/readme.txt").write_text("never was an entry")
    with pytest.raises(UnreadableError, match="altered: its digest differs"):
        PseudoLabels(tmp_path / "a")
    source = OneScene(scene("s1"))
    chosen = replace(benchmark("occ3d_nuscenes"), grid=store.header.grid)
    with pytest.raises(UnreadableError, match=entry.name):
        export(tmp_path / "a", chosen, source, tmp_path / "o")
    PseudoLabels(tmp_path / "a", use_reviews=False)
    entry.unlink()
    PseudoLabels(tmp_path / "a")


def test_a_comparison_looks_past_reviews(tmp_path: Path) -> None:
    store_of(tmp_path / "a", scene("s1"))
    b = store_of(tmp_path / "b", scene("s1"))
    reject(b, "s1", 0)
    paint(b, "s1", 1, [3], 4)
    assert command("diff", tmp_path / "a", tmp_path / "b").returncode == 0


def test_a_merged_store_has_the_reviews_of_its_parts(tmp_path: Path) -> None:
    a = store_of(tmp_path / "a", scene("s1"), scene("s2", seed=2))
    b = store_of(tmp_path / "b", scene("s2", seed=2), scene("s3", seed=3))
    reject(a, "s1", 0)
    reject(b, "s2", 2)
    paint(b, "s3", 1, [7], 4)
    Reviews(b).undo("bob")
    for _ in range(2):  # it can be repeated
        merged = merge([a, b], tmp_path / "m")
        reviews = Reviews(merged)
        assert reviews.entries() == (*Reviews(a).entries(), *Reviews(b).entries())
        assert reviews.rejected("s2") == {"s2-2"} and reviews.edits("s3") == {}
        assert reviews.stale() == () and reviews.damaged() == ()
    reject(merged, "s3", 0)
    merge([a, b], tmp_path / "m")
    assert reviews.refresh() and reviews.rejected("s3") == {"s3-0"}


def test_a_review_that_cannot_be_read_ends_a_merge_by_name(tmp_path: Path) -> None:
    a = store_of(tmp_path / "a", scene("s1"))
    reject(a, "s1", 0)
    (entry,) = (p for p in (tmp_path / "a" / "reviews").glob("*.json") if p.name != "zarr.json")
    os.truncate(entry, 3 << 30)
    with pytest.raises(UnreadableError, match=entry.name):
        merge([a], tmp_path / "m")


class OneScene:
    """A log whose only scene has the frames of the labels."""

    name = "one"
    licence = "CC0"

    def __init__(self, labels: SceneLabels) -> None:
        self.labels = labels

    def scene_ids(self, split: str) -> tuple[str, ...]:
        return (self.labels.scene_id,)

    def scene(self, scene_id: str) -> Scene:
        frames = tuple(
            Frame(
                scene_id=scene_id,
                token=token,
                timestamp_us=int(self.labels.timestamps_us[k]),
                T_global_ego=self.labels.T_global_grid[k],
                cameras=(),
                lidar=None,
                past_sweeps=(),
            )
            for k, token in enumerate(self.labels.frame_tokens)
        )
        return Scene(scene_id=scene_id, frames=frames)

    def read_image(self, view: object) -> None:
        raise AssertionError

    def read_points(self, sweep: object) -> None:
        raise AssertionError

    def n_frames(self, scene_id: str) -> int:
        return len(self.scene(scene_id).frames)

    def fingerprint(self, scene_id: str) -> str:
        return ""


def test_export_writes_occ3d_files_whose_masks_hold_trusted_voxels_alone(tmp_path: Path) -> None:
    grid = occ3d_nuscenes.GRID
    labels = scene("scene-0001", frames=2, grid=grid)
    LabelStore.create(tmp_path / "a", header(grid=grid)).write_scene(labels)
    chosen = benchmark("occ3d_nuscenes")
    out = tmp_path / "out"
    assert export(tmp_path / "a", chosen, OneScene(labels), out) == {}  # type: ignore[arg-type]
    for k, token in enumerate(labels.frame_tokens):
        truth = occ3d_nuscenes.read_labels(out / "gts/scene-0001" / token / "labels.npz")
        trusted = labels.mask[k] & MaskBit.TRUSTED > 0
        lidar, camera = (
            labels.mask[k] & bit > 0 for bit in (MaskBit.LIDAR_OBSERVED, MaskBit.CAMERA_VISIBLE)
        )
        np.testing.assert_array_equal(truth.mask_lidar, trusted & lidar)
        np.testing.assert_array_equal(truth.mask_camera, trusted & camera)
        seen = lidar | camera | trusted
        np.testing.assert_array_equal(truth.semantics[seen], labels.semantics[k][seen])
        assert (truth.semantics[~seen] == OCC3D_NUSCENES.free_id).all()
    with pytest.raises(SetupError, match="benchmark occ3d_waymo has"):
        export(tmp_path / "a", benchmark("occ3d_waymo"), OneScene(labels), out)  # type: ignore[arg-type]
    flat = as_truth(next(labels.frames()), replace(chosen, mask=None))
    assert flat.mask_camera is None and flat.mask_lidar is None
    seen = labels.mask[0] & (MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE) > 0
    trusted = labels.mask[0] & MaskBit.TRUSTED > 0
    np.testing.assert_array_equal(flat.semantics == IGNORE_ID, seen & ~trusted)


@pytest.mark.parametrize("workers", [1, 2])
def test_export_writes_what_reviewers_left(tmp_path: Path, workers: int) -> None:
    grid = occ3d_nuscenes.GRID
    labels = scene("s1", frames=2, grid=grid)
    labels.mask[1].ravel()[:3] = (MaskBit.CAMERA_VISIBLE, MaskBit.CAMERA_VISIBLE, 0)
    labels.mask[1].ravel()[3:5] = MaskBit.CAMERA_VISIBLE | MaskBit.TRUSTED
    store = LabelStore.create(tmp_path / "a", header(grid=grid))
    store.write_scene(labels)
    chosen, source = benchmark("occ3d_nuscenes"), OneScene(labels)
    write = partial(export, tmp_path / "a", chosen, source)  # type: ignore[arg-type]
    assert write(tmp_path / "before") == {}
    reject(store, "s1", 0)
    paint(store, "s1", 1, [1, 2], 4)
    paint(store, "s1", 1, [3], IGNORE_ID)
    assert write(tmp_path / "after", workers=workers) == {}
    assert write(tmp_path / "plain", workers=workers, use_reviews=False) == {}
    before, after, plain = (
        [occ3d_nuscenes.read_labels(tmp_path / n / f"gts/s1/s1-{k}/labels.npz") for k in (0, 1)]
        for n in ("before", "after", "plain")
    )
    for k in (0, 1):
        np.testing.assert_array_equal(plain[k].semantics, before[k].semantics)
        np.testing.assert_array_equal(plain[k].mask_camera, before[k].mask_camera)
    for rejected in (after[0].mask_camera, after[0].mask_lidar):
        assert rejected is not None and not rejected.any()
    assert before[0].mask_camera is not None and before[0].mask_camera.any()
    assert after[1].semantics.ravel()[[1, 2]].tolist() == [4, 4]
    camera = after[1].mask_camera
    assert camera is not None
    assert camera.ravel()[:5].tolist() == [False, True, False, False, True]
    np.testing.assert_array_equal(after[1].semantics.ravel()[5:], before[1].semantics.ravel()[5:])
    rejected_frame = distrusted(next(labels.frames()))
    flat = as_truth(rejected_frame, replace(chosen, mask=None))
    seen = labels.mask[0] & (MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE) > 0
    np.testing.assert_array_equal(flat.semantics == IGNORE_ID, seen)


def test_what_forbids_sharing_is_said() -> None:
    assert "DO NOT SHARE" in sharing("Waymo Dataset License Agreement")
    assert "may be shared" in sharing("CC0-1.0 (synthetic)")
    assert "only as it allows" in sharing("CC BY-NC-SA 4.0 (nuScenes terms of use)")
