"""Students learn what reviewers left: no rejected frame, and voxels as they were painted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from training_command import run, write_labelled_log

from datasets.errors import SetupError
from datasets.labels.store import LabelStore, MaskBit
from datasets.loading.frame_dataset import FrameDataset
from datasets.loading.targets import PseudoLabels, trusted_by_class
from datasets.model_inputs import InputSpec
from datasets.reviews.overlay import EditEntry, Reviews, Verdict, VerdictEntry
from datasets.sources.folder import FolderSource
from datasets.taxonomy import IGNORE_ID
from models.training.losses import flow_loss

SPEC = InputSpec(height=8, width=16, lidar=False)
VOXELS = np.array([3, 50, 1000], np.int64)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_log(tmp_path_factory.mktemp("logs") / "log", ("a", "b"))


@pytest.fixture
def log(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "log"))


def tokens(log: Path, scene_id: str) -> list[str]:
    return [frame.token for frame in FolderSource(log, past_sweeps=0).scene(scene_id).frames]


def reviewed(log: Path, *rejected: tuple[str, int]) -> Reviews:
    reviews = Reviews(LabelStore.open(log / "labels.zarr"))
    for scene_id, k in rejected:
        token = tokens(log, scene_id)[k]
        what = VerdictEntry(scene_id=scene_id, tokens=(token,), verdict=Verdict.REJECT)
        reviews.add(what, reviewer="ann")
    return reviews


def paint(reviews: Reviews, scene_id: str, token: str, class_id: int) -> None:
    what = EditEntry(scene_id=scene_id, token=token, voxels=VOXELS, class_id=class_id)
    reviews.add(what, reviewer="ann")


def drawn(samples: FrameDataset) -> list[str]:
    return sorted(frame.token for _, frame in samples.items)


def test_a_rejected_frame_is_in_no_training_set(log: Path) -> None:
    source = FolderSource(log, past_sweeps=0)
    everything = drawn(FrameDataset(source, [PseudoLabels(log / "labels.zarr")], SPEC))
    reviewed(log, ("a", 1))
    labels = PseudoLabels(log / "labels.zarr")
    rest = FrameDataset(source, [labels], SPEC)
    assert drawn(rest) == sorted(set(everything) - {tokens(log, "a")[1]})
    assert len(rest.earlier) == len(rest.items)
    frame = source.scene("a").frames[1]
    assert not labels.target(frame).weight.any() and labels.target(source.scene("a").frames[0])
    plain = PseudoLabels(log / "labels.zarr", use_reviews=False)
    assert drawn(FrameDataset(source, [plain], SPEC)) == everything
    assert plain.target(frame).weight.any()
    reviewed(log, *(("a", k) for k in (0, 2)), *(("b", k) for k in range(3)))
    with pytest.raises(SetupError, match="no frame to train on"):
        FrameDataset(source, [PseudoLabels(log / "labels.zarr")], SPEC)


def test_earlier_frames_of_those_that_stay_are_the_same(log: Path) -> None:
    source = FolderSource(log, past_sweeps=0)
    spec = InputSpec(height=8, width=16, lidar=False, past_frames=1)
    before = FrameDataset(source, [PseudoLabels(log / "labels.zarr")], spec)
    reviewed(log, ("a", 1))
    after = FrameDataset(source, [PseudoLabels(log / "labels.zarr")], spec)
    pairs = [
        {
            frame.token: [past.token for past in earlier]
            for (_, frame), earlier in zip(one.items, one.earlier, strict=True)
        }
        for one in (before, after)
    ]
    assert len(pairs[1]) == 5 and pairs[1].items() <= pairs[0].items()


def test_painted_voxels_are_learnt_as_painted(log: Path) -> None:
    frame = FolderSource(log, past_sweeps=0).scene("b").frames[0]
    before = PseudoLabels(log / "labels.zarr").target(frame)
    reviews = reviewed(log)
    paint(reviews, "b", frame.token, 0)
    target = PseudoLabels(log / "labels.zarr").target(frame)
    assert (target.semantics.ravel()[VOXELS] == 0).all()
    assert (target.weight.ravel()[VOXELS] == np.float32(0.9)).all()
    changed = np.flatnonzero(target.semantics.ravel() != before.semantics.ravel())
    assert set(changed) <= set(VOXELS)
    paint(reviews, "b", frame.token, IGNORE_ID)
    frozen = PseudoLabels(log / "labels.zarr", use_reviews=reviews)
    assert not frozen.target(frame).weight.ravel()[VOXELS].any()
    reviews.undo("ann")
    frozen = PseudoLabels(log / "labels.zarr", use_reviews=reviews)
    assert frozen.target(frame).weight.ravel()[VOXELS].all()
    assert PseudoLabels(log / "labels.zarr", use_reviews=False).target(frame).weight.all()


def test_the_balance_counts_what_reviewers_left(log: Path) -> None:
    store = LabelStore.open(log / "labels.zarr")
    n = store.header.grid.n_voxels
    _, whole = trusted_by_class(store, MaskBit.CAMERA_VISIBLE)
    reviews = reviewed(log, ("a", 0), ("a", 1))
    _, there = trusted_by_class(store, MaskBit.CAMERA_VISIBLE, reviews)
    assert (whole.sum(), there.sum()) == (6 * n, 4 * n)
    kept, _ = trusted_by_class(store, MaskBit.CAMERA_VISIBLE, reviews)
    paint(reviews, "b", tokens(log, "b")[2], IGNORE_ID)
    less, _ = trusted_by_class(store, MaskBit.CAMERA_VISIBLE, reviews)
    assert 3 * 0.5 - 1e-6 < kept.sum() - less.sum() < 3 * 0.9 + 1e-6


def test_a_velocity_that_nobody_knows_is_no_target() -> None:
    flow = torch.zeros(3, 2, requires_grad=True)
    target = torch.tensor([[1.0, 0], [float("nan")] * 2, [3.0, 0]])
    loss = flow_loss(flow, target, torch.ones(3))
    loss.backward()
    assert loss.item() == 2 and flow.grad is not None and flow.grad.isfinite().all()


SHORT = ("--batch", "3", "--loaders", "0", "--threads", "1", "--save-every", "1")


def test_a_training_says_what_reviews_changed_and_goes_on_with_no_others(
    log: Path, tmp_path: Path
) -> None:
    reviews = reviewed(log, ("a", 1))
    paint(reviews, "b", tokens(log, "b")[0], 0)
    out = tmp_path / "out"
    code, text = run(log, out, "--steps", "1", *SHORT)
    assert code == 0, text
    assert "1 frames rejected and left out; 3 voxels given a class and 0 taken out in 1" in text
    config = json.loads((out / "config.json").read_text())
    assert config["job"]["reviews"] == reviews.fingerprint()
    paint(reviews, "b", tokens(log, "b")[0], 1)  # the set has the same frames
    code, text = run(log, out, "--steps", "1", *SHORT)
    assert code == 2 and "another configuration (job.reviews)" in text
    code, text = run(log, tmp_path / "plain", "--steps", "1", "--no-reviews", *SHORT)
    assert code == 0 and "rejected" not in text
    assert "reviews" not in json.loads((tmp_path / "plain" / "config.json").read_text())["job"]
