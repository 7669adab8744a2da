"""Labels of a store as the files of a benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from datasets.benchmarks.catalogue import Benchmark
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.errors import AutolabelError, SetupError
from datasets.files.printable import printable
from datasets.files.store_path import StorePath
from datasets.frames import SceneSource
from datasets.labels.log_identity import labeled_scene
from datasets.labels.store import FrameLabels, LabelStore, MaskBit
from datasets.reviews.edits import apply_edits, distrusted
from datasets.reviews.overlay import EditEntry, Reviews
from datasets.store_ops.processes import map_in_processes
from datasets.taxonomy import IGNORE_ID

_EditedScene = tuple[str, dict[str, tuple[EditEntry, ...]], frozenset[str]]
"""A scene's id, the edits of its frames, and the tokens of those that were rejected."""


def export(
    where: StorePath,
    benchmark: Benchmark,
    source: SceneSource,
    out: Path,
    *,
    workers: int = 1,
    use_reviews: bool = True,
    on_scene: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Write every frame of a store as the benchmark's label file, scenes in parallel.

    Only trusted voxels count: the masks hold them alone, and where the format has no masks all
    others that a sensor observed are 255. What no sensor observed, and nobody edited, is free.

    Args:
        source: the log, for the names of the files.
        use_reviews: apply the edits, and trust no voxel of a rejected frame.

    Returns:
        Scene id -> why it could not be exported.

    Raises:
        SetupError: the store has other voxels or classes, or no flow where the format wants it.
    """
    store = LabelStore.open(where)
    header = store.header
    benchmark.require(f"label store {where}", header.grid, header.taxonomy, header.frame)
    if benchmark.write is None:
        raise SetupError(f"benchmark {benchmark.name} has no files of its own to write")
    if benchmark.name == "openocc_flow" and not header.flow:
        raise SetupError(f"label store {where}: has no flow, which {benchmark.name} wants")
    scenes = store.scene_ids()
    reviews = Reviews(store) if use_reviews else None
    if reviews is not None:
        reviews.require_whole()
    edited = [
        (scene_id, {}, frozenset[str]())
        if reviews is None
        else (scene_id, reviews.edits(scene_id), reviews.rejected(scene_id))
        for scene_id in scenes
    ]
    work = partial(_export_scene, where, benchmark, source, out)
    reasons = map_in_processes(work, edited, workers, on_scene)
    return {scene: why for scene, why in zip(scenes, reasons, strict=True) if why}


def _export_scene(
    where: StorePath, benchmark: Benchmark, source: SceneSource, out: Path, edited: _EditedScene
) -> str:
    assert benchmark.write is not None
    scene_id, edits, rejected = edited
    try:
        store = LabelStore.open(where)
        stored, scene = labeled_scene(store, scene_id, source)
        for frame in scene.frames:
            path = benchmark.path(out, source, frame)
            labels = stored.frame(stored.index_of(frame.token))
            if frame.token in edits:
                labels = apply_edits(labels, edits[frame.token], store.header)
            if frame.token in rejected:
                labels = distrusted(labels)
            benchmark.write(path, as_truth(labels, benchmark))
    except (AutolabelError, KeyError) as error:
        return str(error)
    return ""


def as_truth(labels: FrameLabels, benchmark: Benchmark) -> GroundTruth:
    """Labels in the layers that the benchmark's files have."""
    trusted = (labels.mask & MaskBit.TRUSTED) > 0
    lidar = (labels.mask & MaskBit.LIDAR_OBSERVED) > 0
    camera = (labels.mask & MaskBit.CAMERA_VISIBLE) > 0
    free = np.uint8(benchmark.taxonomy.free_id)
    truth = GroundTruth(
        grid=benchmark.grid,
        taxonomy=benchmark.taxonomy,
        semantics=np.where(lidar | camera | trusted, labels.semantics, free),
    )
    if benchmark.mask is None:
        ignored = (lidar | camera) & ~trusted
        flow = None if labels.flow is None else np.nan_to_num(labels.flow.astype(np.float32))
        semantics = np.where(ignored, np.uint8(IGNORE_ID), truth.semantics)
        instances = None if labels.instances is None else labels.instances.astype(np.int32)
        return replace(truth, semantics=semantics, flow=flow, instances=instances)
    if benchmark.mask == "observed":
        return replace(truth, mask_lidar=trusted)
    return replace(truth, mask_lidar=lidar & trusted, mask_camera=camera & trusted)


def sharing(licence: str) -> str:
    """What whoever passes labels on must know of the licence that they inherit; one line."""
    licence = printable(licence)
    if "CC0" in licence:
        return f"licence of the labels: {licence}; they may be shared"
    if "Waymo" in licence:
        return (
            f"licence of the labels: {licence}. They are derived from data that must not be passed "
            "on: DO NOT SHARE them outside of that agreement"
        )
    return (
        f"licence of the labels: {licence}. They inherit it from the log: share them only as it "
        "allows"
    )
