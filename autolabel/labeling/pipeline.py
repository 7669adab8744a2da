"""A scene's way from files to labels: read, predict, fuse over the drive, decide trust.

The network runs in the caller's thread; ``Stages`` owns all other threads. They read ahead and, on
a CPU, do whatever follows the network. Nothing here knows Ray, or where a store lies.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from autolabel.confidence.calibration import Calibration
from autolabel.instances import Tracker
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.lidar_check import checked_frames, lidar_check
from autolabel.labeling.prediction import (
    FramePrediction,
    NetworkLock,
    ObservedFrame,
    PredictionSteps,
)
from autolabel.labeling.stages import Stages
from autolabel.labeling.trust import decide_trust
from autolabel.refinement.temporal_fusion import FrameEvidence, Refiner, windows
from datasets.errors import SceneError
from datasets.frames import Frame, Scene, SceneSource
from datasets.labels.store import LabelStore, StoreHeader
from datasets.labels.voxel_labels import FrameLabels, SceneLabels
from datasets.sources.example import ExampleLog
from models.inference.predictor import OccupancyPredictor

A = TypeVar("A")


def label_frames(
    scene: Scene,
    source: SceneSource,
    teacher: OccupancyPredictor,
    calibration: Calibration,
    config: LabelingConfig,
    *,
    readers: int = 1,
    network_lock: NetworkLock | None = None,
) -> Generator[FrameLabels, None, None]:
    """Label the frames of a scene one after the other, in memory that does not grow with it.

    A voxel is ``LIDAR_OBSERVED`` where a ray of any sweep used ended or passed, and
    ``CAMERA_VISIBLE`` where a camera sees it through the *predicted* occupancy, decided both per
    pixel ray and per occupied voxel: pixel rays alone lose two thirds of the distant ground. It
    is ``TRUSTED`` where it is one of the two, its calibrated confidence reaches
    ``config.min_confidence``, and, if free, enough rays pass. Confidence is 0 where it is neither:
    nothing may use those labels. Labels lie in the frame that the teacher's inputs are in. Flow is
    present if the teacher predicts it, and 0 where the predicted class cannot move. Of a few
    frames, held-out sweeps are asked about the trusted voxels (``lidar_check``).

    With a refinement, a frame's own prediction is fused with those of other frames of the scene
    (``temporal_fusion``); its masks stay those of its own sensors.

    Args:
        readers: threads that read and decode, and as many that finish.
        network_lock: held while the network is needed: entered once the first batch is read, left
            when the last is predicted. For scenes that share a network.

    Raises:
        SceneError: a file, pose or image is bad, a frame has no LiDAR to lie in, or the teacher's
            output is not finite.
        ValueError: a refinement is asked for, and the calibration has no refiner.
    """
    steps = PredictionSteps(scene, source, teacher, config, calibration.refiner, network_lock)
    with _stages(config, readers) as stages:
        yield from _numbered(_run(stages, steps, _decide_trust(steps, calibration)), steps)


def label_scene(
    scene: Scene,
    source: SceneSource,
    teacher: OccupancyPredictor,
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
    teacher: OccupancyPredictor,
    calibration: Calibration,
    config: LabelingConfig,
    *,
    readers: int = 1,
    network_lock: NetworkLock | None = None,
    on_frame: Callable[[], None] = lambda: None,
) -> None:
    """Label a scene into a store, which shows it once it is whole.

    Args:
        readers, network_lock: as in ``label_frames``.
        on_frame: called after each frame.

    Raises:
        SceneError: as ``label_frames``.
        ValueError, OSError: as ``LabelStore.writer``.
    """
    inputs = source.fingerprint(scene.scene_id)
    steps = PredictionSteps(scene, source, teacher, config, calibration.refiner, network_lock)
    with (
        store.writer(scene.scene_id, len(scene.frames), inputs=inputs) as writer,
        _stages(config, readers) as stages,
    ):
        labels = _numbered(_run(stages, steps, _decide_trust(steps, calibration)), steps)
        for _ in stages.prefetch(writer.append, labels, threads=1, depth=2):
            on_frame()


def predict_frames(
    scene: Scene,
    source: SceneSource,
    teacher: OccupancyPredictor,
    config: LabelingConfig,
    refiner: Refiner | None = None,
) -> Generator[FramePrediction, None, None]:
    """Predict every frame of a scene as ``label_frames`` does; decide nothing about trust.

    Args:
        refiner: for ``config.refinement``; None: every frame is predicted alone.

    Raises:
        SceneError: as ``label_frames``.
    """
    steps = PredictionSteps(scene, source, teacher, config, refiner)
    with _stages(config) as stages:
        yield from _run(stages, steps, lambda prediction: prediction)


def frame_evidence(
    scene: Scene, source: SceneSource, teacher: OccupancyPredictor, config: LabelingConfig
) -> Generator[tuple[Frame, FrameEvidence], None, None]:
    """The evidence of each frame by itself, for ``RefinerFit``; with the numbers of objects if
    ``config.refinement`` reads them. Raises as ``label_frames``."""
    steps = PredictionSteps(scene, source, teacher, config)
    with _stages(config) as stages:
        batches = stages.prefetch(steps.read_batch, steps.batches())
        outputs = stages.closing(steps.predict(batches))
        frames: Iterator[ObservedFrame] = map(steps.add_evidence, outputs)
        if config.refinement is not None and config.refinement.objects:
            frames = steps.follow_objects(frames)
        for observed in frames:
            yield observed.prepared.frame, observed.evidence


def warm_up(
    teacher: OccupancyPredictor,
    calibration: Calibration,
    config: LabelingConfig,
    header: StoreHeader,
) -> None:
    """Label a batch of made-up frames and forget them: a machine that is broken or too small shows
    before it gets a scene, and code that loads on first use is loaded.

    Raises:
        Exception: whatever stands in the way.
    """
    log = ExampleLog(config.input_spec(teacher.preset.inputs), frames=config.batch)
    with tempfile.TemporaryDirectory() as folder, suppress(SceneError):
        store = LabelStore.create(Path(folder) / "warm_up.zarr", header)
        write_labels(store, log.scene("example"), log, teacher, calibration, config)


def _run(
    stages: Stages, steps: PredictionSteps, finish: Callable[[FramePrediction], A]
) -> Iterator[A]:
    """The main path: every frame of the scene predicted, and finished in the last stage."""
    batches = stages.prefetch(steps.read_batch, steps.batches(), depth=stages.threads + 1)
    outputs = stages.closing(steps.predict(batches))
    on_gpu = steps.teacher.device.type != "cpu"  # there a thread would wait for the next batch too
    if steps.refinement is not None:
        frames = stages.prefetch(steps.add_evidence, outputs, inline=on_gpu)
        if steps.refinement.objects:
            frames = steps.follow_objects(frames)
        reach = steps.refinement.reach
        return stages.prefetch(lambda window: finish(steps.fuse(window)), windows(frames, reach))
    if on_gpu:
        return stages.prefetch(finish, map(steps.most_likely, outputs))
    return stages.prefetch(lambda output: finish(steps.most_likely(output)), outputs)


def _decide_trust(
    steps: PredictionSteps, calibration: Calibration
) -> Callable[[FramePrediction], FrameLabels]:
    config, preset = steps.config, steps.teacher.preset
    checked = checked_frames(steps.scene.frames)
    if config.refinement is not None and steps.refinement is None:
        raise ValueError("the calibration has no refiner: fit one with scripts/calibrate.py")

    def finish(prediction: FramePrediction) -> FrameLabels:
        labels = decide_trust(prediction, calibration, config, preset)
        if prediction.frame.token not in checked:
            return labels
        check = lidar_check(
            labels, prediction.frame, steps.source, calibration, preset.grid, preset.taxonomy
        )
        return replace(labels, lidar_check=check)

    return finish


def _numbered(labels: Iterator[FrameLabels], steps: PredictionSteps) -> Iterator[FrameLabels]:
    """With numbers of objects, where the configuration asks for them."""
    if not steps.config.instances:
        yield from labels
        return
    tracker = Tracker(steps.teacher.preset.grid, steps.teacher.preset.taxonomy)
    for frame in labels:
        instances = tracker.update(frame.semantics, frame.T_global_grid, frame.timestamp_us)
        yield replace(frame, instances=instances)


def _stages(config: LabelingConfig, readers: int = 1) -> Stages:
    return Stages(readers, depth=max(readers, config.batch))
