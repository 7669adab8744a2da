"""What a job has done so far: counts, events, metrics, and the notes of quarantined scenes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict

from autolabel.cluster.events import Events, Metrics
from autolabel.cluster.summary import JobSummary, Progress
from autolabel.cluster.worker import Job, Outcome
from datasets.files.printable import printable
from datasets.labels.store import LabelStore
from datasets.returns import DroppedReturns


class JobRecord:
    """Records the outcome of every scene.

    Args:
        lengths: frames of each scene to label; corrected by those that a worker finds.
    """

    def __init__(
        self, job: Job, store: LabelStore, lengths: dict[str, int], events: Events
    ) -> None:
        self.job, self.store, self.lengths, self.events = job, store, lengths, events
        self.metrics = Metrics()
        self.failures: dict[str, str] = {}
        self.scenes = self.frames = self.retries = 0
        self.worker_s = 0.0
        self.returns = DroppedReturns()
        self.start_s = time.monotonic()
        self.ready_s: float | None = None
        events("job started", scenes=len(lengths), frames=sum(lengths.values()))

    def worker_started(self, outcome: Outcome) -> None:
        self.ready_s = self.ready_s or time.monotonic()
        self.events("worker started", worker=outcome.address)

    def worker_lost(self, outcome: Outcome, scene_ids: Sequence[str]) -> None:
        self.events("worker gone", reason=outcome.reason, scenes=scene_ids, kind=outcome.kind)

    def scene_done(self, scene_id: str, outcome: Outcome) -> None:
        frames = self.lengths[scene_id] = outcome.frames or self.lengths[scene_id]
        self.scenes += 1
        self.frames += frames
        self.worker_s += outcome.seconds
        self.returns += outcome.returns
        self.metrics.frames.inc(frames)
        self.metrics.scenes.inc(1, tags={"outcome": "done"})
        self.events(
            "scene done",
            scene=scene_id,
            worker=outcome.address,
            frames=frames,
            seconds=round(outcome.seconds, 3),
            **(asdict(outcome.returns) if outcome.returns.dropped else {}),
        )

    def scene_retried(self, scene_id: str, outcome: Outcome) -> None:
        self.retries += 1
        self.metrics.retries.inc(1)
        reason = self._cleaned(outcome.reason)
        self.events("scene tried again", scene=scene_id, worker=outcome.address, reason=reason)

    def scene_quarantined(self, scene_id: str, outcome: Outcome) -> None:
        reason = self.failures[scene_id] = self._cleaned(outcome.reason)
        self.metrics.scenes.inc(1, tags={"outcome": "set aside"})
        self.events("scene set aside", scene=scene_id, worker=outcome.address, reason=reason)
        self.store.quarantine(scene_id, reason, self._cleaned(outcome.detail))

    def job_stopped(self) -> None:
        self.events("job stopped", scenes=self.scenes, frames=self.frames)

    def job_ended(self) -> None:
        self.events(
            "job ended", scenes=self.scenes, frames=self.frames, set_aside=len(self.failures)
        )

    def job_unwritable(self, outcome: Outcome) -> None:
        self.events("job ended", reason=outcome.reason)

    def update_metrics(self, progress: Progress, *, waiting: int) -> None:
        self.metrics.workers.set(progress.workers)
        self.metrics.waiting.set(waiting)
        self.metrics.rate.set(progress.frames_per_s)

    def progress(self, *, workers: int, frames_in_flight: int) -> Progress:
        frames = sum(n for s, n in self.lengths.items() if s not in self.failures)
        return Progress(
            scenes=len(self.lengths),
            scenes_done=self.scenes,
            frames=frames,
            frames_done=min(frames, self.frames + frames_in_flight),
            failed=len(self.failures),
            workers=workers,
            seconds=0.0 if self.ready_s is None else time.monotonic() - self.ready_s,
        )

    def summary(self, scene_ids: Sequence[str], *, skipped: int) -> JobSummary:
        """Of this run, and of all these scenes that the store now has."""
        seconds = time.monotonic() - self.start_s
        wanted = set(scene_ids)
        counts = [a["counts"] for s, a in self.store.committed().items() if s in wanted]
        free = self.store.header.taxonomy.free_id
        return JobSummary(
            scenes=self.scenes,
            frames=self.frames,
            skipped=skipped,
            failures=dict(sorted(self.failures.items())),
            voxels=sum(c["voxels"] for c in counts),
            trusted=sum(c["trusted"] for c in counts),
            trusted_occupied=sum(
                sum(c["trusted_by_class"]) - c["trusted_by_class"][free] for c in counts
            ),
            returns=self.returns,
            retries=self.retries,
            seconds=seconds,
            worker_s=self.worker_s,
        )

    def _cleaned(self, text: str) -> str:
        return printable(text.replace(f"{self.job.root}{os.sep}", ""), lines=True)
