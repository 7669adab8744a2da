"""The labelling job over Ray: actors label scenes and write them; the driver hands out scene ids.

No picture and no voxel passes through Ray. Each actor opens the log, the teacher and the store
itself, and writes its scenes itself; the store is the only checkpoint. The driver keeps one scene
in flight per actor, longest scenes first, and counts the tries of every scene: a scene whose data
are bad is set aside at once, one that fails otherwise or whose worker dies is tried again a few
times, by a fresh worker if need be.
"""

from __future__ import annotations

import heapq
import logging
import os
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import ray
from ray.exceptions import RayError

from autolabel.confidence import Calibration
from autolabel.labeling import LabelingConfig, label_scene
from datasets.errors import SceneError, SetupError
from datasets.frames import SceneSource
from datasets.label_store import LabelStore

START_TIMEOUT_S = 300.0


class OpenSource(Protocol):
    """Opens the log in whichever process it is called; must pickle."""

    def __call__(self) -> SceneSource: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every worker needs to know; small and picklable.

    Attributes:
        open_source: opens the log.
        root: folder of the log; taken out of the reasons that go into the store.
        weights: the teacher's file.
        store: an existing label store.
        gpus_per_worker: 0 labels on the CPU.
        retries: further tries of a scene whose worker died or failed unexpectedly.
    """

    open_source: OpenSource
    root: Path
    weights: Path
    store: Path
    calibration: Calibration
    config: LabelingConfig
    gpus_per_worker: float = 0.0
    retries: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the job is; given to the progress callback after every change."""

    scenes: int
    scenes_done: int
    frames: int
    frames_done: int
    failed: int
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
        retries: tries beyond the first.
    """

    scenes: int
    frames: int
    skipped: int
    failures: dict[str, str]
    voxels: int
    trusted: int
    trusted_occupied: int
    retries: int
    seconds: float

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What a worker answers. ``bad``: the scene's data; ``setup``: no scene can work here."""

    kind: Literal["ready", "done", "bad", "failed", "setup"]
    frames: int = 0
    reason: str = ""
    detail: str = ""


class _Worker:
    """Lives in an actor. Opens log, teacher and store once, then labels scene after scene."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def start(self) -> _Outcome:
        import torch

        from models.checkpoint import load_checkpoint
        from models.inference import Teacher, keep_freed_memory

        # the bytes of a label must not depend on how many cores the machine has
        torch.set_num_threads(self.job.config.threads)
        try:
            self.source = self.job.open_source()
            device = "cuda" if self.job.gpus_per_worker > 0 else "cpu"
            if device == "cpu":
                keep_freed_memory()
            model = load_checkpoint(self.job.weights, device=device)
            config = self.job.config
            self.teacher = Teacher(model.module, model.preset, fast=config.fast, flips=config.flips)
            self.store = LabelStore.open(self.job.store)
            wanted = self.store.header.provenance["weights_sha256"]
            if model.weights_sha256 != wanted:
                raise SetupError(f"{self.job.weights}: a worker's node holds other weights")
        except SetupError as error:
            return _Outcome(kind="setup", reason=str(error))
        return _Outcome(kind="ready")

    def label(self, scene_id: str) -> _Outcome:
        try:
            scene = self.source.scene(scene_id)
            labels = label_scene(
                scene, self.source, self.teacher, self.job.calibration, self.job.config
            )
            self.store.write_scene(labels)
            return _Outcome(kind="done", frames=len(labels))
        except SceneError as error:
            return _Outcome(kind="bad", reason=str(error), detail=traceback.format_exc())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            return _Outcome(kind="failed", reason=reason, detail=traceback.format_exc())


def connect(
    address: str | None, *, python_path: str | None = None, show_workers: bool = False
) -> None:
    """Join or start Ray, and make sure that its workers can import this package.

    Args:
        address: a cluster, ``auto``, or ``local``. None: what ``RAY_ADDRESS`` says, or a cluster
            that ``ray start`` began on this machine, or else a local Ray of this process.
        python_path: folder of the package where it is not installed.
        show_workers: print what workers print.

    Raises:
        SetupError: there is no such cluster, or its workers cannot import the package.
    """
    _check_reachable(address or os.environ.get("RAY_ADDRESS", ""))
    submitted = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # its working folder travels already
    environment = None
    if python_path is not None and not submitted:
        paths = [python_path, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
    try:
        ray.init(
            address=address,
            include_dashboard=None if _joins(address) else False,
            runtime_env=environment,
            logging_level=logging.ERROR,
            log_to_driver=show_workers,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "the one last started here"
        why = str(error).split("\n")[0]
        raise SetupError(f"Ray cluster {where}: cannot be joined: {why}") from error
    try:
        ray.get(_probe().remote(), timeout=START_TIMEOUT_S)
    except RayError as error:
        why = str(error).strip().split("\n")[-1]
        raise SetupError(
            f"a Ray worker cannot import the package ({why}); install it on every node, or use "
            "'ray job submit --working-dir .'"
        ) from error


def _check_reachable(address: str) -> None:
    # Ray itself would try for minutes
    host, _, port = address.rpartition(":")
    if not host or "/" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10.0).close()
    except (OSError, OverflowError) as error:
        raise SetupError(f"Ray cluster {address}: cannot be reached: {error}") from error


def _joins(address: str | None) -> bool:
    return (address or os.environ.get("RAY_ADDRESS", "local")) != "local"


def _probe() -> Any:
    def probe() -> str:  # local, so that it travels by value and starts where nothing is installed
        import autolabel.cluster

        return str(autolabel.cluster.__file__)

    return ray.remote(num_cpus=0, max_retries=0)(probe)


@dataclass(slots=True, kw_only=True)
class _Run:
    """State of the driver's loop."""

    job: Job
    lengths: dict[str, int]
    queue: list[tuple[int, str]] = field(default_factory=list)  # heap: longest first, then by id
    tries: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    scenes: int = 0
    frames: int = 0
    retries: int = 0
    began: float = field(default_factory=time.monotonic)

    def push(self, scene_id: str) -> None:
        heapq.heappush(self.queue, (-self.lengths[scene_id], scene_id))

    def progress(self) -> Progress:
        return Progress(
            scenes=len(self.lengths),
            scenes_done=self.scenes,
            frames=sum(n for s, n in self.lengths.items() if s not in self.failures),
            frames_done=self.frames,
            failed=len(self.failures),
            seconds=time.monotonic() - self.began,
        )

    def settle(self, store: LabelStore, scene_id: str, outcome: _Outcome) -> None:
        """Count a scene as done, try it again, or set it aside."""
        if outcome.kind == "done" or scene_id in store:  # a worker may die right after its commit
            self.scenes += 1
            self.frames += self.lengths[scene_id]
            return
        self.tries[scene_id] = self.tries.get(scene_id, 0) + 1
        if outcome.kind == "failed" and self.tries[scene_id] <= self.job.retries:
            self.retries += 1
            self.push(scene_id)
            return
        self.failures[scene_id] = self._clean(outcome.reason)
        store.quarantine(scene_id, self._clean(outcome.reason), self._clean(outcome.detail))

    def _clean(self, text: str) -> str:
        return text.replace(f"{self.job.root}{os.sep}", "")


def run_job(
    job: Job,
    scene_ids: Sequence[str],
    *,
    source: SceneSource,
    workers: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> JobSummary:
    """Label the scenes that the store lacks. Ray must be connected.

    Args:
        source: the driver's own view of the log, asked for scene lengths only.
        workers: None: as many as the cluster has room for.

    Raises:
        SetupError: a worker cannot open the log, the weights or the store, or none can start, or
            a scene of the store was labelled from other inputs than the log now holds.
    """
    store = LabelStore.open(job.store)
    _check_inputs(store, source, scene_ids)
    todo = [s for s in dict.fromkeys(scene_ids) if s not in store]
    run = _Run(job=job, lengths={s: _length(source, s) for s in todo})
    for scene_id in todo:
        run.push(scene_id)
    room = _room(job)
    count = min(room if workers is None else min(workers, room), len(todo))
    pool: dict[Any, tuple[Any, str | None]] = {}  # the answer awaited -> actor, its scene
    try:
        for _ in range(count):
            _start_actor(job, pool)
        _loop(run, store, pool, on_progress or (lambda _: None))
    finally:
        for actor, _ in pool.values():
            ray.kill(actor)
    return _summary(run, store, scene_ids, skipped=len(set(scene_ids)) - len(todo))


def _check_inputs(store: LabelStore, source: SceneSource, scene_ids: Sequence[str]) -> None:
    for scene_id in (s for s in scene_ids if s in store):
        try:
            now = source.fingerprint(scene_id)
        except SceneError as error:
            now = str(error)
        if store.scene(scene_id).attributes["inputs"] != now:
            raise SetupError(
                f"label store {store.path}: scene {scene_id} was labelled from other files than "
                "the log holds now; choose another --store"
            )


def _loop(
    run: _Run,
    store: LabelStore,
    pool: dict[Any, tuple[Any, str | None]],
    on_progress: Callable[[Progress], None],
) -> None:
    ready, heard = False, time.monotonic()
    on_progress(run.progress())
    while run.queue or any(scene_id is not None for _, scene_id in pool.values()):
        done, _ = ray.wait(list(pool), num_returns=1, timeout=1.0)
        if not done:
            on_progress(run.progress())
            if not ready and time.monotonic() - heard > START_TIMEOUT_S:
                raise SetupError(
                    f"no worker could start within {START_TIMEOUT_S:.0f} s: the cluster has "
                    f"{ray.available_resources().get('CPU', 0):.0f} free CPUs"
                )
            continue
        actor, scene_id = pool.pop(done[0])
        try:
            outcome: _Outcome = ray.get(done[0])
        except RayError as error:
            # the actor died, or its answer is lost; either way it is not used again
            ray.kill(actor)
            why = str(error).strip()
            if scene_id is None:
                raise SetupError(f"a worker died while starting: {why.splitlines()[-1]}") from error
            run.settle(store, scene_id, _Outcome(kind="failed", reason="worker died", detail=why))
            if run.queue:
                _start_actor(run.job, pool)
            on_progress(run.progress())
            continue
        if outcome.kind == "setup":
            raise SetupError(outcome.reason)
        ready = True
        if scene_id is not None:
            run.settle(store, scene_id, outcome)
            on_progress(run.progress())
        if run.queue:
            _, scene_id = heapq.heappop(run.queue)
            pool[actor.label.remote(scene_id)] = actor, scene_id
        else:
            ray.kill(actor)


def _start_actor(job: Job, pool: dict[Any, tuple[Any, str | None]]) -> None:
    remote = ray.remote(
        num_cpus=job.config.threads,
        num_gpus=job.gpus_per_worker,
        max_restarts=0,
        max_task_retries=0,
    )(_Worker)
    actor = remote.remote(job)
    pool[actor.start.remote()] = actor, None


def _room(job: Job) -> int:
    resources = ray.cluster_resources()
    room = int(resources.get("CPU", 0) // job.config.threads)
    if job.gpus_per_worker > 0:
        room = min(room, int(resources.get("GPU", 0) / job.gpus_per_worker))
    if room < 1:
        raise SetupError(
            f"the Ray cluster has {resources.get('CPU', 0):.0f} CPUs and "
            f"{resources.get('GPU', 0):.0f} GPUs: too few for one worker"
        )
    return room


def _length(source: SceneSource, scene_id: str) -> int:
    try:
        return len(source.scene(scene_id).frames)
    except SceneError:
        return 0  # its worker will say what is wrong


def _summary(run: _Run, store: LabelStore, scene_ids: Sequence[str], *, skipped: int) -> JobSummary:
    present = [store.scene(s).attributes["counts"] for s in sorted({*scene_ids}) if s in store]
    free = store.header.taxonomy.free_id
    by_class = [counts["trusted_by_class"] for counts in present]
    return JobSummary(
        scenes=run.scenes,
        frames=run.frames,
        skipped=skipped,
        failures=dict(sorted(run.failures.items())),
        voxels=sum(counts["voxels"] for counts in present),
        trusted=sum(counts["trusted"] for counts in present),
        trusted_occupied=sum(sum(n) - n[free] for n in by_class),
        retries=run.retries,
        seconds=time.monotonic() - run.began,
    )
