"""Confidence moved to another log by a handful of frames."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from label_scenes import GRID, LEVELS, header, scene

from autolabel.calibration.adapt import FrameCounts, Step, adapt
from autolabel.calibration.evaluation import no_counts
from autolabel.calibration.reviewed import ReviewedFrames
from autolabel.confidence.calibration import Calibration, CalibrationHistogram
from autolabel.confidence.risk_control import CalibrationCounts, control_risk
from autolabel.labeling.config import LabelingConfig
from datasets.errors import SetupError
from datasets.frames import Frame
from datasets.labels.domain import LogDomain
from datasets.labels.store import LabelStore, MaskBit
from datasets.reviews.entries import EditEntry, Verdict, VerdictEntry
from datasets.reviews.overlay import Reviews
from datasets.taxonomy import IGNORE_ID, OCC3D_COARSE

K, FREE = OCC3D_COARSE.n_classes, OCC3D_COARSE.free_id
LOG = LogDomain(source="folder", log="new", licence="", scenes=0, frames=0, reference=None)


def fill(histogram: CalibrationHistogram, seed: int, shift: float, n: int = 5_000) -> None:
    """Labels whose log odds of being right are those of the softmax, and ``shift``."""
    rng = np.random.default_rng(seed)
    logit = rng.uniform(-1, 6, n)
    classes = rng.integers(0, K, n)
    right = rng.random(n) < 1 / (1 + np.exp(-logit - shift))
    histogram.update((1 / (1 + np.exp(-logit))).astype(np.float32), classes, right)


def known() -> Calibration:
    histogram = CalibrationHistogram(K, free_id=FREE)
    fill(histogram, 0, 0.0, n=200_000)
    return histogram.fit()


def frames(n: int, shift: float, *, scenes: int = 1, seed: int = 10) -> list[FrameCounts]:
    out = []
    for i in range(n):
        counts = no_counts(f"f{i}", OCC3D_COARSE)
        fill(counts.observed, seed + i, shift)
        assert counts.occupancy is not None
        fill(counts.occupancy, seed + i, shift + 1)
        out.append(
            FrameCounts(
                scene_id=f"s{i % scenes}",
                token=f"f{i}",
                counts=counts,
                statistics={"LiDAR returns": 100.0 + i},
            )
        )
    return out


def off(calibration: Calibration, tested: list[FrameCounts]) -> float:
    """Claimed less true share of right labels."""
    seen, right = (
        np.sum([calibration.by_level(getattr(f.counts.observed, of)) for f in tested], axis=0)
        for of in ("seen", "right")
    )
    claimed = float((seen * np.asarray(calibration.levels)).sum())
    return (claimed - float(right.sum())) / float(seen.sum())


@pytest.mark.parametrize(("step", "most"), [("old", None), ("shifted", 0.03), ("by class", 0.03)])
def test_five_frames_move_confidence_to_where_the_log_is(step: Step, most: float | None) -> None:
    tested = frames(20, -2.5, seed=100)
    fit = adapt(frames(5, -2.5), known(), OCC3D_COARSE, LabelingConfig(), LOG, None, step=step)
    error = off(fit.calibration, tested)
    if most is None:
        assert error > 0.25
    else:
        assert abs(error) < most
    assert fit.units == "frames" and fit.evidence.unit == "frames"


def test_where_nothing_changed_little_does() -> None:
    fit = adapt(frames(5, 0.0), known(), OCC3D_COARSE, LabelingConfig(), LOG, None)
    assert abs(off(fit.calibration, frames(20, 0.0, seed=100))) < 0.02


def test_one_class_may_be_worse_than_its_group() -> None:
    taught = frames(5, 0.0)
    bus = np.arange(3) * K  # one class at all distances
    for frame in taught:
        frame.counts.observed.right[bus] //= 10
    fit = adapt(taught, known(), OCC3D_COARSE, LabelingConfig(), LOG, None)
    levels = np.asarray(fit.calibration.levels)[fit.calibration.table[0]]
    top = levels[:, -1]
    assert top[0] < 0.5 and top[2] > 0.9


def test_bounds_are_measured_on_what_was_left_out_and_say_what_they_need() -> None:
    groups = OCC3D_COARSE.class_groups()
    few = adapt(frames(4, -1.0), known(), OCC3D_COARSE, LabelingConfig(), LOG, None)
    with pytest.raises(SetupError, match="4 calibration frames are too few, at least 5"):
        control_risk(few.evidence, few.calibration.levels, groups, max_error=0.1)
    many = adapt(frames(12, -1.0), known(), OCC3D_COARSE, LabelingConfig(), LOG, None)
    bound = control_risk(many.evidence, many.calibration.levels, groups, max_error=0.1)
    assert bound.unit == "frames" and "12 frames" in bound.to_text(OCC3D_COARSE.names)
    again = CalibrationCounts.from_json(json.loads(json.dumps(many.evidence.to_json())))
    assert again.unit == "frames" and again.min_units == 5


def test_scenes_are_left_out_whole_where_there_are_enough() -> None:
    fit = adapt(frames(10, -1.0, scenes=5), known(), OCC3D_COARSE, LabelingConfig(), LOG, None)
    assert fit.units == "scenes" and fit.evidence.scene_ids == ("s0", "s1", "s2", "s3", "s4")
    own = fit.domain.log("folder", "new")
    assert own is not None and (own.scenes, own.frames) == (5, 10)
    assert own.reference is not None and own.reference.frames.tolist() == [2] * 5
    again = Calibration.from_json(json.loads(json.dumps(fit.calibration.to_json())))
    assert again.method == "adapted" and again.occupancy is not None
    np.testing.assert_array_equal(again.free_share, fit.calibration.free_share)


def frame_of(token: str, scene_id: str) -> Frame:
    return Frame(
        scene_id=scene_id,
        token=token,
        timestamp_us=0,
        T_global_ego=np.eye(4),
        cameras=(),
        lidar=None,
    )


def test_reviews_are_truth(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "s.zarr", header())
    labels = scene("a", frames=5)
    store.write_scene(labels)
    with pytest.raises(SetupError, match="no frame is accepted, rejected or painted"):
        ReviewedFrames(store)
    reviews, free_id = Reviews(store), header().taxonomy.free_id
    for k, verdict in ((0, Verdict.ACCEPT), (1, Verdict.REJECT), (2, Verdict.UNSURE)):
        reviews.add(VerdictEntry(scene_id="a", tokens=(f"a-{k}",), verdict=verdict), reviewer="me")
    for k in (1, 3):
        painted = EditEntry(scene_id="a", token=f"a-{k}", voxels=np.arange(4), class_id=4)
        reviews.add(painted, reviewer="me")
    reviewed = ReviewedFrames(store)
    assert reviewed.scene_ids() == ("a",)
    said = [reviewed.labels(frame_of(f"a-{k}", "a")) for k in range(5)]
    assert said[2] is None and said[4] is None
    accepted, rejected, painted_only = said[0], said[1], said[3]
    assert accepted is not None and rejected is not None and painted_only is not None
    trusted = (labels.mask & MaskBit.TRUSTED) > 0
    np.testing.assert_array_equal(
        accepted.semantics, np.where(trusted[0], labels.semantics[0], IGNORE_ID)
    )
    wrong = trusted[1] & (labels.semantics[1] != free_id)
    wrong.ravel()[:4] = False
    assert (rejected.semantics[wrong] == free_id).all()
    assert (rejected.semantics.ravel()[:4] == 4).all()
    assert (painted_only.semantics != IGNORE_ID).sum() == 4
    assert accepted.grid == GRID and len(LEVELS) == len(header().levels)


def test_counts_of_other_units_are_kept_apart() -> None:
    counts = CalibrationCounts(
        scene_ids=("a",),
        seen=np.ones((1, 1, 2, 1), np.int64),
        right=np.ones((1, 1, 2, 1), np.int64),
        free_id=1,
    )
    assert "unit" not in counts.to_json() and replace(counts, unit="frames").to_json()["unit"]
