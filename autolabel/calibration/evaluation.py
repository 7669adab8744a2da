"""Run a teacher over scenes whose truth is known: how often are its labels right, how sure?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from autolabel.confidence.calibration import RINGS, CalibrationHistogram, bin_of
from autolabel.confidence.held_out_sweeps import held_out, vote_evidence
from autolabel.confidence.meta_classifier import MetaClassifier
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.lidar_check import checked_frames, said_of
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
from datasets.taxonomy import Taxonomy
from models.inference.predictor import OccupancyPredictor
from models.presets import Preset


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneCounts:
    """Of one scene: voxels and right ones among those whose truth is known.

    Attributes:
        observed: those that a sensor saw.
        free: of the observed ones predicted free and not hit, by how many of ``FREE_PASSES`` their
            passing rays reach (the class ids are these numbers).
        occupancy: the observed ones; right are those that are occupied or free as predicted.
        said: of the frames that held-out sweeps were asked about, as ``occupancy``, of the voxels
            that are touched, seen through, and neither; empty: none was.
        asked: (E, R * K, B) the voxels of these, whether their truth is known or not.
        statistics: of each frame (``autolabel.confidence.statistics``).
    """

    scene_id: str
    observed: CalibrationHistogram
    free: CalibrationHistogram
    occupancy: CalibrationHistogram | None = None
    said: tuple[CalibrationHistogram, ...] = ()
    asked: NDArray[np.int64] | None = None
    statistics: tuple[dict[str, float], ...] = ()

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
        asked = any(map(held_out, scene.frames))
        counts = [
            no_counts(scene.scene_id, taxonomy, asked=asked) for _ in range(2 if classifiers else 1)
        ]
        statistics = []
        checked = checked_frames(scene.frames)
        for labeled in predictions:
            prediction = labeled.prediction
            statistics.append(prediction.statistics)
            said = None
            if prediction.frame.token in checked and held_out(prediction.frame):
                said = said_of(vote_evidence(source, prediction.frame, grid))
            occupied = prediction.semantics != taxonomy.free_id
            passes.update(labeled.visibility, occupied, labeled.expected.scored())
            _add(table, labeled.expected, prediction.semantics)
            count_frame(counts[0], labeled, prediction.raw, taxonomy, grid, said)
            if classifiers:
                classifier = classifiers[scene.scene_id]
                voxels = labeled.known if said is None else labeled.visibility.observed
                raw = prediction.raw_confidence(classifier, voxels, grid, taxonomy)
                count_frame(counts[1], labeled, raw, taxonomy, grid, said)
        by_softmax.append(replace(counts[0], statistics=tuple(statistics)))
        by_meta += [
            replace(scene_counts, statistics=tuple(statistics)) for scene_counts in counts[1:]
        ]
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
        yield labeled_prediction(prediction, expected, preset, config)
        bar.update()


def no_counts(scene_id: str, taxonomy: Taxonomy, *, asked: bool = False) -> SceneCounts:
    """Args:
    asked: held-out sweeps will be asked about some of its frames.
    """

    def none() -> CalibrationHistogram:
        return CalibrationHistogram(taxonomy.n_classes, free_id=taxonomy.free_id)

    return SceneCounts(
        scene_id=scene_id,
        observed=none(),
        free=CalibrationHistogram(len(FREE_PASSES)),
        occupancy=none(),
        said=tuple(none() for _ in range(3)) if asked else (),
        asked=np.zeros((3, *none().seen.shape), np.int64) if asked else None,
    )


def count_frame(
    counts: SceneCounts,
    labeled: LabeledPrediction,
    raw: NDArray[np.float32],
    taxonomy: Taxonomy,
    grid: VoxelGrid,
    said: NDArray[np.uint8] | None = None,
) -> None:
    """Add a frame.

    Args:
        raw: (X, Y, Z) raw confidence.
        said: (X, Y, Z) what held-out sweeps say of each voxel; None: they were not asked.
    """
    ring, right, semantics = RINGS.of(grid), labeled.right, labeled.prediction.semantics
    free, known = semantics == taxonomy.free_id, labeled.known
    as_occupied = free == (labeled.expected.semantics == taxonomy.free_id)
    reached = np.searchsorted(FREE_PASSES, labeled.visibility.passes, side="right") - 1
    parts = [
        (counts.observed, known, semantics, right),
        (counts.free, known & free & (labeled.visibility.hits == 0), reached, right),
    ]
    if counts.occupancy is not None:
        parts.append((counts.occupancy, known, semantics, as_occupied))
    if said is not None and counts.asked is not None:
        observed = ~free & labeled.visibility.observed
        for e, histogram in enumerate(counts.said):
            parts.append((histogram, known & ~free & (said == e), semantics, as_occupied))
            voxels = observed & (said == e)
            rows = semantics[voxels].astype(np.int64) + taxonomy.n_classes * ring[voxels]
            np.add.at(counts.asked[e], (rows, bin_of(raw[voxels])), 1)
    for histogram, voxels, classes, good in parts:
        histogram.update(raw[voxels], classes[voxels], good[voxels], ring[voxels])


def labeled_prediction(
    prediction: FramePrediction, expected: GroundTruth, preset: Preset, config: LabelingConfig
) -> LabeledPrediction:
    """A prediction beside its truth."""
    visibility = visibility_of(prediction, preset, config)
    known = expected.observed() & (expected.semantics < preset.taxonomy.n_classes)
    known &= visibility.observed
    return LabeledPrediction(
        prediction=prediction, expected=expected, visibility=visibility, known=known
    )


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
