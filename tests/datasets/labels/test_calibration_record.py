"""What a store tells of its confidence: old headers are read, hostile ones are named errors."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from report_stores import LEVELS, N, header, provenance

from datasets.labels.calibration_record import (
    ReliabilityCounts,
    RiskBound,
    stored_calibration,
    stored_risk_bound,
)


def changed(*keys: str, value: Any) -> dict[str, Any]:
    """The provenance with one value replaced, or taken out."""
    out = deepcopy(provenance())
    inner: Any = out
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return out


def test_records_are_read_from_the_header() -> None:
    calibration, bound = stored_calibration(header()), stored_risk_bound(header())
    assert calibration is not None and calibration.reliability is not None
    assert (calibration.method, calibration.voxels) == ("class", 10 * N)
    assert calibration.reliability.seen.shape == (N, len(LEVELS))
    assert bound is not None and RiskBound.from_json(bound.to_json()) == bound
    assert bound.groups["free"].threshold == 0.9 and bound.thresholds == (2,) * N


def test_headers_of_older_code_are_read() -> None:
    data = changed("config", "promise", "thresholds", value=None)
    for group in data["config"]["promise"]["groups"].values():
        group.pop("coverage_by_ring", None)
    bound = stored_risk_bound(header(provenance=data))
    assert bound is not None and bound.thresholds == ()
    assert bound.groups["occupied"].coverage_by_ring == ()
    assert stored_calibration(header(provenance={})) is None
    assert stored_risk_bound(header(provenance={"config": "none"})) is None
    calibration = stored_calibration(header(provenance={"calibration": {"counts": [0]}}))
    assert calibration is not None and calibration.reliability is None
    assert calibration.method == "softmax at its word"


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("calibration",), ["none"]),
        (("calibration", "counts"), "many"),
        (("calibration", "counts"), None),
        (("calibration", "counts"), [1e999]),
        (("calibration", "reliability"), [1]),
        (("calibration", "reliability", "voxels"), [[1]]),
        (("calibration", "reliability", "right"), [[10**9] * 4] * N),
        (("calibration", "reliability", "right"), [["x"] * 4] * N),
        (("calibration", "reliability", "right"), [[10**30] * 4] * N),
    ],
)
def test_a_damaged_calibration_is_a_named_error(keys: tuple[str, ...], value: Any) -> None:
    with pytest.raises(ValueError, match=r"^calibration: "):
        stored_calibration(header(provenance=changed(*keys, value=value)))


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ((), ["none"]),
        (("test",), "guess"),
        (("test",), ["t"]),
        (("max_error",), "low"),
        (("scenes",), 1e999),
        (("groups",), []),
        (("groups", "free"), 3),
        (("groups", "free", "error"), None),
        (("class_error",), "none"),
        (("class_error",), [0.1]),
        (("class_coverage",), None),
    ],
)
def test_a_damaged_bound_is_a_named_error(keys: tuple[str, ...], value: Any) -> None:
    data = changed("config", "promise", *keys, value=value)
    with pytest.raises(ValueError, match=r"^promise: "):
        stored_risk_bound(header(provenance=data))


def test_counts_that_cannot_be_are_refused() -> None:
    n = np.ones((2, 3), np.int64)
    for right in (n[:1], n * 2, -n):
        with pytest.raises(ValueError, match=r"counts of shape|more voxels are right"):
            ReliabilityCounts(seen=n, right=right)
