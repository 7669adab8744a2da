"""Run a teacher over scenes whose truth is known: how often are its labels right, how sure?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from autolabel.confidence.calibration import RINGS, CalibrationHistogram
from autolabel.confidence.drift import mean_of
from autolabel.confidence.meta_classifier import MetaClassifier
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import predict_frames
from autolabel.labeling.prediction import FramePrediction
from autolabel.labeling.trust import visibility_of
from autolabel.labeling.visibility import FREE_PASSES, FreeRayThreshold, Visibility
from autolabel.refinement.temporal_fusion import Refiner
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.frames import Scene, SceneSource, earlier_frames
from datasets.geometry.grid import VoxelGrid
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.metrics.confusion import ConfusionMatrix, ScoreTable
from datasets.model_inputs import InputSpec, collate, prepare_frame
from models.inference.predictor import OccupancyPredictor
from models.presets import Preset


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneCounts:
    """Of one scene: voxels and right ones among those whose truth is known.

    Attributes:
        observed: those that a sensor saw.
        free: of the observed ones predicted free and not hit, by how many of ``FREE_PASSES`` their
            passing rays reach (the class ids are these numbers).
        statistics: see ``drift``.
    """

    scene_id: str
    observed: CalibrationHistogram
    free: CalibrationHistogram
    statistics: dict[str, float] = field(default_factory=dict)

    def trustable(self, min_free_rays: int) -> CalibrationHistogram:
        """Of the observed voxels those that may be trusted if they are sure enough."""
        out = CalibrationHistogram(self.observed.n_classes, free_id=self.observed.free_id)
        out.merge(self.observed)
        short = [i for i, threshold in enumerate(FREE_PASSES) if threshold <= min_free_rays][:-1]
        for total, part in ((out.seen, self.free.seen), (out.right, self.free.right)):
            by_ring = part.reshape(len(RINGS.names), len(FREE_PASSES), -1)
            target = total.reshape(len(RINGS.names), out.n_classes, -1)
            target[:, out.free_id] -= by_ring[:, short].sum(1)
        return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CollectedCounts:
    """Attributes:
    by_softmax, by_meta: of each scene by the softmax, and by a meta classifier (empty without one).
    passes: how many rays must cross a free voxel; table: scores.
    """

    by_softmax: tuple[SceneCounts, ...]
    by_meta: tuple[SceneCounts, ...]
    passes: FreeRayThreshold
    table: ScoreTable


def collect_counts(
    teacher: OccupancyPredictor,
    source: SceneSource,
    truth: GroundTruthTargets,
    scene_ids: Sequence[str],
    config: LabelingConfig,
    refiners: Mapping[str, Refiner] | None = None,
    classifiers: Mapping[str, MetaClassifier] | None = None,
) -> CollectedCounts:
    """Label scenes and count. Raises as ``calibrate``.

    Args:
        refiners: of each scene, for ``config.refinement``; classifiers: of its labels.
    """
    grid, taxonomy = teacher.preset.grid, teacher.preset.taxonomy
    passes = FreeRayThreshold()
    table = _empty_table(teacher, truth)
    by_softmax, by_meta = [], []
    predicted = predictions_with_truth(teacher, source, truth, scene_ids, config, refiners)
    for scene, predictions in predicted:
        counts = [_no_counts(scene, teacher) for _ in range(2 if classifiers else 1)]
        statistics = []
        for labeled in predictions:
            prediction = labeled.prediction
            statistics.append(prediction.statistics)
            occupied = prediction.semantics != taxonomy.free_id
            passes.update(labeled.visibility, occupied, labeled.expected.scored())
            _add(table, labeled.expected, prediction.semantics)
            _count(counts[0], labeled, prediction.raw, occupied, grid)
            if classifiers:
                classifier = classifiers[scene.scene_id]
                raw = prediction.raw_confidence(classifier, labeled.known, grid, taxonomy)
                _count(counts[1], labeled, raw, occupied, grid)
        means = mean_of(statistics)
        by_softmax.append(replace(counts[0], statistics=means))
        by_meta += [replace(scene_counts, statistics=means) for scene_counts in counts[1:]]
    return CollectedCounts(
        by_softmax=tuple(by_softmax), by_meta=tuple(by_meta), passes=passes, table=table
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabeledPrediction:
    """A prediction and its truth; ``known`` (X, Y, Z) are observed voxels whose truth is known."""

    prediction: FramePrediction
    expected: GroundTruth
    visibility: Visibility
    known: NDArray[np.bool_]

    @property
    def right(self) -> NDArray[np.bool_]:
        return np.asarray(self.prediction.semantics == self.expected.semantics)


def predictions_with_truth(
    teacher: OccupancyPredictor,
    source: SceneSource,
    truth: GroundTruthTargets,
    scene_ids: Sequence[str],
    config: LabelingConfig,
    refiners: Mapping[str, Refiner] | None,
    what: str = "calibrate",
) -> Iterator[tuple[Scene, Iterator[LabeledPrediction]]]:
    """Every scene with its predictions, to be read before the next scene's."""
    require_fit(teacher, truth, config.input_spec(teacher.preset.inputs))
    for scene, bar in scenes_with_bar(source, scene_ids, what):
        refiner = refiners[scene.scene_id] if refiners else None
        predictions = predict_frames(scene, source, teacher, config, refiner)
        yield scene, _with_truth(scene, predictions, truth, teacher.preset, config, bar)


def _with_truth(
    scene: Scene,
    predictions: Iterator[FramePrediction],
    truth: GroundTruthTargets,
    preset: Preset,
    config: LabelingConfig,
    bar: tqdm[NoReturn],
) -> Iterator[LabeledPrediction]:
    originals = {frame.token: frame for frame in scene.frames}
    for prediction in predictions:
        expected = truth.labels(originals[prediction.frame.token])
        visibility = visibility_of(prediction, preset, config)
        known = expected.observed() & (expected.semantics < preset.taxonomy.n_classes)
        known &= (visibility.hits > 0) | (visibility.passes > 0) | visibility.visible
        yield LabeledPrediction(
            prediction=prediction, expected=expected, visibility=visibility, known=known
        )
        bar.update()


def _no_counts(scene: Scene, teacher: OccupancyPredictor) -> SceneCounts:
    taxonomy = teacher.preset.taxonomy
    return SceneCounts(
        scene_id=scene.scene_id,
        observed=CalibrationHistogram(taxonomy.n_classes, free_id=taxonomy.free_id),
        free=CalibrationHistogram(len(FREE_PASSES)),
    )


def _count(
    counts: SceneCounts,
    labeled: LabeledPrediction,
    raw: NDArray[np.float32],
    occupied: NDArray[np.bool_],
    grid: VoxelGrid,
) -> None:
    """Add a frame."""
    ring, right = RINGS.of(grid), labeled.right
    reached = np.searchsorted(FREE_PASSES, labeled.visibility.passes, side="right") - 1
    for histogram, voxels, classes in (
        (counts.observed, labeled.known, labeled.prediction.semantics),
        (counts.free, labeled.known & ~occupied & (labeled.visibility.hits == 0), reached),
    ):
        histogram.update(raw[voxels], classes[voxels], right[voxels], ring[voxels])


def score(
    teacher: OccupancyPredictor,
    source: SceneSource,
    truth: GroundTruthTargets,
    scene_ids: Sequence[str],
) -> ScoreTable:
    """Scores of a teacher or student, every frame on its own; reads only what the network does.
    Raises as ``calibrate``."""
    spec = teacher.preset.inputs
    require_fit(teacher, truth, spec)
    table = _empty_table(teacher, truth)
    for scene, bar in scenes_with_bar(source, scene_ids, "score"):
        for k, frame in enumerate(scene.frames):
            history = earlier_frames(scene.frames, k, spec.past_frames)
            inputs = collate([prepare_frame(source, frame, spec, history)])
            semantics = teacher.predict(inputs)[0].argmax(-1).to(torch.uint8)
            _add(table, truth.labels(frame), semantics.cpu().numpy())
            bar.update()
    return table


def require_fit(teacher: OccupancyPredictor, truth: GroundTruthTargets, spec: InputSpec) -> None:
    preset = teacher.preset
    name = f"preset {preset.name}"
    truth.benchmark.require(name, preset.grid, preset.taxonomy, spec.frame)


def scenes_with_bar(
    source: SceneSource, scene_ids: Sequence[str], what: str
) -> Iterator[tuple[Scene, tqdm[NoReturn]]]:
    scenes = [source.scene(scene_id) for scene_id in scene_ids]
    with tqdm(total=sum(len(s.frames) for s in scenes), desc=what, unit="frame") as bar:
        for scene in scenes:
            yield scene, bar


def _empty_table(teacher: OccupancyPredictor, truth: GroundTruthTargets) -> ScoreTable:
    taxonomy = teacher.preset.taxonomy
    masks = [mask for mask in (truth.benchmark.mask, "all") if mask]
    matrices = {mask: ConfusionMatrix(taxonomy.n_classes) for mask in masks}
    return ScoreTable(taxonomy=taxonomy, matrices=matrices)


def _add(table: ScoreTable, expected: GroundTruth, semantics: NDArray[np.uint8]) -> None:
    for mask, matrix in table.matrices.items():
        voxels = None if mask == "all" else expected.scored()
        matrix.update(expected.semantics, semantics, voxels)
