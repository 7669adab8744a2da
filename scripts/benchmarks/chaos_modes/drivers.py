"""Start two labelling jobs on one fresh store at the same moment, and see what it holds then.

In every other round both are the same job: the store must hold what an undisturbed run writes,
every scene once, and each driver ends with 0 or with 2 and a reason. In the others the second
trusts labels by another confidence: one of the two refuses with 2, and the store is whole and all
the other's. All join one Ray; each driver has one worker. A pipe holds both drivers back until both
have loaded everything; then each is delayed at random by up to some milliseconds.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from chaos_modes.kills import ROOT
from chaos_modes.outcome import Options, Outcome, facts_of, judge, small_city, tree, written_twice
from ray.cluster_utils import Cluster
from tqdm import tqdm

APART_S = 0.02
"""Most seconds between the two."""
TIMEOUT_S = 600.0
CONFIDENCES = ("0.5", "0.6")
DRIVER = """
import sys, time
from datasets.cli.launch import launch
ready, delay_s, arguments = sys.argv[1], float(sys.argv[2]), sys.argv[3:]
open(ready, "w").close()
sys.stdin.readline()
time.sleep(delay_s)
sys.exit(launch("label", arguments))
"""


@dataclass(slots=True)
class Counts:
    """What happened in all rounds together."""

    equal_rounds: int = 0
    other_rounds: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    wrong_codes: int = 0
    without_reason: int = 0
    lost: int = 0
    written_twice: int = 0
    damaged: int = 0
    unequal: int = 0
    mixed: int = 0


def run(options: Options, folder: Path) -> Outcome:
    city = small_city(folder / "city", scenes=options.scenes, frames=options.frames)
    os.environ.update({"RAY_worker_niceness": "0"})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    counts, rng = Counts(), random.Random(options.seed)
    try:
        wanted = {}
        for confidence in CONFIDENCES:
            store = folder / f"undisturbed-{confidence}.zarr"
            line = [sys.executable, "autolabel/run.py", *_job(city, store, confidence, cluster)]
            subprocess.run(line, cwd=ROOT, check=True)
            wanted[confidence] = tree(store)
        for n in tqdm(range(options.number), desc="rounds"):
            confidences = (CONFIDENCES[0], CONFIDENCES[n % 2])
            store = folder / f"labels-{n}.zarr"
            ended = _both(city, store, confidences, cluster, rng, counts)
            _judge(store, confidences, ended, wanted, counts, scenes=options.scenes)
    finally:
        cluster.shutdown()
    bad = counts.wrong_codes + counts.without_reason + counts.lost + counts.written_twice
    bad += counts.damaged + counts.unequal + counts.mixed
    return Outcome(text=_describe(counts), facts=facts_of(counts), bad=bad)


def _job(city: Path, store: Path, confidence: str, cluster: Cluster) -> list[str]:
    return [
        *("--split", "unlabeled", "--root", str(city), "--store", str(store), "--workers", "1"),
        *("--min-confidence", confidence, "--address", cluster.address),
    ]


def _both(
    city: Path,
    store: Path,
    confidences: tuple[str, str],
    cluster: Cluster,
    rng: random.Random,
    counts: Counts,
) -> list[tuple[int, str]]:
    """Exit code and error output of both."""
    drivers, ready, errors = [], [], []
    for n, confidence in enumerate(confidences):
        ready.append(store.with_suffix(f".ready{n}"))
        errors.append(store.with_suffix(f".err{n}"))
        delay_s = str(rng.uniform(0.0, APART_S))
        arguments = [str(ready[n]), delay_s, *_job(city, store, confidence, cluster)]
        drivers.append(
            subprocess.Popen(
                [sys.executable, "-c", DRIVER, *arguments],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors[n].open("wb"),
            )
        )
    deadline = time.monotonic() + TIMEOUT_S
    while not all(path.exists() for path in ready) and time.monotonic() < deadline:
        time.sleep(0.02)
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write(b"\n")
        driver.stdin.flush()
    inodes: dict[str, int] = {}
    while any(driver.poll() is None for driver in drivers) and time.monotonic() < deadline:
        counts.written_twice += written_twice(store, inodes)
        time.sleep(0.02)
    for driver in drivers:
        driver.kill()  # nothing to one that ended
        driver.wait()
    return [
        (driver.returncode, error.read_text(errors="replace"))
        for driver, error in zip(drivers, errors, strict=True)
    ]


def _judge(
    store: Path,
    confidences: tuple[str, str],
    ended: list[tuple[int, str]],
    wanted: dict[str, dict[str, str]],
    counts: Counts,
    *,
    scenes: int,
) -> None:
    codes = [code for code, _ in ended]
    equal = len(set(confidences)) == 1
    counts.equal_rounds += equal
    counts.other_rounds += not equal
    counts.codes[f"{'equal' if equal else 'other'}: {sorted(codes)}"] += 1
    right = {(0, 0), (0, 2)} if equal else {(0, 2)}
    counts.wrong_codes += tuple(sorted(codes)) not in right
    counts.without_reason += any(code == 2 and "error: " not in text for code, text in ended)
    if tuple(sorted(codes)) not in right:
        tqdm.write(f"{codes}\n{ended[0][1]}\n{ended[1][1]}")
    content = judge(store, counts, scenes=scenes)
    winner = next((c for c, code in zip(confidences, codes, strict=True) if code == 0), None)
    if winner is None or content != wanted[winner]:
        counts.unequal += 1
        counts.mixed += content not in wanted.values()


def _describe(c: Counts) -> str:
    codes = "; ".join(f"{name} {n} times" for name, n in sorted(c.codes.items()))
    return "\n".join(
        (
            f"{c.equal_rounds} rounds of equal jobs, {c.other_rounds} of others; {codes}",
            f"wrong exit codes {c.wrong_codes}, 2 without a reason {c.without_reason}",
            f"lost {c.lost}, written twice {c.written_twice}, damaged {c.damaged}, unlike the "
            f"undisturbed store of the job that ended well {c.unequal}, of no job {c.mixed}",
        )
    )
