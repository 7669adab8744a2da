"""The workers of a job as the driver sees them: start, scenes in flight, heartbeats, end."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from autolabel.cluster.ray_cluster import START_TIMEOUT_S, worker_capacity
from autolabel.cluster.worker import Job, Outcome, start_worker
from datasets.errors import SetupError

SHUTDOWN_TIMEOUT_S = 5.0
"""Time that workers have to leave their scenes when the job is stopped. A scene half-written then
is a draft that the next job removes."""
GROW_TIMEOUT_S = 1800.0
"""Time that a cluster without room for one worker has to grow."""
MAX_BAD_STARTS = 3
"""Workers in a row that die before they are ready; so many end the job."""


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """A worker as the driver sees it.

    Attributes:
        starting: reference to the result of its start; None once it is ready.
        in_flight: references to the results of its scenes -> scene ids, in the order given.
        node: Ray's id of its machine, once it is ready.
        heartbeat: reference to the answer to the last request for its count, until it is here.
        frames: its own count of frames at the last heartbeat; settled: of scenes no longer in
            flight.
        progress_s: when that count last changed, on the monotonic clock.
    """

    actor: Any
    starting: Any
    in_flight: dict[Any, str] = field(default_factory=dict)
    node: str = ""
    heartbeat: Any = None
    frames: int = 0
    settled: int = 0
    progress_s: float = field(default_factory=time.monotonic)

    @property
    def ready(self) -> bool:
        return self.starting is None

    @property
    def scene_ids(self) -> Collection[str]:
        return self.in_flight.values()

    def label(self, scene_id: str) -> None:
        """Give it a scene."""
        self.in_flight[self.actor.label.remote(scene_id)] = scene_id
        self.progress_s = time.monotonic()

    def settle(self, result: Any, outcome: Outcome) -> str:
        """A scene is no longer in flight; gives its id."""
        self.settled = self.settled + outcome.frames if outcome.frames else self.frames
        return self.in_flight.pop(result)


class WorkerPool:
    """Starts, watches and ends workers.

    Args:
        size: None: as many as the cluster has room for, and more when it grows.
    """

    def __init__(self, job: Job, size: int | None) -> None:
        self.job, self.size = job, size
        self.workers: list[WorkerHandle] = []
        self.bad_starts = 0

    @property
    def n_ready(self) -> int:
        return sum(worker.ready for worker in self.workers)

    @property
    def in_flight(self) -> bool:
        """Whether any worker has a scene."""
        return any(worker.in_flight for worker in self.workers)

    @property
    def frames_in_flight(self) -> int:
        """Frames labeled of scenes in flight."""
        return sum(max(0, w.frames - w.settled) for w in self.workers if w.in_flight)

    def require_room(self) -> None:
        """Raises ``SetupError`` if the size is left to the cluster and it has no room."""
        if self.size is None and worker_capacity(self.job) < 1:
            resources = ray.cluster_resources()
            raise SetupError(
                f"the Ray cluster has {resources.get('CPU', 0):.0f} CPUs and "
                f"{resources.get('GPU', 0):.0f} GPUs: too few for one worker"
            )

    def start_workers(self, waiting_scenes: int) -> None:
        """Start workers up to the size, or to the room of the cluster as it is now."""
        size = worker_capacity(self.job) if self.size is None else self.size
        starting = len(self.workers) - self.n_ready
        for _ in range(min(size - len(self.workers), waiting_scenes - starting)):
            actor = start_worker(self.job)
            self.workers.append(WorkerHandle(actor, actor.start.remote()))

    def wait(self) -> tuple[WorkerHandle, Any] | None:
        """Up to a second for the next result: its worker and the reference to it."""
        results = {result: worker for worker in self.workers for result in worker.in_flight}
        results |= {worker.starting: worker for worker in self.workers if not worker.ready}
        if not results:  # every worker is gone, and the cluster has no room
            time.sleep(0.5)
            return None
        heartbeats = {w.heartbeat: w for w in self.workers if w.heartbeat is not None}
        done, _ = ray.wait([*results, *heartbeats], num_returns=1, timeout=1.0)
        for reference in done:
            if reference in results:
                return results[reference], reference
            self._on_heartbeat(heartbeats[reference])
        return None

    def _on_heartbeat(self, worker: WorkerHandle) -> None:
        try:
            frames: int = ray.get(worker.heartbeat)
        except RayError:
            frames = worker.frames  # the result of its scene says more
        if frames != worker.frames:
            worker.frames, worker.progress_s = frames, time.monotonic()
        worker.heartbeat = None

    def request_heartbeats(self) -> list[WorkerHandle]:
        """Ask busy workers for their count of frames; gives those without progress for too long."""
        stalled = []
        for worker in self.workers:
            if not worker.in_flight:
                continue
            if time.monotonic() - worker.progress_s > self.job.stall_s:
                stalled.append(worker)
            elif worker.heartbeat is None:
                worker.heartbeat = worker.actor.heartbeat.remote()
        return stalled

    def require_start(self) -> None:
        """Raises ``SetupError`` if no worker is ready and the first has had its time."""
        if self.n_ready:
            return
        time_s = time.monotonic()
        waited_s = time_s - min((w.progress_s for w in self.workers), default=time_s)
        limit_s = START_TIMEOUT_S if worker_capacity(self.job) >= 1 else GROW_TIMEOUT_S
        if waited_s > limit_s:
            raise SetupError(
                f"no worker could start within {limit_s:.0f} s: the cluster has "
                f"{ray.available_resources().get('CPU', 0):.0f} free CPUs"
            )

    def release(self, worker: WorkerHandle) -> None:
        """Let a worker go that has nothing left to do."""
        ray.wait([worker.actor.close.remote()], timeout=SHUTDOWN_TIMEOUT_S)
        self.kill(worker)

    def kill(self, worker: WorkerHandle) -> None:
        self.workers.remove(worker)
        ray.kill(worker.actor)

    def on_start(self, worker: WorkerHandle, outcome: Outcome) -> None:
        worker.starting, worker.node, self.bad_starts = None, outcome.node, 0

    def on_bad_start(self, outcome: Outcome) -> None:
        """A worker died before it was ready. Raises ``SetupError`` for too many in a row."""
        self.bad_starts += 1
        if self.bad_starts >= MAX_BAD_STARTS:
            reason = outcome.detail.splitlines()[-1] if outcome.detail else outcome.reason
            raise SetupError(f"a worker died while starting: {reason}")

    def abandon(self) -> None:
        """Let the workers leave their scenes, so that nothing half-written stays."""
        results = [result for worker in self.workers for result in worker.in_flight]
        for worker in self.workers:
            worker.actor.abandon.remote()
        if results:
            ray.wait(results, num_returns=len(results), timeout=SHUTDOWN_TIMEOUT_S)

    def kill_all(self) -> None:
        for worker in self.workers:
            ray.kill(worker.actor)
