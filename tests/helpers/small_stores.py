"""Stores and truth of a folder log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datasets.benchmarks import occ3d_nuscenes
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.frames import SceneSource, in_lidar_frame
from datasets.labels.domain import ConfidenceDomain, LogDomain
from datasets.labels.store import GridFrame, LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.labels.validity import DOMAIN_KEY, LOG_KEY

GRID, TAXONOMY = occ3d_nuscenes.GRID, occ3d_nuscenes.TAXONOMY
ROAD = TAXONOMY.id_of("driveable_surface")


def road() -> np.ndarray:
    semantics = np.full(GRID.shape, TAXONOMY.free_id, np.uint8)
    semantics[:, :, 2] = ROAD
    return semantics


def calibrated_there(kind: str, source: SceneSource) -> dict[str, Any]:
    """Of a store whose confidence was learned on its own log."""
    known = LogDomain(
        source=kind, log=source.name, licence="none", scenes=9, frames=9, reference=None
    )
    domain = ConfidenceDomain(logs=(known,))
    return {"source": kind, LOG_KEY: source.name, DOMAIN_KEY: domain.to_json()}


def write_store(path: Path, source: SceneSource, kind: str, *, frame: GridFrame = "ego") -> Path:
    """A store of one scene of a log: road everywhere."""
    (scene_id,) = source.scene_ids("all")
    frames = source.scene(scene_id).frames
    if frame == "lidar":
        frames = tuple(map(in_lidar_frame, frames))
    header = StoreHeader(
        grid=GRID,
        taxonomy=TAXONOMY,
        levels=(0.5, 1.0),
        licence="none",
        provenance=calibrated_there(kind, source) if kind else {},
        run_id="test",
        frame=frame,
    )
    semantics = np.stack([road()] * len(frames))
    LabelStore.create(path, header).write_scene(
        SceneLabels(
            scene_id=scene_id,
            frame_tokens=tuple(f.token for f in frames),
            timestamps_us=np.array([f.timestamp_us for f in frames]),
            T_global_grid=np.array([f.T_global_ego for f in frames]),
            semantics=semantics,
            confidence=np.ones_like(semantics),
            mask=np.full_like(semantics, MaskBit.TRUSTED),
            frame=frame,
        )
    )
    return path


def write_truth(root: Path, source: SceneSource, scene_id: str) -> Path:
    """Occ3D files of every frame but the first: road, seen by LiDAR; a camera sees ahead."""
    ahead = np.zeros(GRID.shape, bool)
    ahead[100:] = True
    truth = GroundTruth(
        grid=GRID,
        taxonomy=TAXONOMY,
        semantics=road(),
        mask_lidar=np.ones(GRID.shape, bool),
        mask_camera=ahead,
    )
    for frame in source.scene(scene_id).frames[1:]:
        path = occ3d_nuscenes.labels_path(root, scene_id, frame.token)
        occ3d_nuscenes.write_labels(path, truth)
    return root
