"""What to label next: scores, choices and voxels are what they say."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_scenes import GRID, LEVELS, header, scene

from autolabel.selection.active_learning import (
    Candidate,
    Strategy,
    candidates,
    feature_vectors,
    score,
    select_candidates,
)
from autolabel.selection.scores import (
    OBSERVED,
    LabelCounts,
    count_scene,
    frame_disagreement,
    store_disagreement,
    uncertainty,
)
from autolabel.selection.voxels import equal_parts, select_voxels
from datasets.errors import SceneError, SetupError
from datasets.labels.audit_record import read_audit
from datasets.labels.store import LabelStore, MaskBit, SceneLabels
from datasets.labels.voxel_labels import FrameLabels

K = header().taxonomy.n_classes
FREE = header().taxonomy.free_id


def counts(
    of_class: dict[int, tuple[float, float]], *, frames: int = 1, disputed: float = 0.0
) -> LabelCounts:
    """Voxels and bits by class, all in the first ring; the disputed voxels are of class 0."""
    voxels, bits, differ = np.zeros((3, K)), np.zeros(K), np.zeros(K)
    for k, (n, unsure) in of_class.items():
        voxels[0, k], bits[k] = n, unsure
    differ[0] = disputed
    return LabelCounts(frames=frames, voxels=voxels, bits=bits, disputed=differ)


def scenes_of(*those: LabelCounts, labelled: tuple[int, ...] = ()) -> list[Candidate]:
    return [
        Candidate(scene_id=f"s{i:02d}", counts=one, labelled=i in labelled)
        for i, one in enumerate(those)
    ]


def labels_of(
    semantics: int = FREE, confidence: int = 1, mask: int = int(MaskBit.LIDAR_OBSERVED)
) -> FrameLabels:
    """A frame of one class all over."""
    return FrameLabels(
        token="t",
        timestamp_us=0,
        T_global_grid=np.eye(4),
        semantics=np.full(GRID.shape, semantics, np.uint8),
        confidence=np.full(GRID.shape, confidence, np.uint8),
        mask=np.full(GRID.shape, mask, np.uint8),
    )


def names(those: list[Candidate], strategy: Strategy, budget: int, **more: int) -> list[str]:
    chosen = select_candidates(those, score(those), budget=budget, strategy=strategy, **more)
    return [those[choice.index].scene_id for choice in chosen]


def test_uncertainty_is_binary_entropy_and_one_bit_from_a_half_down() -> None:
    found = uncertainty((0.0, 0.3, 0.5, 0.89, 1.0))
    expected = -0.89 * math.log2(0.89) - 0.11 * math.log2(0.11)
    np.testing.assert_allclose(found, [1, 1, 1, expected, 0])


def test_entropy_counts_classes_alike_and_is_computed_by_hand() -> None:
    # free: 100 voxels an average frame, cars: 5
    those = scenes_of(
        counts({0: (6, 6.0), FREE: (90, 9.0)}), counts({0: (8, 2.0), FREE: (220, 44.0)}, frames=2)
    )
    # per frame: 3 frames, cars 14/3, free 310/3
    cars, free = 14 / 3, 310 / 3
    expected = [(6 / cars + 9 / free) / 2, (1 / cars + 22 / free) / 2]
    np.testing.assert_allclose(score(those)["entropy"], expected)
    assert names(those, "entropy", 1) == ["s00"]  # though the other has more bits


def test_free_space_does_not_drown_rare_classes() -> None:
    those = scenes_of(
        counts({0: (10, 0.0), FREE: (10_000, 500.0)}), counts({0: (10, 9.0), FREE: (10_000, 400.0)})
    )
    assert names(those, "entropy", 1) == ["s01"]


def test_counts_of_a_scene_are_those_of_its_voxels(tmp_path: Path) -> None:
    labels = scene("s1")
    store = LabelStore.create(tmp_path / "a", header())
    store.write_scene(labels)
    found = count_scene(store.scene("s1"), store.header)
    seen = (labels.mask & OBSERVED) > 0
    bits = uncertainty(LEVELS)[labels.confidence]
    for k in range(K):
        here = seen & (labels.semantics == k)
        assert sum(one.voxels.sum(0)[k] for one in found) == here.sum()
        assert sum(one.bits[k] for one in found) == pytest.approx(bits[here].sum())
    (one,) = candidates({"s1": [("", c) for c in found]}, by_frame=False)
    assert one.counts.frames == len(labels)
    assert one.counts.voxels.sum() == seen.sum()


def test_a_second_store_disputes_where_the_labels_differ() -> None:
    a, b = labels_of(semantics=3), labels_of(semantics=3)
    b.semantics[1, 2, 3] = 7
    b.semantics[0, 0, 0] = 255  # not a class
    found = store_disagreement(a, b, K)
    assert found[3] == found[7] == 0.5 and found.sum() == 1
    unseen = replace(a, mask=np.zeros_like(a.mask)), replace(b, mask=np.zeros_like(b.mask))
    assert store_disagreement(*unseen, K).sum() == 0


def test_a_second_store_must_have_every_frame(tmp_path: Path) -> None:
    stores = [LabelStore.create(tmp_path / name, header()) for name in "ab"]
    stores[0].write_scene(scene("s1"))
    stores[1].write_scene(scene("s1", frames=2))
    with pytest.raises(SceneError, match=r"s1-2.*second store"):
        count_scene(stores[0].scene("s1"), header(), stores[1].scene("s1"))


@pytest.mark.parametrize("shift_m", [0.0, 0.25, 0.6])
def test_what_stands_still_does_not_flicker_because_the_vehicle_moves(shift_m: float) -> None:
    now = labels_of()
    now.semantics[:, :3] = 4  # a wall along the way
    now = replace(now, T_global_grid=np.eye(4))
    now.T_global_grid[0, 3] = shift_m
    before = replace(now, T_global_grid=np.eye(4))
    assert frame_disagreement(before, now, GRID, K).sum() == 0


def test_a_changed_label_flickers_unless_it_can_move_or_nobody_saw_it() -> None:
    before, now = labels_of(), labels_of()
    now.semantics[4, 3, 2] = 5
    found = frame_disagreement(before, now, GRID, K)
    assert found[5] == found[FREE] == 0.5
    moving = replace(now, mask=now.mask | np.uint8(MaskBit.DYNAMIC))
    assert frame_disagreement(before, moving, GRID, K).sum() == 0
    assert frame_disagreement(replace(before, mask=before.mask * 0), now, GRID, K).sum() == 0


def clusters(rng: np.random.Generator, n: int = 3, each: int = 5) -> list[LabelCounts]:
    """Scenes of n kinds, each kind full of another class, one after the other."""
    return [
        counts({i % n: (1000 + int(rng.integers(20)), 10.0), FREE: (1000, 10.0)})
        for i in range(n * each)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_diversity_picks_from_each_cluster(seed: int) -> None:
    those = scenes_of(*clusters(np.random.default_rng(seed)))
    assert {int(name[1:]) % 3 for name in names(those, "diversity", 3)} == {0, 1, 2}


def test_diversity_keeps_away_from_what_is_labelled() -> None:
    those = scenes_of(*clusters(np.random.default_rng(0)), labelled=(0, 1))
    assert int(names(those, "diversity", 1)[0][1:]) % 3 == 2


def test_the_mix_begins_with_the_best_and_leaves_out_its_double() -> None:
    best = counts({0: (1000, 900.0), FREE: (1000, 10.0)}, disputed=90)
    other = counts({1: (1000, 300.0), FREE: (1000, 10.0)}, disputed=50)
    dull = counts({2: (1000, 10.0), FREE: (1000, 10.0)})
    those = scenes_of(best, best, other, *[dull] * 6)
    assert names(those, "entropy", 2) == ["s00", "s01"]
    assert names(those, "mix", 2) == ["s00", "s02"]


def test_the_audit_decides_for_audit_and_counts_in_the_mix() -> None:
    same = counts({0: (10, 1.0), FREE: (100, 1.0)})
    those = scenes_of(same, same, same)
    scores = score(those, {"s00": 0.1, "s01": 0.9, "s02": 0.5})
    for strategy in ("audit", "mix"):
        chosen = select_candidates(those, scores, budget=2, strategy=strategy)  # type: ignore[arg-type]
        assert chosen[0].index == 1 and chosen[0].ranks["audit"] == 1
    with pytest.raises(SetupError, match="audit"):
        select_candidates(those, score(those), budget=1, strategy="audit")


@pytest.mark.parametrize("strategy", ["mix", "entropy", "disagreement", "diversity", "random"])
def test_every_strategy_chooses_each_once_never_a_labelled_one(strategy: Strategy) -> None:
    rng = np.random.default_rng(1)
    those = scenes_of(*clusters(rng, each=4), labelled=(3, 7))
    found = names(those, strategy, 100)
    assert len(found) == len(set(found)) == 10
    assert not {"s03", "s07"} & set(found)
    assert found == names(those, strategy, 100)
    assert found[:4] == names(those, strategy, 4) or strategy == "mix"  # whose pool grows


def test_random_follows_the_seed() -> None:
    those = scenes_of(*clusters(np.random.default_rng(1)))
    assert names(those, "random", 5, seed=1) == names(those, "random", 5, seed=1)
    assert names(those, "random", 5, seed=1) != names(those, "random", 5, seed=2)


@pytest.mark.parametrize("strategy", ["mix", "entropy", "diversity", "random"])
def test_chosen_frames_of_a_scene_lie_apart(strategy: Strategy) -> None:
    rng = np.random.default_rng(2)
    counted = {
        f"s{i}": [
            (f"{i}-{k}", counts({0: (10, float(rng.integers(10))), FREE: (100, 1.0)}))
            for k in range(10)
        ]
        for i in range(3)
    }
    those = candidates(counted, by_frame=True)
    chosen = select_candidates(those, score(those), budget=30, strategy=strategy, gap=4)
    picked = [those[choice.index] for choice in chosen]
    assert len(picked) >= 6
    for i, one in enumerate(picked):
        for other in picked[:i]:
            assert one.scene_id != other.scene_id or abs(one.frame - other.frame) >= 4  # type: ignore[operator]


def test_equal_scenes_have_equal_descriptions_and_no_distance() -> None:
    same = counts({0: (10, 1.0), FREE: (100, 1.0)})
    those = scenes_of(same, same)
    assert feature_vectors(those).size == 0
    chosen = select_candidates(those, score(those), budget=2, strategy="random")
    assert [choice.distance for choice in chosen] == [math.inf, 0.0]


@pytest.mark.parametrize("share", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_voxels_are_observed_and_unsure_and_never_padded(seed: int, share: float) -> None:
    labels: SceneLabels = scene(seed=seed)
    levels = (0.0, 0.5, 0.9, 1.0)
    for frame in labels.frames():
        mask = select_voxels(frame, levels, share)
        usable = ((frame.mask & OBSERVED) > 0) & (frame.confidence < 3)
        assert mask.shape == GRID.shape and not (mask & ~usable).any()
        assert mask.sum() == min(round(share * mask.size), usable.sum())
        np.testing.assert_array_equal(mask, select_voxels(frame, levels, share))


def test_voxels_are_the_most_unsure_ones_of_every_class() -> None:
    frame = labels_of(confidence=2)
    frame.semantics[:4], frame.semantics[0, 0, 0] = 2, 9
    frame.confidence[2, :2] = 1  # the unsure ones of class 2: 8 voxels
    budget = 13
    mask = select_voxels(frame, LEVELS, budget / GRID.n_voxels)
    by_class = np.bincount(frame.semantics[mask], minlength=K)
    assert mask[0, 0, 0]  # the only one of class 9
    assert (by_class[2], by_class[9], by_class[FREE]) == (6, 1, 6)
    assert (mask & (frame.semantics == 2))[2, :2].sum() == 6


def test_voxels_of_one_level_are_spread_not_the_first_ones() -> None:
    frame = labels_of()
    a, b = (select_voxels(frame, LEVELS, 0.1, seed=seed) for seed in (0, 1))
    assert (a != b).any()
    assert a[GRID.shape[0] // 2 :].any() and a[: GRID.shape[0] // 2].any()


def test_nothing_observed_gives_no_voxels() -> None:
    assert not select_voxels(labels_of(mask=int(MaskBit.TRUSTED)), LEVELS, 0.5).any()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 300))
def test_equal_parts_use_the_budget_and_nobody_gets_more_than_there_is(
    sizes: list[int], budget: int
) -> None:
    parts = equal_parts(np.asarray(sizes, np.int64), budget)
    assert parts.sum() == min(budget, sum(sizes))
    assert (parts <= sizes).all() and (parts >= 0).all()
    bounded = parts < sizes  # who could take more has as much as anybody, but for a remainder
    if bounded.any():
        assert parts.max() - parts[bounded].min() <= 1


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        '{"scenes": {"s1": 1}}',
        '{"scenes": [{"scene_id": "s1"}]}',
        '{"scenes": [{"scene_id": "s1", "score": "high"}]}',
        '{"scenes": [{"scene_id": "s1", "score": NaN}]}',
    ],
)
def test_another_file_than_an_audit_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "audit.json"
    path.write_text(text)
    with pytest.raises(SetupError, match=r"audit\.json"):
        read_audit(path, any_tool=True)


def test_an_audit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_text(json.dumps({"scenes": [{"scene_id": "s1", "score": 2, "more": 1}]}))
    (read,) = read_audit(path, any_tool=True).scenes
    assert (read.scene_id, read.score) == ("s1", 2.0)


def test_frames_as_far_apart_as_the_gap_are_chosen_and_nearer_ones_are_not() -> None:
    counted = {"s": [(f"{k}", counts({0: (10, 5.0), FREE: (100, 1.0)})) for k in range(6)]}
    those = candidates(counted, by_frame=True)
    chosen = select_candidates(those, score(those), budget=6, strategy="entropy", gap=2)
    assert [those[choice.index].frame for choice in chosen] == [0, 2, 4]
