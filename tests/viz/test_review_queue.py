"""The order of review: most suspect first, chance mixed in, each frame once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_scenes import GRID, header, scene

from datasets.errors import SetupError
from datasets.labels.store import LabelStore, MaskBit
from datasets.reviews.overlay import Reviews, Verdict, VerdictEntry
from viz.review.priority import ReviewPriority, read_reports, store_priority
from viz.review.review_queue import (
    frames_of,
    priority_order,
    queue_of,
    review_priority,
    review_queue,
    sampled_order,
)

SCENES = {f"s{i}": tuple(f"s{i}-{k}" for k in range(5)) for i in range(4)}
ALL = {(s, t) for s, tokens in SCENES.items() for t in tokens}


@given(
    reviewed=st.sets(st.sampled_from(sorted(ALL))),
    scores=st.dictionaries(
        st.tuples(st.sampled_from(sorted(SCENES)), st.integers(0, 4)), st.floats(0, 1)
    ),
    share=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_every_frame_that_is_not_judged_comes_once(
    reviewed: set[tuple[str, str]],
    scores: dict[tuple[str, int], float],
    share: float,
    seed: int,
) -> None:
    queue = review_queue(SCENES, scores, reviewed, random_share=share, seed=seed)
    there = [(item.scene_id, item.token) for item in queue]
    assert sorted(there) == sorted(ALL - reviewed)
    assert all(SCENES[item.scene_id][item.k] == item.token and item.why for item in queue)
    for n in range(len(queue) + 1):
        sampled = sum(item.sampled for item in queue[:n])
        assert abs(sampled - share * n) <= 1
    assert queue == review_queue(SCENES, scores, reviewed, random_share=share, seed=seed)


def test_every_fourth_is_drawn_by_chance_and_the_others_come_by_suspicion() -> None:
    scores = {(s, k): float(10 * i + k) for i, s in enumerate(SCENES) for k in range(5)}
    queue = review_queue(SCENES, scores, set())
    assert [item.sampled for item in queue[:8]] == [False, False, False, True] * 2
    picked = [scores[item.scene_id, item.k] for item in queue if not item.sampled]
    assert picked == sorted(picked, reverse=True) and picked[0] == 34
    assert queue[0].why == "priority 34.000" and queue[3].why == "drawn at random"
    drawn = [(item.scene_id, item.k) for item in queue if item.sampled]
    order = sampled_order(SCENES)
    assert [one for one in order if one in drawn] == drawn
    with pytest.raises(ValueError, match="random share"):
        review_queue(SCENES, scores, set(), random_share=1.5)


def test_the_queue_goes_on_where_it_was() -> None:
    scores = {(s, k): float(k) for s in SCENES for k in range(5)}
    queue = review_queue(SCENES, scores, set())
    done = {(item.scene_id, item.token) for item in queue[:8]}
    rest = review_queue(SCENES, scores, done)
    assert rest == queue[8:]


def test_the_drawn_order_keeps_when_scenes_come_and_go() -> None:
    order = sampled_order(SCENES)
    fewer = sampled_order({s: SCENES[s] for s in ("s3", "s1")})
    assert fewer == [one for one in order if one[0] in ("s1", "s3")]
    assert sampled_order(SCENES, 1) != order and sorted(order) == sorted(sampled_order(SCENES, 1))


def test_every_frame_is_drawn_first_equally_often() -> None:
    first = [sampled_order(SCENES, seed)[0] for seed in range(4000)]
    counts = [first.count((s, k)) for s in SCENES for k in range(5)]
    expected = 4000 / 20
    assert sum((n - expected) ** 2 / expected for n in counts) < 43.8  # chi2, 19 df: 1 in 1,000


def test_frames_are_shared_out_among_scenes_in_proportion_to_their_scores() -> None:
    order = priority_order(SCENES, ReviewPriority(scenes={"s2": 0.4, "s1": 0.2, "s0": 0.01}))
    assert [scene_id for scene_id, _ in order[:9]] == [
        *("s2", "s1", "s2", "s2", "s1", "s2", "s2", "s1", "s1")
    ]
    assert order[0] == ("s2", 0) and {k for s, k in order[:4] if s == "s2"} == {0, 2, 4}
    assert [scene_id for scene_id, _ in order[10:15]] == ["s0"] * 5
    assert {scene_id for scene_id, _ in order[15:]} == {"s3"}  # the audit does not know it
    own = ReviewPriority(
        scenes={"s2": 0.4}, frames={("s2", 3): 0.9, ("s2", 1): 0.8, ("s0", 2): 0.1}
    )
    order = priority_order(SCENES, own)
    assert order[0] == ("s0", 2) and order[1:3] == [("s2", 3), ("s2", 1)]


def report(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def audit(**scores: Any) -> dict[str, Any]:
    rows = [{"scene_id": name, "score": score} for name, score in scores.items()]
    return {"format": "label-audit", "format_version": 1, "scenes": rows}


def test_reports_of_audits_and_selections_are_read_together(tmp_path: Path) -> None:
    rows = [{"scene_id": "s0", "frame": 2, "token": "s0-2"}, {"scene_id": "s2"}, {"scene_id": "x"}]
    paths = [
        report(tmp_path / "audit.json", audit(s1=0.8, s2=0.2, elsewhere=1.6)),
        report(tmp_path / "chosen.json", {"chosen": rows}),
    ]
    found = read_reports(paths, SCENES)
    assert found.scenes == pytest.approx({"s1": 0.5, "s2": 0.5})
    assert found.frames == {("s0", 2): 1.0}
    assert found.reason("s2", 0) == "audit 0.200, rank 2 of 3; selection 2 of 3"
    assert found.reason("s0", 2) == "selection 1 of 3"
    assert found.reason("s3", 0) == "nothing speaks against it"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ([1], "neither the report of an audit nor"),
        ({"scenes": []}, "neither the report of an audit nor"),
        (audit(s1=1) | {"format_version": 2}, "format version 2, this code reads 1"),
        (audit(s1=1) | {"scenes": {}}, "no list of scenes"),
        (audit(s1="high"), "a row without score"),
        (audit(s1=float("nan")), "must be a number from 0 up"),
        (audit(s1=-1), "must be a number from 0 up"),
        (audit(other=1), "it knows no scene of this store"),
        ({"chosen": 3}, "is not a list"),
        ({"chosen": [{"frame": 1, "scene_id": "s1"}]}, "a row without token"),
        ({"chosen": ["s1"]}, "a row without scene_id"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(tmp_path: Path, content: Any, says: str) -> None:
    path = report(tmp_path / "r.json", content)
    with pytest.raises(SetupError, match=says) as caught:
        read_reports([path], SCENES)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(SetupError, match=r"none\.json: cannot be read: No such file"):
        read_reports([tmp_path / "none.json"], SCENES)


def test_without_a_report_the_store_speaks_for_itself(tmp_path: Path) -> None:
    store = LabelStore.create(tmp_path / "a", header())
    for i, untrusted in enumerate((0.0, 0.9, 0.3)):
        labels = scene(f"s{i}", seed=i)
        labels.mask[:] = MaskBit.TRUSTED | MaskBit.LIDAR_OBSERVED
        labels.confidence[:] = 3
        n = round(untrusted * GRID.n_voxels)
        labels.mask.reshape(3, -1)[:, :n] = MaskBit.LIDAR_OBSERVED
        labels.confidence.reshape(3, -1)[2, :n] = 1
        store.write_scene(labels)
    found = store_priority(store)
    order = priority_order(frames_of(store), found)
    assert order[:4] == [("s1", 2), ("s1", 0), ("s1", 1), ("s2", 2)]
    n = round(0.9 * GRID.n_voxels)
    expected = n / GRID.n_voxels * 0.5 + (1 - n / GRID.n_voxels) * 0.01
    assert found.frames["s1", 2] == pytest.approx(expected + n / GRID.n_voxels)
    assert "% not trusted" in found.reason("s1", 2)
    coarse = store_priority(store, frames_read=8)
    assert not coarse.frames and coarse.scenes["s1"] == pytest.approx(n / GRID.n_voxels)
    queue = queue_of(store, Reviews(store), review_priority(store))
    assert (queue[0].scene_id, queue[0].k) == ("s1", 2) and len(queue) == 9
    reviews = Reviews(store)
    reviews.add(
        VerdictEntry(scene_id="s1", tokens=("s1-2", "s1-0"), verdict=Verdict.ACCEPT), reviewer="ann"
    )
    assert (queue := queue_of(store, reviews, review_priority(store)))[0].k == 1 and len(queue) == 7
    np.testing.assert_array_equal(
        store.scene("s1").voxels("mask", 0), store.scene("s1").frame(0).mask
    )
    audited = review_priority(store, [report(tmp_path / "r.json", audit(s0=1.0))])
    by_audit = queue_of(store, reviews, audited)
    assert by_audit[0].scene_id == "s0"
