"""What the published metric code says about known grids, and how far ours is from it.

An oracle folder holds three cases (``metrics_cases.npz``) and what the published code of Occ3D,
OpenOccupancy, SparseOcc and the occupancy and flow challenge made of them, singly and accumulated
(``metrics_expected.json``). Its README explains every key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.occ3d_nuscenes import GRID
from datasets.benchmarks.occ3d_waymo import FREE_ON_DISK
from datasets.metrics.confusion import ConfusionMatrix
from datasets.metrics.fscore import FScore
from datasets.metrics.occ3d_waymo import WaymoScore
from datasets.metrics.openoccupancy import OpenOccupancyScore
from datasets.metrics.rays import RayScore, lidar_rays, ray_ends
from datasets.taxonomy import (
    IGNORE_ID,
    OCC3D_NUSCENES,
    OCC3D_WAYMO,
    OPENOCC_FLOW,
    OPENOCCUPANCY,
)

Arrays = Mapping[str, NDArray[Any]]
Labels = NDArray[np.uint8]
ACCUMULATED = "ALL_IN_ORDER"
TOLERANCE = 1e-12
"""Of fractions, m/s and metres: float64 sums in another order."""
_UNLABELLED = (17, IGNORE_ID)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One quantity over all cases.

    Attributes:
        quantity: its name; values: how many numbers were compared.
        error: the largest difference; inf where only one of the two is undefined.
        allowed: for ``error``.
    """

    quantity: str
    values: int
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        return self.error <= self.allowed


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One frame: Occ3D labels, masks and ray origins (T, 3) in metres."""

    truth: Labels
    prediction: Labels
    camera: NDArray[np.bool_]
    lidar: NDArray[np.bool_]
    in_view: NDArray[np.bool_]
    origins_m: NDArray[np.float64]


def read_case(arrays: Arrays, name: str) -> Case:
    """One of the cases. Raises ``KeyError`` for an unknown one."""
    truth = arrays[f"{name}__gt"]
    masks = (
        np.unpackbits(arrays[f"{name}__mask_{kind}"], count=truth.size).astype(bool)
        for kind in ("camera", "lidar", "infov")
    )
    camera, lidar, in_view = (mask.reshape(truth.shape) for mask in masks)
    return Case(
        truth=truth,
        prediction=arrays[f"{name}__pred"],
        camera=camera,
        lidar=lidar,
        in_view=in_view,
        origins_m=arrays[f"{name}__origins"],
    )


def as_waymo(labels: Labels, *, free: int) -> Labels:
    """The cases' labels in Waymo's ids, with free space as in files or as in predictions."""
    out = np.where(labels == 17, free, labels % 15)
    return np.where(labels == IGNORE_ID, IGNORE_ID, out).astype(np.uint8)


def as_openoccupancy(labels: Labels) -> Labels:
    out = np.where(labels == 17, 0, labels % 16 + 1)
    return np.where(labels == IGNORE_ID, IGNORE_ID, out).astype(np.uint8)


def as_openocc_flow(labels: Labels) -> Labels:
    return np.where(np.isin(labels, _UNLABELLED), 16, labels % 16).astype(np.uint8)


def flows(arrays: Arrays, truth: Labels, prediction: Labels) -> tuple[NDArray[np.float32], ...]:
    """(X, Y, Z, 2) m/s of truth and prediction, given in the ids of ``OPENOCC_FLOW``."""
    along_x = np.float32(0.5) + np.arange(truth.shape[0], dtype=np.float32) / np.float32(200)
    factor = along_x[:, None, None, None]
    return arrays["flow_table_gt"][truth], arrays["flow_table_pred"][prediction] * factor


def compare(arrays: Arrays, expected: Mapping[str, Any]) -> list[Difference]:
    """Every number of ``metrics_expected.json``.

    Raises:
        KeyError: an array or an expected number is not there.
    """
    order = expected["_order"]
    cases = {name: read_case(arrays, name) for name in order}
    errors: dict[str, list[tuple[float, int]]] = {}
    allowed: dict[str, float] = {}

    def note(quantity: str, got: Any, wanted: Any, tolerance: float = 0.0) -> None:
        a, b = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
        error = float("inf")
        if b.ndim == 0 and np.isnan(b):  # null for all of it
            b = np.full(a.shape, np.nan)
        if a.shape == b.shape and (np.isnan(a) == np.isnan(b)).all():
            error = float(np.abs(a - b)[~np.isnan(a)].max(initial=0.0))
        errors.setdefault(quantity, []).append((error, b.size))
        allowed[quantity] = tolerance

    for name in (*order, ACCUMULATED):
        frames = [cases[n] for n in (order if name == ACCUMULATED else [name])]
        wanted = expected[name]
        _occ3d(note, frames, wanted)
        _waymo(note, frames, wanted)
        _openoccupancy(note, frames, wanted["openoccupancy"])
        _rays(note, arrays, frames, wanted["ray"])
    _rendered(note, arrays, cases[str(arrays["ray_render_case"])])
    return [
        Difference(
            quantity=quantity,
            values=sum(n for _, n in of_quantity),
            error=max(e for e, _ in of_quantity),
            allowed=allowed[quantity],
        )
        for quantity, of_quantity in errors.items()
    ]


def _numbers(values: Mapping[str, Any] | Sequence[Any] | None) -> NDArray[np.float64]:
    """null is NaN."""
    if values is None:
        return np.array(np.nan)
    return np.asarray(list(values.values() if isinstance(values, Mapping) else values), np.float64)


def _percent(values: Any) -> Any:
    return np.round(100 * np.asarray(values, np.float64), 2)


def _occ3d(note: Any, frames: Sequence[Case], wanted: Mapping[str, Any]) -> None:
    semantic = OCC3D_NUSCENES.semantic_ids
    for kind in ("camera", "lidar", "no"):
        matrix = ConfusionMatrix(OCC3D_NUSCENES.n_classes)
        for case in frames:
            mask = {"camera": case.camera, "lidar": case.lidar, "no": None}[kind]
            matrix.update(case.truth, case.prediction, mask)
        key = f"occ3d_miou_{kind}_mask"
        _miou(note, f"Occ3D, {kind} mask", matrix, semantic, wanted[key])
    fscore = FScore(GRID, OCC3D_NUSCENES.free_id)
    want = wanted["occ3d_fscore_camera_mask"]
    undefined = False
    try:
        for case in frames:
            fscore.update(case.truth, case.prediction, case.camera)
    except ValueError:
        undefined = True
    note("Occ3D, camera mask: F-score undefined", undefined, "raises" in want)
    if not undefined and "raises" not in want:
        means = [want["acc"], want["completeness"], want["fscore"]]
        note("Occ3D, camera mask: F-score", fscore.sums / fscore.frames, means, TOLERANCE)


def _miou(
    note: Any,
    name: str,
    matrix: ConfusionMatrix,
    semantic: tuple[int, ...],
    want: Mapping[str, Any],
) -> None:
    iou, miou = matrix.iou(), matrix.miou(semantic)
    note(f"{name}: voxel counts", matrix.counts, want["hist"])
    note(f"{name}: IoU per class", iou, _numbers(want["iou_all_classes"]), TOLERANCE)
    note(f"{name}: mIoU", [miou], _numbers([want["miou_unrounded"]]) / 100, TOLERANCE)
    reported = _percent([*iou[list(semantic)], miou])
    note(f"{name}: as reported, %", reported, _numbers(want["reported"]), TOLERANCE)


def _waymo(note: Any, frames: Sequence[Case], wanted: Mapping[str, Any]) -> None:
    K = OCC3D_WAYMO.n_classes
    for kind in ("infov_camera", "infov_lidar_camera"):
        score = WaymoScore()
        for case in frames:
            masks = [case.in_view, case.camera] + ([case.lidar] if "lidar" in kind else [])
            truth = as_waymo(case.truth, free=FREE_ON_DISK)
            score.update_masked(truth, as_waymo(case.prediction, free=15), *masks)
        name, want = f"Waymo, {kind.replace('_', ' and ')}", wanted[f"waymo_miou_{kind}"]
        _miou(note, name, score, OCC3D_WAYMO.semantic_ids, want)
        # the published counts, unlike its scores, are of every masked voxel, unlabelled ones too
        sides = {"gt_count": np.zeros(256, np.int64), "pred_count": np.zeros(256, np.int64)}
        for case in frames:
            mask = case.in_view & case.camera
            if "lidar" in kind:
                mask &= case.lidar
            sides["gt_count"] += np.bincount(as_waymo(case.truth, free=15)[mask], minlength=256)
            sides["pred_count"] += np.bincount(
                as_waymo(case.prediction, free=15)[mask], minlength=256
            )
        for side, counts in sides.items():
            published = [want[side].get(str(c), 0) for c in range(K)]
            note(f"{name}: voxels per class", counts[:K], published)


def _openoccupancy(note: Any, frames: Sequence[Case], want: Mapping[str, Any]) -> None:
    score, visible, published = (OpenOccupancyScore() for _ in range(3))
    for case in (frames[0], *frames):  # the published code counts the first frame twice
        published.update(as_openoccupancy(case.truth), as_openoccupancy(case.prediction))
    for case in frames:
        truth, prediction = as_openoccupancy(case.truth), as_openoccupancy(case.prediction)
        score.update(truth, prediction)
        visible.update(truth, prediction, case.camera)
    occupancy = score.occupancy(OPENOCCUPANCY.free_id)
    note("OpenOccupancy: voxel counts", score.counts, want["SSC_hist"])
    note("OpenOccupancy: voxel counts, camera mask", visible.counts, want["SSC_visible_hist"])
    note("OpenOccupancy: occupied voxel counts", occupancy.counts, want["SC_hist"])
    note("OpenOccupancy: SC IoU", occupancy.iou(), _numbers(want["SC_iou"]), TOLERANCE)
    note("OpenOccupancy: SSC IoU per class", score.iou(), _numbers(want["SSC_iou"]), TOLERANCE)
    mean = _numbers([want["SSC_mean_unrounded"]])
    note("OpenOccupancy: SSC mIoU", [score.ssc_miou()], mean, TOLERANCE)
    name = "OpenOccupancy: as printed, first frame twice"
    printed = _numbers(want["repo_evaluate_output"])
    values = [published.sc_iou(), *published.iou(), published.ssc_miou()]
    note(name, np.round(values, 3), printed, TOLERANCE)


def _rays(note: Any, arrays: Arrays, frames: Sequence[Case], want: Mapping[str, Any]) -> None:
    score, occ3d = RayScore(OPENOCC_FLOW, GRID), RayScore(OCC3D_NUSCENES, GRID)
    for case in frames:
        truth, prediction = as_openocc_flow(case.truth), as_openocc_flow(case.prediction)
        v, w = flows(arrays, truth, prediction)
        score.update(truth, prediction, case.origins_m, truth_flow=v, predicted_flow=w)
        occ3d.update(case.truth, case.prediction, case.origins_m)
    iou, semantic = score.iou(), list(OPENOCC_FLOW.semantic_ids)
    note("rays: valid rays", score.truth.sum(), sum(want["n_valid_rays"]))
    n_rays = len(lidar_rays()) * sum(len(case.origins_m) for case in frames)
    note("rays: without a hit", score.missed, n_rays - sum(want["n_valid_rays"]))
    note(
        "rays: IoU per class and threshold",
        iou[:, semantic],
        np.array(want["iou_at_1_2_4"], np.float64),
        TOLERANCE,
    )
    note("rays: IoU per threshold", score.threshold_iou(), _numbers(want["mean_iou"]), TOLERANCE)
    note("rays: RayIoU", score.ray_iou(), want["miou"], TOLERANCE)
    error = score.velocity_errors()[semantic]
    note("rays: AVE per class, m/s", error, _numbers(want["ave_per_class_tp2m"]), TOLERANCE)
    note("rays: mAVE, m/s", score.mave(), want["mave"], TOLERANCE)
    note(
        "rays: OccScore", score.occ_score(), (want["repo_return"] or {}).get("occ_score"), TOLERANCE
    )
    sparseocc = want["occ3d18_sparseocc"] or {"summary": None, "iou_at_1_2_4": None}
    summary = sparseocc["summary"] or {}
    iou = occ3d.iou()
    means = [occ3d.ray_iou(), *occ3d.threshold_iou()]
    keys = ("RayIoU", "RayIoU@1", "RayIoU@2", "RayIoU@4")
    note("rays, Occ3D classes: RayIoU", means, [summary.get(k) for k in keys], TOLERANCE)
    note(
        "rays, Occ3D classes: IoU per class and threshold",
        iou[:, list(OCC3D_NUSCENES.semantic_ids)],
        np.array(sparseocc["iou_at_1_2_4"], np.float64),
        TOLERANCE,
    )


def _rendered(note: Any, arrays: Arrays, case: Case) -> None:
    rays = lidar_rays()
    note("rays: number", len(rays), arrays["n_lidar_rays"])
    note("rays: directions", rays[::97], arrays["lidar_rays_every97"])
    starts = np.repeat(case.origins_m, len(rays), axis=0)
    directions = np.tile(rays, (len(case.origins_m), 1))
    ends = ray_ends(as_openocc_flow(case.truth), GRID, 16, starts, directions)
    published = arrays["ray_render_gt_every7"]
    along = (starts + directions) - starts
    unit = along / np.sqrt((along**2).sum(axis=1, keepdims=True))
    points = (starts + unit * ends.distance_m[:, None]).astype(np.float32)
    note("rays: labels", ends.label[::7], published[:, 3])
    note("rays: distances, m", ends.distance_m[::7], published[:, 4])
    note("rays: end points, m", points[::7], published[:, :3])
