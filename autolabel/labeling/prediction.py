"""The steps from a scene's files to the predictions of its frames.

Legend: T frames, P LiDAR returns, X Y Z voxels, K classes, V selected voxels.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autolabel.confidence.meta_classifier import MetaClassifier, Others, features_of
from autolabel.confidence.statistics import of_inputs, of_labels
from autolabel.instances import Tracker
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.stages import LogitsPool
from autolabel.labeling.visibility import metric_points
from autolabel.refinement.temporal_fusion import FrameEvidence, Refiner, evidence_of, pool, refine
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

NetworkLock = AbstractContextManager[object]
SLAB = 8
"""Voxels along X that are reduced together: so few logits stay in a core's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class PreparedFrame:
    """A frame in the frame of the grid, and what was read of it beside the network's inputs.

    Attributes:
        points: (P, 5 or more) returns of the sweeps used, metres.
        statistics: see ``statistics.of_inputs``.
    """

    frame: Frame
    points: NDArray[np.float32] | None
    statistics: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class FrameBatch:
    """Frames that the network takes together."""

    frames: list[PreparedFrame]
    inputs: ModelInputs


@dataclass(frozen=True, slots=True, eq=False)
class NetworkOutput:
    """Of one frame, on the network's device: logits (X, Y, Z, K), flow (X, Y, Z, 2) in m/s."""

    prepared: PreparedFrame
    logits: Tensor
    flow: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class ObservedFrame:
    """A frame reduced to its evidence; flow (X, Y, Z, 2) on the network's device."""

    prepared: PreparedFrame
    flow: Tensor | None
    evidence: FrameEvidence


@dataclass(frozen=True, slots=True, eq=False)
class FramePrediction:
    """The labels of a frame before trust is decided.

    Attributes:
        frame, points: see ``PreparedFrame``.
        hits, passes: (X, Y, Z) uint8 LiDAR rays that end in a voxel, or cross it.
        semantics: (X, Y, Z) class ids; raw: their softmax values, float32.
        flow: (X, Y, Z, 2) m/s.
        others: evidence of other frames; None if the frame was predicted alone.
        statistics: see ``autolabel.confidence.statistics``.
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
        """(V, F) inputs of a meta classifier at voxels (V,), flat indices."""
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
        """(X, Y, Z) raw confidence: the classifier's at these voxels, if there is a classifier; the
        softmax value elsewhere."""
        if classifier is None:
            return self.raw
        selected = np.flatnonzero(voxels)
        raw = self.raw.copy()
        raw.ravel()[selected] = classifier.p_right(self.features(selected, grid, taxonomy))
        return raw


class PredictionSteps:
    """What is done to the frames of one scene. Only ``predict`` uses the network.

    Args:
        refiner: for ``config.refinement``; None: every frame is predicted alone.
        network_lock: held by ``predict`` from when the first batch is read until the last is
            predicted.
    """

    def __init__(
        self,
        scene: Scene,
        source: SceneSource,
        teacher: OccupancyPredictor,
        config: LabelingConfig,
        refiner: Refiner | None = None,
        network_lock: NetworkLock | None = None,
    ) -> None:
        self.scene, self.source, self.teacher, self.config = scene, source, teacher, config
        self.refiner = refiner
        self.refinement = None if refiner is None else config.refinement
        self.spec = config.input_spec(teacher.preset.inputs)
        self.grid, self.taxonomy = teacher.preset.grid, teacher.preset.taxonomy
        self.network_lock = network_lock or nullcontext()
        self.logits_pool = LogitsPool()

    def batches(self) -> Iterator[list[int]]:
        """Positions of frames that the network can take together."""
        frames, size = self.scene.frames, self.config.batch
        for _, alike in itertools.groupby(range(len(frames)), lambda k: len(frames[k].cameras)):
            positions = list(alike)
            yield from (positions[i : i + size] for i in range(0, len(positions), size))

    def read_batch(self, positions: list[int]) -> FrameBatch:
        """Read and decode; fetch first what lies in an object store."""
        frames, inputs = [], []
        for k in positions:
            frame = self.scene.frames[k]
            past = earlier_frames(self.scene.frames, k, self.spec.past_frames)
            fetch(self._files(frame, past))
            frame_inputs = prepare_frame(self.source, frame, self.spec, past)
            if self.spec.frame == "lidar":  # the inputs are already
                frame = in_lidar_frame(frame)
            points = metric_points(self.source, frame, frame_inputs, self.spec)
            statistics = of_inputs(frame_inputs, frame, points)
            frames.append(PreparedFrame(frame, points, statistics))
            inputs.append(frame_inputs)
        return FrameBatch(frames, collate(inputs))

    def _files(self, frame: Frame, past: Sequence[Frame]) -> Iterator[Path]:
        for view in itertools.chain(frame.cameras, *(before.cameras for before in past)):
            yield view.path
        past_sweeps = nearest_of_each(frame.past_sweeps, self.spec.past_sweeps)
        for sweep in (*frame.moment, *past_sweeps):
            yield sweep.path

    def predict(self, batches: Iterator[FrameBatch]) -> Generator[NetworkOutput, None, None]:
        """Run the network, in the caller's thread."""
        first = list(itertools.islice(batches, 1))
        with self.network_lock:
            for batch in itertools.chain(first, batches):
                yield from self._outputs(batch)

    def _outputs(self, batch: FrameBatch) -> Iterator[NetworkOutput]:
        """Of a batch. The network's own arrays end with it, before its next pass begins."""
        flow: Tensor | None = None
        if self.teacher.has_flow:
            logits, flow = self.teacher.predict_with_flow(batch.inputs)
        else:
            logits = self.teacher.predict(batch.inputs)
        for i, prepared in enumerate(batch.frames):
            own_flow = None if flow is None else flow[i]
            yield NetworkOutput(prepared, self.logits_pool.copy(logits[i]), own_flow)

    def most_likely(self, output: NetworkOutput) -> FramePrediction:
        """The prediction of a frame alone."""
        prepared = output.prepared
        semantics, raw = _most_likely(output.logits)
        self.logits_pool.release(output.logits)
        hits, passes = sweep_evidence(prepared.frame, prepared.points, self.grid)
        return self._checked(prepared, semantics, raw, hits, passes, output.flow, None)

    def add_evidence(self, output: NetworkOutput) -> ObservedFrame:
        """Reduce a frame to what it says about itself and others."""
        prepared, logits = output.prepared, output.logits
        hits, passes = sweep_evidence(prepared.frame, prepared.points, self.grid)
        self._require_finite(prepared, bool(logits.isfinite().all()))
        evidence = evidence_of(
            prepared.frame, prepared.points, logits, hits, passes, self.grid, self.taxonomy
        )
        self.logits_pool.release(logits)
        return ObservedFrame(prepared, output.flow, evidence)

    def follow_objects(self, frames: Iterable[ObservedFrame]) -> Iterator[ObservedFrame]:
        """The frames with the numbers of their objects."""
        tracker = Tracker(self.grid, self.taxonomy)
        for frame in frames:
            evidence = frame.evidence
            predicted = evidence.surprisal.argmin(-1).astype(np.uint8)
            objects = tracker.update(predicted, evidence.T_global_grid, evidence.timestamp_us)
            yield replace(frame, evidence=replace(evidence, objects=objects))

    def fuse(self, window: tuple[Sequence[ObservedFrame], int]) -> FramePrediction:
        """The prediction of the k-th frame of a window, fused with the others."""
        assert self.refiner is not None and self.refinement is not None
        frames, k = window
        evidence = [frame.evidence for frame in frames]
        pooled = pool(evidence, k, self.grid, self.taxonomy, self.refinement)
        logits = torch.from_numpy(refine(pooled, self.refiner, self.refinement, self.grid))
        semantics, raw = _most_likely(logits)
        others = Others.of(pooled, semantics)
        own = frames[k]
        hits, passes = own.evidence.hits, own.evidence.passes
        return self._checked(own.prepared, semantics, raw, hits, passes, own.flow, others)

    def _checked(
        self,
        prepared: PreparedFrame,
        semantics: Voxels,
        raw: NDArray[np.float32],
        hits: Voxels,
        passes: Voxels,
        flow: Tensor | None,
        others: Others | None,
    ) -> FramePrediction:
        velocity = None
        finite = bool(np.isfinite(raw).all())
        if flow is not None:
            with np.errstate(over="ignore"):
                velocity = flow.cpu().numpy().astype(np.float16)
            velocity[~np.isin(semantics, self.taxonomy.dynamic)] = 0
            finite &= bool(np.isfinite(velocity).all())
        self._require_finite(prepared, finite)
        return FramePrediction(
            frame=prepared.frame,
            points=prepared.points,
            hits=hits,
            passes=passes,
            semantics=semantics,
            raw=raw,
            flow=velocity,
            others=others,
            statistics=prepared.statistics
            | of_labels(semantics, raw, hits, passes, self.grid, self.taxonomy),
        )

    def _require_finite(self, prepared: PreparedFrame, finite: bool) -> None:
        if not finite:
            raise SceneError(
                where=f"scene {prepared.frame.scene_id}",
                frame=prepared.frame.token,
                rule="the teacher's output is not finite",
            )


def _most_likely(logits: Tensor) -> tuple[Voxels, NDArray[np.float32]]:
    """Class and its softmax value of every voxel (X, Y, Z), of logits (X, Y, Z, K)."""
    semantics = np.empty(logits.shape[:3], np.uint8)
    raw = np.empty(logits.shape[:3], np.float32)
    with torch.inference_mode():
        for x in range(0, len(logits), SLAB):  # all logits of a fine grid are near a GB
            slab, values = slice(x, x + SLAB), logits[x : x + SLAB].float()
            top, predicted = values.max(dim=-1)
            semantics[slab] = predicted.to(torch.uint8).cpu().numpy()
            total = (values - top[..., None]).exp_().sum(dim=-1)  # the top's own 1 included
            raw[slab] = total.reciprocal_().cpu().numpy()
    return semantics, raw
