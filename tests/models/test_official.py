"""Official checkpoints: every kind comes in bit for bit, and whatever does not fit is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import OrderedDict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from network_stages import oracle_folder
from safetensors.torch import save_file
from torch import Tensor

from datasets.cli.launch import launch
from datasets.errors import SetupError
from models.checkpoints.checkpoint import file_sha256, load_checkpoint, save_checkpoint
from models.checkpoints.official import FIRST_KERNEL, convert, read_checkpoint
from models.presets import build, preset

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "import_checkpoint.py"
ORACLE = oracle_folder(os.environ)
State = dict[str, Tensor]
TEACHER, STUDENT = "city_tiny", "camera_tiny"
CONV1 = "img_backbone.conv1.weight"


def filled(shapes: dict[str, tuple[int, ...]]) -> State:
    g = torch.Generator().manual_seed(len(shapes))
    return {
        key: torch.tensor(7)
        if key.endswith("num_batches_tracked")
        else torch.randn(shape, generator=g)
        for key, shape in shapes.items()
    }


@cache
def state_of(name: str) -> State:
    with torch.device("meta"):
        shapes = {key: tuple(t.shape) for key, t in build(name).state_dict().items()}
    return filled(shapes)


def official_keys(file: str) -> State:
    if not (ORACLE / file).is_file():
        pytest.skip("no reference key lists: set AUTOLABEL_ORACLE to the oracle folder")
    rows = [r.split("\t") for r in (ORACLE / file).read_text().splitlines() if r and r[0] != "#"]
    return filled({key: tuple(json.loads(f"[{s.strip('(),')}]")) for key, s, *_ in rows})


def mmcv(state: State) -> dict[str, Any]:
    """As mmcv's runner writes it, with what training leaves beside the weights."""
    weights = [torch.nn.Parameter(t.clone()) for t in list(state.values())[:2]]
    optimizer = torch.optim.AdamW(weights, lr=1e-4)
    for w in weights:
        w.grad = torch.zeros_like(w)
    optimizer.step()
    return {
        "meta": {
            "epoch": 48,
            "env_info": "Python: 3.8",
            "CLASSES": ("car", "truck"),
            "hook_msgs": {"best": np.float64(51.5), "at": np.int64(3), "all": np.zeros(3)},
        },
        "state_dict": OrderedDict(state),
        "optimizer": optimizer.state_dict(),
    }


def spconv1(state: State) -> State:
    """The layout (kz, ky, kx, in, out)."""
    return {
        k: t.permute(1, 2, 3, 4, 0).contiguous() if t.ndim == 5 else t for k, t in state.items()
    }


def imported(tmp_path: Path, content: object, name: str) -> tuple[State, str]:
    path = tmp_path / "official.pth"
    torch.save(content, path)
    converted = convert(read_checkpoint(path).tensors, preset(name).with_reference_parity())
    return converted.state, "\n".join(converted.notes)


def assert_same(got: State, want: State) -> None:
    assert got.keys() == want.keys()
    assert [k for k in want if not torch.equal(got[k], want[k])] == []


def refusal(state: State, name: str = TEACHER) -> str:
    with pytest.raises(SetupError) as error:
        convert(state, preset(name))
    assert "\n" not in str(error.value)
    return str(error.value)


def run_script(*arguments: object) -> int:
    return launch("import-checkpoint", [str(word) for word in arguments])


@pytest.mark.parametrize(
    "wrap",
    [
        mmcv,
        lambda state: {"epoch": 41, "state_dict": state, "updates": 46_000},
        lambda state: {"state_dict": state},
        lambda state: state,
        lambda state: mmcv({f"module.{key}": t for key, t in state.items()}),
        lambda state: {"state_dict": spconv1(state)},
    ],
    ids=["mmcv", "ema", "state_dict", "bare", "module-prefix", "spconv1"],
)
def test_every_kind_of_file_comes_in_bit_for_bit(tmp_path: Path, wrap: Any) -> None:
    want = state_of(TEACHER)
    state, _ = imported(tmp_path, wrap(want), TEACHER)
    assert_same(state, want)
    assert all(t.is_contiguous() for t in state.values())


def test_a_safetensors_file_with_official_names_comes_in(tmp_path: Path) -> None:
    path = tmp_path / "official.safetensors"
    save_file(state_of(STUDENT), path)
    assert_same(convert(read_checkpoint(path).tensors, preset(STUDENT)).state, state_of(STUDENT))


def test_our_own_weights_are_not_imported_again(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    save_checkpoint(path, build(STUDENT), STUDENT, {})
    with pytest.raises(SetupError, match="written by this toolkit already"):
        read_checkpoint(path)


@pytest.mark.parametrize("name", [TEACHER, STUDENT])
def test_a_distillation_file_gives_the_teacher_or_the_student_as_the_preset_is(
    tmp_path: Path, name: str
) -> None:
    teacher = {f"teacher_model.{key}": t for key, t in state_of(TEACHER).items()}
    state, notes = imported(tmp_path, mmcv(state_of(STUDENT) | teacher), name)
    assert_same(state, state_of(name))
    assert f"took the {'teacher' if name == TEACHER else 'student'}" in notes


def test_epochs_are_counted_as_finished_ones(tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    for content, epoch in (
        (mmcv(state_of(STUDENT)), 48),
        ({"epoch": 41, "state_dict": state_of(STUDENT), "updates": 9}, 42),
        (state_of(STUDENT), None),
    ):
        torch.save(content, path)
        assert read_checkpoint(path).epoch == epoch


def test_missing_left_over_and_misshapen_keys_are_all_named() -> None:
    state = state_of(TEACHER) | {
        "img_backbone.fc.weight": torch.zeros(2),
        "pts_bbox_head.bias": torch.zeros(2),
        CONV1: torch.zeros(3, 4),
    }
    del state["occ_head.predicter.2.bias"], state["pts_neck.deblocks.0.1.running_var"]
    message = refusal(state)
    shape = tuple(state_of(TEACHER)[CONV1].shape)
    assert "missing: 2 (occ_head.predicter.2.bias, pts_neck.deblocks.0.1.running_var)" in message
    assert "left over: 2 (img_backbone.fc.weight, pts_bbox_head.bias)" in message
    assert f"other shape: 1 ({CONV1} (file (3, 4), network {shape}))" in message


def test_long_lists_of_keys_end_in_a_count() -> None:
    message = refusal(dict.fromkeys((f"x.{i}" for i in range(100)), torch.zeros(1)))
    assert "left over: 100 (x.0, " in message and "and 80 more" in message


def test_a_file_of_two_sparse_layouts_is_refused() -> None:
    key = "pts_middle_encoder.conv_out.0.weight"
    own, old = state_of(TEACHER), spconv1(state_of(TEACHER))
    assert f"other shape: 1 ({key} (file {tuple(old[key].shape)}" in refusal(own | {key: old[key]})
    assert f"other shape: 1 ({key} (file {tuple(own[key].shape)}" in refusal(old | {key: own[key]})
    assert FIRST_KERNEL in refusal(own | {FIRST_KERNEL: own[FIRST_KERNEL].transpose(0, 4)})


def test_only_constants_of_the_lift_are_ignored() -> None:
    names = [f"img_view_transformer.{n}" for n in ("bx", "dx", "frustum", "nx")]
    extra = dict.fromkeys(names, torch.zeros(3))
    converted = convert(state_of(TEACHER) | extra, preset(TEACHER))
    assert_same(converted.state, state_of(TEACHER))
    assert converted.notes == (f"ignored constants: {', '.join(names)}",)
    message = refusal(state_of(TEACHER) | {"img_view_transformer.dt": torch.zeros(3)})
    assert "img_view_transformer.dt" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32_with_a_note(dtype: torch.dtype) -> None:
    state = {k: t.to(dtype) if t.is_floating_point() else t for k, t in state_of(STUDENT).items()}
    converted = convert(state, preset(STUDENT))
    assert_same(converted.state, {k: t.float() if t.ndim else t for k, t in state.items()})
    assert any(f"{dtype} converted to float32" in note for note in converted.notes)


def test_whole_numbers_as_weights_are_refused() -> None:
    state = state_of(STUDENT)
    assert f"other kind of number: 1 ({CONV1} (torch.int64))" in refusal(
        state | {CONV1: state[CONV1].long()}, STUDENT
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    state = state_of(STUDENT)
    broken = state[CONV1].double()
    broken[0, 0, 0, 0] = value
    assert f"not finite (in float32): 1 ({CONV1})" in refusal(state | {CONV1: broken}, STUDENT)


def test_an_old_file_without_batch_counts_gets_zeros_but_a_gap_is_an_error() -> None:
    counts = [key for key in state_of(STUDENT) if key.endswith("num_batches_tracked")]
    old = {k: t for k, t in state_of(STUDENT).items() if k not in counts}
    assert_same(convert(old, preset(STUDENT)).state, old | dict.fromkeys(counts, torch.tensor(0)))
    gap = {k: t for k, t in state_of(STUDENT).items() if k != counts[0]}
    assert f"missing: 1 ({counts[0]})" in refusal(gap, STUDENT)


class Trap:
    """Touches a file when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


class HistoryBuffer:
    """Some class of the code that wrote the file."""


def test_code_in_a_file_is_named_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "trap.pth"
    for content, name in (
        ({"state_dict": state_of(STUDENT), "meta": Trap(tmp_path / "ran")}, "mkdir"),
        ({"state_dict": state_of(STUDENT), "meta": HistoryBuffer()}, "HistoryBuffer"),
    ):
        for zipped in (True, False):
            torch.save(content, path, _use_new_zipfile_serialization=zipped)
            with pytest.raises(SetupError, match=rf"holds a \S*{name}.*strip it") as error:
                read_checkpoint(path)
            assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_is_refused_with_one_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save({"state_dict": state_of(STUDENT)}, whole)
    tensors = tmp_path / "tensors.safetensors"
    tensors.write_bytes(b"no header")
    cases: list[tuple[Path, bytes | object, str]] = [
        (tmp_path / "absent.pth", None, "no such checkpoint file"),
        (tmp_path / "cut.pth", whole.read_bytes()[:-5000], "damaged or no PyTorch file"),
        (tmp_path / "empty.pth", b"", "damaged or no PyTorch file"),
        (tmp_path / "page.pth", b"<html>not found</html>", "damaged or no PyTorch file"),
        (tensors, b"no header", "not a readable safetensors file"),
        (tmp_path / "list.pth", [torch.zeros(1)], "not a checkpoint, holds a list"),
        (tmp_path / "none.pth", {"state_dict": {}}, "state dict is empty"),
        (tmp_path / "model.pth", {"model": {"a": torch.zeros(1)}}, "not plain tensors: 1 (model)"),
        (tmp_path / "numpy.pth", {"state_dict": {"a": np.zeros(2)}}, "not plain tensors: 1 (a)"),
    ]
    for path, content, rule in cases:
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            torch.save(content, path)
        with pytest.raises(SetupError) as error:
            read_checkpoint(path)
        message = str(error.value)
        assert str(path) in message and rule in message and "\n" not in message


def test_the_command_writes_weights_that_load_as_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "epoch_48.pth", tmp_path / "new" / "t.safetensors"
    torch.save(mmcv(spconv1(state_of(TEACHER))), source)
    assert run_script(source, "--preset", TEACHER, "-o", out) == 0
    loaded = load_checkpoint(out, expect_preset=TEACHER)
    assert_same(loaded.module.state_dict(), state_of(TEACHER))
    assert loaded.preset == preset(TEACHER).with_reference_parity()
    assert loaded.metadata == {
        "reference_parity": "true",
        "imported_from": "epoch_48.pth",
        "imported_sha256": file_sha256(source),
        "epoch": "48",
    }
    printed = capsys.readouterr().out
    assert "after 48 epochs" in printed and "spconv 1 layout" in printed
    assert "not calibrated" in printed and f"weights: {out}" in printed


def test_the_command_ends_in_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "official.pth", tmp_path / "t.safetensors"
    torch.save(state_of(STUDENT), source)
    (tmp_path / "file").touch()
    for arguments, rule in (
        ((tmp_path / "absent.pth", "--preset", TEACHER, "-o", out), "no such checkpoint file"),
        ((source, "--preset", TEACHER, "-o", out), f"{source}: does not fit preset 'city_tiny'"),
        ((source, "--preset", "huge", "-o", out), "no preset 'huge'"),
        ((source, "--preset", STUDENT, "-o", tmp_path / "file" / "x"), "file"),
    ):
        assert run_script(*arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and rule in err and err.count("\n") == 1
    assert run_script(source, "--pre", STUDENT, "-o", out) == 2
    assert not out.exists()


def test_the_literal_command_takes_the_published_teacher_at_full_size(tmp_path: Path) -> None:
    want = official_keys("keys_teacher.txt")
    source, out = tmp_path / "epoch_42_ema.pth", tmp_path / "weights.safetensors"
    torch.save({"epoch": 41, "state_dict": spconv1(want), "updates": 46_000}, source)
    done = subprocess.run(
        [sys.executable, SCRIPT, source, "--preset", "fusion_r18_occ3d", "-o", out],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    loaded = load_checkpoint(out, expect_preset="fusion_r18_occ3d")
    assert loaded.metadata["epoch"] == "42"
    assert_same(loaded.module.state_dict(), want)


def test_the_published_student_comes_in() -> None:
    want = official_keys("keys_student.txt")
    assert_same(convert(want, preset("flashocc_r50")).state, want)


def test_the_published_flow_head_comes_in() -> None:
    flow = filled(
        {
            "occ_head.flow_predicter.0.weight": (512, 256),
            "occ_head.flow_predicter.0.bias": (512,),
            "occ_head.flow_predicter.2.weight": (32, 512),
            "occ_head.flow_predicter.2.bias": (32,),
        }
    )
    want = official_keys("keys_teacher.txt") | flow
    assert_same(convert(want, preset("fusion_r18_flow")).state, want)
