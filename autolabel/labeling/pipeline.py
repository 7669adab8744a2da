"""One scene through the teacher: semantics, calibrated confidence and an honest mask.

Pure: reads the frames' files, returns arrays, knows nothing of Ray or of the store's disk.

Legend: T frames, P LiDAR returns, X Y Z voxels, K classes.
"""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np

from autolabel.confidence.calibration import RINGS, Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.prediction import FramePrediction, ScenePipeline, observed_voxels
from autolabel.labeling.prefetch import ahead
from autolabel.labeling.visibility import Observation
from datasets.errors import SceneError
from datasets.files.json_files import canonical_text
from datasets.frames import Scene, SceneSource
from datasets.labels.store import LabelStore, StoreHeader
from datasets.labels.voxel_labels import FrameLabels, MaskBit, SceneLabels, Voxels
from datasets.sources.example import ExampleLog
from datasets.taxonomy import Taxonomy
from models.checkpoints.checkpoint import LoadedModel
from models.inference.predictor import OccupancyPredictor

LABELING_VERSION = 5
"""Raised whenever the same inputs would give other labels."""


def label_frames(
    scene: Scene,
    source: SceneSource,
    teacher: OccupancyPredictor,
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
    work = ScenePipeline(scene, source, teacher, config, refiner)
    finish = functools.partial(_finish, calibration, config, teacher)
    with ThreadPoolExecutor(readers) as finishing, closing(work.guesses(readers, turn)) as guesses:
        yield from ahead(finishing, lambda guess: finish(guess()), guesses, work.most(readers))


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


def warm_up(
    teacher: OccupancyPredictor,
    calibration: Calibration,
    config: LabelingConfig,
    header: StoreHeader,
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
    text = canonical_text(header.to_json())
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


def _finish(
    calibration: Calibration,
    config: LabelingConfig,
    teacher: OccupancyPredictor,
    guess: FramePrediction,
) -> FrameLabels:
    """Decide what to trust."""
    taxonomy, grid = teacher.preset.taxonomy, teacher.preset.grid
    seen = observed_voxels(guess, grid, taxonomy, config)
    mask = _observation_mask(guess.semantics, seen, taxonomy)
    observed = mask & np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE) > 0
    raw = guess.raw_confidence(calibration.meta, observed, grid, taxonomy)
    level = calibration.levels_of(raw, guess.semantics, RINGS.of(grid))
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
