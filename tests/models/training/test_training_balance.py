"""Weights of classes against what the trust in a store's labels drops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from one_camera_log import GRID, OneCameraLog

from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.loading.targets import PseudoLabels, class_balance, trusted_by_class
from datasets.taxonomy import OCC3D_NUSCENES

FREE, CAR, ROAD = 17, 4, 11


@pytest.fixture()
def store(tmp_path: Path) -> Path:
    """Of 100 free, 10 road and 10 car voxels that a camera sees, all, 5 and 1 are trusted; as many
    that only LiDAR sees, none of them trusted."""
    semantics = np.full((1, *GRID.shape), FREE, np.uint8)
    mask = np.zeros_like(semantics)
    flat, bits = semantics[0, :2].reshape(2, -1), mask[0, :2].reshape(2, -1)
    flat[:, 100:110], flat[:, 110:120] = ROAD, CAR
    bits[0, :120], bits[1, :120] = MaskBit.CAMERA_VISIBLE, MaskBit.LIDAR_OBSERVED
    for first, count in ((0, 100), (100, 5), (110, 1)):
        bits[0, first : first + count] |= MaskBit.TRUSTED
    header = StoreHeader(
        grid=GRID,
        taxonomy=OCC3D_NUSCENES,
        levels=(0.5,),
        licence="none",
        provenance={},
        run_id="x",
    )
    labels = SceneLabels(
        scene_id="a",
        frame_tokens=("t0",),
        timestamps_us=np.array([0]),
        T_global_grid=np.eye(4)[None],
        semantics=semantics,
        confidence=np.zeros_like(semantics),
        mask=mask,
    )
    LabelStore.create(tmp_path / "s.zarr", header).write_scene(labels)
    return tmp_path / "s.zarr"


def test_classes_are_counted_where_the_loss_may_look(store: Path) -> None:
    opened = LabelStore.open(store)
    kept, there = trusted_by_class(opened, MaskBit.CAMERA_VISIBLE)
    assert [kept[c] for c in (FREE, ROAD, CAR)] == [50, 2.5, 0.5]
    assert [there[c] for c in (FREE, ROAD, CAR)] == [100, 10, 10]
    kept, there = trusted_by_class(opened, MaskBit(0))
    assert [kept[c] for c in (FREE, ROAD, CAR)] == [50, 2.5, 0.5]
    assert [there[c] for c in (FREE, ROAD, CAR)] == [200, 20, 20]


def test_balanced_classes_have_the_part_in_the_loss_that_they_had_before(store: Path) -> None:
    frame = OneCameraLog().scene("a").frames[0]
    target = PseudoLabels(store, balance=100.0).target(frame)
    total = {c: target.weight[target.semantics == c].sum() for c in (FREE, ROAD, CAR)}
    share = total[FREE] / 100
    assert total[ROAD] == pytest.approx(10 * share, rel=1e-5)
    assert total[CAR] == pytest.approx(10 * share, rel=1e-5)
    assert sum(total.values()) == pytest.approx(0.5 * 106, rel=1e-5)
    plain = PseudoLabels(store).target(frame)
    assert set(np.unique(plain.weight)) == {0, 0.5}


def test_the_balance_is_capped_and_leaves_absent_classes_alone() -> None:
    kept = np.array([100.0, 1, 0, 0])
    there = np.array([100, 100, 50, 0])
    assert class_balance(kept, there, at_most=3.0).tolist() == pytest.approx([0.404, 3, 1, 1], 1e-3)
    with pytest.raises(ValueError, match="at least 1"):
        class_balance(kept, there, at_most=0.5)
