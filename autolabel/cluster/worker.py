"""A worker of the labeling job: an actor that opens log, teacher and store once, then labels
scene after scene.

No image and no voxel passes through Ray.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import ray

from autolabel.confidence.calibration import Calibration
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import warm_up, write_labels
from datasets.errors import SceneError, SetupError, UnwritableError
from datasets.files.store_path import StorePath
from datasets.frames import Scene, SceneSource
from datasets.labels.store import LabelStore
from datasets.returns import CountsReturns, DroppedReturns
from datasets.storage.remote_path import forget_copies

CONTROL_GROUP = "aside"
"""Concurrency group of the calls that are answered while a scene is labeled."""
SCENES_IN_FLIGHT = 2
"""Scenes that a worker may have at once."""

OutcomeKind = Literal["ready", "done", "bad", "failed", "lost", "setup", "unwritable", "abandoned"]


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
        store: an existing label store; run_id: of its header.
        gpus_per_worker: 0 labels on the CPU.
        readers: threads of a worker that read and decode, and as many that finish labels.
        retries: further tries of a scene whose worker died or failed unexpectedly.
        stall_s: a worker that finishes no frame in this time counts as hung, and is killed.
    """

    open_source: OpenSource
    root: Path
    weights: Path
    store: StorePath
    run_id: str
    calibration: Calibration
    config: LabelingConfig
    gpus_per_worker: float = 0.0
    readers: int = 1
    retries: int = 2
    stall_s: float = 1800.0

    @property
    def cpus_per_worker(self) -> int:
        """On a GPU, threads beside the network need their own cores; on a CPU they share its."""
        return self.config.threads + (2 * self.readers if self.gpus_per_worker > 0 else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a worker's start, or of a scene.

    ``bad``: the scene's data are bad; ``failed``: the scene failed otherwise; ``lost``: the
    worker's node is gone; ``setup``: no scene can be labeled here; ``unwritable``: the store takes
    no scene from anyone; ``abandoned``: as asked.

    Attributes:
        returns: LiDAR returns of the scene, read and dropped.
        seconds: from when the worker got the scene until it is written; two of a worker may
            overlap.
        address: host and process of the worker; node: Ray's id of its machine.
    """

    kind: OutcomeKind
    frames: int = 0
    seconds: float = 0.0
    returns: DroppedReturns = field(default_factory=DroppedReturns)
    reason: str = ""
    detail: str = ""
    address: str = ""
    node: str = ""


class _AbandonedError(Exception):
    pass


class Worker:
    """Lives in an actor. ``heartbeat`` and ``abandon`` are answered while scenes are labeled.

    Two scenes may be in flight: while the last frames of one are finished and written, the network
    works on the next.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.frames = 0
        self.abandoned = threading.Event()
        self.network = threading.Lock()
        self.address = f"{ray.util.get_node_ip_address()}:{os.getpid()}"

    def start(self) -> Outcome:
        import torch

        from models.checkpoints.checkpoint import load_checkpoint
        from models.inference.predictor import OccupancyPredictor, keep_freed_memory

        try:
            self.source = self.job.open_source()
            device = "cuda" if self.job.gpus_per_worker > 0 else "cpu"
            # the bytes of a label must not depend on how many cores the machine has
            torch.set_num_threads(self.job.config.threads)
            if device == "cpu":
                keep_freed_memory()
            model = load_checkpoint(self.job.weights, device=device)
            config = self.job.config
            self.teacher = OccupancyPredictor(
                model.module, model.preset, bfloat16=config.fast, tta_flips=config.flips
            )
            self.store = LabelStore.open(self.job.store)
            if self.store.header.run_id != self.job.run_id:
                raise SetupError(f"label store {self.store.place}: another job's store by now")
            if model.weights_sha256 != self.store.header.provenance["weights_sha256"]:
                raise SetupError(f"{self.job.weights}: a worker's node holds other weights")
            warm_up(self.teacher, self.job.calibration, config, self.store.header)
        except SetupError as error:
            return Outcome(kind="setup", reason=str(error), address=self.address)
        node = ray.get_runtime_context().get_node_id()
        return Outcome(kind="ready", address=self.address, node=node)

    def label(self, scene_id: str) -> Outcome:
        import torch

        start_s = time.monotonic()
        torch.set_num_threads(self.job.config.threads)  # a setting of each thread
        try:
            scene = self.source.scene(scene_id)
            write_labels(
                self.store,
                scene,
                self.source,
                self.teacher,
                self.job.calibration,
                self.job.config,
                readers=self.job.readers,
                network_lock=self._network_lock(),
                on_frame=self._frame_done,
            )
            return Outcome(
                kind="done",
                frames=len(scene.frames),
                returns=self._returns(scene),
                seconds=time.monotonic() - start_s,
                address=self.address,
            )
        except _AbandonedError:
            return Outcome(kind="abandoned", address=self.address)
        except SceneError as error:
            return self._failure("bad", str(error))
        except UnwritableError as error:
            return self._failure("unwritable", str(error))
        except Exception as error:
            return self._failure("failed", f"{type(error).__name__}: {error}".split("\n")[0])

    def _returns(self, scene: Scene) -> DroppedReturns:
        if not isinstance(self.source, CountsReturns):
            return DroppedReturns()
        sweeps = [sweep for frame in scene.frames for sweep in frame.sweeps]
        total = self.source.returns.total(sweeps)
        self.source.returns.forget(sweeps)
        return total

    def _failure(self, kind: Literal["bad", "failed", "unwritable"], reason: str) -> Outcome:
        return Outcome(
            kind=kind, reason=reason, detail=traceback.format_exc(), address=self.address
        )

    @contextlib.contextmanager
    def _network_lock(self) -> Iterator[None]:
        with self.network:
            if self.abandoned.is_set():
                raise _AbandonedError
            yield

    def _frame_done(self) -> None:
        self.frames += 1
        if self.abandoned.is_set():
            raise _AbandonedError

    def close(self) -> None:
        """Clean up, as a killed process does not."""
        forget_copies()

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator]
    def heartbeat(self) -> int:
        """Frames labeled so far by this worker, of all scenes."""
        return self.frames

    @ray.method(concurrency_group=CONTROL_GROUP)  # type: ignore[untyped-decorator]
    def abandon(self) -> None:
        """Leave the scenes in flight after their next frame."""
        self.abandoned.set()


def start_worker(job: Job) -> Any:
    """The handle of a new actor, which waits for its resources in the cluster."""
    remote = ray.remote(
        num_cpus=job.cpus_per_worker,
        num_gpus=job.gpus_per_worker,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=SCENES_IN_FLIGHT,
        concurrency_groups={CONTROL_GROUP: 1},
    )(Worker)
    return remote.remote(job)
