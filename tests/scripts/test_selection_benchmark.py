"""The selection benchmark: what it claims follows from the scores, and equal choices are shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

# ruff: noqa: E402
import active_learning as benchmark_selection
from active_learning import Arm, Results, tuned
from label_study.parts import Log, Part, held_out
from label_study.profiles import cpu
from label_study.tasks import Workshop

MIOU = "mIoU[camera-visible]"


def teacher(seed: int = 0) -> Part:
    return Part(
        kind="teacher",
        what="fusion",
        percent=10,
        seed=seed,
        labelled=("a", "b", "kept"),
        settings={},
        needs=(),
        cost=1.0,
    )


def results(scores: dict[str, list[list[float]]]) -> Results:
    """Scores by arm, seed and draw."""
    arms, known = [], {}
    for name, of_seeds in scores.items():
        for seed, draws in enumerate(of_seeds):
            for draw, value in enumerate(draws):
                chosen = (f"{name}-{draw}",)
                part = tuned(teacher(seed), chosen, 5, 1e-3)
                arms.append(
                    Arm(name=name, seed=seed, draw=draw, chosen=chosen, seconds=0.1, part=part)
                )
                table = {MIOU: value, "mIoU[all]": value / 2}
                known[part.key] = {"seed": seed, "scores": table, "seconds": 1.0}
    shop = Workshop(
        profile=cpu(),
        log=Log(kind="city", root=Path("none")),
        out=Path("none"),
        device="cpu",
        known=known,
    )
    return Results(shop, [], arms)


def test_the_gain_is_by_pairs_of_a_seed() -> None:
    found = results({"random": [[40.0, 41.0], [30.0, 31.0]], "entropy": [[42.0], [33.0]]})
    gain = found.gain("entropy")
    assert gain is not None and gain.value == pytest.approx(2.0)
    assert found.gain("random") is None
    assert found.between_draws() == pytest.approx(0.5**0.5)


def test_pairs_that_agree_by_chance_are_not_clearer_than_two_draws() -> None:
    found = results({"random": [[40.0, 42.0], [30.0, 32.0]], "entropy": [[42.0], [32.0]]})
    gain = found.gain("entropy")
    assert gain is not None and gain.value == pytest.approx(1.0)
    assert gain.error == pytest.approx(2**0.5 * (1.5 / 2) ** 0.5) and not gain.clear


def test_the_report_tells_every_arm(tmp_path: Path) -> None:
    found = results({"random": [[40.0, 42.0]], "mix": [[43.0]], "none": [[38.0]]})
    words = ["--out", str(tmp_path), "--device", "cpu", "--report", str(tmp_path / "r")]
    args = benchmark_selection.parse(words)
    text = benchmark_selection.markdown(found, args)
    assert "| mix | 1 | 43.00 |" in text and "| no scene more | 1 | 38.00 |" in text
    table: dict[str, Any] = found.to_json()
    assert table[MIOU]["random"]["by seed"] == {0: 41.0}
    benchmark_selection.draw(found, args, tmp_path / "r.png")
    assert (tmp_path / "r.png").stat().st_size > 1000


def test_strategies_that_choose_the_same_share_the_teacher() -> None:
    a, b = (tuned(teacher(), chosen, 5, 1e-3) for chosen in (("x", "y"), ("y", "x")))
    assert a.key == b.key and a.name == b.name
    assert a.key != tuned(teacher(), ("x",), 5, 1e-3).key
    assert a.key != tuned(teacher(), ("x", "y"), 6, 1e-3).key


def test_what_calibrated_the_teacher_is_not_trained_on() -> None:
    part = tuned(teacher(), ("z", "y"), 5, 1e-3)
    used, kept = held_out(part, benchmark_selection.replace(cpu(), held_out=0.0))
    assert (used, kept) == (("a", "b", "y", "z"), ("kept",))
