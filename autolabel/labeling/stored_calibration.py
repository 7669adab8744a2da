"""The calibration, drift reference and risk evidence stored in a weights file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from autolabel.confidence.calibration import Calibration
from autolabel.confidence.drift import MIN_SCENES, drift, drift_warning, reference_from_json
from autolabel.confidence.risk_control import CalibrationCounts, control_risk
from autolabel.labeling.config import LabelingConfig, config_signature
from datasets.errors import SetupError
from datasets.files.store_path import StorePath
from datasets.labels.calibration_record import RiskBound, Test
from datasets.labels.store import LabelStore
from models.checkpoints.checkpoint import (
    CALIBRATION_KEY,
    EVIDENCE_KEY,
    REFERENCE_KEY,
    LoadedModel,
    metadata_json,
)


def calibration_of(teacher: LoadedModel, weights: Path) -> Calibration:
    """The table inside the weights file; without one, plain softmax.

    Raises:
        SetupError: the table is damaged or of another class list.
    """
    if CALIBRATION_KEY not in teacher.metadata:
        print(f"warning: {weights} is not calibrated: confidence is plain softmax", file=sys.stderr)
        return Calibration.uncalibrated(teacher.preset.taxonomy.n_classes)
    calibration = metadata_json(teacher.metadata, CALIBRATION_KEY, Calibration.from_json, weights)
    if len(calibration.counts) != teacher.preset.taxonomy.n_classes:
        raise SetupError(f"{weights}: the calibration table is of another class list")
    return calibration


def drift_of(
    store: StorePath,
    scene_ids: Sequence[str],
    teacher: LoadedModel,
    weights: Path,
    *,
    promised: bool,
) -> str:
    """A warning how the labelled scenes differ from the calibration scenes; empty if they do not,
    or if either are too few to tell."""
    if REFERENCE_KEY not in teacher.metadata:
        return ""
    reference = metadata_json(teacher.metadata, REFERENCE_KEY, reference_from_json, weights)
    committed = LabelStore.open(store).committed()
    scenes = [committed[s]["statistics"] for s in scene_ids if "statistics" in committed.get(s, {})]
    if min(len(scenes), len(reference)) < MIN_SCENES:
        return ""
    return drift_warning(drift(scenes, reference), promised=promised)


def risk_bound_of(
    teacher: LoadedModel,
    calibration: Calibration,
    config: LabelingConfig,
    *,
    weights: Path,
    max_error: float,
    confidence: float,
    test: Test,
) -> RiskBound:
    """The error bound for ``--max-error``, from the evidence inside the weights file.

    Raises:
        SetupError: the evidence is missing, of labels made otherwise, or does not suffice.
    """
    if EVIDENCE_KEY not in teacher.metadata:
        raise SetupError(
            f"{weights}: holds no evidence for --max-error; scripts/calibrate.py gathers it"
        )
    evidence = metadata_json(teacher.metadata, EVIDENCE_KEY, CalibrationCounts.from_json, weights)
    signature = config_signature(config)
    if evidence.config_signature != signature:
        raise SetupError(
            f"{weights}: calibrated on labels made with {evidence.config_signature}, these are "
            f"made with {signature}; calibrate with the same options"
        )
    return control_risk(
        evidence,
        calibration.levels,
        max_error=max_error,
        confidence=confidence,
        test=test,
    )
