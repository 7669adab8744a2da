"""What benchmarks share, and that the page of figures names every file beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import reporting

BENCHMARKS = Path(reporting.__file__).parents[1]
PAGE = (BENCHMARKS / "README.md").read_text()


def test_calls_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    medians = reporting.median_seconds(calls, rounds=2)
    assert order == ["a", "b"] * 3
    assert list(medians) == ["a", "b"] and all(seconds >= 0 for seconds in medians.values())


def test_a_row_may_lack_columns() -> None:
    table = reporting.table_of({"one": {"x": 1}, "two": {"x": 2, "y": 3}}, "row")
    assert table.splitlines() == [
        "| row | x | y |",
        "| --- | --- | --- |",
        "| one | 1 |  |",
        "| two | 2 | 3 |",
    ]


def test_figures_bear_date_and_machine_and_their_place_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    reporting.write_figures({"fps": 3.5, "machine": "a window", "none": float("nan")}, path)
    figures = json.loads(path.read_text())
    assert list(figures) == ["date", "cores", "machine", "fps", "none"]
    assert (figures["fps"], figures["machine"], figures["none"]) == (3.5, "a window", None)
    assert capsys.readouterr().out == f"figures: {path}\n"
    reporting.write_figures({"fps": 3.5}, None)
    assert "--json FILE" in capsys.readouterr().out


def test_the_page_of_figures_names_every_file_beside_it() -> None:
    kept = (p for p in BENCHMARKS.iterdir() if p.suffix in {".json", ".md", ".png"})
    assert [p.name for p in kept if p.name != "README.md" and p.stem not in PAGE] == []
    scripts = (p for p in BENCHMARKS.glob("*.py") if "__main__" in p.read_text())
    assert [p.name for p in scripts if p.name not in PAGE] == []
