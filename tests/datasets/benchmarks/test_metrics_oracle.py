"""Every published metric against figures of the published code, and that a difference is named."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run_script
from metric_cases import Arrays, Difference, as_waymo, compare, read_case
from network_stages import load_arrays, oracle_folder

ORACLE = oracle_folder(os.environ)
needs_oracle = pytest.mark.skipif(
    not (ORACLE / "metrics_cases.npz").is_file(),
    reason="no reference outputs: set AUTOLABEL_ORACLE to the oracle folder",
)


@cache
def oracle() -> tuple[Arrays, Mapping[str, Any]]:
    expected = json.loads((ORACLE / "metrics_expected.json").read_text())
    return load_arrays(ORACLE, "metrics_cases"), expected


@cache
def differences() -> dict[str, Difference]:
    return {d.quantity: d for d in compare(*oracle())}


@needs_oracle
def test_every_published_number_comes_out() -> None:
    assert [d for d in differences().values() if not d.ok] == []
    assert sum(d.values for d in differences().values()) > 40_000


@needs_oracle
@pytest.mark.parametrize(
    "kind",
    [
        *("Occ3D, camera mask", "Occ3D, lidar mask", "Occ3D, no mask", "F-score"),
        *("Waymo, infov and camera", "Waymo, infov and lidar and camera"),
        *("OpenOccupancy: SC IoU", "SSC mIoU", "first frame twice"),
        *("rays: RayIoU", "AVE per class", "mAVE", "OccScore", "Occ3D classes: RayIoU"),
        *("rays: labels", "rays: distances", "rays: directions"),
    ],
)
def test_every_kind_of_number_is_among_them(kind: str) -> None:
    assert any(kind in quantity for quantity in differences())


@needs_oracle
def test_counts_and_ray_distances_are_equal_to_the_last_bit() -> None:
    exact = [d for d in differences().values() if d.allowed == 0]
    assert len(exact) > 10 and all(d.error == 0 for d in exact)


@needs_oracle
def test_counting_frame_one_once_is_not_the_published_openoccupancy_figure() -> None:
    _, expected = oracle()
    once = expected["ALL_IN_ORDER"]["openoccupancy"]
    printed = once["repo_evaluate_output"]["SSC_mean"]
    assert round(once["SSC_mean_unrounded"], 3) != printed
    assert differences()["OpenOccupancy: as printed, first frame twice"].error == 0


@needs_oracle
def test_what_differs_is_named_and_fails_the_command(tmp_path: Path) -> None:
    arrays, expected = oracle()
    first = expected["_order"][0]
    changed = json.loads(json.dumps({"_order": [first], first: expected[first]}))
    changed["ALL_IN_ORDER"] = changed[first]
    changed[first]["ray"]["mave"] += 1e-6
    changed[first]["occ3d_miou_no_mask"]["iou_all_classes"][3] = None
    wrong = {d.quantity for d in compare(arrays, changed) if not d.ok}
    assert wrong == {"rays: mAVE, m/s", "Occ3D, no mask: IoU per class"}
    np.savez(tmp_path / "metrics_cases.npz", **arrays)
    (tmp_path / "metrics_expected.json").write_text(json.dumps(changed))
    done = run("--oracle", str(tmp_path))
    assert done.returncode == 1
    assert all(quantity in done.stderr for quantity in wrong)


def _case_of(name: str, arrays: Arrays, truth: np.ndarray[Any, Any]) -> Arrays:
    return {**arrays, f"{name}__gt": truth.astype(np.uint8)}


@needs_oracle
def test_a_truth_that_is_all_free_is_compared_and_null() -> None:
    arrays, expected = oracle()
    first = expected["_order"][0]
    free = np.full_like(arrays[f"{first}__gt"], 17)
    ray = {"n_valid_rays": [0], "repo_return": None, "occ3d18_sparseocc": None}
    ray |= dict.fromkeys(("iou_at_1_2_4", "ave_per_class_tp2m", "mean_iou", "miou", "mave"), None)
    one = {**expected[first], "ray": ray}
    changed = {"_order": [first], first: one, "ALL_IN_ORDER": one}
    found = {d.quantity: d for d in compare(_case_of(first, arrays, free), changed)}
    rays = [d for name, d in found.items() if name.startswith("rays") and "hit" not in name]
    fixed = ("rays: labels", "rays: distances, m", "rays: end points, m")
    assert all(d.ok for d in rays if d.quantity not in fixed), rays


@needs_oracle
def test_unlabelled_waymo_voxels_count_as_in_the_published_counts() -> None:
    arrays, expected = oracle()
    first = expected["_order"][0]
    truth = arrays[f"{first}__gt"].copy()
    case = read_case(arrays, first)
    lost = case.in_view & case.camera & (truth == 4)
    truth[lost] = 255
    one = json.loads(json.dumps(expected[first]))
    one["waymo_miou_infov_camera"]["gt_count"].pop("4")
    one["waymo_miou_infov_camera"]["gt_count"]["255"] = int(lost.sum())
    changed = {"_order": [first], first: one, "ALL_IN_ORDER": one}
    found = {d.quantity: d for d in compare(_case_of(first, arrays, truth), changed)}
    others = int((as_waymo(truth, free=15)[case.in_view & case.camera] == 4).sum())
    error = found["Waymo, infov and camera: voxels per class"].error
    assert lost.any() and error == others


run = partial(run_script, "scripts/conformance/check_metrics.py")


def test_a_missing_oracle_is_said(tmp_path: Path) -> None:
    done = run("--oracle", str(tmp_path))
    assert done.returncode == 2 and "AUTOLABEL_ORACLE" in done.stderr
