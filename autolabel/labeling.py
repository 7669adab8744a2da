"""One scene through the teacher: semantics, calibrated confidence and an honest mask.

Pure: reads the frames' files, returns arrays, knows nothing of Ray or of the store's disk.

Legend: T frames, P LiDAR returns, X Y Z voxels, K classes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autolabel.ahead import ahead
from autolabel.confidence import Calibration
from autolabel.observing import Observation, Seeing, metric_points, observe
from datasets.errors import SceneError
from datasets.example_inputs import ExampleLog
from datasets.frames import Frame, Scene, SceneSource, earlier_frames, in_lidar_frame
from datasets.inputs import InputSpec, ModelInputs, collate, prepare_frame
from datasets.label_store import LabelStore, StoreHeader
from datasets.remote_paths import fetch
from datasets.taxonomy import Taxonomy
from datasets.visibility import RAY_COLUMNS
from datasets.voxel_labels import FrameLabels, MaskBit, SceneLabels
from models.checkpoint import LoadedModel
from models.inference import Teacher

LABELING_VERSION = 4
"""Raised whenever the same inputs would give other labels."""

Voxels = NDArray[np.uint8]
SLAB = 8
"""Voxels along X that are looked at together: so few logits stay in a core's cache."""


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
        batch: frames that the network takes together; the bytes of a label may depend on it.
        threads: threads of one worker's network; the bytes of a label may depend on it.

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
    batch: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence must lie in 0..1, got {self.min_confidence}")
        if self.past_sweeps is not None and self.past_sweeps < 0:
            raise ValueError(f"past_sweeps must not be negative, got {self.past_sweeps}")
        if self.free_passes is not None and self.free_passes < 0:
            raise ValueError(f"free_passes must not be negative, got {self.free_passes}")
        if min(self.ray_columns, self.visibility_split, self.batch, self.threads) < 1:
            raise ValueError(f"columns, split, batch and threads must be positive: {self}")

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


def label_frames(
    scene: Scene,
    source: SceneSource,
    teacher: Teacher,
    calibration: Calibration,
    config: LabelingConfig,
    *,
    readers: int = 1,
    turn: AbstractContextManager[None] | None = None,
) -> Generator[FrameLabels, None, None]:
    """Label the frames of a scene one after the other, in memory that does not grow with it.

    A voxel is ``LIDAR_OBSERVED`` where a ray of any sweep used ended or passed, and
    ``CAMERA_VISIBLE`` where a camera sees it through the *predicted* occupancy, decided both per
    pixel ray and per occupied voxel: pixel rays alone lose two thirds of the distant ground. It
    is ``TRUSTED`` where it is one of the two, its calibrated confidence reaches
    ``config.min_confidence``, and, if free, enough rays pass. Confidence is 0 where it is neither:
    nothing may use those labels. Labels lie in the frame that the teacher's inputs are in. Flow is
    there if the teacher predicts it, and 0 where the predicted class cannot move.

    While the network works on a batch, the next ones are read and the last one is finished, in
    threads of their own. Finishing a frame takes some 0.2 s of a core, however fast the network is.

    Args:
        readers: threads that read and decode, and as many that finish.
        turn: held while the network is needed: entered once the first batch is read, left when the
            last is predicted.

    Raises:
        SceneError: a file, pose or picture is bad, a frame has no LiDAR to lie in, or the teacher's
            output is not finite.
    """
    work = _SceneWork(scene, source, teacher, calibration, config)
    most = max(readers, config.batch)
    with (
        ThreadPoolExecutor(readers) as reading,
        ThreadPoolExecutor(readers) as finishing,
        ExitStack() as stack,
    ):
        prepared = ahead(reading, work.read, work.batches(), readers + 1)
        predicted = stack.enter_context(closing(work.predict_all(prepared, turn or nullcontext())))
        if teacher.device.type == "cpu":
            finished = ahead(finishing, work.classify_and_finish, predicted, most)
        else:  # in a thread it would wait for the next batch as well
            classified = map(work.classify, predicted)
            finished = ahead(finishing, work.finish, classified, most)
        yield from finished


def label_scene(
    scene: Scene,
    source: SceneSource,
    teacher: Teacher,
    calibration: Calibration,
    config: LabelingConfig,
) -> SceneLabels:
    """Label every frame of a scene, see ``label_frames``."""
    return SceneLabels.of_frames(
        scene.scene_id,
        list(label_frames(scene, source, teacher, calibration, config)),
        frame=config.input_spec(teacher.preset.inputs).frame,
        inputs=source.fingerprint(scene.scene_id),
    )


def write_labels(
    store: LabelStore,
    scene: Scene,
    source: SceneSource,
    teacher: Teacher,
    calibration: Calibration,
    config: LabelingConfig,
    *,
    readers: int = 1,
    turn: AbstractContextManager[None] | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Label a scene into a store, which shows it once it is whole.

    Args:
        turn: as in ``label_frames``.
        on_frame: called after each frame.

    Raises:
        SceneError: as ``label_frames``.
        ValueError, OSError: as ``LabelStore.writer``.
    """
    inputs = source.fingerprint(scene.scene_id)
    with (
        store.writer(scene.scene_id, len(scene.frames), inputs=inputs) as writer,
        ThreadPoolExecutor(1) as writing,
        closing(
            label_frames(scene, source, teacher, calibration, config, readers=readers, turn=turn)
        ) as labels,
    ):
        for _ in ahead(writing, writer.append, labels, 2):
            on_frame()


def rehearse(
    teacher: Teacher, calibration: Calibration, config: LabelingConfig, header: StoreHeader
) -> None:
    """Label a batch of made-up frames and forget them: what is broken or too small on a machine
    shows before a scene is at stake, and what is loaded on first use is there.

    Raises:
        Exception: whatever stands in the way.
    """
    log = ExampleLog(config.input_spec(teacher.preset.inputs), frames=config.batch)
    with tempfile.TemporaryDirectory() as folder, suppress(SceneError):
        store = LabelStore.create(Path(folder) / "rehearsal.zarr", header)
        write_labels(store, log.scene("example"), log, teacher, calibration, config)


def store_header(
    teacher: LoadedModel,
    calibration: Calibration,
    config: LabelingConfig,
    *,
    source: str,
    licence: str,
    device: str = "cpu",
) -> StoreHeader:
    """Header of a store for such labels. Its run id is the hash of all that determines them; beside
    it stand the versions of the ``software``."""
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
    run_id = hashlib.sha256(text.encode()).hexdigest()
    return replace(header, run_id=run_id, provenance=provenance | {"software": software()})


def software() -> dict[str, str]:
    """Versions of this package and of those that labels are made with; not part of the run id, so
    that an update does not keep a job from being continued."""
    found = {}
    for name in ("effocc-autolabel", "torch", "numpy", "spconv-cu126", "zarr", "numcodecs"):
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """A batch of frames ready for the network; ``points`` (P, 5 or more) of each, in metres."""

    frames: list[Frame]
    inputs: ModelInputs
    points: list[NDArray[np.float32] | None]


@dataclass(frozen=True, slots=True, eq=False)
class _Predicted:
    """A frame with what the network says, on its device: (X, Y, Z, K), and flow (X, Y, Z, 2)."""

    frame: Frame
    points: NDArray[np.float32] | None
    logits: Tensor
    flow: Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class _Classified:
    """A frame with its classes, their softmax values (X, Y, Z), and flow."""

    frame: Frame
    points: NDArray[np.float32] | None
    semantics: Voxels
    raw: NDArray[np.float32]
    flow: NDArray[np.float16] | None


class _SceneWork:
    """The steps that a scene's frames go through."""

    def __init__(
        self,
        scene: Scene,
        source: SceneSource,
        teacher: Teacher,
        calibration: Calibration,
        config: LabelingConfig,
    ) -> None:
        self.scene, self.source, self.teacher = scene, source, teacher
        self.calibration, self.config = calibration, config
        self.spec = config.input_spec(teacher.preset.inputs)
        self.reaches = np.asarray(calibration.levels) >= config.min_confidence
        asked = config.free_passes
        self.free_passes = calibration.free_passes if asked is None else asked

    def batches(self) -> Iterator[list[int]]:
        """Positions of frames that the network can take together."""
        frames, size = self.scene.frames, self.config.batch
        for _, alike in itertools.groupby(range(len(frames)), lambda k: len(frames[k].cameras)):
            positions = list(alike)
            yield from (positions[i : i + size] for i in range(0, len(positions), size))

    def read(self, positions: list[int]) -> _Read:
        frames, prepared, points = [], [], []
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
        return _Read(frames, collate(prepared), points)

    def _files(self, frame: Frame, earlier: Sequence[Frame]) -> Iterator[Path]:
        for view in itertools.chain(frame.cameras, *(one.cameras for one in earlier)):
            yield view.path
        for sweep in (frame.lidar, *frame.past_sweeps[: self.spec.past_sweeps]):
            if sweep is not None:
                yield sweep.path

    def predict_all(
        self, prepared: Iterator[_Read], turn: AbstractContextManager[None]
    ) -> Generator[_Predicted, None, None]:
        first = list(itertools.islice(prepared, 1))
        with turn:
            for batch in itertools.chain(first, prepared):
                yield from self.predict(batch)

    def predict(self, batch: _Read) -> Iterator[_Predicted]:
        flow: Tensor | None = None
        if self.teacher.has_flow:
            logits, flow = self.teacher.predict_with_flow(batch.inputs)
        else:
            logits = self.teacher.predict(batch.inputs)
        for i, frame in enumerate(batch.frames):
            own_flow = None if flow is None else flow[i]
            yield _Predicted(frame, batch.points[i], logits[i], own_flow)

    def classify(self, one: _Predicted) -> _Classified:
        semantics, raw = _most_likely(one.logits)
        velocity = None
        finite = bool(np.isfinite(raw).all())
        if one.flow is not None:
            with np.errstate(over="ignore"):
                velocity = one.flow.cpu().numpy().astype(np.float16)
            velocity[~np.isin(semantics, self.teacher.preset.taxonomy.dynamic)] = 0
            finite &= bool(np.isfinite(velocity).all())
        if not finite:
            raise SceneError(
                where=f"scene {one.frame.scene_id}",
                frame=one.frame.token,
                rule="the teacher's output is not finite",
            )
        return _Classified(one.frame, one.points, semantics, raw, velocity)

    def classify_and_finish(self, one: _Predicted) -> FrameLabels:
        return self.finish(self.classify(one))

    def finish(self, one: _Classified) -> FrameLabels:
        taxonomy, grid = self.teacher.preset.taxonomy, self.teacher.preset.grid
        occupied = one.semantics != taxonomy.free_id
        level = self.calibration.levels_of(one.raw, one.semantics)
        seen = observe(one.frame, one.points, grid, occupied, self.config.seeing)
        mask = _observation_mask(one.semantics, seen, taxonomy)
        observed = mask & np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE) > 0
        founded = occupied | (seen.hits > 0) | (seen.passes >= self.free_passes)
        mask[observed & founded & self.reaches[level]] |= np.uint8(MaskBit.TRUSTED)
        return FrameLabels(
            token=one.frame.token,
            timestamp_us=one.frame.timestamp_us,
            T_global_grid=one.frame.T_global_ego,
            semantics=one.semantics,
            confidence=np.where(observed, level, np.uint8(0)),
            mask=mask,
            hits=seen.hits if self.config.store_evidence else None,
            passes=seen.passes if self.config.store_evidence else None,
            flow=one.flow,
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
            above = (values - top[..., None]).exp_().sum(dim=-1)  # the top's own 1 included
            raw[slab] = above.reciprocal_().cpu().numpy()
    return semantics, raw


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
