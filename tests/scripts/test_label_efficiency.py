"""The label-efficiency study: it runs, goes on where it was stopped, and claims what it may."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

ROOT = Path(__file__).resolve().parents[2]

# ruff: noqa: E402
import label_efficiency as label_efficiency
from label_study import parts, report, running, seeds
from label_study import tasks as making
from label_study.altered import TrueClasses, TrueMask, Unmasked
from label_study.parts import Log, Part
from label_study.profiles import PROFILES, smoke
from label_study.quality import KEPT, StoreQuality
from label_study.replay import ReplayedPredictor
from label_study.tasks import Workshop

from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.occ3d_coarse import GRID
from datasets.errors import SetupError
from datasets.labels.store import MaskBit
from datasets.loading.augmentation import AirborneReturns
from datasets.loading.batch import Batch, Target
from datasets.sources.synthetic.city import generate_city
from datasets.taxonomy import OCC3D_COARSE

MIOU = "mIoU[camera-visible]"


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("log") / "city"
    generate_city(root, smoke().city, workers=1, progress=False)
    return root


def command(city: Path, out: Path, *more: str) -> list[str]:
    return ["--profile", "smoke", "--root", str(city), "--out", str(out), "--workers", "1", *more]


@pytest.fixture(scope="module")
def finished(city: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    assert label_efficiency.main(command(city, out)) == 0
    return out


def weights(out: Path) -> dict[str, dict[str, torch.Tensor]]:
    """By part."""
    return {path.parent.name: load_file(path) for path in out.glob("parts/*/*.safetensors")}


def test_one_command_runs_the_whole_study(finished: Path) -> None:
    study = json.loads((finished / "study.json").read_text())
    assert len(study["results"]) == 9
    arms = {(row["percent"], row["arm"]) for row in study["students"]}
    assert arms == {(50, a) for a in ("labels", "pseudo", "distilled", "both")} | {(100, "full")}
    steps = {r["name"]: r["training"]["steps"] for r in study["results"] if r["kind"] == "student"}
    assert set(steps.values()) == {smoke().schooling.steps}
    teacher = next(r for r in study["results"] if r["what"] == "fusion")
    assert teacher["training"]["steps"] == smoke().fusing.steps
    assert len(teacher["labelled"]) == 2 and len(teacher["held_out"]) == 1
    store = next(r for r in study["results"] if r["kind"] == "store")
    assert store["quality"]["frames"] == 4
    assert (finished / "study.png").read_bytes().startswith(b"\x89PNG")
    text = (finished / "study.md").read_text()
    assert "not known from one seed" in text and "share of all labels" not in text


def test_a_finished_study_makes_nothing_again(
    city: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(Workshop, "make", make)
    assert label_efficiency.main(command(city, finished)) == 0


def test_a_study_goes_on_elsewhere_from_its_figures_alone(
    city: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told is not made again, but for what a part that is missing needs."""
    told = json.loads((finished / "study.json").read_text())
    told["results"] = [r for r in told["results"] if r["what"] != "pseudo"]
    known = tmp_path / "known.json"
    known.write_text(json.dumps(told))
    made: list[str] = []
    make = Workshop.make

    def noted(self: Workshop, part: Part) -> None:
        made.append(part.name)
        make(self, part)

    monkeypatch.setattr(Workshop, "make", noted)
    assert label_efficiency.main(command(city, tmp_path, "--known", str(known))) == 0
    teachers = ["teacher-lidar-50-seed0", "teacher-fusion-50-seed0"]
    assert made == [*teachers, "store-50-seed0", "student-pseudo-50-seed0"]
    mine, whole = ((out / "study.md").read_text() for out in (tmp_path, finished))
    table = "| labels | student |"
    assert (
        mine[mine.index(table) :].split("## Hours")[0]
        == (whole[whole.index(table) :].split("## Hours")[0])
    )


def test_a_study_stopped_anywhere_ends_with_the_same_weights(
    city: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in every training after a state is on disk, and before every result is written."""
    from models.training import loop

    stops = {"state": loop.save_state, "result": making.save_checkpoint}
    stopped: set[tuple[str, str]] = set()

    def stop_once(what: str, name: str) -> None:
        if (what, name) not in stopped:
            stopped.add((what, name))
            raise KeyboardInterrupt

    def save_state(path: Path, state: dict[str, Any]) -> None:
        stops["state"](path, state)
        if state["step"] < 3:
            stop_once("state", path.parent.name)

    def save_checkpoint(path: Path, *more: Any) -> None:
        stop_once("result", path.parent.name)
        stops["result"](path, *more)

    monkeypatch.setattr(loop, "save_state", save_state)
    monkeypatch.setattr(making, "save_checkpoint", save_checkpoint)
    codes = []
    while not codes or codes[-1] == 130:
        codes.append(label_efficiency.main(command(city, tmp_path, "--arms", "pseudo")))
    assert codes == [130] * 6 + [0]  # two teachers and the student, twice each
    made, wanted = weights(tmp_path), weights(finished)
    assert len(made) == 3
    for name, tensors in made.items():
        assert all(torch.equal(tensor, wanted[name][key]) for key, tensor in tensors.items())


def test_a_failed_part_is_named_and_the_others_are_made(
    city: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    shutil.copytree(finished, out)
    for kind in ("store", "student-labels", "student-pseudo"):
        shutil.rmtree(next(out.glob(f"parts/{kind}-*")))
    teacher = next(out.glob("parts/teacher-fusion-*/weights.safetensors"))
    teacher.write_bytes(b"damaged")
    assert label_efficiency.main(command(city, out, "--arms", "labels", "pseudo")) == 1
    told = capsys.readouterr().err
    assert "store-50-seed0 is missing: SetupError" in told and "not a readable" in told
    assert "student-pseudo-50-seed0 is missing: what it needs failed" in told
    assert next(out.glob("parts/student-labels-*/result.json")).is_file()


def test_a_process_of_its_own_tells_its_error(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "benchmarks"))  # as it is for the command
    shop = Workshop(
        profile=replace(smoke(), student="no_such_preset"),
        log=Log(kind="city", root=city),
        out=tmp_path,
        device="cpu",
    )
    lonely = part("student", "labels", 50, 0)
    failed = running.run(shop, [lonely], workers=2, on_done=lambda _: None)
    assert list(failed) == [lonely.name] and "no preset 'no_such_preset'" in failed[lonely.name]


def test_shares_that_leave_a_teacher_nothing_are_refused(city: Path, tmp_path: Path) -> None:
    for percent in ("10", "90"):
        assert label_efficiency.main(command(city, tmp_path, "--percent", percent)) == 2
    with pytest.raises(SetupError, match="profile gpu has no teacher lidar"):
        parts.plan(
            PROFILES["gpu"](),
            Log(kind="city", root=city),
            percent=(50,),
            seeds=1,
            teachers=["lidar"],
            device="cpu",
        )


def test_every_profile_fits_its_benchmark() -> None:
    for make in PROFILES.values():
        parts.require_benchmark(make())
    with pytest.raises(SetupError, match="preset camera_tiny has 200x200x16"):
        parts.require_benchmark(replace(smoke(), student="camera_tiny"))


def planned(city: Path, **changes: Any) -> dict[str, Part]:
    profile = replace(smoke(), **changes)
    log = Log(kind="city", root=city)
    made = parts.plan(profile, log, percent=(50,), seeds=2, teachers=["fusion"], device="cpu")
    return {one.name: one for one in made}


def test_the_first_draw_is_the_published_one_and_the_others_differ(city: Path) -> None:
    log = Log(kind="city", root=city)
    source = log.open(past_sweeps=1, share=0.5)
    assert parts.draw(log, 50, 0) == source.scene_ids("labeled")
    train = sorted(source.scene_ids("train"))
    for seed in (1, 2):
        assert parts.draw(log, 50, seed) == tuple(sorted(random.Random(42 + seed).sample(train, 2)))
    assert len({parts.draw(log, 50, seed) for seed in range(5)}) > 1


def test_a_part_is_made_again_only_where_what_it_depends_on_changes(city: Path) -> None:
    def changed(**changes: Any) -> set[str]:
        before, after = planned(city), planned(city, **changes)
        return {n.removesuffix("-seed0") for n in before if before[n].key != after[n].key} - {
            n for n in before if n.endswith("seed1")
        }

    students = {"student-labels-50", "student-full-100"}
    arms = ("pseudo", "both", "true-classes", "true-mask", "raw", "refined")
    from_store, stores = {f"student-{arm}-50" for arm in arms}, {"store-50", "store-refined-50"}
    from_teacher = from_store | {"student-distilled-50"}
    longer = replace(smoke().teaching, steps=9)
    assert changed() == set()
    from_teacher_alone = {"teacher-fusion-50", "features-50"} | stores | from_teacher
    assert changed(teaching=longer) == {"teacher-lidar-50"} | from_teacher_alone
    assert changed(fusing=longer) == from_teacher_alone
    rain = AirborneReturns(chance=0.2)
    assert changed(airborne=rain) == {"teacher-lidar-50"} | from_teacher_alone
    assert changed(schooling=replace(smoke().schooling, rarity=0.1)) == students | from_teacher
    assert changed(min_confidence=0.9) == stores | from_store
    assert changed(human_share=0.5) == from_teacher
    assert changed(inherit_head=False) == {"student-distilled-50", "student-both-50"}
    assert changed(threads=2) == set()


def test_a_fusion_teacher_that_starts_from_nothing_needs_no_other(city: Path) -> None:
    made = planned(city, fusing=None)
    assert made["teacher-fusion-50-seed0"].needs == () and "teacher-lidar-50-seed0" not in made


def test_parts_come_after_what_they_need(city: Path) -> None:
    names = [one.name for one in parts.in_order(list(planned(city).values())[::-1])]
    for one in planned(city).values():
        assert all(names.index(need.name) < names.index(one.name) for need in one.needs)
    assert len(names) == len(set(names))


# What scores over seeds allow one to say


def test_differences_and_their_errors() -> None:
    a, b = {0: 40.0, 1: 42.0, 2: 44.0}, {0: 30.0, 1: 31.0, 2: 32.0}
    free = seeds.between(a, b)
    assert free.value == pytest.approx(11) and free.error == pytest.approx((4 / 3 + 1 / 3) ** 0.5)
    together = seeds.paired(a, b | {7: 99.0})
    assert together is not None
    assert together.value == pytest.approx(11) and together.error == pytest.approx((1 / 3) ** 0.5)
    assert seeds.paired(a, {9: 1.0}) is None
    assert free.clear and not seeds.between(b, a).clear
    assert not seeds.between({0: 50.0}, {0: 10.0}).clear  # a single seed has no spread
    noisy = seeds.between({0: 10.0, 1: 50.0}, {0: 8.0, 1: 40.0})
    assert noisy.value > 0 and not noisy.clear


def part(kind: Any, what: str, percent: int, seed: int) -> Part:
    return Part(
        kind=kind,
        what=what,
        percent=percent,
        seed=seed,
        labelled=("a",),
        settings={},
        needs=(),
        cost=1.0,
    )


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    yield Workshop(profile=smoke(), log=Log(kind="city", root=tmp_path), out=tmp_path, device="cpu")


def told(workshop: Workshop, scores: dict[tuple[str, int], list[float]]) -> tuple[str, Any]:
    """The report of a study with these mIoUs by arm and percent, one per seed."""
    made = [part("teacher", "fusion", percent, 0) for _, percent in scores if percent < 100]
    for (arm, percent), values in scores.items():
        for seed, value in enumerate(values):
            one = part("student", arm, percent, seed)
            made.append(one)
            folder = one.folder(workshop.out)
            folder.mkdir(parents=True)
            table = {MIOU: value, "mIoU[all]": value / 2}
            table |= {"IoU[camera-visible]": dict.fromkeys(OCC3D_COARSE.names, value)}
            result = {
                "key": one.key,
                "kind": "student",
                "what": arm,
                "percent": percent,
                "seed": seed,
                "seconds": 36,
                "ended": 36.0 * seed,
                "scores": table,
            }
            (folder / "result.json").write_text(json.dumps(result))
    text = report.write_report(workshop, made)
    return text, json.loads((workshop.out / "study.json").read_text())


SEPARATED = {
    ("full", 100): [50.0, 50.5, 49.5],
    ("labels", 10): [40.0, 41.0, 39.0],
    ("pseudo", 10): [48.0, 49.0, 47.0],
    ("both", 10): [45.0, 35.0, 46.0],
}


def test_gains_and_shares_are_given_where_labels_separate(workshop: Workshop) -> None:
    text, study = told(workshop, SEPARATED)
    assert study["separation"]["10"] == {"value": 10.0, "standard error": 0.65, "clear": True}
    assert "**Labels separate**: all labels - 10 % of the labels = +10.00" in text
    rows = {(row["arm"], row["percent"]): row for row in study["students"]}
    pseudo = rows["pseudo", 10]
    assert pseudo[MIOU]["mean"] == pytest.approx(48)
    assert pseudo[MIOU]["deviation"] == pytest.approx(1)
    assert pseudo["share of fully labelled"]["mean"] == pytest.approx(96)
    assert pseudo["gain over labels alone"] == {"value": 8.0, "standard error": 0.0, "clear": True}
    assert not rows["both", 10]["gain over labels alone"]["clear"]
    assert "| 10 % | + pseudo-labels | 3 | 48.00 +- 1.00 | 24.00 +- 0.50 | 96.00 +- 2.00 % " in text
    assert "(not clear)" in text
    assert "Aim with 10 % of the labels: 95 % of the fully labelled student; reached: 96.0" in text
    assert "20 % of the labels" not in text


def test_no_gain_is_given_where_labels_do_not_separate(workshop: Workshop) -> None:
    text, study = told(workshop, SEPARATED | {("full", 100): [55.0, 41.0, 38.0]})
    assert not study["separation"]["10"]["clear"]
    assert "**Labels do not separate**" in text and "No gain can be concluded" in text
    for word in ("share", "gain over", "Aim"):
        assert word not in text.replace("share of kept", "")
    assert not any("gain over labels alone" in row for row in study["students"])


def test_nothing_is_concluded_before_both_ends_are_there(workshop: Workshop) -> None:
    text, study = told(workshop, {("labels", 10): [40.0, 41.0], ("pseudo", 10): [48.0, 49.0]})
    assert not study["separation"] and "not known yet" in text and "gain over" not in text


def test_a_share_that_does_not_separate_gives_no_gain_beside_one_that_does(
    workshop: Workshop,
) -> None:
    close = {("labels", 20): [50.0, 49.0, 51.0], ("pseudo", 20): [52.0, 52.0, 52.0]}
    text, study = told(workshop, SEPARATED | close)
    assert study["separation"]["10"]["clear"] and not study["separation"]["20"]["clear"]
    assert "Aim with 10 %" in text and "Aim with 20 %" not in text
    rows = {(row["arm"], row["percent"]): row for row in study["students"]}
    assert "share of fully labelled" in rows["pseudo", 10]
    assert "share of fully labelled" not in rows["pseudo", 20]
    assert "| 20 % | + pseudo-labels | 3 | 52.00 +- 0.00 | 26.00 +- 0.00 |  |  |" in text


# What students learn from


def test_quality_of_a_store_is_counted_where_the_benchmark_scores() -> None:
    vehicle, road, free = 0, 2, OCC3D_COARSE.free_id
    truth = GroundTruth(
        grid=replace(GRID, shape=(1, 1, 6)),
        taxonomy=OCC3D_COARSE,
        semantics=np.array([[[vehicle, vehicle, road, road, free, free]]], np.uint8),
        mask_camera=np.array([[[1, 1, 1, 1, 1, 0]]], bool),
        mask_lidar=np.zeros((1, 1, 6), bool),
    )
    semantics = np.array([[[vehicle, road, road, free, free, free]]], np.uint8)
    mask = np.array([[[KEPT, KEPT, KEPT, MaskBit.TRUSTED, KEPT, KEPT]]], np.uint8)
    quality = StoreQuality(OCC3D_COARSE)
    quality.update(semantics, mask, truth)
    found = quality.to_json()
    assert found["scored voxels that are kept"] == 80.0
    assert found["kept voxels that are scored"] == 80.0
    assert found["kept voxels that are right"] == 75.0
    assert found["trusted occupied voxels that are right"] == 66.67
    assert found["trusted free voxels that are right"] == 50.0
    by_class = found["by class"]
    assert by_class["vehicle"] == {
        "mask keeps": 100.0,
        "recall": 50.0,
        "precision": 100.0,
        "share of kept": 25.0,
        "share of truth": 40.0,
    }
    assert by_class["driveable_surface"]["mask keeps"] == 50.0
    assert by_class["driveable_surface"]["precision"] == 50.0
    assert by_class["terrain"]["mask keeps"] is None


def test_oracles_put_right_either_the_classes_or_the_mask() -> None:
    class Source:
        def __init__(self, semantics: int, weight: float, is_ground_truth: bool) -> None:
            self.one = Target(
                semantics=np.full((1, 1, 1), semantics, np.uint8),
                weight=np.full((1, 1, 1), weight, np.float32),
                is_ground_truth=is_ground_truth,
            )

        def scene_ids(self) -> tuple[str, ...]:
            return ("a", "b")[: 1 + self.one.is_ground_truth]

        def target(self, frame: Any) -> Target:
            return self.one

    store, truth = Source(3, 0.5, False), Source(4, 1.0, True)
    for oracle, semantics, weight in ((TrueClasses, 4, 0.5), (TrueMask, 3, 1.0)):
        labels = oracle(store, truth)  # type: ignore[arg-type]
        target = labels.target(None)  # type: ignore[arg-type]
        assert (target.semantics.item(), target.weight.item()) == (semantics, weight)
        assert not target.is_ground_truth and labels.scene_ids() == ("a",)
    raw = Unmasked(Source(3, 0.0, False)).target(None)  # type: ignore[arg-type]
    assert (raw.semantics.item(), raw.weight.item(), raw.is_ground_truth) == (3, 1.0, False)


def test_a_replayed_teacher_gives_each_frame_its_own_features(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).normal(size=(3, 4, 5, 5)).astype(np.float16)
    np.save(tmp_path / "features.npy", maps)
    (tmp_path / "tokens.json").write_text(json.dumps(["a", "b", "c"]))

    class Head(nn.Module):
        def forward(self, bev: torch.Tensor) -> torch.Tensor:
            return bev.permute(0, 3, 2, 1)[:, :, :, None]  # (B, X, Y, 1, C)

    class Inputs:
        T_bda = torch.eye(4).repeat(2, 1, 1)

    sample = Batch(
        inputs=Inputs(),  # type: ignore[arg-type]
        semantics=torch.zeros(2, 5, 5, 1),
        weight=torch.zeros(2, 5, 5, 1),
        labelled=torch.ones(2, dtype=torch.bool),
        is_ground_truth=torch.ones(2, dtype=torch.bool),
        tokens=("c", "a"),
    )
    outputs = ReplayedPredictor(tmp_path, Head())(sample)
    np.testing.assert_array_equal(outputs.bev.numpy(), maps[[2, 0]].astype(np.float32))
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0])).repeat(2, 1, 1)
    mirrored = outputs.seen_under(mirror)
    np.testing.assert_array_equal(mirrored.bev.numpy(), maps[[2, 0]][..., ::-1].astype(np.float32))
    assert torch.equal(mirrored.logits, outputs.logits.flip(1))
