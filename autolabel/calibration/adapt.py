"""Recalibrate on a new log from a handful of frames whose truth is known.

A few frames say little of each class at each confidence, and much of how far the old maps are off.
So the maps are moved in steps, each leaning on the one before where there is little to learn from:
the old map of a class; that map with its log odds stretched and shifted, by as much as the frames
ask for in its group of classes (Platt scaling, 1999, here of a calibrated probability); and the
class's own frequencies, rising with confidence. Voxels of a frame are far from independent, so they
count as ``VOICES`` of each group at most.

What a map is worth, and which error bounds it allows, is measured on frames left out of its fit:
whole scenes where there are enough, else single frames, which is optimistic where they are of one
drive.

Legend: R rings of distance, K classes, B bins of raw confidence, L levels, U units left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from tqdm import tqdm

from autolabel.calibration.evaluation import (
    SceneCounts,
    count_frame,
    labeled_prediction,
    no_counts,
)
from autolabel.calibration.lidar_reference import lidar_reference
from autolabel.confidence.calibration import RINGS, Calibration, fitted_tables, isotonic_maps
from autolabel.confidence.held_out_sweeps import held_out, vote_evidence
from autolabel.confidence.risk_control import CalibrationCounts
from autolabel.labeling.config import LabelingConfig, config_signature
from autolabel.labeling.lidar_check import said_of
from autolabel.labeling.pipeline import predict_frames
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import SetupError
from datasets.frames import Frame, SceneSource
from datasets.labels.calibration_record import ReliabilityCounts
from datasets.labels.domain import ConfidenceDomain, LogDomain, Reference
from datasets.taxonomy import Taxonomy
from models.inference.predictor import OccupancyPredictor

VOICES = 200.0
"""Voxels that those of one group in one frame count as."""
SPREAD_OF_STRETCH, SPREAD_OF_SHIFT = 0.5, 3.0
"""Standard deviations of what is expected of a new log, in log odds."""
MIN_UNITS = 5
"""To measure an error bound on."""

Step = Literal["old", "shifted", "by class"]
"""How far maps are moved."""
Maps = NDArray[np.float64]
TruthOf = Callable[[Frame], GroundTruth | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCounts:
    """Counts of one frame, the scene that it is of, and its statistics."""

    scene_id: str
    token: str
    counts: SceneCounts
    statistics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapted:
    """Attributes:
    units: ``scenes`` or ``frames`` that were left out in turn.
    """

    calibration: Calibration
    evidence: CalibrationCounts
    domain: ConfidenceDomain
    units: str


def count_frames(
    teacher: OccupancyPredictor,
    calibration: Calibration,
    source: SceneSource,
    truth_of: TruthOf,
    scene_ids: Sequence[str],
    config: LabelingConfig,
) -> list[FrameCounts]:
    """Label scenes as a job would and compare the frames whose truth is known with it.

    Args:
        source: opened with ``HELD_OUT_SWEEPS`` future sweeps.

    Raises:
        SceneError: a file of a scene or of its truth is bad.
        SetupError: the truth of no frame is known.
    """
    preset = teacher.preset
    grid, taxonomy = preset.grid, preset.taxonomy
    out = []
    for scene_id in tqdm(scene_ids, desc="compare", unit="scene"):
        scene = source.scene(scene_id)
        truths = {frame.token: truth for frame in scene.frames if (truth := truth_of(frame))}
        if not truths:
            continue
        for prediction in predict_frames(scene, source, teacher, config, calibration.refiner):
            token = prediction.frame.token
            if (expected := truths.get(token)) is None:
                continue
            labeled = labeled_prediction(prediction, expected, preset, config)
            counts = no_counts(token, taxonomy, asked=held_out(prediction.frame) > 0)
            voxels, said = labeled.known, None
            if counts.asked is not None:
                voxels = labeled.visibility.observed
                said = said_of(vote_evidence(source, prediction.frame, grid))
            raw = prediction.raw_confidence(calibration.meta, voxels, grid, taxonomy)
            count_frame(counts, labeled, raw, taxonomy, grid, said)
            out.append(
                FrameCounts(
                    scene_id=scene_id,
                    token=token,
                    counts=counts,
                    statistics=prediction.statistics,
                )
            )
    if not out:
        raise SetupError("adapt: no frame has ground truth or a review")
    return out


def adapt(
    frames: Sequence[FrameCounts],
    calibration: Calibration,
    taxonomy: Taxonomy,
    config: LabelingConfig,
    log: LogDomain,
    before: ConfidenceDomain | None,
    *,
    step: Step = "by class",
) -> Adapted:
    """The calibration for the log that the frames are of.

    Args:
        log: what the adapted confidence holds on, without its reference.
        before: the domain of the old confidence, whose LiDAR reference is kept where no held-out
            sweep follows the frames; else it is measured anew: LiDARs differ in what they graze.
        step: how far the maps are moved; less for trials.
    """
    scenes = list(dict.fromkeys(frame.scene_id for frame in frames))
    by_scene = len(scenes) >= MIN_UNITS
    unit_of = [scenes.index(f.scene_id) if by_scene else i for i, f in enumerate(frames)]
    n_units = max(unit_of) + 1
    parts = [frame.counts.trustable(calibration.min_free_rays) for frame in frames]
    maps = _maps(calibration)

    def moved(used: Sequence[int]) -> Maps:
        seen, right = (np.sum([parts[i].by_ring()[k] for i in used], axis=0) for k in (0, 1))
        return _moved(maps, seen, right, len(used), taxonomy, step)

    everything = list(range(len(frames)))
    total = np.sum([part.by_ring()[0] for part in parts], axis=0)
    table, levels = fitted_tables(moved(everything), total)
    R, K, _ = table.shape
    seen = np.zeros((n_units, R, K, len(levels)), np.int64)
    right = np.zeros_like(seen)
    for unit in tqdm(range(n_units), desc="leave out", unit=("scene" if by_scene else "frame")):
        others = [i for i in everything if unit_of[i] != unit]
        without = fitted_tables(moved(others), total)[0] if others else table
        for i in everything:
            if unit_of[i] != unit:
                continue
            for out, counts in zip((seen, right), parts[i].by_ring(), strict=True):
                for r, k in np.ndindex(R, K):
                    out[unit, r, k] += np.bincount(
                        without[r, k], counts[r, k], minlength=len(levels)
                    ).astype(np.int64)
    names = scenes if by_scene else [frame.token for frame in frames]
    evidence = CalibrationCounts(
        scene_ids=tuple(names),
        seen=seen,
        right=right,
        free_id=taxonomy.free_id,
        config_signature=config_signature(config),
        unit="scenes" if by_scene else "frames",
        min_units=MIN_UNITS,
    )
    adapted = replace(
        calibration,
        levels=levels,
        table=table,
        counts=tuple(int(n) for n in total.sum((0, 2))),
        method="adapted",
        method_scores=(),
        reliability=ReliabilityCounts(seen=seen.sum((0, 1)), right=right.sum((0, 1))),
        occupancy=None,
    )
    counted = [f.counts.occupancy for f in frames if f.counts.occupancy is not None]
    n, good = (
        np.sum([adapted.by_level(part).sum(0) for part in of], axis=0)
        for of in ([c.seen for c in counted], [c.right for c in counted])
    )
    adapted = replace(adapted, occupancy=ReliabilityCounts(seen=n, right=good))
    lidar = lidar_reference([frame.counts for frame in frames], adapted, taxonomy)
    statistics = [[f.statistics for f in frames if f.scene_id == scene] for scene in scenes]
    domain = ConfidenceDomain(
        logs=(
            replace(
                log,
                scenes=len(scenes),
                frames=len(frames),
                reference=Reference.of(statistics),
            ),
        ),
        lidar=lidar or (None if before is None else before.lidar),
    )
    return Adapted(
        calibration=adapted,
        evidence=evidence,
        domain=domain,
        units="scenes" if by_scene else "frames",
    )


def _maps(calibration: Calibration) -> Maps:
    """(R, K, B) what confidence claims now."""
    values = np.asarray(calibration.levels)[calibration.table]
    return np.broadcast_to(values, (len(RINGS.names), *values.shape[1:]))


def _moved(
    maps: Maps,
    seen: NDArray[np.int64],
    right: NDArray[np.int64],
    frames: int,
    taxonomy: Taxonomy,
    step: Step,
) -> Maps:
    """(R, K, B) the maps as the frames ask for."""
    out = maps.copy()
    if step == "old":
        return out
    for ids in taxonomy.class_groups().values():
        group = list(ids)
        n, good = seen[:, group].astype(np.float64), right[:, group].astype(np.float64)
        weight = min(1.0, VOICES * frames / max(1.0, float(n.sum())))
        stretch, shift = _stretched(maps[:, group], weight * n, weight * good)
        out[:, group] = _sigmoid(stretch * _log_odds(maps[:, group]) + shift)
        if step == "by class":
            out[:, group] = isotonic_maps(out[:, group], weight * n, weight * good)
    return out


def _stretched(maps: Maps, seen: Maps, right: Maps) -> tuple[float, float]:
    """Stretch and shift of the log odds with the best posterior."""
    odds = _log_odds(maps).ravel()
    n, good = seen.ravel(), right.ravel()
    used = n > 0
    odds, n, good = odds[used], n[used], good[used]

    def loss(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        stretch, shift = x
        p = _sigmoid(stretch * odds + shift)
        sure = p.clip(1e-9, 1 - 1e-9)
        off = n * p - good
        value = -(good * np.log(sure) + (n - good) * np.log1p(-sure)).sum()
        value += ((stretch - 1) / SPREAD_OF_STRETCH) ** 2 / 2 + (shift / SPREAD_OF_SHIFT) ** 2 / 2
        gradient = np.array(
            [
                (off * odds).sum() + (stretch - 1) / SPREAD_OF_STRETCH**2,
                off.sum() + shift / SPREAD_OF_SHIFT**2,
            ]
        )
        return float(value), gradient

    found = optimize.minimize(
        loss, np.array([1.0, 0.0]), jac=True, bounds=[(0.05, 3.0), (-12.0, 12.0)]
    )
    return float(found.x[0]), float(found.x[1])


def _sigmoid(x: Maps) -> Maps:
    return np.asarray(1 / (1 + np.exp(-x)))


def _log_odds(p: Maps) -> Maps:
    p = p.clip(0.01, 0.998)
    return np.asarray(np.log(p / (1 - p)))
