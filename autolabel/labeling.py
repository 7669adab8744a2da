"""One scene through the teacher: semantics, calibrated confidence and an honest mask.

Pure: reads the frames' files, returns arrays, knows nothing of Ray or of the store's disk.

Legend: T frames, P LiDAR returns, X Y Z voxels, K classes.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autolabel import drift
from autolabel.ahead import ahead
from autolabel.confidence import RINGS, Calibration
from autolabel.observing import Observation, Seeing, metric_points, visible_to_cameras
from autolabel.risk import Promise
from autolabel.temporal import Refinement, Refiner, Sight, pool, refine, sight_of, windows
from datasets.errors import SceneError
from datasets.example_inputs import ExampleLog
from datasets.frames import Frame, Scene, SceneSource, earlier_frames, in_lidar_frame
from datasets.geometry.grid import VoxelGrid
from datasets.inputs import InputSpec, ModelInputs, collate, prepare_frame
from datasets.label_store import LabelStore, StoreHeader
from datasets.remote_paths import fetch
from datasets.taxonomy import Taxonomy
from datasets.visibility import RAY_COLUMNS, sweep_evidence
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
        refinement: put the frames of a scene together, if the calibration has a refiner; None:
            every frame is labelled on its own.
        promise: its thresholds say what is trusted, instead of ``min_confidence``.

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
    refinement: Refinement | None = None
    promise: Promise | None = None

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
        """JSON values with nothing left to default; what is off is left out."""
        values = asdict(self) | {"past_sweeps": self.input_spec(teacher).past_sweeps}
        values["refinement"] = None if self.refinement is None else asdict(self.refinement)
        values["promise"] = None if self.promise is None else self.promise.to_json()
        return {k: v for k, v in values.items() if v is not None or k == "free_passes"}


def made_with(config: LabelingConfig) -> dict[str, Any]:
    """What of a configuration changes classes and confidence: a calibration holds for it only."""
    how = config.refinement
    refined = None if how is None else json.loads(json.dumps(asdict(how)))
    return {
        "past_sweeps": config.past_sweeps,
        "ray_columns": config.ray_columns,
        "visibility_split": config.visibility_split,
        "fast": config.fast,
        "flips": config.flips,
        "refinement": refined,
    }


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

    With a refinement, what other frames of the scene say is put together with a frame's own
    prediction (``temporal``); its masks stay those of its own sensors.

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
    refiner = calibration.refiner if config.refinement is not None else None
    if config.refinement is not None and refiner is None:
        raise ValueError("the calibration has no refiner: fit one with scripts/calibrate.py")
    work = _SceneWork(scene, source, teacher, config, refiner)
    finish = functools.partial(_finish, calibration, config, teacher)
    with ThreadPoolExecutor(readers) as finishing, closing(work.guesses(readers, turn)) as guesses:
        yield from ahead(finishing, lambda guess: finish(guess()), guesses, work.most(readers))


def guess_frames(
    scene: Scene,
    source: SceneSource,
    teacher: Teacher,
    config: LabelingConfig,
    refiner: Refiner | None = None,
) -> Generator[Guess, None, None]:
    """What ``label_frames`` takes frames for, before it decides what to trust.

    Args:
        refiner: for ``config.refinement``; None: every frame on its own.

    Raises:
        SceneError: as ``label_frames``.
    """
    work = _SceneWork(scene, source, teacher, config, refiner)
    with closing(work.guesses(1, None)) as guesses:
        for guess in guesses:
            yield guess()


def sights_of(
    scene: Scene, source: SceneSource, teacher: Teacher, config: LabelingConfig
) -> Generator[tuple[Frame, Sight], None, None]:
    """What each frame says by itself, for ``temporal.RefinerFit``. Raises as ``label_frames``."""
    work = _SceneWork(scene, source, teacher, config, None)
    with closing(work.predictions(1, None)) as predictions:
        for one in predictions:
            yield one.frame, work.see(one)[1]


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
class Guess:
    """What a frame is taken for.

    Attributes:
        points: (P, 5 or more) returns of the sweeps used, metres.
        hits, passes: (X, Y, Z) uint8, their evidence.
        semantics: (X, Y, Z) class ids; raw: their softmax values, float32.
        flow: (X, Y, Z, 2).
        statistics: see ``drift``.
    """

    frame: Frame
    points: NDArray[np.float32] | None
    hits: Voxels
    passes: Voxels
    semantics: Voxels
    raw: NDArray[np.float32]
    flow: NDArray[np.float16] | None
    statistics: dict[str, float]


class _SceneWork:
    """The steps that a scene's frames go through."""

    def __init__(
        self,
        scene: Scene,
        source: SceneSource,
        teacher: Teacher,
        config: LabelingConfig,
        refiner: Refiner | None,
    ) -> None:
        self.scene, self.source, self.teacher = scene, source, teacher
        self.config, self.refiner = config, refiner
        self.spec = config.input_spec(teacher.preset.inputs)
        self.grid, self.taxonomy = teacher.preset.grid, teacher.preset.taxonomy

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
    ) -> Generator[Callable[[], Guess], None, None]:
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
                seen: Iterator[tuple[_Predicted, Sight]]
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
        for sweep in (frame.lidar, *frame.past_sweeps[: self.spec.past_sweeps]):
            if sweep is not None:
                yield sweep.path

    def predict(self, batch: _Read) -> Iterator[_Predicted]:
        flow: Tensor | None = None
        if self.teacher.has_flow:
            logits, flow = self.teacher.predict_with_flow(batch.inputs)
        else:
            logits = self.teacher.predict(batch.inputs)
        for i, frame in enumerate(batch.frames):
            own_flow = None if flow is None else flow[i]
            yield _Predicted(frame, batch.points[i], logits[i], own_flow, batch.statistics[i])

    def guess(self, one: _Predicted) -> Guess:
        """From the frame alone."""
        semantics, raw = _most_likely(one.logits)
        return self._guess(one, semantics, raw, *sweep_evidence(one.frame, one.points, self.grid))

    def see(self, one: _Predicted) -> tuple[_Predicted, Sight]:
        hits, passes = sweep_evidence(one.frame, one.points, self.grid)
        self._require_finite(one, bool(one.logits.isfinite().all()))
        sight = sight_of(one.frame, one.points, one.logits, hits, passes, self.grid, self.taxonomy)
        return replace(one, logits=one.logits[:0]), sight

    def refined(self, around: Sequence[tuple[_Predicted, Sight]], k: int) -> Guess:
        """From the frame and those around it."""
        how, refiner = self.config.refinement, self.refiner
        assert how is not None and refiner is not None
        one, sight = around[k]
        pooled = pool([s for _, s in around], k, self.grid, self.taxonomy, how)
        logits = torch.from_numpy(refine(pooled, refiner, how)).view(*self.grid.shape, -1)
        semantics, raw = _most_likely(logits)
        return self._guess(one, semantics, raw, sight.hits, sight.passes)

    def _guess(
        self,
        one: _Predicted,
        semantics: Voxels,
        raw: NDArray[np.float32],
        hits: Voxels,
        passes: Voxels,
    ) -> Guess:
        velocity = None
        finite = bool(np.isfinite(raw).all())
        if one.flow is not None:
            with np.errstate(over="ignore"):
                velocity = one.flow.cpu().numpy().astype(np.float16)
            velocity[~np.isin(semantics, self.taxonomy.dynamic)] = 0
            finite &= bool(np.isfinite(velocity).all())
        self._require_finite(one, finite)
        return Guess(
            frame=one.frame,
            points=one.points,
            hits=hits,
            passes=passes,
            semantics=semantics,
            raw=raw,
            flow=velocity,
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


def _same(guess: Guess) -> Guess:
    return guess


def observed_voxels(
    guess: Guess, grid: VoxelGrid, taxonomy: Taxonomy, config: LabelingConfig
) -> Observation:
    """What LiDAR and cameras saw of a guess's voxels."""
    occupied = guess.semantics != taxonomy.free_id
    visible = visible_to_cameras(
        occupied, guess.hits, guess.points, guess.frame, grid, config.seeing
    )
    return Observation(hits=guess.hits, passes=guess.passes, visible=visible)


def _finish(
    calibration: Calibration, config: LabelingConfig, teacher: Teacher, guess: Guess
) -> FrameLabels:
    """Decide what to trust."""
    taxonomy, grid = teacher.preset.taxonomy, teacher.preset.grid
    seen = observed_voxels(guess, grid, taxonomy, config)
    level = calibration.levels_of(guess.raw, guess.semantics, RINGS.of(grid))
    mask = _observation_mask(guess.semantics, seen, taxonomy)
    observed = mask & np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE) > 0
    asked = config.free_passes
    free_passes = calibration.free_passes if asked is None else asked
    founded = seen.founded(guess.semantics != taxonomy.free_id, free_passes)
    if config.promise is not None:
        sure = level >= np.asarray(config.promise.thresholds, np.uint8)[guess.semantics]
    else:
        sure = (np.asarray(calibration.levels) >= config.min_confidence)[level]
    mask[observed & founded & sure] |= np.uint8(MaskBit.TRUSTED)
    return FrameLabels(
        token=guess.frame.token,
        timestamp_us=guess.frame.timestamp_us,
        T_global_grid=guess.frame.T_global_ego,
        semantics=guess.semantics,
        confidence=np.where(observed, level, np.uint8(0)),
        mask=mask,
        hits=seen.hits if config.store_evidence else None,
        passes=seen.passes if config.store_evidence else None,
        flow=guess.flow,
        statistics=guess.statistics,
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
