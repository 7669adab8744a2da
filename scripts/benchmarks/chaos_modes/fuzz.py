"""Give spoiled inputs to every reader, and see that each is read or refused in good order.

A good input of every kind (``readers``) is spoiled in one file, once (``mutations``), and read
whole by a process of a small pool. Good is: it is read, or refused with an error of the package's
own, within ``DEADLINE_S`` and ``MAX_BYTES`` of memory. Attempt i of a seed is the same everywhere.
One that misses the deadline is repeated once by a new process, since other work may have kept the
machine busy; what misses it again hangs. Repetitions are counted.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from chaos_modes.mutations import mutate
from chaos_modes.outcome import Options, Outcome
from chaos_modes.readers import READERS, Reader
from tqdm import tqdm

from datasets.errors import AutolabelError

DEADLINE_S = 20.0
START_S = 120.0
"""Of a process, imports included."""
MAX_BYTES = 1 << 30
MOST_BYTES = 6 << 30
"""An attempt that takes so much address space more than before it is stopped."""
ROUNDS = 200
"""Attempts of a process before a new one takes its place."""
LISTED = 20
NAMES = tuple(READERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Attributes:
    result: ``accepted``, ``refused``, ``unexpected``, ``hang`` or ``memory``.
    bytes_: peak of resident memory while reading, more than before it.
    seconds: it took.
    """

    index: int
    reader: str
    mutation: str
    result: str
    said: str
    bytes_: int
    seconds: float


@dataclass(slots=True)
class _Worker:
    process: BaseProcess
    pipe: Connection
    index: int = -1
    deadline: float = 0.0
    reports: int = 0


@dataclass(slots=True)
class _Counts:
    of: dict[str, Counter[str]] = field(default_factory=lambda: {n: Counter() for n in NAMES})
    peak_bytes: Counter[str] = field(default_factory=Counter)
    slowest_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(NAMES, 0.0))
    bad: list[Attempt] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)

    def note(self, attempt: Attempt) -> None:
        name = attempt.reader
        self.of[name][attempt.result] += 1
        self.peak_bytes[name] = max(self.peak_bytes[name], attempt.bytes_)
        self.slowest_s[name] = max(self.slowest_s[name], attempt.seconds)
        if attempt.result not in ("accepted", "refused"):
            self.bad.append(attempt)


def run(options: Options, folder: Path) -> Outcome:
    good = folder / "good"
    for name, reader in READERS.items():
        (good / name).mkdir(parents=True)
        reader.make(good / name)
    counts = _Counts()
    began = time.monotonic()
    with tqdm(total=options.number, desc="fuzz") as bar:
        for attempt in _attempts(options, good, folder, counts.repeated):
            counts.note(attempt)
            if attempt.result not in ("accepted", "refused"):
                bar.write(_line(attempt))
            bar.update()
    facts: dict[str, object] = {
        "attempts": options.number,
        "seconds": round(time.monotonic() - began),
        "deadline_s": DEADLINE_S,
        "readers": {
            name: {
                **{result: counts.of[name][result] for result in _RESULTS},
                "peak_mb": round(counts.peak_bytes[name] / 2**20),
                "slowest_s": round(counts.slowest_s[name], 1),
            }
            for name in NAMES
        },
        "repeated": len(counts.repeated),
        "bad": [_line(attempt) for attempt in counts.bad[:LISTED]],
    }
    return Outcome(text=_described(options, counts), facts=facts, bad=len(counts.bad))


_RESULTS = ("accepted", "refused", "unexpected", "hang", "memory")


def _attempts(options: Options, good: Path, folder: Path, repeated: list[int]) -> Iterator[Attempt]:
    """Every attempt's result; ``repeated`` takes the indices that missed the deadline once."""
    context = multiprocessing.get_context("spawn")
    todo, retries = iter(range(options.number)), list[int]()
    workers: list[_Worker] = []

    def start(number: int) -> _Worker:
        receiver, sender = context.Pipe()
        scratch = folder / f"scratch-{number}"
        process = context.Process(
            target=_work, args=(sender, options.seed, good, scratch), daemon=True
        )
        process.start()
        sender.close()
        return _Worker(process=process, pipe=receiver)

    def give(worker: _Worker, extra_s: float = 0.0) -> bool:
        worker.index = retries.pop() if retries else next(todo, -1)
        worker.deadline = time.monotonic() + DEADLINE_S + extra_s
        if worker.index >= 0:
            worker.pipe.send(worker.index)
        return worker.index >= 0

    started = min(os.cpu_count() or 1, 2, options.number)
    for number in range(started):
        worker = start(number)
        if give(worker, START_S):
            workers.append(worker)
    while workers:
        wait([worker.pipe for worker in workers], timeout=0.5)
        for worker in list(workers):
            answer: Attempt | None = None
            lost = False
            if worker.pipe.poll():
                try:
                    answer = worker.pipe.recv()
                except EOFError:
                    answer, lost = _lost(options, worker.index, "the process died"), True
            elif time.monotonic() > worker.deadline:
                lost = True
                if worker.index in repeated:
                    answer = _lost(options, worker.index, "")
                else:
                    repeated.append(worker.index)
                    retries.append(worker.index)
            if answer is not None:
                yield answer
                worker.reports += 1
            elif not lost:
                continue
            if lost or worker.reports >= ROUNDS:
                workers.remove(worker)
                worker.process.kill()
                worker.process.join()
                started += 1
                worker = start(started)
                if give(worker, START_S):
                    workers.append(worker)
                else:
                    worker.process.kill()
            elif not give(worker):
                workers.remove(worker)
                worker.process.kill()
                worker.process.join()


def _lost(options: Options, index: int, reason: str) -> Attempt:
    return Attempt(
        index=index,
        reader=reader_of(index),
        mutation="see the seed and the index",
        result="unexpected" if reason else "hang",
        said=reason or f"more than {DEADLINE_S} s",
        bytes_=0,
        seconds=DEADLINE_S,
    )


def reader_of(index: int) -> str:
    return NAMES[index % len(NAMES)]


def _work(pipe: Connection, seed: int, good: Path, scratch: Path) -> None:
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + MOST_BYTES, resource.RLIM_INFINITY))
    while True:
        try:
            index = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(seed, index, good, scratch))


def attempt(seed: int, index: int, good: Path, scratch: Path) -> Attempt:
    """Spoil and read once. ``good`` holds the inputs by the reader's name."""
    name = reader_of(index)
    rng = random.Random(f"{seed} {index}")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(good / name, scratch, copy_function=os.link)
    files = sorted(p for p in scratch.rglob("*") if p.is_file())
    chosen = rng.choice(files)
    small = [p for p in files if p.suffix in (".json", ".jsonl")]
    if small and rng.random() < 0.4:
        chosen = rng.choice(small)
    mutation = f"{chosen.relative_to(scratch)}: {mutate(chosen, rng)}"
    before = _resident(reset=True)
    began = time.monotonic()
    result, said = _outcome(READERS[name], scratch)
    peak_bytes = max(0, _resident() - before)
    if peak_bytes > MAX_BYTES and result in ("accepted", "refused"):
        result, said = "memory", f"{peak_bytes >> 20} MiB, then {result}: {said}"
    seconds = time.monotonic() - began
    return Attempt(
        index=index,
        reader=name,
        mutation=mutation,
        result=result,
        said=said,
        bytes_=peak_bytes,
        seconds=seconds,
    )


def _outcome(reader: Reader, scratch: Path) -> tuple[str, str]:
    try:
        reader.read(scratch)
    except AutolabelError as error:
        try:
            return "refused", str(error).encode("utf-8").decode()[:300]
        except UnicodeEncodeError:
            return "unexpected", f"a message that nothing can print: {str(error)[:200]!a}"
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(f.filename).name}:{f.lineno}" for f in frames[-6:]]
        return "unexpected", f"{type(error).__name__}: {str(error)[:150]!a} at {' > '.join(places)}"
    return "accepted", ""


def _resident(*, reset: bool = False) -> int:
    """Bytes of the peak of resident memory since the last reset; after one, of now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("this system does not tell the peak of memory")


def _line(attempt: Attempt) -> str:
    return (
        f"{attempt.index} {attempt.reader}, {attempt.mutation}: {attempt.result} after "
        f"{attempt.seconds:.1f} s: {attempt.said}"
    )


def _described(options: Options, counts: _Counts) -> str:
    head = "".join(f"{column:>12}" for column in (*_RESULTS, "peak MiB", "slowest s"))
    lines = [f"{options.number} spoiled inputs, seed {options.seed}", f"{'':26}{head}"]
    for name in NAMES:
        row = "".join(f"{counts.of[name][result]:>12}" for result in _RESULTS)
        peak, slowest = counts.peak_bytes[name] >> 20, counts.slowest_s[name]
        lines.append(f"{name:26}{row}{peak:>12}{slowest:>12.1f}")
    total = "".join(f"{sum(c[result] for c in counts.of.values()):>12}" for result in _RESULTS)
    lines.append(f"{'all':26}{total}")
    return "\n".join([*lines, *(_line(attempt) for attempt in counts.bad[:LISTED])])
