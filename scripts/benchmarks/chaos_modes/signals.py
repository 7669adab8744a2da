"""Stop a labelling job by Ctrl-C or SIGTERM at random moments, and see how it ends.

The job starts its own Ray. A moment is any from its first to the end of an undisturbed run; SIGINT
goes to the whole process group, as a terminal sends it, SIGTERM to the process; every third comes
twice. Good is: exit code 130, one line that says so, no stack, the end within 15 s, no process left
over. The same job goes on over the same store until it is complete, which then equals an
undisturbed run's, byte by byte.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from chaos_modes.kills import ROOT, command
from chaos_modes.outcome import Options, Outcome, facts_of, small_city, tree
from tqdm import tqdm

from datasets.cli.supervisor import STOPPED

LIMIT_S = 15.0
FIRST_S = 0.15
"""Python itself starts meanwhile: no line of ours has run."""
MARK = "CHAOS_ROUND"
NOISE = ("Traceback", "*** SIG", "Check failed", "Stack trace", "StackTrace", "core dumped")


@dataclass(slots=True)
class Counts:
    """What happened in all jobs together."""

    signals: int = 0
    too_late: int = 0
    wrong_code: int = 0
    wrong_line: int = 0
    stacks: int = 0
    slow: int = 0
    processes_left: int = 0
    slowest_s: float = 0.0
    stores: int = 0
    unequal: int = 0


def run(options: Options, folder: Path) -> Outcome:
    city = small_city(folder / "city", scenes=options.scenes, frames=options.frames)
    undisturbed = folder / "undisturbed.zarr"
    began = time.monotonic()
    subprocess.run(_local(city, undisturbed), cwd=ROOT, check=True)
    whole_s = time.monotonic() - began
    wanted, counts, rng = tree(undisturbed), Counts(), random.Random(options.seed)
    store = folder / "labels-0.zarr"
    with tqdm(total=options.number, desc="signals") as bar:
        while counts.signals < options.number:
            if _attempt(_local(city, store), rng, whole_s, counts):
                bar.update()
            else:  # it ended first
                counts.stores += 1
                counts.unequal += tree(store) != wanted
                store = folder / f"labels-{counts.stores}.zarr"
    if store.exists():
        subprocess.run(_local(city, store), cwd=ROOT, check=True)
        counts.stores += 1
        counts.unequal += tree(store) != wanted
    bad = counts.wrong_code + counts.wrong_line + counts.stacks + counts.slow
    bad += counts.processes_left + counts.unequal
    return Outcome(text=_describe(counts), facts=facts_of(counts), bad=bad)


def _local(city: Path, store: Path) -> list[str]:
    return [*command(city, store), "--address", "local"]


def _attempt(arguments: list[str], rng: random.Random, whole_s: float, counts: Counts) -> bool:
    """Whether the signal came before the job's end."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=os.environ | {MARK: mark},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    moment_s = rng.uniform(FIRST_S, whole_s)
    by_terminal, second_signal = rng.random() < 0.5, rng.random() < 1 / 3
    try:
        out, _ = process.communicate(timeout=moment_s)
        counts.too_late += 1
        return False
    except subprocess.TimeoutExpired:
        pass
    sent = time.monotonic()
    for n in range(1 + second_signal):
        time.sleep(0.3 * n)
        with contextlib.suppress(ProcessLookupError):
            if by_terminal:
                os.killpg(process.pid, signal.SIGINT)
            else:
                process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    took_s = time.monotonic() - sent
    time.sleep(0.5)
    left = marked(mark)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    counts.signals += 1
    counts.wrong_code += process.returncode != STOPPED
    counts.wrong_line += err.count("stopped; ") != 1 or not err.rstrip().endswith("continues")
    counts.stacks += any(word in out + err for word in NOISE)
    counts.slow += took_s > LIMIT_S
    counts.processes_left += bool(left)
    counts.slowest_s = round(max(counts.slowest_s, took_s), 2)
    if process.returncode != STOPPED or left:
        name = "SIGINT" if by_terminal else "SIGTERM"
        tqdm.write(f"{name} after {moment_s:.2f} s: {process.returncode}, left {left}\n{err}")
    return True


def marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment, whoever's children they are now."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in path.read_bytes():
                pids.append(int(path.parent.name))
    return pids


def _describe(c: Counts) -> str:
    return "\n".join(
        (
            f"{c.signals} signals, {c.too_late} more came too late; slowest end {c.slowest_s} s",
            f"wrong exit code {c.wrong_code}, wrong line {c.wrong_line}, stacks {c.stacks}, "
            f"later than {LIMIT_S:g} s {c.slow}, processes left {c.processes_left}",
            f"{c.stores} stores, unlike the undisturbed one {c.unequal}",
        )
    )
