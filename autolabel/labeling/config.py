"""How labels are made: one frozen dataclass, part of every store's run id."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from autolabel.labeling.visibility import VisibilityConfig
from autolabel.refinement.temporal_fusion import Refinement
from datasets.files.json_files import json_text
from datasets.labels.calibration_record import RiskBound
from datasets.model_inputs import InputSpec
from datasets.visibility import RAY_COLUMNS


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
            None: as measured with the calibration (``FreeRayThreshold``), 0 if never measured.
        store_evidence: keep the LiDAR hits and passes of every voxel in the store.
        fast: predict in bfloat16 (see ``OccupancyPredictor``).
        flips: average over mirrored inputs (see ``OccupancyPredictor``): four times the work.
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
    promise: RiskBound | None = None

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
    def seeing(self) -> VisibilityConfig:
        return VisibilityConfig(ray_columns=self.ray_columns, split=self.visibility_split)

    def input_spec(self, teacher: InputSpec) -> InputSpec:
        """What the teacher reads under this configuration."""
        if self.past_sweeps is None:
            return teacher
        return replace(teacher, past_sweeps=self.past_sweeps)

    def resolved(self, teacher: InputSpec) -> dict[str, Any]:
        """JSON values with nothing left to default; what is off or not asked is left out."""
        values = asdict(self) | {"past_sweeps": self.input_spec(teacher).past_sweeps}
        values["refinement"] = None if self.refinement is None else asdict(self.refinement)
        values["promise"] = None if self.promise is None else self.promise.to_json()
        if self.promise is not None:
            del values["min_confidence"]
        return {k: v for k, v in values.items() if v is not None or k == "free_passes"}


def made_with(config: LabelingConfig) -> dict[str, Any]:
    """What of a configuration changes classes and confidence: a calibration holds for it only."""
    how = config.refinement
    refined = None if how is None else json.loads(json_text(asdict(how)))
    return {
        "past_sweeps": config.past_sweeps,
        "ray_columns": config.ray_columns,
        "visibility_split": config.visibility_split,
        "fast": config.fast,
        "flips": config.flips,
        "refinement": refined,
    }
