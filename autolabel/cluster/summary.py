"""Progress and summary of a job."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.returns import DroppedReturns


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a job, for the progress callback.

    Attributes:
        frames_done: with those of scenes in flight.
        failed: quarantined scenes.
        workers: that are ready.
        seconds: since the first worker was ready.
    """

    scenes: int
    scenes_done: int
    frames: int
    frames_done: int
    failed: int
    workers: int
    seconds: float

    @property
    def frames_per_s(self) -> float:
        return self.frames_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_s(self) -> float:
        rate = self.frames_per_s
        return (self.frames - self.frames_done) / rate if rate else float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSummary:
    """The result of a job.

    Attributes:
        scenes, frames: labeled by this run.
        skipped: scenes already in the store.
        failures: scene id -> reason, of quarantined scenes.
        voxels, trusted, trusted_occupied: of all requested scenes that the store now has.
        returns: LiDAR returns, read and dropped.
        retries: tries beyond the first.
        worker_s: sum over scenes of ``Outcome.seconds``.
    """

    scenes: int
    frames: int
    skipped: int
    failures: dict[str, str]
    voxels: int
    trusted: int
    trusted_occupied: int
    returns: DroppedReturns
    retries: int
    seconds: float
    worker_s: float

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0
