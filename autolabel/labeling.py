"""One scene through the teacher: semantics, calibrated confidence and an honest mask.

Pure: reads the frames' files, returns arrays, knows nothing of Ray or of the store's disk.

Legend: T frames, P LiDAR returns, X Y Z voxels, K classes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autolabel.confidence import Calibration
from autolabel.observing import Observation, Seeing, observe
from datasets.errors import SceneError
from datasets.frames import Frame, Scene, SceneSource, earlier_frames, in_lidar_frame
from datasets.inputs import FrameInputs, InputSpec, collate, prepare_frame
from datasets.label_store import StoreHeader
from datasets.taxonomy import Taxonomy
from datasets.visibility import RAY_COLUMNS
from datasets.voxel_labels import MaskBit, SceneLabels
from models.checkpoint import LoadedModel
from models.inference import Teacher

LABELING_VERSION = 3
"""Raised whenever the same inputs would give other labels."""

Voxels = NDArray[np.uint8]
SLAB = 64
"""Voxels along X that are looked at together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelingConfig:
    """How labels are made; every field goes into the run id.

    Attributes:
        min_confidence: a voxel is trusted from this P(label is right) on. Calibration is per
            predicted class, so the threshold means the same for every class.
        past_sweeps: earlier LiDAR sweeps to use; None: as many as the teacher was built for.
        ray_columns: rays per picture row for visibility; wider pictures are sampled.
        visibility_split: what cameras see is decided on voxels cut into so many along each axis,
            of which those that a LiDAR ray crosses and in which none ends hide nothing; a voxel is
            visible if a part of it is. 1: on the predicted voxels as they are, which is right
            where they are as fine as the masks of the benchmark. Whole voxels of 0.8 m hide half
            of the objects and of the walls.
        free_passes: a voxel predicted free is trusted only where LiDAR hits it or so many of its
            rays pass: that a camera sees it through a prediction is no evidence that it is free.
            None: as measured with the calibration (``FreePasses``), 0 if never measured.
        store_evidence: keep the LiDAR hits and passes of every voxel in the store.
        fast: predict in bfloat16 (see ``Teacher``).
        flips: average over mirrored inputs (see ``Teacher``): four times the work.
        threads: threads of one worker; the bytes of a label may depend on it.

    Raises:
        ValueError: a value is out of range.
    """

    min_confidence: float = 0.5
    past_sweeps: int | None = None
    ray_columns: int = RAY_COLUMNS
    visibility_split: int = 1
    free_passes: int | None = None
    store_evidence: bool = False
    fast: bool = False
    flips: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence must lie in 0..1, got {self.min_confidence}")
        if self.past_sweeps is not None and self.past_sweeps < 0:
            raise ValueError(f"past_sweeps must not be negative, got {self.past_sweeps}")
        if self.free_passes is not None and self.free_passes < 0:
            raise ValueError(f"free_passes must not be negative, got {self.free_passes}")
        if min(self.ray_columns, self.visibility_split, self.threads) < 1:
            raise ValueError(f"ray_columns, visibility_split and threads must be positive: {self}")

    @property
    def seeing(self) -> Seeing:
        return Seeing(ray_columns=self.ray_columns, split=self.visibility_split)

    def input_spec(self, teacher: InputSpec) -> InputSpec:
        """What the teacher reads under this configuration."""
        if self.past_sweeps is None:
            return teacher
        return replace(teacher, past_sweeps=self.past_sweeps)

    def resolved(self, teacher: InputSpec) -> dict[str, Any]:
        """JSON values with nothing left to default."""
        return asdict(self) | {"past_sweeps": self.input_spec(teacher).past_sweeps}


def label_scene(
    scene: Scene,
    source: SceneSource,
    teacher: Teacher,
    calibration: Calibration,
    config: LabelingConfig,
) -> SceneLabels:
    """Label every frame of a scene.

    A voxel is ``LIDAR_OBSERVED`` where a ray of any sweep used ended or passed, and
    ``CAMERA_VISIBLE`` where a camera sees it through the *predicted* occupancy, decided both per
    pixel ray and per occupied voxel: pixel rays alone lose two thirds of the distant ground. It
    is ``TRUSTED`` where it is one of the two and its calibrated confidence reaches
    ``config.min_confidence``. Confidence is 0 where it is neither: nothing may use those labels.
    Labels lie in the frame that the teacher's inputs are in. Flow is there if the teacher predicts
    it, and 0 where the predicted class cannot move.

    Raises:
        SceneError: a file, pose or picture is bad, a frame has no LiDAR to lie in, or the teacher's
            output is not finite.
    """
    spec, grid = config.input_spec(teacher.preset.inputs), teacher.preset.grid
    shape = (len(scene.frames), *grid.shape)
    semantics, confidence, mask = (np.empty(shape, np.uint8) for _ in range(3))
    evidence = np.empty((2, *shape), np.uint8) if config.store_evidence else None
    flow = np.empty((*shape, 2), np.float16) if teacher.has_flow else None
    poses = np.empty((len(scene.frames), 4, 4))
    reaches = np.asarray(calibration.levels) >= config.min_confidence
    free_passes = config.free_passes
    if free_passes is None:
        free_passes = calibration.free_passes
    for k, frame in enumerate(scene.frames):
        earlier = earlier_frames(scene.frames, k, spec.past_frames)
        inputs = prepare_frame(source, frame, spec, earlier)
        if spec.frame == "lidar":  # the inputs are already
            frame = in_lidar_frame(frame)
        poses[k] = frame.T_global_ego
        semantics[k], raw, velocity = _predict(teacher, inputs, frame)
        if flow is not None:
            flow[k] = velocity
        level = calibration.levels_of(raw, semantics[k])
        occupied = semantics[k] != teacher.preset.taxonomy.free_id
        seen = observe(source, frame, inputs, spec, grid, occupied, config.seeing)
        mask[k] = _observation_mask(semantics[k], seen, teacher.preset.taxonomy)
        observed = mask[k] & np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE) > 0
        founded = occupied | (seen.hits > 0) | (seen.passes >= free_passes)
        mask[k][observed & founded & reaches[level]] |= np.uint8(MaskBit.TRUSTED)
        confidence[k] = np.where(observed, level, 0)
        if evidence is not None:
            evidence[:, k] = seen.hits, seen.passes
    return SceneLabels(
        scene_id=scene.scene_id,
        frame_tokens=tuple(f.token for f in scene.frames),
        timestamps_us=np.array([f.timestamp_us for f in scene.frames], np.int64),
        T_global_grid=poses,
        semantics=semantics,
        confidence=confidence,
        mask=mask,
        hits=None if evidence is None else evidence[0],
        passes=None if evidence is None else evidence[1],
        flow=flow,
        frame=spec.frame,
        inputs=source.fingerprint(scene.scene_id),
    )


def store_header(
    teacher: LoadedModel,
    calibration: Calibration,
    config: LabelingConfig,
    *,
    source: str,
    licence: str,
    device: str = "cpu",
) -> StoreHeader:
    """Header of a store for such labels. Its run id is the hash of all that determines them."""
    preset = teacher.preset
    provenance = {
        "source": source,
        "preset": preset.name,
        "weights_sha256": teacher.weights_sha256,
        "labeling_version": LABELING_VERSION,
        "config": config.resolved(preset.inputs) | {"device": device},
        "calibration": calibration.to_json(),
    }
    header = StoreHeader(
        grid=preset.grid,
        taxonomy=preset.taxonomy,
        levels=calibration.levels,
        licence=licence,
        provenance=provenance,
        run_id="unset",
        frame=preset.inputs.frame,
        flow=preset.network.head.flow,
    )
    text = json.dumps(header.to_json(), sort_keys=True)
    return replace(header, run_id=hashlib.sha256(text.encode()).hexdigest())


def _predict(
    teacher: Teacher, inputs: FrameInputs, frame: Frame
) -> tuple[Voxels, NDArray[np.float32], NDArray[np.float16] | None]:
    """Class and its softmax value of every voxel, both (X, Y, Z); flow (X, Y, Z, 2) if there is."""
    batch, velocity = collate([inputs]), None
    if teacher.has_flow:
        logits, velocity = (values[0] for values in teacher.predict_with_flow(batch))
    else:
        logits = teacher.predict(batch)[0]
    semantics = np.empty(logits.shape[:3], np.uint8)
    raw = np.empty(logits.shape[:3], np.float32)
    with torch.inference_mode():
        for x in range(0, len(logits), SLAB):  # all logits of a fine grid are near a GB
            slab, slab_logits = slice(x, x + SLAB), logits[x : x + SLAB]
            top, predicted = slab_logits.max(dim=-1)
            semantics[slab] = predicted.to(torch.uint8).cpu().numpy()
            raw[slab] = (top - slab_logits.logsumexp(dim=-1)).exp().clamp(max=1.0).cpu().numpy()
    flow = None
    if velocity is not None:
        can_move = np.isin(np.arange(256), teacher.preset.taxonomy.dynamic)[semantics]
        with np.errstate(over="ignore"):
            flow = velocity.cpu().numpy().astype(np.float16)
        flow[~can_move] = 0
    if not np.isfinite(raw).all() or (flow is not None and not np.isfinite(flow).all()):
        raise SceneError(
            where=f"scene {frame.scene_id}",
            frame=frame.token,
            rule="the teacher's output is not finite",
        )
    return semantics, raw, flow


def _observation_mask(
    semantics: Voxels,
    seen: Observation,
    taxonomy: Taxonomy,
) -> Voxels:
    """Every bit but ``TRUSTED``, (X, Y, Z)."""
    mask = np.zeros(semantics.shape, np.uint8)
    for bit, where in (
        (MaskBit.LIDAR_OBSERVED, (seen.hits > 0) | (seen.passes > 0)),
        (MaskBit.CAMERA_VISIBLE, seen.visible),
        (MaskBit.DYNAMIC, np.isin(semantics, taxonomy.dynamic)),
    ):
        mask[where] |= np.uint8(bit)
    return mask
