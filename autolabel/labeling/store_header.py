"""The header of a label store: all that determines its labels, and the run id made of it."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from importlib import metadata

from autolabel.confidence.calibration import Calibration
from autolabel.labeling.config import LabelingConfig
from datasets.files.json_files import canonical_text
from datasets.labels.store import StoreHeader
from models.checkpoints.checkpoint import LoadedModel

LABELING_VERSION = 5
"""Raised whenever the same inputs would give other labels."""


def store_header(
    teacher: LoadedModel,
    calibration: Calibration,
    config: LabelingConfig,
    *,
    source: str,
    licence: str,
    device: str = "cpu",
) -> StoreHeader:
    """Header of a store for labels made so. Its run id is the hash of all that determines them; the
    versions of the ``software`` stand beside it."""
    preset = teacher.preset
    provenance = {
        "source": source,
        "preset": preset.name,
        "weights_sha256": teacher.weights_sha256,
        "labeling_version": LABELING_VERSION,
        "config": config.resolved(preset.inputs) | {"device": device},
        "calibration": calibration.describe(),
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
    return replace(header, run_id=run_id, provenance=provenance | {"software": _versions()})


def _versions() -> dict[str, str]:
    """Versions of this package and of those that labels are made with; not part of the run id, so
    that a job continues after an update."""
    versions = {}
    for name in ("effocc-autolabel", "torch", "numpy", "spconv-cu126", "zarr", "numcodecs"):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
