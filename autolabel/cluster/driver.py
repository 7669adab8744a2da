"""The labelling job over Ray: workers label scenes and write them; the driver hands out scene ids.

The store is the only checkpoint. The driver gives every worker a scene and, while there are enough
for the others, the one after it, longest scenes first, and counts the tries of every scene: a
scene whose data are bad is set aside at once, one that fails otherwise or whose worker dies or
hangs is tried again a few times, by a fresh worker if need be. Of two scenes in a worker that died
nobody knows which one it was: both are tried again without being blamed, each on its own. So is a
scene whose node is gone. Workers are added as the cluster grows.
"""

from __future__ import annotations

import functools
import heapq
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from autolabel.cluster.events import Events, Metrics
from autolabel.cluster.ray_cluster import START_TIMEOUT_S, room
from autolabel.cluster.summary import JobSummary, Progress
from autolabel.cluster.worker import SCENES_IN_FLIGHT, Job, Outcome, start_worker
from datasets.cli.supervisor import asked_to_stop, leaving
from datasets.errors import SceneError, SetupError, UnwritableError
from datasets.files.printable import printable
from datasets.frames import SceneSource
from datasets.labels.store import LabelStore
from datasets.returns import DroppedReturns

BEAT_S = 2.0
"""How often each worker is asked how far it is, and the cluster what it has room for."""
SHUTDOWN_TIMEOUT_S = 5.0
"""How long workers may take to leave their scenes when the job is stopped; what they leave
half-written then is a draft that the next job removes."""
LOST_NODES = 20
"""A scene whose nodes are gone so often is blamed after all."""
GROW_TIMEOUT_S = 1800.0
"""How long a cluster without room for one worker is given to grow."""
COUNTERS = 16
"""Threads that count the frames of scenes."""
BAD_STARTS = 3
"""So many workers in a row that die before they are ready end the job."""


@dataclass(slots=True, eq=False)
class _WorkerHandle:
    """A worker as the driver sees it.

    Attributes:
        starting: its answer of its start, until it is there.
        at_work: its answers of scenes, in the order given, and their ids.
        node: Ray's id of the machine it runs on, once it is ready.
        beat: its answer to how far it is, if it was asked.
        frames: its own count when it was last heard; settled: of scenes no longer at work.
        moved: when that count last changed.
    """

    actor: Any
    starting: Any
    at_work: dict[Any, str] = field(default_factory=dict)
    node: str = ""
    beat: Any = None
    frames: int = 0
    settled: int = 0
    moved: float = field(default_factory=time.monotonic)

    @property
    def ready(self) -> bool:
        return self.starting is None


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
            a scene of the store was labelled from other inputs than the log now holds.
        UnwritableError: the store takes nothing more (a full disk); no scene is blamed for it.
    """
    store = LabelStore.open(job.store)
    asked = list(dict.fromkeys(scene_ids))
    wanted = set(asked)
    present = {s: a for s, a in store.committed().items() if s in wanted}
    _check_inputs(store, source, present)
    run = _Run(job, store, source, [s for s in asked if s not in present], workers)
    run.on_progress = on_progress or run.on_progress
    run.events = events or run.events
    with leaving("asked"):
        run.loop()
    return run.summary(asked, skipped=len(present))


def _check_inputs(
    store: LabelStore, source: SceneSource, present: dict[str, dict[str, Any]]
) -> None:
    for scene_id, attributes in present.items():
        try:
            now = source.fingerprint(scene_id)
        except SceneError as error:
            now = str(error)
        if attributes["inputs"] != now:
            raise SetupError(
                f"label store {store.place}: scene {scene_id} was labelled from other files than "
                "the log holds now; choose another --store"
            )


class _Run:
    """The driver's loop and its state."""

    def __init__(
        self,
        job: Job,
        store: LabelStore,
        source: SceneSource,
        todo: Sequence[str],
        workers: int | None,
    ) -> None:
        self.job, self.store, self.workers = job, store, workers
        self.on_progress: Callable[[Progress], None] = lambda _: None
        self.events, self.metrics = Events(None), Metrics()
        with ThreadPoolExecutor(COUNTERS) as counting:  # logs in object stores are slow to answer
            counts = counting.map(functools.partial(_length, source), todo)
            self.lengths = dict(zip(todo, counts, strict=True))
        self.queue: list[tuple[int, str]] = []  # heap: longest first, then by id
        self.hands: list[_WorkerHandle] = []
        self.tries: dict[str, int] = {}
        self.lost: dict[str, int] = {}
        self.alone: set[str] = set()  # scenes that may have killed a worker
        self.failures: dict[str, str] = {}
        self.scenes = self.frames = self.retries = self.bad_starts = 0
        self.worker_s = 0.0
        self.returns = DroppedReturns()
        self.began = self.looked = time.monotonic()
        self.ready_at: float | None = None
        for scene_id in todo:
            self.push(scene_id)

    def push(self, scene_id: str) -> None:
        heapq.heappush(self.queue, (-self.lengths[scene_id], scene_id))

    def loop(self) -> None:
        """Until every scene is done or set aside."""
        frames = sum(self.lengths.values())
        self.events("job started", scenes=len(self.lengths), frames=frames)
        if self.queue and self.workers is None and room(self.job) < 1:
            resources = ray.cluster_resources()
            raise SetupError(
                f"the Ray cluster has {resources.get('CPU', 0):.0f} CPUs and "
                f"{resources.get('GPU', 0):.0f} GPUs: too few for one worker"
            )
        try:
            self.on_progress(self.progress())
            self._hire()
            while self.queue or any(hand.at_work for hand in self.hands):
                if asked_to_stop():
                    raise KeyboardInterrupt
                self._turn()
                self.on_progress(self.progress())
        except KeyboardInterrupt:
            self._abandon()
            self.events("job stopped", scenes=self.scenes, frames=self.frames)
            raise
        finally:
            for hand in self.hands:
                ray.kill(hand.actor)
        self.events(
            "job ended", scenes=self.scenes, frames=self.frames, set_aside=len(self.failures)
        )

    def _turn(self) -> None:
        """Wait for a moment and see to whatever was heard."""
        waited = {answer: hand for hand in self.hands for answer in hand.at_work}
        waited |= {hand.starting: hand for hand in self.hands if not hand.ready}
        beats = {hand.beat: hand for hand in self.hands if hand.beat is not None}
        if waited:
            done, _ = ray.wait([*waited, *beats], num_returns=1, timeout=1.0)
        else:  # every worker is gone, and the cluster has no room
            time.sleep(0.5)
            done = []
        for answer in done:
            if answer in beats:
                self._heard(beats[answer])
            elif waited[answer] in self.hands:
                self._answered(waited[answer], answer)
        now = time.monotonic()
        if now - self.looked < BEAT_S:
            return
        self.looked = now
        self._hire()
        self._check_hands(now)
        self.metrics.workers.set(sum(hand.ready for hand in self.hands))
        self.metrics.waiting.set(len(self.queue))
        self.metrics.rate.set(self.progress().frames_per_s)

    def _hire(self) -> None:
        """Start workers up to what was asked for, or what there is room for now."""
        most = room(self.job) if self.workers is None else self.workers
        starting = sum(not hand.ready for hand in self.hands)
        for _ in range(min(most - len(self.hands), len(self.queue) - starting)):
            actor = start_worker(self.job)
            self.hands.append(_WorkerHandle(actor, actor.start.remote()))

    def _check_hands(self, now: float) -> None:
        if not any(hand.ready for hand in self.hands) and not self.scenes:
            began = min((hand.moved for hand in self.hands), default=now)
            patience = START_TIMEOUT_S if room(self.job) >= 1 else GROW_TIMEOUT_S
            if now - began > patience:
                raise SetupError(
                    f"no worker could start within {patience:.0f} s: the cluster has "
                    f"{ray.available_resources().get('CPU', 0):.0f} free CPUs"
                )
        for hand in list(self.hands):
            if not hand.at_work:
                continue
            if now - hand.moved > self.job.stall_s:
                reason = f"no frame finished within {self.job.stall_s:g} s"
                self._dismiss(hand, Outcome(kind="failed", reason=reason))
            elif hand.beat is None:
                hand.beat = hand.actor.beat.remote()

    def _heard(self, hand: _WorkerHandle) -> None:
        if hand not in self.hands:
            return
        try:
            frames: int = ray.get(hand.beat)
        except RayError:
            frames = hand.frames  # its main answer will tell
        if frames != hand.frames:
            hand.frames, hand.moved = frames, time.monotonic()
        hand.beat = None

    def _answered(self, hand: _WorkerHandle, answer: Any) -> None:
        try:
            outcome: Outcome = ray.get(answer)
        except RayError as error:
            # the actor died, or its answer is lost; either way it is not used again
            why = str(error).strip()
            kind: Literal["lost", "failed"] = "lost" if _node_gone(hand.node, why) else "failed"
            self._dismiss(hand, Outcome(kind=kind, reason="worker died", detail=why))
            return
        if outcome.kind == "setup":
            self._dismiss(hand, outcome)
            if not any(other.ready for other in self.hands):
                raise SetupError(outcome.reason)
            return
        if outcome.kind == "unwritable":
            self.events("job ended", reason=outcome.reason)
            raise UnwritableError(outcome.reason)
        if not hand.ready:
            hand.starting, hand.node, self.bad_starts = None, outcome.node, 0
            self.ready_at = self.ready_at or time.monotonic()
            self.events("worker started", worker=outcome.where)
        else:
            self._settle(hand.at_work.pop(answer), outcome)
            hand.settled = hand.settled + outcome.frames if outcome.frames else hand.frames
        self._next(hand)

    def _next(self, hand: _WorkerHandle) -> None:
        """Give a worker its next scenes, or let it go."""
        while self.queue and self._may_add(hand, self.queue[0][1]):
            _, scene_id = heapq.heappop(self.queue)
            hand.at_work[hand.actor.label.remote(scene_id)] = scene_id
            hand.moved = time.monotonic()
        if not hand.at_work:
            self.hands.remove(hand)
            ray.wait([hand.actor.close.remote()], timeout=SHUTDOWN_TIMEOUT_S)
            ray.kill(hand.actor)

    def _may_add(self, hand: _WorkerHandle, scene_id: str) -> bool:
        """Whether a worker may have this scene beside those that it has."""
        if not hand.at_work:
            return True
        enough = len(self.queue) >= len(self.hands)  # for the others, who take one each meanwhile
        apart = self.alone.intersection([scene_id, *hand.at_work.values()])
        return len(hand.at_work) < SCENES_IN_FLIGHT and enough and not apart

    def _dismiss(self, hand: _WorkerHandle, outcome: Outcome) -> None:
        """A worker that is not used again; its scenes are settled.

        Raises:
            SetupError: too many in a row were never ready.
        """
        self.hands.remove(hand)
        ray.kill(hand.actor)
        scene_ids = list(hand.at_work.values())
        self.events("worker gone", reason=outcome.reason, scenes=scene_ids, kind=outcome.kind)
        if len(scene_ids) > 1 and outcome.kind == "failed":
            self.alone.update(scene_ids)
            outcome = replace(outcome, kind="lost")
        for scene_id in scene_ids:
            self._settle(scene_id, outcome)
        if not hand.ready and outcome.kind == "failed":
            self.bad_starts += 1
            if self.bad_starts >= BAD_STARTS:
                why = outcome.detail.splitlines()[-1] if outcome.detail else outcome.reason
                raise SetupError(f"a worker died while starting: {why}")
        self._hire()

    def _settle(self, scene_id: str, outcome: Outcome) -> None:
        """Count a scene as done, try it again, or set it aside."""
        what = {"scene": scene_id, "worker": outcome.where}
        if outcome.kind == "done" or scene_id in self.store:  # one may die right after its commit
            self.scenes += 1
            self.lengths[scene_id] = outcome.frames or self.lengths[scene_id]
            self.frames += self.lengths[scene_id]
            self.worker_s += outcome.seconds
            self.metrics.frames.inc(self.lengths[scene_id])
            self.metrics.scenes.inc(1, tags={"outcome": "done"})
            frames, seconds = self.lengths[scene_id], round(outcome.seconds, 3)
            dropped = asdict(outcome.returns) if outcome.returns.dropped else {}
            self.returns += outcome.returns
            self.events("scene done", **what, frames=frames, seconds=seconds, **dropped)
            return
        if outcome.kind == "lost":
            self.lost[scene_id] = self.lost.get(scene_id, 0) + 1
            again = self.lost[scene_id] <= LOST_NODES
        else:
            self.tries[scene_id] = self.tries.get(scene_id, 0) + 1
            again = outcome.kind == "failed" and self.tries[scene_id] <= self.job.retries
        reason = self._clean(outcome.reason)
        if again:
            self.retries += 1
            self.metrics.retries.inc(1)
            self.events("scene tried again", **what, reason=reason)
            self.push(scene_id)
            return
        self.failures[scene_id] = reason
        self.metrics.scenes.inc(1, tags={"outcome": "set aside"})
        self.events("scene set aside", **what, reason=reason)
        self.store.quarantine(scene_id, reason, self._clean(outcome.detail))

    def _abandon(self) -> None:
        """Let the workers leave their scenes, so that nothing half-written stays."""
        awaited = [answer for hand in self.hands for answer in hand.at_work]
        for hand in self.hands:
            hand.actor.abandon.remote()
        if awaited:
            ray.wait(awaited, num_returns=len(awaited), timeout=SHUTDOWN_TIMEOUT_S)

    def progress(self) -> Progress:
        at_work = sum(max(0, h.frames - h.settled) for h in self.hands if h.at_work)
        wanted = sum(n for s, n in self.lengths.items() if s not in self.failures)
        return Progress(
            scenes=len(self.lengths),
            scenes_done=self.scenes,
            frames=wanted,
            frames_done=min(wanted, self.frames + at_work),
            failed=len(self.failures),
            workers=sum(hand.ready for hand in self.hands),
            seconds=0.0 if self.ready_at is None else time.monotonic() - self.ready_at,
        )

    def summary(self, asked: Sequence[str], *, skipped: int) -> JobSummary:
        seconds = time.monotonic() - self.began
        wanted = set(asked)
        voxels = trusted = occupied = 0
        free = self.store.header.taxonomy.free_id
        for scene_id, attributes in self.store.committed().items():
            if scene_id not in wanted:
                continue
            counts = attributes["counts"]
            by_class = counts["trusted_by_class"]
            voxels, trusted = voxels + counts["voxels"], trusted + counts["trusted"]
            occupied += sum(by_class) - by_class[free]
        return JobSummary(
            scenes=self.scenes,
            frames=self.frames,
            skipped=skipped,
            failures=dict(sorted(self.failures.items())),
            voxels=voxels,
            trusted=trusted,
            trusted_occupied=occupied,
            returns=self.returns,
            retries=self.retries,
            seconds=seconds,
            worker_s=self.worker_s,
        )

    def _clean(self, text: str) -> str:
        return printable(text.replace(f"{self.job.root}{os.sep}", ""), lines=True)


def _node_gone(node: str, why: str) -> bool:
    """Whether a worker died because its machine did."""
    if "node has died" in why or "node was terminated" in why:
        return True
    return bool(node) and not any(n["NodeID"] == node and n["Alive"] for n in ray.nodes())


def _length(source: SceneSource, scene_id: str) -> int:
    try:
        return source.n_frames(scene_id)
    except SceneError:
        return 0  # its worker will say what is wrong
