"""A store says whether its confidence holds on its log, and why not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from report_stores import header, provenance

from datasets.labels.domain import ConfidenceDomain, LogDomain, Reference
from datasets.labels.lidar_check import LidarEvidence, LidarReference
from datasets.labels.validity import (
    DOMAIN_KEY,
    LOG_KEY,
    ConfidenceValidity,
    recorded_reasons,
    validity,
)

G = len(header().taxonomy.class_groups()) - 1


def domain(source: str = "folder", log: str = "ours", scenes: int = 12) -> ConfidenceDomain:
    rng = np.random.default_rng(0)
    frames = [[{"LiDAR returns": float(rng.lognormal(10, 0.2))}] for _ in range(scenes)]
    seen = np.full((G, 3, 3, 3), 1000)
    free = seen * np.array((0.02, 0.9, 0.2))
    return ConfidenceDomain(
        logs=(
            LogDomain(
                source=source,
                log=log,
                licence="any",
                scenes=scenes,
                frames=scenes,
                reference=Reference.of(frames),
            ),
        ),
        lidar=LidarReference(
            seen=seen,
            free=free.astype(np.int64),
            asked=seen,
            errors=rng.normal(0, 0.02, scenes),
            excess=rng.normal(0, 0.02, scenes),
        ),
    )


def scenes(returns: float = 22_000.0, through: int = 100) -> dict[str, dict[str, Any]]:
    counts = np.zeros((G, 3, 3, 3), np.int64)
    counts[..., 0], counts[..., 1], counts[..., 2] = 400, through, 300
    return {
        f"scene-{k}": {
            "counts": {"frames": 1},
            "statistics": {"LiDAR returns": returns},
            "lidar_check": LidarEvidence(counts=counts, claimed=0.25 * counts).to_json(),
        }
        for k in range(2)
    }


def verdict(
    known: ConfidenceDomain | None, of: dict[str, dict[str, Any]], log: str = "ours"
) -> ConfidenceValidity:
    said = provenance() | {"source": "folder", LOG_KEY: log}
    if known is not None:
        said[DOMAIN_KEY] = known.to_json()
    return validity(header(provenance=said), of)


def test_a_log_like_the_calibration_scenes_is_verified() -> None:
    found = verdict(domain(), scenes())
    assert found.verified and not found.contradicted and found.note == ""
    assert "verified on this log" in found.to_text() and "NOT" not in found.to_text()
    assert "classes, of which LiDAR says nothing" in found.to_text()
    assert found.to_json()["verified"] is True


def test_another_log_is_not_verified_however_alike() -> None:
    found = verdict(domain(), scenes(), log="theirs")
    assert not found.verified and found.shift is not None and not found.shift.shifted
    text = found.to_text(bound=True)
    assert "NOT VERIFIED" in text and "the error bound does not hold here" in text
    assert "learned on ours (folder), and this log is theirs (folder)" in found.note


def test_weights_that_do_not_tell_are_not_trusted() -> None:
    found = verdict(None, scenes())
    assert not found.verified and "do not tell" in found.note
    assert any("the weights keep none" in what for what in found.untested)
    assert recorded_reasons(ConfidenceDomain(logs=()), "city", "city")


def test_scenes_unlike_the_calibration_scenes_are_named() -> None:
    found = verdict(domain(), scenes(returns=105_000.0))
    assert not found.verified and "are not like those of ours (folder)" in found.note
    assert "LiDAR returns" in found.to_text()


def test_contradicted_occupancy_is_named() -> None:
    found = verdict(domain(), scenes(through=900))
    assert found.contradicted and not found.verified
    assert "contradict it" in found.note
    data = found.to_json()["lidar"]
    assert data["estimated_free"] > data["interval"][0] > data["claimed_free"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lidar_check": {"untested": "no sweeps"}}, "occupancy by held-out LiDAR: no sweeps"),
        ({"lidar_check": None}, "labeled without a LiDAR check"),
        ({"statistics": {}}, "no scene with statistics"),
    ],
)
def test_what_could_not_be_tested_is_said(change: dict[str, Any], said: str) -> None:
    of = {name: attributes | change for name, attributes in scenes().items()}
    found = verdict(domain(), of)
    assert any(said in what for what in found.untested), found.untested
    few = verdict(domain(scenes=7), scenes())
    assert any("at least 8 are needed" in what for what in few.untested)
    none = verdict(domain(), {})
    assert any("none is labeled yet" in what for what in none.untested)


@pytest.mark.parametrize(
    "damaged",
    [{"lidar_check": {"frames": 1}}, {"statistics": [1]}, {"counts": 3}, {"lidar_check": 7}],
)
def test_damaged_attributes_are_named_errors(damaged: dict[str, Any]) -> None:
    of = {name: attributes | damaged for name, attributes in scenes().items()}
    with pytest.raises(ValueError, match=r"."):
        verdict(domain(), of)
    with pytest.raises(ValueError, match=DOMAIN_KEY):
        validity(header(provenance={DOMAIN_KEY: {"logs": 3}}), scenes())
