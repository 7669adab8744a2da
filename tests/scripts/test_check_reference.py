"""Whatever is not equal to the published networks is named, and nothing hides it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run_script
from network_stages import (
    TEACHER,
    Case,
    compare_cells,
    compare_classes,
    compare_sparse_stage,
    compare_stage,
    lift_of,
    load_arrays,
    load_formula_weights,
    oracle_folder,
    reference_inputs,
    run_stages,
)
from numpy.typing import NDArray
from random_inputs import random_inputs
from torch import Tensor

from datasets.errors import SetupError
from datasets.geometry.grid import VoxelGrid
from models.ops.sparse_conv import SparseTensor
from models.presets import build_network, preset

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "conformance" / "check_networks.py"
LATER = ("encoder_layer3", "encoder_layer4")
TINY = Case(
    title="Tiny",
    preset="city_tiny",
    file="teacher_r18",
    outputs={m: s for m, s in TEACHER.outputs.items() if not s.endswith(LATER)},
    dense=tuple(s for s in TEACHER.dense if s != "img_backbone2"),
    sparse=tuple(s for s in TEACHER.sparse if not s.endswith(LATER)),
)
Written = dict[str, NDArray[Any]]


def dense_arrays(stage: str, output: Tensor, step: int) -> Written:
    values = output.double().numpy()
    axis = 4 if stage == "logits" else 1
    means = values.mean(axis=tuple(i for i in range(values.ndim) if i != axis))
    strides = [1] * (values.ndim - 2) + [step, step]
    return {
        f"{stage}__shape": np.array(values.shape),
        f"{stage}__stride": np.array(strides),
        f"{stage}__sub": values[tuple(slice(None, None, s) for s in strides)].astype(np.float32),
        f"{stage}__chmean": means,
        f"{stage}__l2": np.array(np.linalg.norm(values)),
        f"{stage}__maxabs": np.array(np.abs(values).max()),
    }


def sparse_arrays(stage: str, output: SparseTensor) -> Written:
    Z, Y, X = output.spatial_shape
    _, z, y, x = output.coords.numpy().T
    sites = (z * Y + y) * X + x
    order = np.argsort(sites)
    features = output.features.double().numpy()[order]
    return {
        f"{stage}__n": np.array(len(sites)),
        f"{stage}__grid": np.array((Z, Y, X)),
        f"{stage}__crc": np.array(zlib.crc32(sites[order].astype("<i8").tobytes())),
        f"{stage}__rowstep": np.array(3),
        f"{stage}__feat": features[::3].astype(np.float32),
        f"{stage}__chmean": features.mean(axis=0),
        f"{stage}__l2": np.array(np.linalg.norm(features)),
    }


@cache
def tiny_oracle() -> Written:
    """An oracle of a small network, as its own outputs are."""
    rng = np.random.default_rng(0)
    inputs = random_inputs(preset("city_tiny").inputs)
    assert inputs.points is not None and inputs.depth is not None
    N, _, H, W = inputs.images.shape[1:]
    arrays: Written = {
        "canvas_u8": rng.integers(0, 256, (N, H, W, 3), dtype=np.uint8),
        "in_post_rots": np.tile(np.eye(3, dtype=np.float32), (N, 1, 1)),
        "in_post_trans": np.zeros((N, 3), np.float32),
        "in_intrins": inputs.intrinsics[0].numpy(),
        "in_bda": inputs.T_bda[0].numpy(),
        "in_points_ego": inputs.points[0].numpy(),
        "gt_depth_idx": np.arange(0, N * H * W, 7),
        "gt_depth_val": inputs.depth.flatten()[::7].numpy(),
        "gt_depth_shape": np.array((N, H, W)),
        "sensor2keyego": inputs.T_ego_camera[0].numpy(),
    }
    network = build_network(preset("city_tiny").with_reference_parity().network).eval()
    arrays["weights_crc32"] = np.array(load_formula_weights(network))
    inputs = reference_inputs(arrays, arrays["sensor2keyego"])
    outputs = run_stages(network, TINY, inputs)
    for stage in TINY.dense:
        arrays |= dense_arrays(stage, outputs.dense[stage], 4)
    for stage in TINY.sparse:
        arrays |= sparse_arrays(stage, outputs.sparse[stage])
    h, w = outputs.dense["context"].shape[-2:]
    cells = lift_of(network).cells(inputs, h, w)[0].numpy()
    best = outputs.dense["logits"][0].topk(2, dim=-1)
    margin = (best.values[..., 0] - best.values[..., 1]).numpy()
    return arrays | {
        "pool_cell": np.where(cells < 0, 65535, cells).astype(np.uint16),
        "argmax": best.indices[..., 0].numpy().astype(np.uint8),
        "small_margin": np.packbits(margin < 1e-3),
    }


@cache
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_reference", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: Written, *options: str) -> int:
    """The command on a folder with these arrays for both networks."""
    np.savez(tmp_path / "teacher_r18.npz", **arrays)
    for name in ("TEACHER", "STUDENT"):
        monkeypatch.setattr(script(), name, TINY)
    threads = str(torch.get_num_threads())
    argv = [str(SCRIPT), "--oracle", str(tmp_path), "--threads", threads, *options]
    monkeypatch.setattr(sys, "argv", argv)
    return int(script().main())


def test_equal_networks_end_in_code_0_with_every_stage_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "figures.json"
    assert check(tmp_path, monkeypatch, tiny_oracle(), "--fast", "--json", str(out)) == 0
    printed = capsys.readouterr().out
    for stage in (*TINY.dense, *TINY.sparse):
        assert printed.count(f"\n{stage} ") == 2
    assert "NOT EQUAL" not in printed and "bfloat16" in printed
    figures = json.loads(out.read_text())
    assert [f["failures"] for f in figures] == [[], []]
    assert [p["name"] for p in figures[0]["predictions"]] == [
        "network, published cells",
        "network, own geometry",
        "labelling, published cells",
        "labelling, own geometry",
    ]


def test_what_differs_is_named_and_ends_in_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(tiny_oracle())
    arrays["fused_bev__sub"] = arrays["fused_bev__sub"][..., ::-1, :]
    arrays["sp_conv_out__crc"] = arrays["sp_conv_out__crc"] ^ 1
    arrays["argmax"] = (arrays["argmax"] + (np.arange(200)[:, None, None] < 1)).astype(np.uint8)
    arrays["weights_crc32"] = arrays["weights_crc32"] ^ 1
    assert check(tmp_path, monkeypatch, arrays) == 1
    captured = capsys.readouterr()
    named = captured.err.rsplit("Tiny (city_tiny): ", 1)[1]
    assert named.strip() == (
        "weights, sp_conv_out, fused_bev, classes (network, published cells), "
        "classes (network, own geometry), classes (labelling, published cells), "
        "classes (labelling, own geometry)"
    )
    assert captured.out.count("NOT EQUAL") == 4 and captured.out.count("DIFFER") == 2


def test_published_cells_reach_the_pooling_and_leave_the_own_geometry_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows with own geometry stay right when the published cells are wrong, and no others."""
    arrays = dict(tiny_oracle())
    arrays["pool_cell"] = np.full_like(arrays["pool_cell"], 65535)
    assert check(tmp_path, monkeypatch, arrays) == 1
    named = capsys.readouterr().err.rsplit("Tiny (city_tiny): ", 1)[1]
    assert "cam_bev" in named and "geometry" in named
    assert "(network, published cells)" in named and "(labelling, published cells)" in named
    assert "own geometry" not in named and "depth_prob" not in named


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--oracle", "nowhere"], "no reference outputs nowhere/teacher_r18.npz"),
        (["--threads", "0"], "--threads 0"),
    ],
)
def test_a_wrong_set_up_ends_in_one_line_and_code_2(options: list[str], rule: str) -> None:
    done = run_script("scripts/conformance/check_networks.py", *options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and rule in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_folder_is_the_environments_or_beside_the_project() -> None:
    assert oracle_folder({"AUTOLABEL_ORACLE": "/x"}) == Path("/x")
    assert oracle_folder({}).resolve() == (ROOT / ".." / "shared" / "oracle").resolve()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "teacher_r18.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(SetupError, match=r"teacher_r18\.npz: damaged"):
        load_arrays(tmp_path, "teacher_r18")


def test_an_error_between_the_sampled_values_shows_in_the_sums() -> None:
    output = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    arrays = dense_arrays("x", output, 4)
    assert compare_stage(arrays, "x", output).ok
    for wrong in (output.clone(), output.clone()):
        wrong[0, 1, 1, 1] += 1
        error = compare_stage(arrays, "x", wrong)
        assert error.error == 0 and not error.ok
    unnumbered = output.clone()
    unnumbered[0, 0, 0, 0] = torch.nan
    assert not compare_stage(arrays, "x", unnumbered).ok
    with pytest.raises(ValueError, match="x: shape"):
        compare_stage(arrays, "x", output[:, :2])


def test_sparse_sites_may_come_in_any_order_but_must_be_the_same() -> None:
    g = torch.Generator().manual_seed(0)
    n = torch.arange(20)
    coords = torch.stack((torch.zeros_like(n), n % 2, n // 4, n % 4), dim=1)
    output = SparseTensor(
        features=torch.randn(20, 3, generator=g),
        coords=coords,
        spatial_shape=(2, 5, 4),
        batch_size=1,
    )
    arrays = sparse_arrays("sp", output)
    turned = replace(output, features=output.features.flip(0), coords=coords.flip(0))
    assert compare_sparse_stage(arrays, "sp", turned).ok
    moved = replace(output, coords=coords + torch.tensor([0, 1, 0, 0]))
    for wrong in (moved, replace(output, features=output.features.flip(0))):
        assert not compare_sparse_stage(arrays, "sp", wrong).ok
    assert compare_sparse_stage(arrays, "sp", moved).sites_equal is False


def test_points_may_move_over_a_border_but_not_further() -> None:
    arrays = {"pool_cell": np.zeros((1, 2, 1, 1), np.uint16)}
    grid = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.4, 0.4, 6.4), shape=(200, 200, 1))
    cells = torch.tensor([0, 1]).view(1, 1, 2, 1, 1)
    for x, ok in ((-39.6, True), (-39.5999, True), (-39.4, False)):
        frustum = torch.tensor([[-39.8, x], [-39.8, -39.8], [2.0, 2.0]]).view(1, 3, 2, 1, 1)
        got = compare_cells(arrays, cells, frustum, grid)
        assert (got.moved, got.points, got.ok) == (1, 2, ok)


def test_voxels_with_a_small_margin_are_counted_apart() -> None:
    logits = torch.eye(4).view(1, 4, 1, 1, 4)
    arrays = {
        "argmax": np.array([0, 1, 2, 0], np.uint8).reshape(4, 1, 1),
        "small_margin": np.packbits(np.array([1, 0, 0, 1], bool)),
    }
    got = compare_classes(arrays, logits)
    assert (got.same, got.voxels, got.clear_same, got.clear) == (3, 4, 2, 2)
    assert (got.share, got.clear_share) == (0.75, 1.0)


@pytest.mark.slow
@pytest.mark.skipif(
    not (oracle_folder(os.environ) / "student_r50.npz").is_file(),
    reason="no reference outputs: set AUTOLABEL_ORACLE to the oracle folder",
)
def test_the_literal_command_finds_the_published_networks_equal() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/conformance/check_networks.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "equal to the published networks" in done.stdout
