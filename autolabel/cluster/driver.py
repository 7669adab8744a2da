"""The labeling job over Ray: workers label scenes and write them; the driver hands out scene ids.

The store is the only checkpoint. Every worker has a scene and, while enough are left for the
others, the next one. A scene with bad data is quarantined at once. One that fails otherwise, or
whose worker dies or hangs, is tried again a few times, by a fresh worker if need be. If a worker
dies with two scenes, either may be the cause: both are tried again, each by itself, and neither
attempt counts. Nor does one that is lost with its node. Workers are added as the cluster grows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from autolabel.cluster.events import Events
from autolabel.cluster.job_record import JobRecord
from autolabel.cluster.scene_queue import SceneQueue
from autolabel.cluster.summary import JobSummary, Progress
from autolabel.cluster.worker import Job, Outcome, OutcomeKind
from autolabel.cluster.worker_pool import WorkerHandle, WorkerPool
from datasets.cli.supervisor import asked_to_stop, leaving
from datasets.errors import SceneError, SetupError, UnwritableError
from datasets.frames import SceneSource
from datasets.labels.store import LabelStore

HEARTBEAT_S = 2.0
"""Interval at which workers are asked for their progress, and the cluster for its room."""
COUNTERS = 16
"""Threads that count the frames of scenes: logs in object stores answer slowly."""


def run_job(
    job: Job,
    scene_ids: Sequence[str],
    *,
    source: SceneSource,
    workers: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    events: Events | None = None,
) -> JobSummary:
    """Label the scenes that the store lacks. Ray must be connected.

    Stopped by its supervisor or by ``KeyboardInterrupt``, it lets the workers leave their scenes
    and raises the latter.

    Args:
        source: the driver's own view of the log, asked for scene lengths and fingerprints only.
        workers: None: as many as the cluster has room for, and more when it grows. A number is
            asked of the cluster, which may have to grow for it.

    Raises:
        SetupError: no worker can open the log, the weights or the store, or none can start, or
            a scene of the store was labeled from other inputs than the log now holds.
        UnwritableError: the store takes nothing more (a full disk); no scene is blamed for it.
    """
    store = LabelStore.open(job.store)
    scene_ids = list(dict.fromkeys(scene_ids))
    wanted = set(scene_ids)
    present = {s: a for s, a in store.committed().items() if s in wanted}
    _check_inputs(store, source, present)
    lengths = _lengths(source, [s for s in scene_ids if s not in present])
    record = JobRecord(job, store, lengths, events or Events(None))
    queue, pool = SceneQueue(lengths, retries=job.retries), WorkerPool(job, workers)
    driver = _Driver(queue, pool, record, on_progress or (lambda _: None))
    with leaving("asked"), driver.running():
        while queue or pool.in_flight:
            if (worker := driver.wait()) is not None:
                while (scene_id := queue.take(worker.scene_ids, len(pool.workers))) is not None:
                    worker.label(scene_id)
                if not worker.in_flight:
                    pool.release(worker)
            driver.check_workers()
    return record.summary(scene_ids, skipped=len(present))


def _check_inputs(
    store: LabelStore, source: SceneSource, present: dict[str, dict[str, Any]]
) -> None:
    for scene_id, attributes in present.items():
        try:
            inputs = source.fingerprint(scene_id)
        except SceneError as error:
            inputs = str(error)
        if attributes["inputs"] != inputs:
            raise SetupError(
                f"label store {store.place}: scene {scene_id} was labeled from other files than "
                "the log holds now; choose another --store"
            )


def _lengths(source: SceneSource, scene_ids: Sequence[str]) -> dict[str, int]:
    """Frames of each scene; 0 for one that cannot be opened: its worker will say why."""

    def length(scene_id: str) -> int:
        try:
            return source.n_frames(scene_id)
        except SceneError:
            return 0

    with ThreadPoolExecutor(COUNTERS) as executor:
        return dict(zip(scene_ids, executor.map(length, scene_ids), strict=True))


class _Driver:
    """Waits for workers and handles what they report."""

    def __init__(
        self,
        queue: SceneQueue,
        pool: WorkerPool,
        record: JobRecord,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.queue, self.pool, self.record = queue, pool, record
        self.on_progress = on_progress
        self.checked_s = time.monotonic()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Workers start, and end on exit; at ``KeyboardInterrupt`` they may leave their scenes."""
        if self.queue:
            self.pool.require_room()
        try:
            self.on_progress(self.progress())
            self.pool.start_workers(len(self.queue))
            yield
        except KeyboardInterrupt:
            self.pool.abandon()
            self.record.job_stopped()
            raise
        finally:
            self.pool.kill_all()
        self.record.job_ended()

    def progress(self) -> Progress:
        return self.record.progress(
            workers=self.pool.n_ready, frames_in_flight=self.pool.frames_in_flight
        )

    def wait(self) -> WorkerHandle | None:
        """Up to a second for a result; the worker it is from, if that can take scenes.

        Raises:
            KeyboardInterrupt: the job is asked to stop.
            SetupError, UnwritableError: as ``run_job``.
        """
        if asked_to_stop():
            raise KeyboardInterrupt
        report = self.pool.wait()
        return None if report is None else self.on_result(*report)

    def check_workers(self) -> None:
        """Report progress; now and then start what there is room for and replace what hangs."""
        if time.monotonic() - self.checked_s >= HEARTBEAT_S:
            self.checked_s = time.monotonic()
            self.pool.start_workers(len(self.queue))
            if not self.record.scenes:
                self.pool.require_start()
            reason = f"no frame finished within {self.pool.job.stall_s:g} s"
            for worker in self.pool.request_heartbeats():
                self.lose_worker(worker, Outcome(kind="failed", reason=reason))
            self.record.update_metrics(self.progress(), waiting=len(self.queue))
        self.on_progress(self.progress())

    def on_result(self, worker: WorkerHandle, result: Any) -> WorkerHandle | None:
        """A worker has started, or a scene has ended; the worker, if it can take scenes."""
        try:
            outcome: Outcome = ray.get(result)
        except RayError as error:  # the actor died, or its result is lost; it is not used again
            detail = str(error).strip()
            kind: OutcomeKind = "lost" if _node_gone(worker.node, detail) else "failed"
            self.lose_worker(worker, Outcome(kind=kind, reason="worker died", detail=detail))
            return None
        if outcome.kind == "setup":
            self.lose_worker(worker, outcome)
            if not self.pool.n_ready:
                raise SetupError(outcome.reason)
            return None
        if outcome.kind == "unwritable":
            self.record.job_unwritable(outcome)
            raise UnwritableError(outcome.reason)
        if not worker.ready:
            self.pool.on_start(worker, outcome)
            self.record.worker_started(outcome)
        else:
            self.record_outcome(worker.settle(result, outcome), outcome)
        return worker

    def lose_worker(self, worker: WorkerHandle, outcome: Outcome) -> None:
        """End a worker; its scenes share its outcome.

        Raises:
            SetupError: too many workers in a row were never ready.
        """
        self.pool.kill(worker)
        scene_ids = list(worker.scene_ids)
        self.record.worker_lost(outcome, scene_ids)
        if len(scene_ids) > 1 and outcome.kind == "failed":
            self.queue.isolate(scene_ids)
            outcome = replace(outcome, kind="lost")
        for scene_id in scene_ids:
            self.record_outcome(scene_id, outcome)
        if not worker.ready and outcome.kind == "failed":
            self.pool.on_bad_start(outcome)
        self.pool.start_workers(len(self.queue))

    def record_outcome(self, scene_id: str, outcome: Outcome) -> None:
        """Count a scene as done, try it again, or quarantine it."""
        # a worker may die right after the commit
        if outcome.kind == "done" or scene_id in self.record.store:
            self.record.scene_done(scene_id, outcome)
        elif self.queue.retry(scene_id, outcome.kind):
            self.record.scene_retried(scene_id, outcome)
        else:
            self.record.scene_quarantined(scene_id, outcome)


def _node_gone(node: str, detail: str) -> bool:
    """Whether a worker died because its machine did."""
    if "node has died" in detail or "node was terminated" in detail:
        return True
    return bool(node) and not any(n["NodeID"] == node and n["Alive"] for n in ray.nodes())
