"""Kill a labelling job at random, again and again, and see whether its store is right.

Two Ray nodes on this machine label a small city. At random moments a worker, the second node's
raylet, or the driver is killed with SIGKILL; a dead node is started again, and so is a job whose
driver died or that set a scene aside. When the store is complete it is compared with that of an
undisturbed run, and the next job begins, until there were enough kills. Good is: every store was
complete, verified and equal to the undisturbed one, byte by byte, and no scene was written twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chaos_modes.outcome import Options, Outcome, facts_of, judge, small_city, tree, written_twice
from ray.cluster_utils import Cluster
from tqdm import tqdm

from datasets.cli.supervisor import descendants
from datasets.labels.store import LabelStore

ROOT = Path(__file__).resolve().parents[3]
Victim = Literal["worker", "raylet", "driver"]
VICTIMS: tuple[Victim, ...] = ("worker", "worker", "raylet", "driver")


@dataclass(slots=True)
class Counts:
    """What happened in all jobs together."""

    kills: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    drivers: int = 0
    scenes: int = 0
    set_aside_then_done: int = 0
    lost: int = 0
    written_twice: int = 0
    damaged: int = 0
    unequal: int = 0


def run(options: Options, folder: Path) -> Outcome:
    city = small_city(folder / "city", scenes=options.scenes, frames=options.frames)
    environment = os.environ | {"RAY_worker_niceness": "0"}
    os.environ.update(environment)
    undisturbed = folder / "undisturbed.zarr"
    subprocess.run(
        [*command(city, undisturbed), "--address", "local"], cwd=ROOT, check=True, env=environment
    )
    wanted = tree(undisturbed)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        chaos = Chaos(options, city, cluster, random.Random(options.seed))
        with tqdm(total=options.number, desc="kills") as bar:
            while chaos.counts.kills.total() < options.number:
                store = folder / f"labels-{chaos.counts.jobs}.zarr"
                chaos.job(store, bar)
                chaos.judge(store, wanted)
    finally:
        cluster.shutdown()
    counts = chaos.counts
    return Outcome(
        text=describe(counts),
        facts=facts_of(counts),
        bad=counts.lost + counts.written_twice + counts.damaged + counts.unequal,
    )


def command(city: Path, store: Path) -> list[str]:
    return [
        *(sys.executable, "autolabel/run.py", "--split", "unlabeled", "--root", str(city)),
        *("--store", str(store), "--workers", "2"),
    ]


class Chaos:
    """A cluster under fire."""

    def __init__(self, options: Options, city: Path, cluster: Cluster, rng: random.Random) -> None:
        self.options, self.city, self.cluster, self.rng = options, city, cluster, rng
        self.counts = Counts()
        self.second = cluster.add_node(num_cpus=1)

    def job(self, store: Path, bar: tqdm[object]) -> None:
        """Until the store is complete, however often it takes."""
        self.counts.jobs += 1
        inodes: dict[str, int] = {}
        code: int | None = 1
        driver = self._start(store)
        next_kill = self._soon()
        while True:
            time.sleep(0.05)
            self.counts.written_twice += written_twice(store, inodes)
            code = driver.poll()
            if code == 0:
                return
            if code is not None:
                if code == 1:  # scenes whose workers were killed too often
                    self.counts.set_aside_then_done += len(LabelStore.open(store).quarantined())
                driver = self._start(store)
            if time.monotonic() < next_kill or self.counts.kills.total() >= self.options.number:
                continue
            victim = self.rng.choice(VICTIMS)
            if self._kill(victim, driver):
                self.counts.kills[victim] += 1
                bar.update()
            next_kill = self._soon()

    def _soon(self) -> float:
        return time.monotonic() + self.rng.uniform(*self.options.every_s)

    def _start(self, store: Path) -> subprocess.Popen[bytes]:
        self.counts.drivers += 1
        log = store.with_suffix(".log").open("ab")
        address = ["--address", self.cluster.address]
        return subprocess.Popen([*command(self.city, store), *address], cwd=ROOT, stderr=log)

    def _kill(self, victim: Victim, driver: subprocess.Popen[bytes]) -> bool:
        """Whether there was one to kill."""
        if victim == "driver":
            driver.kill()
            driver.wait()
            return True
        if victim == "raylet":
            # its whole process group of workers follows, as when a machine is switched off
            self.cluster.remove_node(self.second, allow_graceful=False)
            self.second = self.cluster.add_node(num_cpus=1)
            return True
        workers = own_processes("ray::Worker")
        if not workers:
            return False
        os.kill(self.rng.choice(workers), signal.SIGKILL)
        return True

    def judge(self, store: Path, wanted: dict[str, str]) -> None:
        self.counts.scenes += len(LabelStore.open(store).scene_ids())
        content = judge(store, self.counts, scenes=self.options.scenes)
        self.counts.unequal += content != wanted


def own_processes(title: str) -> list[int]:
    """Processes of that title that this one's cluster started, not those of another."""
    own = []
    for process in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{process}/cmdline").read_bytes().startswith(title.encode()):
                own.append(process)
    return own


def describe(counts: Counts) -> str:
    kills = ", ".join(f"{n} of a {victim}" for victim, n in sorted(counts.kills.items()))
    return "\n".join(
        (
            f"{counts.kills.total()} kills: {kills}",
            f"{counts.jobs} jobs, {counts.drivers} drivers, {counts.scenes} scenes; "
            f"{counts.set_aside_then_done} set aside for a while",
            f"lost {counts.lost}, written twice {counts.written_twice}, damaged {counts.damaged}, "
            f"stores unlike the undisturbed one {counts.unequal}",
        )
    )
