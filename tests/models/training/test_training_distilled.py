"""Distillation by the real command: which parts there are, and what belongs to a teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_command import run, write_labelled_log

from models.checkpoints.checkpoint import save_checkpoint
from models.presets import build
from models.training.distillation import REGIONS

SHORT = ("--steps", "1", "--batch", "6", "--loaders", "0")  # one epoch
PARTS = {f"{kind}_{region}" for kind in ("bev", "logits") for region in REGIONS}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Only scene a has labels."""
    return write_labelled_log(tmp_path_factory.mktemp("logs") / "log", ("a",), lidar=True)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    save_checkpoint(path, build("fusion_coarse"), "fusion_coarse", {})
    return path


def terms(out: Path) -> set[str]:
    return set(json.loads((out / "report.json").read_text())["terms"]) - {"loss"}


def test_a_student_is_distilled_on_frames_with_and_without_labels(
    log: Path, teacher: Path, tmp_path: Path
) -> None:
    distill = ("--distill", str(teacher), "--unlabelled-split", "all", "--learning-rate", "1e-9")
    code, said = run(log, tmp_path, *SHORT, *distill)
    assert code == 0, said
    assert terms(tmp_path) == {"ce", *PARTS}
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["frames"] == 6 and report["terms"]["logits_empty"] > 0
    mine = load_file(tmp_path / "camera_coarse_student.safetensors")
    its = load_file(teacher)
    heads = [name for name in mine if name.startswith("occ_head.")]
    assert heads
    for name in heads:  # inherited, and hardly changed by one step so small
        torch.testing.assert_close(mine[name], its[name], rtol=0, atol=1e-6)


def test_every_part_can_be_switched_off(log: Path, teacher: Path, tmp_path: Path) -> None:
    distill = ("--distill", str(teacher), "--distill-bev", "none", "--no-inherit-head")
    code, said = run(log, tmp_path, *SHORT, *distill, "--distill-regions", "teacher")
    assert code == 0, said
    assert terms(tmp_path) == {"ce", *(part for part in PARTS if part.startswith("logits"))}


def test_what_needs_a_teacher_says_so(log: Path, tmp_path: Path) -> None:
    code, said = run(log, tmp_path, *SHORT, "--distill-bev", "plain")
    assert code == 2
    assert "error: --distill-bev needs --distill TEACHER" in said
