"""The labelled share: the published draw, or a user's list."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets.errors import SetupError
from datasets.splits import divide, labelled_subset, parse_labelled, scenes_named


def test_the_labelled_share_follows_the_published_draw() -> None:
    tokens = [f"{i:04d}" for i in range(700)]
    chosen = [int(t) for t in labelled_subset(tokens, 0.05)]
    assert chosen[:10] == [654, 114, 25, 281, 250, 228, 142, 104, 692, 558]
    sums = {35: 10633, 70: 22579, 140: 50547, 280: 101003, 420: 148555, 560: 198872}
    for count, expected in sums.items():
        assert sum(int(t) for t in labelled_subset(tokens, count / 700)) == expected


@pytest.mark.parametrize("percent", [5, 10, 20, 40, 60, 80, 100])
def test_every_published_percentage_divides_the_scenes_in_two(percent: int) -> None:
    tokens = {f"scene-{i:04d}": f"{(i * 7919) % 1000:04d}" for i in range(700)}
    labelled, rest = divide(tokens, parse_labelled(f"{percent}%"))
    assert len(labelled) == 7 * percent and len(labelled) + len(rest) == 700
    assert set(labelled) | set(rest) == tokens.keys()
    assert {tokens[s] for s in labelled} == set(
        labelled_subset(list(tokens.values()), percent / 100)
    )


def test_a_users_own_list_wins_over_the_draw(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("scene-b\nscene-d\n")
    tokens = {f"scene-{c}": c for c in "abcd"}
    labelled = parse_labelled(str(tmp_path / "mine.txt"))
    assert divide(tokens, labelled) == (("scene-b", "scene-d"), ("scene-a", "scene-c"))
    with pytest.raises(SetupError, match="scene-x"):
        divide(tokens, ("scene-b", "scene-x"))


@pytest.mark.parametrize(
    ("text", "message"), [("101", "0..100"), ("-1%", "0..100"), ("most", "neither a percentage")]
)
def test_nonsense_is_refused(text: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        parse_labelled(text)


def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("\n")
    with pytest.raises(SetupError, match="names no scene"):
        parse_labelled(str(tmp_path / "none.txt"))


def test_a_split_spelled_the_british_way_is_understood_and_a_near_miss_suggested() -> None:
    splits = {"labeled": ("a",), "unlabeled": ("b",), "all": ("a", "b")}
    assert scenes_named("unlabelled", splits, "ab", where="log") == ("b",)
    assert scenes_named("b,a", splits, "ab", where="log") == ("b", "a")
    with pytest.raises(SetupError, match=r"unknown split 'unlabel'.*did you mean unlabeled\?"):
        scenes_named("unlabel", splits, "ab", where="log")
