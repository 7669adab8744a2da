"""Weights files: what comes back, and what is refused with one clear line."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from datasets.errors import SetupError
from models.checkpoints.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from models.presets import build

HEADER = {"format": "effocc-autolabel-weights", "format_version": "1", "preset": "camera_tiny"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "student.safetensors"
    calibration = json.dumps({"levels": [0.5, 0.9]})
    save_checkpoint(path, build("camera_tiny"), "camera_tiny", {"calibration": calibration})
    return path


def test_a_saved_network_comes_back_bit_for_bit(weights: Path) -> None:
    torch.manual_seed(1)
    original = build("camera_tiny").state_dict()
    loaded = load_checkpoint(weights, expect_preset="camera_tiny")
    assert isinstance(loaded, LoadedModel)
    assert loaded.preset.name == "camera_tiny" and not loaded.module.training
    assert json.loads(loaded.metadata["calibration"]) == {"levels": [0.5, 0.9]}
    assert loaded.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    state = loaded.module.state_dict()
    assert state.keys() == original.keys()
    assert all(torch.equal(state[k], original[k]) for k in original)


def test_saving_leaves_no_other_file_behind(weights: Path) -> None:
    assert [p.name for p in weights.parent.iterdir()] == [weights.name]


def test_weights_of_another_preset_name_both(weights: Path) -> None:
    with pytest.raises(SetupError, match="'camera_tiny', not of 'city_tiny'"):
        load_checkpoint(weights, expect_preset="city_tiny")


def refused(tmp_path: Path, tensors: dict[str, Any], metadata: dict[str, str] | None) -> str:
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(SetupError) as error:
        load_checkpoint(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message
    return message


def test_other_files_are_refused_with_file_and_rule(tmp_path: Path, weights: Path) -> None:
    tensors = load_file(weights)
    first = next(iter(tensors))
    assert "not written by this toolkit" in refused(tmp_path, tensors, None)
    assert "version 2, this code reads 1" in refused(
        tmp_path, tensors, HEADER | {"format_version": "2"}
    )
    assert "no preset 'huge'" in refused(tmp_path, tensors, HEADER | {"preset": "huge"})
    assert f"missing: {first}" in refused(
        tmp_path, {k: v for k, v in tensors.items() if k != first}, HEADER
    )
    assert "unexpected: surprise" in refused(
        tmp_path, tensors | {"surprise": torch.zeros(1)}, HEADER
    )
    assert f"other shape: {first}" in refused(tmp_path, tensors | {first: torch.zeros(1)}, HEADER)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a weights file was unpickled",))


def test_a_missing_or_pickled_file_is_refused_unopened(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no such weights file"):
        load_checkpoint(tmp_path / "absent.safetensors")
    pickled = tmp_path / "teacher.pth"
    pickled.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(SetupError, match="not a readable safetensors file"):
        load_checkpoint(pickled)


def test_metadata_cannot_shadow_the_format(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="preset"):
        save_checkpoint(
            tmp_path / "x.safetensors", build("camera_tiny"), "camera_tiny", {"preset": "other"}
        )
