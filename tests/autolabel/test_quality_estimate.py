"""The share of wrong frames: its interval holds, whoever reviews how and stops when."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from label_scenes import header, scene

from datasets.labels.store import LabelStore
from datasets.reviews.overlay import Reviews, Verdict, VerdictEntry
from viz.review.error_rate import Estimator, SampledFrames, estimate, fewest_wrong, most_wrong
from viz.review.priority import ReviewPriority
from viz.review.review_queue import frames_of, priority_order, sampled_order

ROOT = Path(__file__).resolve().parents[2]
SCENES = {f"s{i:02d}": [f"s{i:02d}-{k}" for k in range(10)] for i in range(20)}
BY_SCENE = ReviewPriority(
    frames={(s, k): 1 - i / 20 for i, s in enumerate(SCENES) for k in range(10)}
)
R, A, U = Verdict.REJECT, Verdict.ACCEPT, Verdict.UNSURE


def simulation() -> ModuleType:
    path = ROOT / "scripts" / "benchmarks" / "review.py"
    spec = importlib.util.spec_from_file_location("benchmark_review", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_review"] = module
    spec.loader.exec_module(module)
    return module


def said(frames: list[tuple[str, int]], verdict: Verdict) -> dict[tuple[str, str], Verdict]:
    return {(s, SCENES[s][k]): verdict for s, k in frames}


@pytest.mark.parametrize("M", [1, 2, 7, 23])
def test_bounds_are_those_of_the_test_inverted_by_enumeration(M: int) -> None:
    def at_most(x: int, W: int, m: int) -> float:
        ways = sum(math.comb(W, i) * math.comb(M - W, m - i) for i in range(x + 1))
        return ways / math.comb(M, m)

    for m in range(M + 1):
        for x in range(m + 1):
            able = range(x, M - (m - x) + 1)
            few_enough = [W for W in able if at_most(x, W, m) > 0.025]
            many_enough = [W for W in able if x == 0 or 1 - at_most(x - 1, W, m) > 0.025 + 1e-12]
            assert most_wrong(M, m, x) == max(few_enough)
            assert fewest_wrong(M, m, x) == min(many_enough)


@pytest.mark.parametrize("way", ["alone", "two", "neighbours"])
@pytest.mark.parametrize("suspicion", ["good", "useless"])
@pytest.mark.parametrize("share", [0.005, 0.05, 0.3])
def test_the_interval_covers_the_truth_in_93_of_100_reviews(
    share: float, suspicion: str, way: str
) -> None:
    found = simulation().coverage(100, share, suspicion, way, seed=3)
    assert found["covered"] >= 93
    assert found["half width, points (median)"] < 20


def test_a_store_reviewed_whole_is_known() -> None:
    order = sampled_order(SCENES)
    verdicts = said(order[:17], R) | said(order[17:], A)
    found = estimate(SCENES, BY_SCENE, verdicts)
    assert found.low == found.wrong_share == found.high == 17 / 200
    assert (found.n_frames, found.n_reviewed) == (200, 200) and found.more_for() == 0
    open_ = estimate(SCENES, BY_SCENE, {**verdicts, **said(order[20:24], U)})
    assert (open_.low, open_.high) == (17 / 200, 21 / 200)


def test_of_a_store_without_reviews_nothing_is_known() -> None:
    found = estimate(SCENES, BY_SCENE, {})
    assert (found.low, found.high) == (0, 1) and math.isnan(found.wrong_share)
    assert "not known" in str(found) and found.more_for() > 100
    with pytest.raises(ValueError, match="without frames"):
        estimate({}, BY_SCENE, {})
    with pytest.raises(ValueError, match="half width"):
        found.more_for(0)


def test_frames_judged_by_suspicion_are_known_and_the_sample_stands_for_the_rest() -> None:
    top = priority_order(SCENES, BY_SCENE)[:60]
    drawn = [one for one in sampled_order(SCENES) if one not in top]
    verdicts = said(top[:30], R) | said(top[30:], A) | said(drawn[:2], R) | said(drawn[2:40], A)
    found = estimate(SCENES, BY_SCENE, verdicts)
    assert (found.known, found.known_wrong, found.n_sampled) == (60, 30, 40)
    assert found.wrong_share == pytest.approx((30 + 2 / 40 * 140) / 200)
    assert found.low == (30 + fewest_wrong(140, 40, 2)) / 200
    assert found.high == (30 + most_wrong(140, 40, 2)) / 200
    text = str(found)
    assert "100 of 200 frames reviewed, 40 of them drawn by chance" in text
    assert "18.5 % of all frames are wrong" in text and f"{found.more_for()} more" in text


def test_only_the_beginning_of_the_drawn_order_is_the_sample() -> None:
    drawn = sampled_order(SCENES)
    nothing = ReviewPriority()
    verdicts = said(drawn[:10], A) | said(drawn[11:30], R)  # number 10 is still being looked at
    found = estimate(SCENES, nothing, verdicts)
    assert found.n_sampled == 10 and found.rest.wrong == 0
    assert found.low == 19 / 200 and found.wrong_share == 19 / 200  # what is known bounds it
    closed = estimate(SCENES, nothing, verdicts | said(drawn[10:11], A))
    assert closed.n_sampled == 30 and closed.rest.wrong == 19
    assert closed.low > found.low


def test_frames_picked_out_of_order_do_not_move_what_is_known() -> None:
    order = priority_order(SCENES, BY_SCENE)
    verdicts = said(order[:100], R) | said(order[150:], A)
    assert estimate(SCENES, BY_SCENE, verdicts).known == 100
    del verdicts[order[3][0], SCENES[order[3][0]][order[3][1]]]  # one passed over
    found = estimate(SCENES, BY_SCENE, verdicts)
    assert (found.known, found.gaps, found.known_wrong) == (100, 1, 99)
    assert found.high <= (99 + 1 + 50) / 200


def test_so_many_more_give_the_width_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    order = sampled_order(
        SCENES | {f"t{i:03d}": [f"t{i:03d}-{k}" for k in range(20)] for i in range(190)}
    )
    scenes = {s: [f"{s}-{k}" for k in range(10 if s[0] == "s" else 20)] for s, _ in order}
    wrong = {one for one in order if rng.random() < 0.05}
    names = {one: (one[0], f"{one[0]}-{one[1]}") for one in order}
    verdicts = {names[one]: R if one in wrong else A for one in order[:200]}
    first = estimate(scenes, ReviewPriority(), verdicts)
    n = first.more_for(0.02)
    assert 0 < n < 1000 and first.high - first.low > 0.04
    verdicts |= {names[one]: R if one in wrong else A for one in order[200 : 200 + n]}
    second = estimate(scenes, ReviewPriority(), verdicts)
    assert (second.high - second.low) / 2 == pytest.approx(0.02, abs=0.004)
    assert first.more_for(0.05) == 0 and first.more_for(0.01) > n


def test_what_is_known_of_the_rest_bounds_the_rest() -> None:
    one = SampledFrames(frames=100, drawn=10, wrong=0, unsure=0, known_wrong=40, known_right=55)
    assert one.bounds() == (40, 45)  # the sample was unlucky: it would have allowed 26 at most
    assert replace(one, known_wrong=5).bounds() == (5, most_wrong(100, 10, 0))
    assert replace(one, known_wrong=5, known_right=80).bounds() == (5, 20)


def test_an_estimate_of_a_store(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    for i in range(4):
        store.write_scene(scene(f"s{i}", seed=i))
    reviews = Reviews(store)
    scenes = frames_of(store)
    for scene_id, k in sampled_order(scenes)[:6]:
        what = VerdictEntry(
            scene_id=scene_id, tokens=(scenes[scene_id][k],), verdict=R, sampled=True
        )
        reviews.add(what, reviewer="ann")
    found = Estimator.of_store(store, ReviewPriority()).of_reviews(reviews)
    assert (found.n_frames, found.n_reviewed, found.n_sampled) == (12, 6, 6)
    assert found.wrong_share == 1 and found.high == 1 and 0.5 < found.low < 1
    reviews.undo("ann")
    assert Estimator.of_store(store, ReviewPriority()).of_reviews(reviews).n_sampled == 5
