"""The labelling configuration: part of every store's run id."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from autolabel.labeling.visibility import VisibilityConfig
from autolabel.refinement.temporal_fusion import Refinement
from datasets.labels.calibration_record import RiskBound
from datasets.model_inputs import InputSpec
from datasets.visibility import RAY_COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelingConfig:
    """The labelling configuration; every field goes into the run id.

    Attributes:
        min_confidence: a voxel is trusted from this P(label is right) on. Calibration is per
            predicted class, so the threshold means the same for every class.
        past_sweeps: earlier LiDAR sweeps to use; None: as many as the teacher was built for.
        ray_columns: rays per image row for visibility; wider images are sampled.
        visibility_split: parts of a voxel along each axis for camera visibility. A part that LiDAR
            rays cross and in which none ends occludes nothing; a voxel is visible if a part is. 1:
            whole voxels, right where they are as fine as the benchmark's masks. Whole voxels of
            0.8 m occlude half of the objects and walls.
        free_passes: LiDAR rays that must cross a voxel predicted free, if none ends in it, before
            it is trusted: a camera's view through predictions is no evidence of free space. None:
            as measured with the calibration (``FreeRayThreshold``), 0 if never measured.
        store_evidence: keep the LiDAR hits and passes of every voxel in the store.
        instances: number the objects of classes that can move, and follow them over a scene.
        fast: predict in bfloat16 (see ``OccupancyPredictor``).
        flips: average over mirrored inputs (see ``OccupancyPredictor``): four times the work.
        batch: frames that the network takes together; the bytes of a label may depend on it.
        threads: threads of one worker's network; the bytes of a label may depend on it.
        refinement: temporal fusion of a scene's frames with the calibration's refiner; None: every
            frame is labelled alone.
        risk_bound: an error bound whose thresholds replace ``min_confidence``.
        thresholds: lowest trusted level of each class, in place of ``min_confidence``: those of a
            bound that is not known to hold on the log, so that nothing promises it.

    Raises:
        ValueError: a value is out of range.
    """

    min_confidence: float = 0.5
    past_sweeps: int | None = None
    ray_columns: int = RAY_COLUMNS
    visibility_split: int = 1
    free_passes: int | None = None
    store_evidence: bool = False
    instances: bool = False
    fast: bool = False
    flips: bool = False
    batch: int = 1
    threads: int = 1
    refinement: Refinement | None = None
    risk_bound: RiskBound | None = None
    thresholds: tuple[int, ...] | None = None

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
    def class_thresholds(self) -> tuple[int, ...] | None:
        """Lowest trusted level of each class; None: ``min_confidence`` decides."""
        return self.thresholds if self.risk_bound is None else self.risk_bound.thresholds

    @property
    def visibility(self) -> VisibilityConfig:
        return VisibilityConfig(ray_columns=self.ray_columns, split=self.visibility_split)

    def input_spec(self, teacher: InputSpec) -> InputSpec:
        """What the teacher reads under this configuration."""
        if self.past_sweeps is None:
            return teacher
        return replace(teacher, past_sweeps=self.past_sweeps)

    def resolved(self, teacher: InputSpec) -> dict[str, Any]:
        """JSON values with every default resolved; fields that are off are left out."""
        values = asdict(self) | {"past_sweeps": self.input_spec(teacher).past_sweeps}
        values["refinement"] = None if self.refinement is None else self.refinement.to_json()
        del values["risk_bound"]
        if not self.instances:  # as configurations were before there were any
            del values["instances"]
        if self.class_thresholds is not None:
            del values["min_confidence"]
        if self.risk_bound is not None:
            values["promise"] = self.risk_bound.to_json()
        return {k: v for k, v in values.items() if v is not None or k == "free_passes"}


def config_signature(config: LabelingConfig) -> dict[str, Any]:
    """The fields that change classes and confidence. A calibration holds for equal ones only."""
    refinement = config.refinement
    return {
        "past_sweeps": config.past_sweeps,
        "ray_columns": config.ray_columns,
        "visibility_split": config.visibility_split,
        "fast": config.fast,
        "flips": config.flips,
        "refinement": None if refinement is None else refinement.to_json(),
    }
