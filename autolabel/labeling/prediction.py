"""What a scene's frames are taken for, frame by frame: read, predict, put together over the drive.

Nothing is decided here about what to trust. The network works in the caller's thread; reading and,
on a CPU, all that follows the network is work for threads beside it.

Legend: T frames, P LiDAR returns, X Y Z voxels, K classes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autolabel.confidence import drift
from autolabel.confidence.meta_classifier import MetaClassifier, Others, features_of
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.logits_pool import LogitsPool
from autolabel.labeling.prefetch import ahead
from autolabel.labeling.visibility import Observation, metric_points, visible_to_cameras
from autolabel.refinement.temporal_fusion import (
    FrameEvidence,
    Refiner,
    pool,
    refine,
    sight_of,
    windows,
)
from datasets.errors import SceneError
from datasets.frames import (
    Frame,
    Scene,
    SceneSource,
    earlier_frames,
    in_lidar_frame,
    nearest_of_each,
)
from datasets.geometry.grid import VoxelGrid
from datasets.labels.voxel_labels import Voxels
from datasets.model_inputs import ModelInputs, collate, prepare_frame
from datasets.storage.remote_path import fetch
from datasets.taxonomy import Taxonomy
from datasets.visibility import sweep_evidence
from models.inference.predictor import OccupancyPredictor

SLAB = 8
"""Voxels along X that are looked at together: so few logits stay in a core's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A batch of frames ready for the network; ``points`` (P, 5 or more) of each, in metres."""

    frames: list[Frame]
    inputs: ModelInputs
    points: list[NDArray[np.float32] | None]
    statistics: list[dict[str, float]]


@dataclass(frozen=True, slots=True, eq=False)
class _Predicted:
    """A frame with what the network says, on its device: (X, Y, Z, K), and flow (X, Y, Z, 2)."""

    frame: Frame
    points: NDArray[np.float32] | None
    logits: Tensor
    flow: Tensor | None
    statistics: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class FramePrediction:
    """What a frame is taken for.

    Attributes:
        points: (P, 5 or more) returns of the sweeps used, metres.
        hits, passes: (X, Y, Z) uint8, their evidence.
        semantics: (X, Y, Z) class ids; raw: their softmax values, float32.
        flow: (X, Y, Z, 2).
        others: what other frames say of it; None if it was labelled on its own.
        statistics: see ``drift``.
    """

    frame: Frame
    points: NDArray[np.float32] | None
    hits: Voxels
    passes: Voxels
    semantics: Voxels
    raw: NDArray[np.float32]
    flow: NDArray[np.float16] | None
    others: Others | None
    statistics: dict[str, float]

    def features(
        self, voxels: NDArray[np.intp], grid: VoxelGrid, taxonomy: Taxonomy
    ) -> NDArray[np.float32]:
        """(V, F) what a meta classifier sees of voxels (V,), flat indices."""
        return features_of(
            self.semantics,
            self.raw,
            self.hits,
            self.passes,
            self.others,
            voxels,
            grid,
            n_classes=taxonomy.n_classes,
            free_id=taxonomy.free_id,
        )

    def raw_confidence(
        self,
        classifier: MetaClassifier | None,
        voxels: NDArray[np.bool_],  # (X, Y, Z)
        grid: VoxelGrid,
        taxonomy: Taxonomy,
    ) -> NDArray[np.float32]:
        """(X, Y, Z) raw confidence: at these voxels that of a classifier, if there is one, else and
        elsewhere the softmax value."""
        if classifier is None:
            return self.raw
        at = np.flatnonzero(voxels)
        raw = self.raw.copy()
        raw.ravel()[at] = classifier.p_right(self.features(at, grid, taxonomy))
        return raw


def predict_frames(
    scene: Scene,
    source: SceneSource,
    teacher: OccupancyPredictor,
    config: LabelingConfig,
    refiner: Refiner | None = None,
) -> Generator[FramePrediction, None, None]:
    """What ``label_frames`` takes frames for, before it decides what to trust.

    Args:
        refiner: for ``config.refinement``; None: every frame on its own.

    Raises:
        SceneError: as ``label_frames``.
    """
    work = ScenePipeline(scene, source, teacher, config, refiner)
    with closing(work.guesses(1, None)) as guesses:
        for guess in guesses:
            yield guess()


def frame_evidence(
    scene: Scene, source: SceneSource, teacher: OccupancyPredictor, config: LabelingConfig
) -> Generator[tuple[Frame, FrameEvidence], None, None]:
    """What each frame says by itself, for ``temporal.RefinerFit``. Raises as ``label_frames``."""
    work = ScenePipeline(scene, source, teacher, config, None)
    with closing(work.predictions(1, None)) as predictions:
        for one in predictions:
            yield one.frame, work.see(one)[1]


def observed_voxels(
    guess: FramePrediction, grid: VoxelGrid, taxonomy: Taxonomy, config: LabelingConfig
) -> Observation:
    """What LiDAR and cameras saw of a guess's voxels."""
    occupied = guess.semantics != taxonomy.free_id
    visible = visible_to_cameras(
        occupied, guess.hits, guess.points, guess.frame, grid, config.seeing
    )
    return Observation(hits=guess.hits, passes=guess.passes, visible=visible)


class ScenePipeline:
    """The steps that a scene's frames go through."""

    def __init__(
        self,
        scene: Scene,
        source: SceneSource,
        teacher: OccupancyPredictor,
        config: LabelingConfig,
        refiner: Refiner | None,
    ) -> None:
        self.scene, self.source, self.teacher = scene, source, teacher
        self.config, self.refiner = config, refiner
        self.spec = config.input_spec(teacher.preset.inputs)
        self.grid, self.taxonomy = teacher.preset.grid, teacher.preset.taxonomy
        self.shelf = LogitsPool()

    def most(self, readers: int) -> int:
        return max(readers, self.config.batch)

    def predictions(
        self, readers: int, turn: AbstractContextManager[None] | None
    ) -> Generator[_Predicted, None, None]:
        """Of the network, frame by frame; the next batches are read meanwhile."""
        with ThreadPoolExecutor(readers) as reading:
            prepared = ahead(reading, self.read, self.batches(), readers + 1)
            first = list(itertools.islice(prepared, 1))
            with turn or nullcontext():
                for batch in itertools.chain(first, prepared):
                    yield from self.predict(batch)

    def guesses(
        self, readers: int, turn: AbstractContextManager[None] | None
    ) -> Generator[Callable[[], FramePrediction], None, None]:
        """Work that makes the guess of each frame; any thread may do it."""
        on_cpu = self.teacher.device.type == "cpu"
        with (
            ThreadPoolExecutor(readers) as seeing,
            closing(self.predictions(readers, turn)) as predictions,
        ):
            if self.config.refinement is None or self.refiner is None:
                for one in predictions:
                    guess = functools.partial(self.guess, one)
                    # on a GPU another thread would wait for the next batch as well
                    yield guess if on_cpu else functools.partial(_same, guess())
                return
            if on_cpu:
                seen: Iterator[tuple[_Predicted, FrameEvidence]]
                seen = ahead(seeing, self.see, predictions, self.most(readers))
            else:
                seen = map(self.see, predictions)
            for around, k in windows(seen, self.config.refinement.reach):
                yield functools.partial(self.refined, around, k)

    def batches(self) -> Iterator[list[int]]:
        """Positions of frames that the network can take together."""
        frames, size = self.scene.frames, self.config.batch
        for _, alike in itertools.groupby(range(len(frames)), lambda k: len(frames[k].cameras)):
            positions = list(alike)
            yield from (positions[i : i + size] for i in range(0, len(positions), size))

    def read(self, positions: list[int]) -> _Read:
        frames, prepared, points, statistics = [], [], [], []
        for k in positions:
            frame = self.scene.frames[k]
            earlier = earlier_frames(self.scene.frames, k, self.spec.past_frames)
            fetch(self._files(frame, earlier))
            inputs = prepare_frame(self.source, frame, self.spec, earlier)
            if self.spec.frame == "lidar":  # the inputs are already
                frame = in_lidar_frame(frame)
            frames.append(frame)
            prepared.append(inputs)
            points.append(metric_points(self.source, frame, inputs, self.spec))
            statistics.append(drift.of_inputs(inputs, frame, points[-1]))
        return _Read(frames, collate(prepared), points, statistics)

    def _files(self, frame: Frame, earlier: Sequence[Frame]) -> Iterator[Path]:
        for view in itertools.chain(frame.cameras, *(one.cameras for one in earlier)):
            yield view.path
        past = nearest_of_each(frame.past_sweeps, self.spec.past_sweeps)
        for sweep in (*frame.moment, *past):
            yield sweep.path

    def predict(self, batch: _Read) -> Iterator[_Predicted]:
        flow: Tensor | None = None
        if self.teacher.has_flow:
            logits, flow = self.teacher.predict_with_flow(batch.inputs)
        else:
            logits = self.teacher.predict(batch.inputs)
        for i, frame in enumerate(batch.frames):
            own_flow = None if flow is None else flow[i]
            own = self.shelf.put(logits[i])
            yield _Predicted(frame, batch.points[i], own, own_flow, batch.statistics[i])

    def guess(self, one: _Predicted) -> FramePrediction:
        """From the frame alone."""
        semantics, raw = _most_likely(one.logits)
        self.shelf.clear(one.logits)
        evidence = sweep_evidence(one.frame, one.points, self.grid)
        return self._guess(one, semantics, raw, *evidence, None)

    def see(self, one: _Predicted) -> tuple[_Predicted, FrameEvidence]:
        hits, passes = sweep_evidence(one.frame, one.points, self.grid)
        self._require_finite(one, bool(one.logits.isfinite().all()))
        sight = sight_of(one.frame, one.points, one.logits, hits, passes, self.grid, self.taxonomy)
        self.shelf.clear(one.logits)
        return replace(one, logits=one.logits[:0]), sight

    def refined(
        self, around: Sequence[tuple[_Predicted, FrameEvidence]], k: int
    ) -> FramePrediction:
        """From the frame and those around it."""
        how, refiner = self.config.refinement, self.refiner
        assert how is not None and refiner is not None
        one, sight = around[k]
        pooled = pool([s for _, s in around], k, self.grid, self.taxonomy, how)
        logits = torch.from_numpy(refine(pooled, refiner, how)).view(*self.grid.shape, -1)
        semantics, raw = _most_likely(logits)
        others = Others.of(pooled, semantics)
        return self._guess(one, semantics, raw, sight.hits, sight.passes, others)

    def _guess(
        self,
        one: _Predicted,
        semantics: Voxels,
        raw: NDArray[np.float32],
        hits: Voxels,
        passes: Voxels,
        others: Others | None,
    ) -> FramePrediction:
        velocity = None
        finite = bool(np.isfinite(raw).all())
        if one.flow is not None:
            with np.errstate(over="ignore"):
                velocity = one.flow.cpu().numpy().astype(np.float16)
            velocity[~np.isin(semantics, self.taxonomy.dynamic)] = 0
            finite &= bool(np.isfinite(velocity).all())
        self._require_finite(one, finite)
        return FramePrediction(
            frame=one.frame,
            points=one.points,
            hits=hits,
            passes=passes,
            semantics=semantics,
            raw=raw,
            flow=velocity,
            others=others,
            statistics=one.statistics
            | drift.of_labels(semantics, raw, hits, passes, self.grid, self.taxonomy),
        )

    def _require_finite(self, one: _Predicted, finite: bool) -> None:
        if not finite:
            raise SceneError(
                where=f"scene {one.frame.scene_id}",
                frame=one.frame.token,
                rule="the teacher's output is not finite",
            )


def _same(guess: FramePrediction) -> FramePrediction:
    return guess


def _most_likely(logits: Tensor) -> tuple[Voxels, NDArray[np.float32]]:
    """Class and its softmax value of every voxel (X, Y, Z), of logits (X, Y, Z, K)."""
    semantics = np.empty(logits.shape[:3], np.uint8)
    raw = np.empty(logits.shape[:3], np.float32)
    with torch.inference_mode():
        for x in range(0, len(logits), SLAB):  # all logits of a fine grid are near a GB
            slab, values = slice(x, x + SLAB), logits[x : x + SLAB].float()
            top, predicted = values.max(dim=-1)
            semantics[slab] = predicted.to(torch.uint8).cpu().numpy()
            above = (values - top[..., None]).exp_().sum(dim=-1)  # the top's own 1 included
            raw[slab] = above.reciprocal_().cpu().numpy()
    return semantics, raw
