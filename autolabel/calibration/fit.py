"""Calibrate a teacher's confidence on labeled scenes, and fit what refines its labels.

Each step is cross-fitted: a scene is only processed by models fitted on other scenes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from autolabel.calibration.evaluation import (
    SceneCounts,
    collect_counts,
    predictions_with_truth,
    require_fit,
    scenes_with_bar,
)
from autolabel.calibration.lidar_reference import lidar_reference
from autolabel.confidence.calibration import FOLDS, Calibration, select_method
from autolabel.confidence.meta_classifier import MetaClassifier, MetaFit, TooFewVoxelsError
from autolabel.confidence.risk_control import CalibrationCounts
from autolabel.labeling.config import LabelingConfig, config_signature
from autolabel.labeling.pipeline import frame_evidence
from autolabel.refinement.crops import CropDraws
from autolabel.refinement.fit import RefinerFit
from autolabel.refinement.temporal_fusion import FrameEvidence, Refiner, windows
from datasets.files.json_files import json_text
from datasets.frames import SceneSource
from datasets.labels.calibration_record import ReliabilityCounts
from datasets.labels.domain import ConfidenceDomain, LogDomain, Reference
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.metrics.confusion import ScoreTable
from models.checkpoints.checkpoint import CALIBRATION_KEY, DOMAIN_KEY, EVIDENCE_KEY
from models.inference.predictor import OccupancyPredictor

T = TypeVar("T")
VOXELS = 1_600_000
"""To learn from, at most, however many frames there are."""
REFINER_FOLDS = 3
"""Each trains a network for minutes."""
MIN_SCENES = 3
"""To fit a meta classifier. Scenes left out of its fit decide whether it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFitted(Generic[T]):
    """What was fitted on all scenes, and for each scene what was fitted on others (on all, where
    there are too few to part)."""

    on_all: T
    held_out: dict[str, T]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibrated:
    """A calibration, counts for error bounds on labels made with it, the teacher's scores, and
    where all this holds."""

    calibration: Calibration
    evidence: CalibrationCounts
    table: ScoreTable
    domain: ConfidenceDomain

    def metadata(self) -> dict[str, str]:
        """For a weights file."""
        return metadata_of(self.calibration, self.evidence, self.domain)


def metadata_of(
    calibration: Calibration, evidence: CalibrationCounts, domain: ConfidenceDomain
) -> dict[str, str]:
    """For a weights file."""
    return {
        CALIBRATION_KEY: json_text(calibration.to_json()),
        EVIDENCE_KEY: json_text(evidence.to_json()),
        DOMAIN_KEY: json_text(domain.to_json()),
    }


def calibrate(
    teacher: OccupancyPredictor,
    source: SceneSource,
    truth: GroundTruthTargets,
    scene_ids: Sequence[str],
    config: LabelingConfig,
    *,
    kind: str,
) -> Calibrated:
    """Calibrate a teacher on labeled scenes it was not trained on.

    With ``config.refinement`` refiners are fitted first. From ``MIN_SCENES`` on, so is a meta
    classifier; it is kept if it lowers the log loss. Each scene is calibrated on, and counted, as
    models fitted without it label it.

    Raises:
        SetupError: the benchmark has another grid, other classes or another frame than the preset.
        SceneError: a file of a scene or of its truth is bad.
    """
    refiners = None
    if config.refinement is not None:
        refiners = fit_refiners(teacher, source, truth, scene_ids, config)
    refine = refiners.held_out if refiners else None
    classifiers = fit_classifiers(teacher, source, truth, scene_ids, config, refine)
    classify = classifiers.held_out if classifiers else None
    measured = collect_counts(teacher, source, truth, scene_ids, config, refine, classify)
    min_free_rays = measured.passes.best()
    counts = measured.by_softmax
    calibration, evidence = fit_calibration(counts, min_free_rays)
    if classifiers:
        softmax = calibration.method_scores
        by_meta, evidence_by_meta = fit_calibration(measured.by_meta, min_free_rays)
        meta = tuple(replace(scores, meta=True) for scores in by_meta.method_scores)
        if min(c.log_loss for c in meta) < min(c.log_loss for c in softmax):
            calibration, evidence = replace(by_meta, meta=classifiers.on_all), evidence_by_meta
            counts = measured.by_meta
        calibration = replace(calibration, method_scores=softmax + meta)
    return Calibrated(
        calibration=replace(calibration, refiner=refiners.on_all if refiners else None),
        evidence=replace(evidence, config_signature=config_signature(config)),
        table=measured.table,
        domain=ConfidenceDomain(
            logs=(
                LogDomain(
                    source=kind,
                    log=source.name,
                    licence=source.licence,
                    scenes=len(counts),
                    frames=sum(len(scene.statistics) for scene in counts),
                    reference=Reference.of([scene.statistics for scene in counts]),
                ),
            ),
            lidar=lidar_reference(counts, calibration, teacher.preset.taxonomy),
        ),
    )


def fit_calibration(
    scenes: Sequence[SceneCounts], min_free_rays: int
) -> tuple[Calibration, CalibrationCounts]:
    """Calibration from counts, and what its confidence was worth on scenes left out of its fit."""
    calibration, seen, right = select_method([s.trustable(min_free_rays) for s in scenes])
    evidence = CalibrationCounts(
        scene_ids=tuple(s.scene_id for s in scenes),
        seen=seen,
        right=right,
        free_id=scenes[0].observed.free_id,
    )
    counted = [s.occupancy for s in scenes if s.occupancy is not None]
    occupancy = None
    if counted:
        n, good = (
            np.sum([calibration.by_level(of).sum(0) for of in parts], axis=0)
            for parts in ([c.seen for c in counted], [c.right for c in counted])
        )
        occupancy = ReliabilityCounts(seen=n, right=good)
    calibration = replace(calibration, min_free_rays=min_free_rays, occupancy=occupancy)
    return calibration, evidence


def fit_refiners(
    teacher: OccupancyPredictor,
    source: SceneSource,
    truth: GroundTruthTargets,
    scene_ids: Sequence[str],
    config: LabelingConfig,
) -> CrossFitted[Refiner]:
    """Weights of neighbouring frames, fitted on labeled scenes in ``FOLDS`` folds.
    Raises as ``calibrate``, and ``ValueError`` if the configuration has no refinement."""
    refinement = config.refinement
    if refinement is None:
        raise ValueError("the configuration has no refinement")
    require_fit(teacher, truth, config.input_spec(teacher.preset.inputs))
    n_frames, taxonomy, grid = (
        _n_frames(source, scene_ids),
        teacher.preset.taxonomy,
        teacher.preset.grid,
    )
    learning = RefinerFit(
        taxonomy,
        refinement,
        per_frame=min(4000, VOXELS // n_frames),
        crops=CropDraws(grid, taxonomy.n_classes, n_frames, free_id=taxonomy.free_id),
    )
    scene_of: list[int] = []
    for s, (scene, bar) in enumerate(scenes_with_bar(source, scene_ids, "learn to refine")):
        originals = {frame.token: frame for frame in scene.frames}
        evidence = frame_evidence(scene, source, teacher, config)
        for window, k in windows(evidence, refinement.reach):
            frame, _ = window[k]
            expected = truth.labels(originals[frame.token])
            near: list[FrameEvidence] = [neighbour for _, neighbour in window]
            learning.update(near, k, grid, expected, scene.scene_id)
            scene_of.append(s)
            bar.update()
    return _cross_fitted(learning.fit, scene_of, scene_ids, "fit the refiner", REFINER_FOLDS)


def fit_classifiers(
    teacher: OccupancyPredictor,
    source: SceneSource,
    truth: GroundTruthTargets,
    scene_ids: Sequence[str],
    config: LabelingConfig,
    refiners: Mapping[str, Refiner] | None = None,
) -> CrossFitted[MetaClassifier] | None:
    """Meta classifiers, fitted on labeled scenes in ``FOLDS`` folds; None below ``MIN_SCENES``, or
    if too few voxels are known. Raises as ``calibrate``."""
    if len(scene_ids) < MIN_SCENES:
        return None
    preset = teacher.preset
    grid, taxonomy = preset.grid, preset.taxonomy
    # of each frame three quarters are predicted occupied
    per_frame = 3 * VOXELS // (4 * _n_frames(source, scene_ids))
    learning = MetaFit(taxonomy.n_classes, taxonomy.free_id, per_frame=min(4500, per_frame))
    scene_of: list[int] = []
    scenes = predictions_with_truth(
        teacher, source, truth, scene_ids, config, refiners, "learn what is sure"
    )
    for s, (_, predictions) in enumerate(scenes):
        for labeled in predictions:
            voxels = learning.draw(labeled.prediction.semantics, labeled.known)
            features = labeled.prediction.features(voxels, grid, taxonomy)
            learning.update(features, labeled.right.ravel()[voxels])
            scene_of.append(s)
    try:
        return _cross_fitted(learning.fit, scene_of, scene_ids, "fit the meta classifier")
    except TooFewVoxelsError:
        return None


def _cross_fitted(
    fit: Callable[[Sequence[int] | None], T],
    scene_of: Sequence[int],
    scene_ids: Sequence[str],
    task: str,
    max_folds: int = FOLDS,
) -> CrossFitted[T]:
    """``fit`` on all frames, and without those of every fold of scenes; several at a time, each on
    its share of the cores."""
    n = min(max_folds, len(scene_ids))
    folds = [[i for i, s in enumerate(scene_of) if s % n != f] for f in range(n)] if n > 1 else []
    threads = torch.get_num_threads()
    at_once = min(threads, len(folds) + 1)
    with ThreadPoolExecutor(
        at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,)
    ) as pool:
        fitted = pool.map(fit, [None, *folds])
        on_all, *by_fold = tqdm(fitted, total=len(folds) + 1, desc=task, unit="fit")
    torch.set_num_threads(threads)  # MKL's number is one for all threads
    by_fold = by_fold or [on_all]
    held_out = {scene_id: by_fold[s % len(by_fold)] for s, scene_id in enumerate(scene_ids)}
    return CrossFitted(on_all=on_all, held_out=held_out)


def _n_frames(source: SceneSource, scene_ids: Sequence[str]) -> int:
    return max(1, sum(len(source.scene(scene_id).frames) for scene_id in scene_ids))
