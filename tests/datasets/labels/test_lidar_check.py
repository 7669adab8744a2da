"""How wrong occupancy is, estimated from sweeps that the teacher did not read."""

from __future__ import annotations

import json

import numpy as np
import pytest

from autolabel.confidence.calibration import RINGS as CALIBRATED_RINGS
from datasets.labels.lidar_check import (
    NEITHER,
    RINGS,
    THROUGH,
    TOUCHED,
    LidarEvidence,
    LidarReference,
    band_of,
    estimate,
    evidence_of,
    expected_free,
)

G, R, B = 2, 3, 3
GROUPS = ("vehicles", "ground")
SAYS_IF_FREE, SAYS_IF_OCCUPIED = (0.05, 0.5, 0.45), (0.45, 0.03, 0.52)


def drawn(free_share: float, seed: int, n: int = 4000) -> tuple[LidarEvidence, np.ndarray]:
    """Evidence of a scene of which a share is free, claimed to be a fifth; and counts of free."""
    rng = np.random.default_rng(seed)
    free = rng.binomial(n, free_share, (G, R, B))
    of_free = np.stack([rng.multinomial(k, SAYS_IF_FREE) for k in free.ravel()])
    of_occupied = np.stack([rng.multinomial(n - k, SAYS_IF_OCCUPIED) for k in free.ravel()])
    of_free, of_occupied = (c.reshape(G, R, B, 3) for c in (of_free, of_occupied))
    counts = of_free + of_occupied
    return LidarEvidence(counts=counts, claimed=0.2 * counts), of_free


def reference(seeds: range = range(12)) -> LidarReference:
    rng = np.random.default_rng(seeds[0])
    shares = 0.2 + 0.03 * rng.normal(size=len(seeds))
    parts = [drawn(share, seed) for share, seed in zip(shares, seeds, strict=True)]
    seen = np.sum([evidence.counts for evidence, _ in parts], axis=0)
    free = np.sum([of_free for _, of_free in parts], axis=0)
    errors, excess = [], []
    for evidence, of_free in parts:
        others = (seen - evidence.counts, free - of_free)
        share = expected_free(evidence.counts, *others).sum() / evidence.counts.sum()
        errors.append(share - of_free.sum() / evidence.counts.sum())
        excess.append(share - 0.2)
    return LidarReference(
        seen=seen, free=free, asked=seen, errors=np.array(errors), excess=np.array(excess)
    )


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.7])
def test_the_share_of_free_voxels_is_found(share: float) -> None:
    evidence, of_free = drawn(share, 99)
    found = estimate([evidence], reference(), GROUPS)
    assert found is not None and found.low is not None and found.high is not None
    true = of_free.sum() / evidence.counts.sum()
    # of voxels that no ray decides only half of the change is expected
    assert abs(found.wrong - true) < 0.02 + 0.25 * abs(share - 0.2)
    assert found.claimed == pytest.approx(0.2)
    assert found.invalid == (share > 0.4)
    assert set(found.by_group) == {(g, r) for g in GROUPS for r in RINGS}
    assert "free by LiDAR sweeps that the teacher did not read" in found.to_text()


def test_the_interval_holds_scenes_of_the_same_kind() -> None:
    known, inside = [reference(range(20 * k, 20 * k + 12)) for k in range(10)], 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        evidence, of_free = drawn(0.2 + 0.03 * float(rng.normal()), 500 + seed)
        found = estimate([evidence], known[seed % 10], GROUPS)
        assert found is not None and found.low is not None and found.high is not None
        inside += found.low <= of_free.sum() / evidence.counts.sum() <= found.high
        assert not found.invalid
    assert inside >= 0.85 * 100


def test_without_calibration_scenes_rays_count_at_their_word_and_nothing_is_concluded() -> None:
    evidence, _ = drawn(0.7, 1)
    found = estimate([evidence, evidence], None, GROUPS)
    assert found is not None and found.low is None and found.p is None and not found.invalid
    through, touched = (evidence.counts[..., k].sum() for k in (THROUGH, TOUCHED))
    assert found.contradicted == pytest.approx(through / (through + touched))
    assert (found.scenes, found.frames) == (2, 2)


def test_too_few_voxels_say_nothing() -> None:
    counts = np.zeros((G, R, B, 3), np.int64)
    counts[0, 0, 0, NEITHER] = 10_000
    counts[0, 0, 0, THROUGH] = 10
    evidence = LidarEvidence(counts=counts, claimed=np.zeros(counts.shape))
    assert estimate([evidence], reference(), GROUPS) is None
    assert estimate([], reference(), GROUPS) is None


def test_voxels_whose_truth_nobody_knows_do_not_count() -> None:
    """Voxels that no ray decides are known to be free on calibration scenes, or not known."""
    evidence, _ = drawn(0.2, 7)
    hidden = np.zeros_like(evidence.counts)
    hidden[..., NEITHER] = 20_000
    more = LidarEvidence(counts=evidence.counts + hidden, claimed=evidence.claimed + 0.9 * hidden)
    known = reference()
    share = estimate([evidence], known, GROUPS)
    of_more = LidarReference(
        seen=known.seen,
        free=known.free,
        asked=known.seen + 12 * hidden,
        errors=known.errors,
        excess=known.excess,
    )
    found = estimate([more], of_more, GROUPS)
    assert share is not None and found is not None
    assert found.wrong == pytest.approx(share.wrong, abs=0.01)
    assert found.voxels == more.counts.sum()


def test_evidence_is_kept_with_a_scene() -> None:
    evidence, _ = drawn(0.3, 5)
    both = evidence + evidence
    read = evidence_of(json.loads(json.dumps({"lidar_check": both.to_json()})))
    assert isinstance(read, LidarEvidence) and read.frames == 2
    np.testing.assert_array_equal(read.counts, both.counts)
    assert evidence_of({"lidar_check": {"untested": "no sweeps"}}) == "no sweeps"
    assert evidence_of({}) == "labeled without a LiDAR check"
    known = reference()
    again = LidarReference.from_json(json.loads(json.dumps(known.to_json())))
    np.testing.assert_array_equal(again.free, known.free)
    with pytest.raises(ValueError, match="more voxels are free"):
        LidarReference(
            seen=known.free,
            free=known.seen,
            asked=known.seen,
            errors=known.errors,
            excess=known.excess,
        )


def test_bands_and_rings_are_those_of_the_calibration() -> None:
    assert band_of((0.0, 0.79, 0.8, 0.92, 0.93, 0.99)).tolist() == [0, 0, 1, 1, 2, 2]
    assert CALIBRATED_RINGS.names == RINGS
