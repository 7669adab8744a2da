"""``scripts/select_scenes.py``: what it writes can be used, and what it says of what it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from label_scenes import header, scene

ROOT = Path(__file__).resolve().parents[2]

# ruff: noqa: E402
from autolabel.selection.scores import OBSERVED
from datasets.cli.launch import launch
from datasets.labels.store import LabelStore
from datasets.splits import parse_labelled


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    made = LabelStore.create(tmp_path / "labels.zarr", header())
    for i in range(6):
        made.write_scene(scene(f"s{i}", seed=i, frames=5))
    return made


def command(tmp_path: Path, *more: object) -> int:
    words = [tmp_path / "labels.zarr", "--out", tmp_path / "out", *more]
    return launch("select", [str(word) for word in words])


def lines(tmp_path: Path, name: str) -> list[str]:
    return (tmp_path / "out" / name).read_text().splitlines()


def test_the_lists_name_what_was_chosen_and_serve_as_labelled(
    store: LabelStore, tmp_path: Path
) -> None:
    assert command(tmp_path, "--budget", 2, "--exclude", "s0,gone", "--json", tmp_path / "j") == 0
    chosen = lines(tmp_path, "chosen.txt")
    assert len(chosen) == 2 and "s0" not in chosen
    labelled = parse_labelled(str(tmp_path / "out" / "labelled.txt"))
    assert labelled == ("s0", "gone", *chosen)
    told = json.loads((tmp_path / "j").read_text())
    assert [one["scene_id"] for one in told["chosen"]] == chosen
    assert (told["candidates"], told["labelled in the store"]) == (5, ["s0"])


def test_a_list_of_the_last_call_can_be_excluded_in_the_next(
    store: LabelStore, tmp_path: Path
) -> None:
    assert command(tmp_path, "--budget", 3) == 0
    first = lines(tmp_path, "labelled.txt")
    assert command(tmp_path, "--budget", 3, "--exclude", tmp_path / "out/labelled.txt") == 0
    assert sorted(lines(tmp_path, "labelled.txt")) == store_scenes(store)
    assert not set(first) & set(lines(tmp_path, "chosen.txt"))


def store_scenes(store: LabelStore) -> list[str]:
    return list(store.scene_ids())


def test_a_budget_beyond_what_is_there_takes_all_and_says_so(
    store: LabelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "--budget", 50, "--strategy", "entropy") == 0
    assert "6 of 50 chosen" in capsys.readouterr().out
    assert sorted(lines(tmp_path, "chosen.txt")) == store_scenes(store)


def test_frames_and_their_voxels_lie_in_the_stores_own_voxels(
    store: LabelStore, tmp_path: Path
) -> None:
    assert command(tmp_path, "--frames", 4, "--gap", 3, "--voxels", "5%") == 0
    picked = [line.split() for line in lines(tmp_path, "frames.txt")]
    assert len(picked) == 4
    assert not (tmp_path / "out" / "labelled.txt").exists()  # no scene is labelled whole
    written = sorted((tmp_path / "out" / "voxels").rglob("*.npz"))
    tokens = []
    for path in written:
        with np.load(path, allow_pickle=False) as found:
            mask, token = found["mask"], str(found["token"])
        tokens.append(f"{path.parent.name} {token}")
        labels = store.scene(path.parent.name).frame(int(path.stem))
        assert labels.token == token
        assert mask.dtype == bool and mask.sum() == round(0.05 * mask.size)
        assert ((labels.mask[mask] & OBSERVED) > 0).all()
    assert sorted(tokens) == sorted(map(" ".join, picked))


def test_voxels_of_chosen_scenes_are_given_for_every_frame(
    store: LabelStore, tmp_path: Path
) -> None:
    assert command(tmp_path, "--budget", 2, "--voxels", "0.01") == 0
    assert len(list((tmp_path / "out" / "voxels").rglob("*.npz"))) == 10
    assert not (tmp_path / "out" / "frames.txt").exists()


def test_masks_and_lists_of_an_earlier_choice_do_not_stay(
    store: LabelStore, tmp_path: Path
) -> None:
    assert command(tmp_path, "--frames", 2, "--voxels", "1%", "--strategy", "entropy") == 0
    assert command(tmp_path, "--budget", 1, "--strategy", "random", "--voxels", "1%") == 0
    (chosen,) = lines(tmp_path, "chosen.txt")
    assert {path.name for path in (tmp_path / "out/voxels").iterdir()} == {chosen}
    assert not (tmp_path / "out" / "frames.txt").exists()


def test_a_scene_that_cannot_be_read_is_named_and_left_out(
    store: LabelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (tmp_path / "labels.zarr/scenes/s3/semantics").rglob("*"):
        if path.is_file() and path.name != "zarr.json":
            path.write_bytes(b"broken")
    assert command(tmp_path, "--budget", 50) == 1
    assert "left out: s3" in capsys.readouterr().err
    assert sorted(lines(tmp_path, "chosen.txt")) == ["s0", "s1", "s2", "s4", "s5"]


def test_a_scene_that_the_second_store_or_the_audit_lacks_is_left_out(
    store: LabelStore, tmp_path: Path
) -> None:
    other = LabelStore.create(tmp_path / "other.zarr", header())
    for i in range(5):
        other.write_scene(scene(f"s{i}", seed=i + 10, frames=5))
    audit = tmp_path / "audit.json"
    scores = [{"scene_id": f"s{i}", "score": i} for i in range(1, 6)]
    audit.write_text(json.dumps({"scenes": scores}))
    assert command(tmp_path, "--budget", 9, "--second", other.place, "--audit", audit) == 1
    assert sorted(lines(tmp_path, "chosen.txt")) == ["s1", "s2", "s3", "s4"]
    # what is labelled needs no score
    more = ("--second", other.place, "--audit", audit, "--exclude", "s0,s5")
    assert command(tmp_path, "--budget", 9, "--strategy", "audit", *more) == 0
    assert lines(tmp_path, "chosen.txt") == ["s4", "s3", "s2", "s1"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--budget", "0"], "positive"),
        (["--budget", "1", "--gap", "0"], "positive"),
        (["--budget", "1", "--voxels", "200%"], "--voxels 200%"),
        (["--budget", "1", "--voxels", "much"], "--voxels much"),
        (["--budget", "1", "--exclude", "gone.txt"], "gone.txt"),
        (["--budget", "1", "--exclude", "s0,s1,s2,s3,s4,s5"], "no scene to choose"),
        (["--budget", "1", "--strategy", "audit"], "--audit FILE"),
        (["--budget", "1", "--audit", "gone.json"], "gone.json"),
        (["--budget", "1", "--second", "gone.zarr"], "gone.zarr"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    store: LabelStore,
    tmp_path: Path,
    options: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command(tmp_path, *options) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error")]
    assert told in line
    assert not (tmp_path / "out").exists()
