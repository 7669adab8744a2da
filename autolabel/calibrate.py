"""Run a teacher over scenes whose truth is known: how good are its labels, and how sure?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from autolabel.confidence import FOLDS, RINGS, Calibration, CalibrationHistogram, choose
from autolabel.drift import Statistics, mean_of, reference_to_json
from autolabel.guessing import guess_frames, observed_voxels, sights_of
from autolabel.labeling_config import LabelingConfig, made_with
from autolabel.observing import FREE_PASSES, FreePasses
from autolabel.risk import Evidence
from autolabel.temporal import Refiner, RefinerFit, Sight, windows
from datasets.benchmarks.truth import Truth
from datasets.frames import Scene, SceneSource, earlier_frames
from datasets.inputs import InputSpec, collate, prepare_frame
from datasets.metrics.confusion import ConfusionMatrix, ScoreTable
from datasets.training_sets import GroundTruth
from models.checkpoint import CALIBRATION_KEY, EVIDENCE_KEY, REFERENCE_KEY
from models.inference import Teacher


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

    def trustable(self, free_passes: int) -> CalibrationHistogram:
        """Of the observed voxels those that may be trusted if they are sure enough."""
        out = CalibrationHistogram(self.observed.n_classes, free_id=self.observed.free_id)
        out.merge(self.observed)
        short = [i for i, least in enumerate(FREE_PASSES) if least <= free_passes][:-1]
        for total, part in ((out.seen, self.free.seen), (out.right, self.free.right)):
            by_ring = part.reshape(len(RINGS.names), len(FREE_PASSES), -1)
            target = total.reshape(len(RINGS.names), out.n_classes, -1)
            target[:, out.free_id] -= by_ring[:, short].sum(1)
        return out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """What ``measure`` found: counts per scene, the passes of a trusted free voxel, scores."""

    scenes: tuple[SceneCounts, ...]
    passes: FreePasses
    table: ScoreTable


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibrated:
    """A calibration, evidence for promises about labels made with it, the teacher's scores, and
    what the scenes are like (``drift``)."""

    calibration: Calibration
    evidence: Evidence
    table: ScoreTable
    reference: tuple[Statistics, ...]

    def metadata(self) -> dict[str, str]:
        """For a weights file."""
        return {
            CALIBRATION_KEY: json.dumps(self.calibration.to_json()),
            EVIDENCE_KEY: json.dumps(self.evidence.to_json()),
            REFERENCE_KEY: json.dumps(reference_to_json(self.reference)),
        }


def calibrate(
    teacher: Teacher,
    source: SceneSource,
    truth: GroundTruth,
    scene_ids: Sequence[str],
    config: LabelingConfig,
) -> Calibrated:
    """Calibrate a teacher on labelled scenes it was not trained on.

    With ``config.refinement`` refiners are learnt first; what is calibrated, and is evidence, is
    what each scene is given by one learnt without it.

    Raises:
        SetupError: the benchmark has another grid, other classes or another frame than the preset.
        SceneError: a file of a scene or of its truth is bad.
    """
    refiners = None
    if config.refinement is not None:
        refiners = fit_refiners(teacher, source, truth, scene_ids, config)
    without = refiners.without if refiners else None
    measured = measure(teacher, source, truth, scene_ids, config, without)
    calibration, evidence = fit(measured.scenes, measured.passes.best())
    return Calibrated(
        calibration=replace(calibration, refiner=refiners.whole if refiners else None),
        evidence=replace(evidence, made_with=made_with(config)),
        table=measured.table,
        reference=tuple(s.statistics for s in measured.scenes),
    )


def fit(scenes: Sequence[SceneCounts], free_passes: int) -> tuple[Calibration, Evidence]:
    """Calibration from counts, and what its confidence was worth on scenes left out of its fit."""
    calibration, seen, right = choose([s.trustable(free_passes) for s in scenes])
    evidence = Evidence(
        scene_ids=tuple(s.scene_id for s in scenes),
        seen=seen,
        right=right,
        free_id=scenes[0].observed.free_id,
    )
    return replace(calibration, free_passes=free_passes), evidence


def measure(
    teacher: Teacher,
    source: SceneSource,
    truth: GroundTruth,
    scene_ids: Sequence[str],
    config: LabelingConfig,
    refiners: Mapping[str, Refiner] | None = None,
) -> Measured:
    """Label scenes and count. Raises as ``calibrate``.

    Args:
        refiners: of each scene, for ``config.refinement``.
    """
    preset = teacher.preset
    grid, taxonomy = preset.grid, preset.taxonomy
    _require(teacher, truth, config.input_spec(teacher.preset.inputs))
    ring = RINGS.of(grid)
    passes = FreePasses()
    table = _empty_table(teacher, truth)
    scenes = []
    for scene, bar in _with_bar(source, scene_ids, "calibrate"):
        counts = SceneCounts(
            scene_id=scene.scene_id,
            observed=CalibrationHistogram(taxonomy.n_classes, free_id=taxonomy.free_id),
            free=CalibrationHistogram(len(FREE_PASSES)),
        )
        originals = {frame.token: frame for frame in scene.frames}
        statistics = []
        refiner = refiners[scene.scene_id] if refiners else None
        for guess in guess_frames(scene, source, teacher, config, refiner):
            statistics.append(guess.statistics)
            expected = truth.labels(originals[guess.frame.token])
            occupied = guess.semantics != taxonomy.free_id
            seen = observed_voxels(guess, grid, taxonomy, config)
            passes.update(seen, occupied, expected.scored())
            known = expected.observed() & (expected.semantics < taxonomy.n_classes)
            correct = guess.semantics == expected.semantics

            def count(
                histogram: CalibrationHistogram,
                voxels: NDArray[np.bool_],
                classes: NDArray[Any],
                raw: NDArray[np.float32] = guess.raw,
                correct: NDArray[np.bool_] = correct,
            ) -> None:
                histogram.update(raw[voxels], classes[voxels], correct[voxels], ring[voxels])

            known &= (seen.hits > 0) | (seen.passes > 0) | seen.visible
            count(counts.observed, known, guess.semantics)
            reached = np.searchsorted(FREE_PASSES, seen.passes, side="right") - 1
            count(counts.free, known & ~occupied & (seen.hits == 0), reached)
            _add(table, expected, guess.semantics)
            bar.update()
        scenes.append(replace(counts, statistics=mean_of(statistics)))
    return Measured(scenes=tuple(scenes), passes=passes, table=table)


def score(
    teacher: Teacher,
    source: SceneSource,
    truth: GroundTruth,
    scene_ids: Sequence[str],
) -> ScoreTable:
    """Scores of a teacher or student, every frame on its own; reads only what the network does.
    Raises as ``calibrate``."""
    spec = teacher.preset.inputs
    _require(teacher, truth, spec)
    table = _empty_table(teacher, truth)
    for scene, bar in _with_bar(source, scene_ids, "score"):
        for k, frame in enumerate(scene.frames):
            earlier = earlier_frames(scene.frames, k, spec.past_frames)
            inputs = collate([prepare_frame(source, frame, spec, earlier)])
            semantics = teacher.predict(inputs)[0].argmax(-1).to(torch.uint8)
            _add(table, truth.labels(frame), semantics.cpu().numpy())
            bar.update()
    return table


@dataclass(frozen=True, slots=True, kw_only=True)
class Refiners:
    """The refiner learnt on all scenes, and per scene one learnt on others (with one scene: on
    it)."""

    whole: Refiner
    without: dict[str, Refiner]


def fit_refiners(
    teacher: Teacher,
    source: SceneSource,
    truth: GroundTruth,
    scene_ids: Sequence[str],
    config: LabelingConfig,
) -> Refiners:
    """What other frames count for, learnt on labelled scenes; in ``FOLDS`` folds, as maps are.
    Raises as ``calibrate``, and ``ValueError`` if the configuration has no refinement."""
    how = config.refinement
    if how is None:
        raise ValueError("the configuration has no refinement")
    _require(teacher, truth, config.input_spec(teacher.preset.inputs))
    learning = RefinerFit(teacher.preset.taxonomy, how)
    scene_of: list[int] = []
    for s, (scene, bar) in enumerate(_with_bar(source, scene_ids, "learn to refine")):
        originals = {frame.token: frame for frame in scene.frames}
        sights = sights_of(scene, source, teacher, config)
        for around, k in windows(sights, how.reach):
            frame, _ = around[k]
            expected = truth.labels(originals[frame.token])
            near: list[Sight] = [sight for _, sight in around]
            learning.update(near, k, teacher.preset.grid, expected.semantics, expected.observed())
            scene_of.append(s)
            bar.update()
    whole = learning.fit()
    folds = min(FOLDS, len(scene_ids))
    if folds < 2:
        return Refiners(whole=whole, without=dict.fromkeys(scene_ids, whole))
    rest = [
        learning.fit([i for i, s in enumerate(scene_of) if s % folds != f]) for f in range(folds)
    ]
    without = {scene_id: rest[s % folds] for s, scene_id in enumerate(scene_ids)}
    return Refiners(whole=whole, without=without)


def _require(teacher: Teacher, truth: GroundTruth, spec: InputSpec) -> None:
    preset = teacher.preset
    what = f"preset {preset.name}"
    truth.benchmark.require(what, preset.grid, preset.taxonomy, spec.frame)


def _with_bar(
    source: SceneSource, scene_ids: Sequence[str], what: str
) -> Iterator[tuple[Scene, tqdm[NoReturn]]]:
    scenes = [source.scene(scene_id) for scene_id in scene_ids]
    with tqdm(total=sum(len(s.frames) for s in scenes), desc=what, unit="frame") as bar:
        for scene in scenes:
            yield scene, bar


def _empty_table(teacher: Teacher, truth: GroundTruth) -> ScoreTable:
    taxonomy = teacher.preset.taxonomy
    masks = [mask for mask in (truth.benchmark.mask, "all") if mask]
    matrices = {mask: ConfusionMatrix(taxonomy.n_classes) for mask in masks}
    return ScoreTable(taxonomy=taxonomy, matrices=matrices)


def _add(table: ScoreTable, expected: Truth, semantics: NDArray[np.uint8]) -> None:
    for mask, matrix in table.matrices.items():
        voxels = None if mask == "all" else expected.scored()
        matrix.update(expected.semantics, semantics, voxels)
