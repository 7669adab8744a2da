"""The record of an audit: what is written is read back, and hostile documents are named errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datasets.errors import SetupError
from datasets.labels.audit_record import AuditedScene, AuditFault, AuditRecord, read_audit

RECORD = AuditRecord(
    what="label store a.zarr",
    scenes=(
        AuditedScene(
            scene_id="a",
            score=0.5,
            frames=3,
            expected_error=0.1,
            untrusted=0.2,
            votes={"misses": 0.25, "flicker": None},
            flips=None,
            fit=0.8,
            pose_noise_m=None,
            problems=("frame 2: torn",),
        ),
    ),
    by_class={"misses": {"car": (1, 4)}},
    by_range={"misses": {"0-10 m": (1, 4)}},
    faults=(AuditFault(name="poses delayed", scene_id="all scenes", evidence="by 40 ms"),),
    quarantined={"b": "no LiDAR"},
    notes=("flips were not asked for",),
)
MINIMAL = {"format": "label-audit", "format_version": 1, "scenes": [{"scene_id": "a", "score": 1}]}


def written(folder: Path, data: Any) -> Path:
    path = folder / "audit.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_what_an_audit_writes_is_read_back(tmp_path: Path) -> None:
    data = RECORD.to_json()
    assert data["set_aside"] == {"b": "no LiDAR"} and "quarantined" not in data
    assert list(data)[:3] == ["format", "format_version", "what"]
    assert read_audit(written(tmp_path, data)) == RECORD
    assert RECORD.alarming


def test_only_ids_and_scores_are_needed(tmp_path: Path) -> None:
    record = read_audit(written(tmp_path, MINIMAL))
    assert record.scenes == (AuditedScene(scene_id="a", score=1.0),) and not record.alarming


def test_reports_of_other_tools_are_read_where_they_are_allowed(tmp_path: Path) -> None:
    for data in (
        {"scenes": [{"scene_id": "a", "score": -2.5}]},
        {"format": "theirs", "scenes": []},
    ):
        path = written(tmp_path, data)
        assert len(read_audit(path, any_tool=True).scenes) == len(data["scenes"])
        with pytest.raises(SetupError, match="not a report of autolabel"):
            read_audit(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format_version": 2}, "format version 2, this code reads 1"),
        ({"format_version": "1" * 999}, "format version '1111"),
        ({"scenes": {}}, "no list of scenes"),
        ({"scenes": ["a"]}, "a row without scene_id"),
        ({"scenes": [{"scene_id": ["a"], "score": 1}]}, "a row without scene_id"),
        ({"scenes": [{"scene_id": "a"}]}, "a row without score"),
        ({"scenes": [{"scene_id": "a", "score": True}]}, "a row without score"),
        ({"scenes": [{"scene_id": "a", "score": "0.5"}]}, "a row without score"),
        ({"scenes": [{"scene_id": "a", "score": -1}]}, "must be a number from 0 up"),
        ({"scenes": [{"scene_id": "a", "score": 10**400}]}, "must be a number from 0 up"),
        ({"scenes": [{"scene_id": "a", "score": 1, "votes": []}]}, "damaged report"),
        ({"scenes": [{"scene_id": "a", "score": 1, "fit": {}}]}, "damaged report"),
        ({"by_class": []}, "damaged report"),
        ({"by_class": {"misses": {"car": [5, 4]}}}, "5 of 4"),
        ({"by_range": {"misses": {"0-10 m": [0, 1e999]}}}, "damaged report"),
        ({"faults": [{"name": "x"}]}, "damaged report"),
        ({"set_aside": 3}, "damaged report"),
        ({"notes": 3}, "damaged report"),
    ],
)
def test_a_damaged_report_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    path = written(tmp_path, MINIMAL | changes)
    for any_tool in (False, True):
        with pytest.raises(SetupError, match=says) as caught:
            read_audit(path, any_tool=any_tool)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"scenes": [{"score": NaN}]}', "[1]"])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SetupError, match=r"audit\.json"):
        read_audit(written(tmp_path, text), any_tool=True)
    with pytest.raises(SetupError, match="cannot be read"):
        read_audit(tmp_path / "none.json")
