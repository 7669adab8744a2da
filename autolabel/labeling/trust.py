"""Which labels of a predicted frame to trust.

Legend: X Y Z voxels.
"""

from __future__ import annotations

import numpy as np

from autolabel.confidence.calibration import RINGS, Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.prediction import FramePrediction
from autolabel.labeling.visibility import Visibility, visible_to_cameras
from datasets.labels.voxel_labels import FrameLabels, MaskBit, Voxels
from datasets.taxonomy import Taxonomy
from models.presets import Preset


def decide_trust(
    prediction: FramePrediction, calibration: Calibration, config: LabelingConfig, preset: Preset
) -> FrameLabels:
    """The labels of a frame: calibrated confidence and the mask, see ``label_frames``."""
    taxonomy, grid = preset.taxonomy, preset.grid
    visibility = visibility_of(prediction, preset, config)
    mask = _visibility_mask(prediction.semantics, visibility, taxonomy)
    observed = mask & np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE) > 0
    raw = prediction.raw_confidence(calibration.meta, observed, grid, taxonomy)
    level = calibration.levels_of(raw, prediction.semantics, RINGS.of(grid))
    free_passes = calibration.min_free_rays if config.free_passes is None else config.free_passes
    occupied = prediction.semantics != taxonomy.free_id
    if config.class_thresholds is not None:
        sure = level >= np.asarray(config.class_thresholds, np.uint8)[prediction.semantics]
    else:
        sure = (np.asarray(calibration.levels) >= config.min_confidence)[level]
    mask[observed & visibility.has_evidence(occupied, free_passes) & sure] |= np.uint8(
        MaskBit.TRUSTED
    )
    return FrameLabels(
        token=prediction.frame.token,
        timestamp_us=prediction.frame.timestamp_us,
        T_global_grid=prediction.frame.T_global_ego,
        semantics=prediction.semantics,
        confidence=np.where(observed, level, np.uint8(0)),
        mask=mask,
        hits=visibility.hits if config.store_evidence else None,
        passes=visibility.passes if config.store_evidence else None,
        flow=prediction.flow,
        statistics=prediction.statistics,
    )


def visibility_of(
    prediction: FramePrediction, preset: Preset, config: LabelingConfig
) -> Visibility:
    """What LiDAR and cameras observe of a frame's voxels, given its predicted occupancy."""
    visible = visible_to_cameras(
        prediction.semantics != preset.taxonomy.free_id,
        prediction.hits,
        prediction.points,
        prediction.frame,
        preset.grid,
        config.visibility,
    )
    return Visibility(hits=prediction.hits, passes=prediction.passes, visible=visible)


def _visibility_mask(semantics: Voxels, visibility: Visibility, taxonomy: Taxonomy) -> Voxels:
    """Every bit but ``TRUSTED``, (X, Y, Z)."""
    mask = np.zeros(semantics.shape, np.uint8)
    for bit, voxels in (
        (MaskBit.LIDAR_OBSERVED, (visibility.hits > 0) | (visibility.passes > 0)),
        (MaskBit.CAMERA_VISIBLE, visibility.visible),
        (MaskBit.DYNAMIC, np.isin(semantics, taxonomy.dynamic)),
    ):
        mask[voxels] |= np.uint8(bit)
    return mask
