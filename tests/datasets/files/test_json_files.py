"""No file of ours holds NaN or Infinity, and only one module writes JSON."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autolabel.labeling.config import LabelingConfig
from datasets.files.json_files import canonical_text, in_words, json_lines, json_text, write_json
from models.presets import preset
from models.training.report import TrainingLog, draw_curves

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("autolabel", "models", "datasets", "viz", "scripts")
WRITES_TEXT_OF_MESSAGES = {"datasets/sources/strict_json.py"}
NOTHING = (float("nan"), float("inf"), -float("inf"), np.float32("nan"), np.float64("-inf"))


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", NOTHING)
def test_a_figure_that_does_not_exist_is_null_however_deep(value: float) -> None:
    text = json_text({"a": [value, (1.5, value)], "b": np.array([value, 2.0]), "c": np.int64(3)})
    assert strict(text) == {"a": [None, [1.5, None]], "b": [None, 2.0], "c": 3}
    assert [strict(line) for line in json_lines([{"a": value}]).splitlines()] == [{"a": None}]
    assert in_words(value, ".2f", "none found") == in_words(None, ".2f", "none found")


def test_files_are_written_with_their_folder(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "figures.json", {"thickness": float("nan")})
    assert strict((tmp_path / "new" / "figures.json").read_text()) == {"thickness": None}


def test_no_other_module_writes_json() -> None:
    found = {
        str(path.relative_to(ROOT))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if re.search(r"\bjson\.dumps?\b|from json import|orjson", path.read_text())
    }
    assert found == {"datasets/files/json_files.py"} | WRITES_TEXT_OF_MESSAGES


def test_hashes_of_configurations_stay_what_they_were() -> None:
    config = LabelingConfig().resolved(preset("city_tiny").inputs)
    before = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    assert hashlib.sha256(canonical_text(config).encode()).hexdigest() == before
    assert canonical_text({"b": 1, "a": [0.1, None]}) == '{"a": [0.1, null], "b": 1}'


def test_a_validation_with_nothing_to_score_is_null_in_log_and_report(tmp_path: Path) -> None:
    with TrainingLog(tmp_path, start=0, steps=1, log_every=1) as log:
        log.note(0, {"ce": 1.0}, 1e-3)
        log.note_scores(1, {"mIoU[all]": float("nan")})
        report = log.report()
    lines = [strict(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["val/mIoU[all]"] is None
    assert strict((tmp_path / "report.json").read_text())["scores"] == {"mIoU[all]": None}
    assert "nothing to score" in str(report) and "nan" not in str(report)
    draw_curves(lines, tmp_path / "again.png")
    draw_curves([{"step": 1, "a": 1.0, "b": 2.0}], tmp_path / "no_loss.png")
    assert (tmp_path / "again.png").stat().st_size > 0
