"""The count of function words among local names."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import naming
import pytest

SOURCE = """
there = 1


class Box:
    what: int = 0

    def area(self, which: float, *, size: float) -> float:
        one = found = 2.0
        for _, seen in []:
            left = [rest for rest in (seen, one)]
        with open("x") as size, open("y") as there:
            pass
        try:
            if (given := found) and left:
                self.what = 1
        except OSError as why:
            raise ValueError(given) from why

        class Inner:
            how = 0

        return max(there, key=lambda x: [width for width in x])
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for room in (*naming.LIBRARY, *naming.OUTSIDE):
        (tmp_path / room / "package").mkdir(parents=True)
        (tmp_path / room / "package" / "plain.py").write_text("def f() -> int:\n    return 0\n")
    (tmp_path / "models" / "package" / "deep").mkdir()
    (tmp_path / "models" / "package" / "deep" / "box.py").write_text(SOURCE)
    return tmp_path


def test_counts_what_functions_bind(checkout: Path) -> None:
    source = naming.read_source(checkout / "models/package/deep/box.py", checkout)
    bound = sorted(binding.name for binding in source.bindings)
    local = ["found", "given", "left", "one", "rest", "seen", "size", "there", "why", "width"]
    assert bound == local  # not of the module, of a class, an attribute, or `_`
    assert sorted(binding.name for binding in source.parameters) == ["size", "which", "x"]
    share = naming.share_of("models", [source])
    assert (share.bindings, share.function_words, share.ambiguous) == (10, 7, 1)
    assert (share.parameters, share.function_word_parameters) == (3, 1)
    assert source.functions == ((16, "Box.area"),)
    places = naming.function_words([source])
    assert [binding.line for binding in places["rest"]] == [11]


def test_no_word_is_counted_twice() -> None:
    assert not naming.FUNCTION_WORDS & naming.AMBIGUOUS_WORDS


def test_prints_and_writes_the_shares(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = checkout / "out.json"
    monkeypatch.setattr(sys, "argv", ["naming.py", "--root", str(checkout), "--json", str(out)])
    assert naming.main() == 0
    text = capsys.readouterr().out
    assert "| models/package | 25 | 10 | 7 | 70.00 % | 1 | 33.33 % |" in text
    facts = json.loads(out.read_text())
    assert facts["packages"]["models/package"]["percent"] == 70.0
    assert facts["library"]["sizes"]["longest_function"] == {
        "path": "models/package/deep/box.py",
        "function": "Box.area",
        "lines": 16,
    }


def test_lists_the_places_of_a_folder(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["naming.py", "--root", str(checkout), "--show", "models/package/deep"]
    monkeypatch.setattr(sys, "argv", argv)
    assert naming.main() == 0
    assert "rest: models/package/deep/box.py:11" in capsys.readouterr().out.splitlines()
