"""Weights are calibrated as they are saved, with the offsets of their classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autolabel.commands import calibrate
from autolabel.commands.options.label_log import DEFAULT_WEIGHTS
from autolabel.labeling.stored_calibration import calibration_of
from datasets.cli.launch import launch
from datasets.taxonomy import OCC3D_NUSCENES
from models.checkpoints.checkpoint import load_checkpoint


def test_confidence_is_that_of_the_weights_with_offsets(
    city: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = np.zeros(OCC3D_NUSCENES.n_classes, np.float32)
    offsets[OCC3D_NUSCENES.id_of("vegetation")] = 3.0
    monkeypatch.setattr(calibrate, "fit_offsets", lambda *_: offsets)

    def calibrated(weights: Path, *words: str) -> tuple[int, ...]:
        out = tmp_path / f"{len(words)}.safetensors"
        log = ("--root", str(city), "--split", "labeled")
        assert launch("calibrate", [str(weights), *log, *words, "-o", str(out)]) == 0
        return calibration_of(load_checkpoint(out), out).counts

    balanced = calibrated(DEFAULT_WEIGHTS, "--balance")
    assert balanced == calibrated(tmp_path / "1.safetensors")
