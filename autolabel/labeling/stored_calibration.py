"""The calibration, its domain and the risk evidence stored in a weights file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from autolabel.confidence.calibration import Calibration
from autolabel.confidence.risk_control import CalibrationCounts, control_risk
from autolabel.labeling.config import LabelingConfig, config_signature
from datasets.errors import SetupError
from datasets.labels.calibration_record import RiskBound, Test
from datasets.labels.domain import ConfidenceDomain
from models.checkpoints.checkpoint import (
    CALIBRATION_KEY,
    DOMAIN_KEY,
    EVIDENCE_KEY,
    LoadedModel,
    metadata_json,
)


def calibration_of(teacher: LoadedModel, weights: Path) -> Calibration:
    """The table inside the weights file; without one, plain softmax.

    Raises:
        SetupError: the table is damaged or of another class list, or the refiner of another grid.
    """
    if CALIBRATION_KEY not in teacher.metadata:
        print(f"warning: {weights} is not calibrated: confidence is plain softmax", file=sys.stderr)
        return Calibration.uncalibrated(teacher.preset.taxonomy.n_classes)
    calibration = metadata_json(teacher.metadata, CALIBRATION_KEY, Calibration.from_json, weights)
    if len(calibration.counts) != teacher.preset.taxonomy.n_classes:
        raise SetupError(f"{weights}: the calibration table is of another class list")
    network = None if calibration.refiner is None else calibration.refiner.network
    preset = teacher.preset
    if network is not None and not network.fits(preset.grid, preset.taxonomy.n_classes):
        raise SetupError(
            f"{weights}: its refiner is of {network.shape.levels} levels of "
            f"{network.shape.voxel_m} m, {preset.name} has {preset.grid.shape[2]} of "
            f"{preset.grid.size_m[0]} m: calibrate again (scripts/calibrate.py)"
        )
    return calibration


def domain_of(teacher: LoadedModel, weights: Path) -> ConfidenceDomain | None:
    """The logs that confidence was learned on; None where the weights do not tell. Raises
    ``SetupError`` where that is damaged."""
    if DOMAIN_KEY not in teacher.metadata:
        return None
    return metadata_json(teacher.metadata, DOMAIN_KEY, ConfidenceDomain.from_json, weights)


def evidence_of(teacher: LoadedModel, weights: Path) -> CalibrationCounts | None:
    """What error bounds rest on; None where the weights hold none. Raises ``SetupError`` where it
    is damaged."""
    if EVIDENCE_KEY not in teacher.metadata:
        return None
    return metadata_json(teacher.metadata, EVIDENCE_KEY, CalibrationCounts.from_json, weights)


def risk_bound_of(
    teacher: LoadedModel,
    calibration: Calibration,
    config: LabelingConfig,
    *,
    weights: Path,
    max_error: float | Mapping[str, float],
    confidence: float,
    test: Test,
) -> RiskBound:
    """The error bound for ``--max-error``, from the evidence inside the weights file.

    Raises:
        SetupError: the evidence is missing, of labels made otherwise, or does not suffice.
    """
    if (evidence := evidence_of(teacher, weights)) is None:
        raise SetupError(
            f"{weights}: holds no evidence for --max-error; scripts/calibrate.py gathers it"
        )
    signature = config_signature(config)
    if evidence.config_signature != signature:
        raise SetupError(
            f"{weights}: calibrated on labels made with {evidence.config_signature}, these are "
            f"made with {signature}; calibrate with the same options"
        )
    return control_risk(
        evidence,
        calibration.levels,
        teacher.preset.taxonomy.class_groups(),
        max_error=max_error,
        confidence=confidence,
        test=test,
    )
