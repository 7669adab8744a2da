"""Training in several processes through Ray Train."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from pathlib import Path

import pytest
import torch
from one_camera_log import SPEC, OneCameraLog, write_truth
from toy_training import CONFIG, ToyNetwork, lines

from autolabel.training.ray_train import train_together
from datasets.errors import SetupError
from datasets.loading.batch import Batch
from datasets.loading.frame_dataset import FrameDataset
from datasets.taxonomy import OCC3D_NUSCENES
from models.training.loop import SINGLE_PROCESS, ProcessGroup, fit
from models.training.objectives import LabelLoss

STEPS = 8


class DyingSet(FrameDataset):
    """The second worker dies once, at step 5."""

    scar: Path

    def __getitem__(self, step: int) -> Batch:
        if self.rank == 1 and step == 5 and not self.scar.exists():
            self.scar.touch()
            os._exit(1)
        return super().__getitem__(step)


def train(root: Path, out: Path, batch: int, process_group: ProcessGroup) -> int:
    log = OneCameraLog(frames=4, bad=("t3",))
    samples = DyingSet(log, [write_truth(root, log)], SPEC, batch=batch)
    samples.scar = out / "scar"
    torch.manual_seed(0)
    weights = torch.linspace(0.5, 2, 18)
    trained = fit(
        ToyNetwork(norm=False),
        samples,
        objective=LabelLoss(taxonomy=OCC3D_NUSCENES, class_weights=weights, columns=50),
        config=dataclasses.replace(CONFIG, steps=STEPS),
        folder=out,
        process_group=process_group,
    )
    if process_group.rank == 0:
        torch.save(trained.network.state_dict(), out / "weights.pt")
    return len(trained.report.bad_frames)


@pytest.mark.slow  # starts Ray
def test_two_workers_train_like_one_and_outlive_the_death_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.train", reason="needs the extra distributed")
    root = Path(__file__).resolve().parents[3]
    ours = [path for path in sys.path if Path(path).is_relative_to(root)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(ours))  # workers import this file
    together, alone = tmp_path / "together", tmp_path / "alone"
    for folder in (together, alone):
        folder.mkdir()
    job = functools.partial(train, tmp_path / "truth", together, 4)
    assert train_together(job, 2, device="cpu", folder=together) == 1  # one bad frame
    assert (together / "scar").exists()
    assert train(tmp_path / "truth", alone, 4, SINGLE_PROCESS) == 1
    a, b = (torch.load(f / "weights.pt", weights_only=True) for f in (together, alone))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)
    assert [line["step"] for line in lines(together)] == list(range(1, STEPS + 1))
    for line, other in zip(lines(together), lines(alone), strict=True):
        assert line["ce"] == pytest.approx(other["ce"], rel=1e-4)


def test_one_worker_needs_no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.train", None)
    asked = []
    assert train_together(lambda group: asked.append(group) or 7, 1, device="cpu", folder=tmp_path)
    assert asked == [SINGLE_PROCESS]


def test_without_the_extra_the_message_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray.train", None)
    with pytest.raises(SetupError, match=r"effocc-autolabel\[distributed\]"):
        train_together(lambda group: 0, 2, device="cpu", folder=tmp_path)


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="a batch of 3 cannot be shared by 2 workers"):
        train(tmp_path / "truth", tmp_path / "out", 3, ProcessGroup(rank=0, world_size=2))
