"""How far a job is, and what it did."""

from __future__ import annotations

from dataclasses import dataclass

from datasets.returns import DroppedReturns


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the job is; given to the progress callback after every change.

    Attributes:
        frames_done: those of scenes at work included.
        workers: those that are ready.
        seconds: since the first of them was.
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
    """What the job did.

    Attributes:
        scenes, frames: labelled by this run.
        skipped: scenes that the store had already.
        failures: scene id -> reason, for the scenes set aside.
        voxels, trusted, trusted_occupied: of all asked-for scenes that the store now has.
        returns: LiDAR returns that were read, and those that measured nothing.
        retries: tries beyond the first.
        worker_s: seconds from each scene's being given to a worker to its being written, summed.
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
