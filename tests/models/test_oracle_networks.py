"""Every stage against outputs of the published code (formula weights, one real frame)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from network_stages import (
    STUDENT,
    TEACHER,
    Case,
    MovedPoints,
    Outputs,
    StageError,
    compare_cells,
    compare_classes,
    compare_sparse_stage,
    compare_stage,
    lift_of,
    load_arrays,
    load_formula_weights,
    oracle_folder,
    published_cells,
    reference_inputs,
    run_stages,
    with_cells,
)
from numpy.typing import NDArray

from models.networks.camera_student import CameraStudent
from models.networks.fusion_teacher import FusionTeacher
from models.presets import build_network, preset

ORACLE = oracle_folder(os.environ)
pytestmark = pytest.mark.skipif(
    not (ORACLE / "teacher_r18.npz").is_file(),
    reason="no reference outputs: set AUTOLABEL_ORACLE to the oracle folder",
)
CASES = {"teacher": TEACHER, "student": STUDENT}
cases = pytest.mark.parametrize("name", CASES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One forward pass whose pooling is fed with the published cells."""

    arrays: Mapping[str, NDArray[Any]]
    weights_crc: int
    points: MovedPoints
    outputs: Outputs


@cache
def run(name: str) -> Run:
    case = CASES[name]
    arrays = load_arrays(ORACLE, case.file)
    network = build_network(preset(case.preset).with_reference_parity().network).eval()
    crc = load_formula_weights(network)
    inputs = reference_inputs(load_arrays(ORACLE, TEACHER.file), arrays["sensor2keyego"])
    cells = published_cells(arrays)
    outputs = run_stages(with_cells(network, cells), case, inputs)
    lift = lift_of(network)
    own_cells = lift.cells(inputs, *cells.shape[-2:])
    points = compare_cells(arrays, own_cells, outputs.dense["frustum_ego"], lift.config.grid)
    return Run(arrays=arrays, weights_crc=crc, points=points, outputs=outputs)


def stages(kind: str) -> list[tuple[str, str]]:
    return [(name, stage) for name, case in CASES.items() for stage in getattr(case, kind)]


def assert_equal(error: StageError) -> None:
    print(error)
    assert error.ok, error


@cases
def test_every_published_stage_is_compared(name: str) -> None:
    case: Case = CASES[name]
    arrays = load_arrays(ORACLE, case.file)
    dense = {key.removesuffix("__sub") for key in arrays if key.endswith("__sub")}
    sparse = {key.removesuffix("__feat") for key in arrays if key.endswith("__feat")}
    assert (set(case.dense), set(case.sparse)) == (dense, sparse)


@cases
def test_weights_are_those_of_the_reference(name: str) -> None:
    assert run(name).weights_crc == int(run(name).arrays["weights_crc32"])


@pytest.mark.parametrize(("name", "stage"), stages("dense"))
def test_stage_equals_the_reference(name: str, stage: str) -> None:
    assert_equal(compare_stage(run(name).arrays, stage, run(name).outputs.dense[stage]))


@pytest.mark.parametrize(("name", "stage"), stages("sparse"))
def test_sparse_stage_has_the_sites_and_features_of_the_reference(name: str, stage: str) -> None:
    assert_equal(compare_sparse_stage(run(name).arrays, stage, run(name).outputs.sparse[stage]))


@pytest.mark.parametrize(
    ("name", "stage", "channel"),
    [
        ("teacher", "cam_bev", 5),
        ("teacher", "lidar_bev", 2),
        ("teacher", "lidar_bev", 3),
        ("student", "cam_bev", 5),
    ],
)
def test_planes_are_neither_flipped_nor_transposed(name: str, stage: str, channel: int) -> None:
    got = run(name).outputs.dense[stage][0, channel].numpy()
    want = run(name).arrays[f"{stage}_plane{channel}"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-3)


@cases
def test_argmax_equals_the_reference_outside_small_margins(name: str) -> None:
    classes = compare_classes(run(name).arrays, run(name).outputs.dense["logits"])
    print(classes)
    assert classes.clear_same == classes.clear


@cases
def test_geometry_moves_only_points_on_cell_borders(name: str) -> None:
    print(run(name).points)
    assert run(name).points.ok


@pytest.mark.parametrize(("name", "kind"), [("teacher", FusionTeacher), ("student", CameraStudent)])
def test_types_of_the_presets(name: str, kind: type[torch.nn.Module]) -> None:
    with torch.device("meta"):
        assert isinstance(build_network(preset(CASES[name].preset).network), kind)
