"""The optimisation loop: continued runs, parts, reports."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from one_camera_log import SPEC, OneCameraLog, write_truth
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from toy_training import CONFIG, LOSS, ToyNetwork, lines, run, same_weights, samples

from datasets.errors import SetupError
from datasets.loading.batch import Batch
from datasets.loading.frame_dataset import FrameDataset
from datasets.taxonomy import OCC3D_NUSCENES
from models.training.loop import fit
from models.training.objectives import LabelLoss
from models.training.report import draw_curves
from models.training.schedules import ConstantEMA, StepDecay, WarmCosine, WarmupEMA

__all__ = ["samples"]


class KilledError(Exception):
    pass


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(
    samples: FrameDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(CONFIG, log_every=3)
    whole = run(samples, tmp_path / "whole", config)
    original = FrameDataset.__getitem__

    def until_step_3(self: FrameDataset, step: int) -> Batch:
        if step == 3:
            raise KilledError
        return original(self, step)

    monkeypatch.setattr(FrameDataset, "__getitem__", until_step_3)
    with pytest.raises(KilledError):
        run(samples, tmp_path / "parts", config)
    monkeypatch.undo()
    assert [line["step"] for line in lines(tmp_path / "parts")] == [3]  # its state is of step 2
    resumed = run(samples, tmp_path / "parts", config)
    assert same_weights(whole.network, resumed.network)
    both = lines(tmp_path / "whole"), lines(tmp_path / "parts")
    assert [line["step"] for line in both[1]] == [3, 6]
    assert [line["loss"] for line in both[0]] == [line["loss"] for line in both[1]]
    assert resumed.report.frames == whole.report.frames == 12


def test_a_finished_training_started_again_gives_the_same(
    samples: FrameDataset, tmp_path: Path
) -> None:
    first = run(samples, tmp_path / "t")
    again = run(samples, tmp_path / "t")
    assert same_weights(first.network, again.network)
    assert first.report == again.report


def test_training_lowers_the_loss(samples: FrameDataset, tmp_path: Path) -> None:
    run(samples, tmp_path / "t", dataclasses.replace(CONFIG, steps=40))
    log = lines(tmp_path / "t")
    assert log[-1]["loss"] < 0.8 * log[0]["loss"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"steps": 7}, "config.steps"), ({"seed": 1}, "config.seed")],
)
def test_another_configuration_does_not_continue_a_run(
    samples: FrameDataset, tmp_path: Path, changes: dict[str, int], named: str
) -> None:
    run(samples, tmp_path / "t")
    with pytest.raises(SetupError, match=rf"another configuration \({named}\)"):
        run(samples, tmp_path / "t", dataclasses.replace(CONFIG, **changes))


def test_other_data_or_another_job_do_not_continue_a_run(
    samples: FrameDataset, tmp_path: Path
) -> None:
    run(samples, tmp_path / "t", job={"loss": "ce"})
    with pytest.raises(SetupError, match=r"job\.loss"):
        run(samples, tmp_path / "t", job={"loss": "ohem"})
    samples.items.pop()
    with pytest.raises(SetupError, match="samples"):
        run(samples, tmp_path / "t", job={"loss": "ce"})


def test_how_often_is_saved_may_change_in_a_continued_run(
    samples: FrameDataset, tmp_path: Path
) -> None:
    first = run(samples, tmp_path / "t")
    again = run(samples, tmp_path / "t", dataclasses.replace(CONFIG, save_every=5, log_every=4))
    assert same_weights(first.network, again.network)


def test_other_threads_are_warned_of(samples: FrameDataset, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        run(samples, tmp_path / "t")
        torch.set_num_threads(2)
        with pytest.warns(UserWarning, match="made with 1 threads, continued with 2"):
            run(samples, tmp_path / "t")
    finally:
        torch.set_num_threads(before)


def test_a_batch_in_parts_trains_like_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the parts have unequal numbers of voxels to learn from."""
    log = OneCameraLog(frames=4)
    samples = FrameDataset(log, [write_truth(tmp_path, log)], SPEC, batch=4)
    original = FrameDataset.__getitem__

    def unequal(self: FrameDataset, step: int) -> Batch:
        sample = original(self, step)
        weight = sample.weight.clone()
        weight[0] = 0
        weight[1, 120:] *= 0.3
        return dataclasses.replace(sample, weight=weight)

    monkeypatch.setattr(FrameDataset, "__getitem__", unequal)
    weights = torch.linspace(0.5, 2, 18)
    loss = LabelLoss(taxonomy=OCC3D_NUSCENES, class_weights=weights, columns=50)
    found = []
    for parts in (1, 2, 4):
        torch.manual_seed(0)
        config = dataclasses.replace(CONFIG, accumulation_steps=parts)
        network = ToyNetwork(norm=False)
        folder = tmp_path / f"parts{parts}"
        found.append(fit(network, samples, objective=loss, config=config, folder=folder))
    for other, parts in zip(found[1:], (2, 4), strict=True):
        pairs = zip(found[0].network.parameters(), other.network.parameters(), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        whole, divided = lines(tmp_path / "parts1")[-1], lines(tmp_path / f"parts{parts}")[-1]
        assert divided["ce"] == pytest.approx(whole["ce"], rel=1e-4)


def test_an_objective_with_parameters_has_them_trained_and_saved(
    samples: FrameDataset, tmp_path: Path
) -> None:
    class WithOffset(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Parameter(torch.zeros(()))

        def forward(self, network: nn.Module, sample: Batch, step: int) -> dict[str, Tensor]:
            return {**LOSS(network, sample, step), "offset": (self.offset - 1).square()}

    objective = WithOffset()
    network = ToyNetwork()
    trained = fit(network, samples, objective=objective, config=CONFIG, folder=tmp_path / "t")
    assert objective.offset > 0.02
    assert "offset" not in "".join(trained.network.state_dict())
    again = WithOffset()
    fit(ToyNetwork(), samples, objective=again, config=CONFIG, folder=tmp_path / "t")
    assert torch.equal(again.offset, objective.offset)


def test_a_loss_that_is_not_finite_stops_the_run(samples: FrameDataset, tmp_path: Path) -> None:
    network = ToyNetwork()
    nn.init.constant_(network.occ_head.out.weight, float("nan"))
    with pytest.raises(ValueError, match="step 0: the loss is"):
        run(samples, tmp_path / "t", network=network)
    assert not (tmp_path / "t" / "state.pt").exists()


def test_bad_and_empty_frames_are_in_log_and_report(tmp_path: Path) -> None:
    log = OneCameraLog(frames=4, bad=("t1",))
    truth = write_truth(tmp_path, log)
    samples = FrameDataset(log, [truth], SPEC, batch=2)
    original = truth.target
    truth.target = lambda frame: (  # type: ignore[method-assign]
        dataclasses.replace(original(frame), weight=0 * original(frame).weight)
        if frame.token == "t0"
        else original(frame)
    )
    report = run(samples, tmp_path / "t").report
    assert [bad.frame for bad in report.bad_frames] == ["t1"]
    assert report.empty_frames == 3  # three epochs
    assert "torn" in str(report) and "3 frames read had labels" in str(report)
    last = lines(tmp_path / "t")[-1]
    assert (last["bad_frames"], last["empty_frames"]) == (1, 3)
    assert json.loads((tmp_path / "t/report.json").read_text())["bad_frames"][0]["frame"] == "t1"


def slow_scores(network: nn.Module) -> dict[str, float]:
    time.sleep(1.0)
    return {"mIoU": 12.5 + network.training}


def test_the_end_report_has_curves_scores_and_shares_of_time(
    samples: FrameDataset, tmp_path: Path
) -> None:
    config, began = dataclasses.replace(CONFIG, validate_every=3), time.monotonic()
    trained = fit(
        ToyNetwork(),
        samples,
        objective=LOSS,
        config=config,
        folder=tmp_path / "t",
        validate=slow_scores,
    )
    took, report = time.monotonic() - began, trained.report
    assert report.scores == {"mIoU": 12.5}
    assert 0 < report.waited < 1 and report.frames_per_s > 0
    assert report.seconds <= took - 2.0  # scoring is not training
    assert "waiting for data" in str(report)
    scored = [line["step"] for line in lines(tmp_path / "t") if "val/mIoU" in line]
    assert scored == [3, 6]
    assert all(0 <= line["waited"] <= 1 for line in lines(tmp_path / "t") if "lr" in line)
    assert (tmp_path / "t/curves.png").read_bytes().startswith(b"\x89PNG")
    board = EventAccumulator(str(tmp_path / "t/tensorboard")).Reload()
    assert [event.step for event in board.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in board.Scalars("val/mIoU")] == [12.5, 12.5]


def test_the_curves_of_a_single_point_show_it(tmp_path: Path) -> None:
    draw_curves([{"step": 5, "loss": 1.5, "ce": 1.5, "lr": 0.1}], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    middle = pixels[:, pixels.shape[1] * 2 // 5 : pixels.shape[1] * 3 // 5]  # not the legend
    assert ((middle.max(-1) - middle.min(-1)) > 50).sum() > 20  # the markers' color


def test_the_published_schedule() -> None:
    schedule = StepDecay(decay_at=1000)
    factors = [schedule.factor(step, 5000) for step in (0, 100, 200, 999, 1000, 4999)]
    assert factors == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.1])
    assert StepDecay().factor(10**6, 10**6) == 1


def test_the_cosine_warms_up_and_ends_at_zero() -> None:
    factors = [WarmCosine().factor(step, 100) for step in (0, 9, 10, 55, 100)]
    assert factors == pytest.approx([0.1, 1, 1, 0.5, 0])


def test_the_published_average_of_weights() -> None:
    assert ConstantEMA().at(0) == pytest.approx(0.99391, abs=1e-5)
    assert ConstantEMA().at(20_000) == pytest.approx(0.99900, abs=1e-5)
    assert [WarmupEMA().at(step) for step in (0, 90, 10**6)] == pytest.approx([0.1, 0.91, 0.995])
