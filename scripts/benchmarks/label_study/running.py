"""Parts side by side in processes of their own, in the order of what they need."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from label_study.parts import Part
from label_study.tasks import Workshop

from datasets.files.printable import printable, redacted

POLL_S = 0.5
TELL_EVERY_S = 30.0
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def run(
    shop: Workshop, parts: Sequence[Part], *, workers: int, on_done: Callable[[Part], None]
) -> dict[str, str]:
    """Make what is not there yet; gives why parts failed, by name. What needs them is left out.

    A part that is known only is made where one that is not needs its files.

    Args:
        parts: after what they need.
        workers: processes; 1 works in this one.
        on_done: called in this process whenever a part is there.
    """
    missing = [part for part in parts if shop.result(part) is None]
    needed = {need.key for part in missing for need in part.with_needs() if not shop.is_made(need)}
    todo = [part for part in parts if part.key in needed]
    progress = Progress(shop, parts, todo, workers)
    runner = _Inline(shop) if workers == 1 else _Processes(shop, workers)
    failed: dict[str, str] = {}
    running: dict[str, Part] = {}
    try:
        while todo or running:
            for part in list(todo):
                if any(need.name in failed for need in part.needs):
                    failed[part.name] = "what it needs failed"
                    todo.remove(part)
                elif runner.free() and all(map(shop.is_made, part.needs)):
                    todo.remove(part)
                    running[part.name] = part
                    progress.tell(running, todo)
                    runner.start(part)
            for name, reason in runner.ended():
                part = running.pop(name)
                if not shop.is_made(part):
                    failed[name] = reason
                    print(printable(f"{name} failed: {reason}"), file=sys.stderr)
                else:
                    on_done(part)
                progress.tell(running, todo)
            progress.tell(running, todo, only_if_due=True)
    finally:
        runner.stop()
    return failed


class _Inline:
    """One part after the other in this process."""

    def __init__(self, shop: Workshop) -> None:
        self.shop, self._ended = shop, list[tuple[str, str]]()

    def free(self) -> bool:
        return not self._ended

    def start(self, part: Part) -> None:
        try:
            self.shop.make(part)
            self._ended.append((part.name, ""))
        except Exception as error:
            self._ended.append((part.name, _told(part.folder(self.shop.out), error)))

    def ended(self) -> list[tuple[str, str]]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        pass


class _Processes:
    """A fresh process for each part; what it prints goes to ``output.txt`` in the part's folder."""

    def __init__(self, shop: Workshop, workers: int) -> None:
        self.shop, self.workers = shop, workers
        self.context = multiprocessing.get_context("spawn")
        self.processes: dict[str, tuple[BaseProcess, Path]] = {}

    def free(self) -> bool:
        return len(self.processes) < self.workers

    def start(self, part: Part) -> None:
        folder = part.folder(self.shop.out)
        folder.mkdir(parents=True, exist_ok=True)
        process = self.context.Process(target=_make_alone, args=(self.shop, part))
        for name in _ONE_THREAD if self.shop.device == "cpu" else ():
            os.environ.setdefault(name, str(self.shop.profile.threads))
        process.start()
        self.processes[part.name] = process, folder

    def ended(self) -> list[tuple[str, str]]:
        time.sleep(POLL_S)
        ended = []
        for name, (process, folder) in list(self.processes.items()):
            if process.exitcode is not None:
                del self.processes[name]
                error = folder / "error.txt"
                reason = error.read_text().strip().split("\n")[-1] if error.is_file() else ""
                ended.append((name, reason or f"its process ended with code {process.exitcode}"))
        return ended

    def stop(self) -> None:
        for process, _ in self.processes.values():
            process.terminate()
        for process, _ in self.processes.values():
            process.join()


def _make_alone(shop: Workshop, part: Part) -> None:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    folder = part.folder(shop.out)
    (folder / "error.txt").unlink(missing_ok=True)
    with (folder / "output.txt").open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        shop.make(part)
    except Exception as error:
        _told(folder, error)
        sys.exit(1)


def _told(folder: Path, error: Exception) -> str:
    """The error in one line; all of it lies in the part's folder."""
    (folder / "error.txt").write_text(redacted("".join(traceback.format_exception(error))))
    return f"{type(error).__name__}: {error}"


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: two must never write one folder."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


class Progress:
    """A line now and then: what is done, what is at work, and how long it may take."""

    def __init__(
        self, shop: Workshop, parts: Sequence[Part], todo: Sequence[Part], workers: int
    ) -> None:
        self.shop, self.parts, self.workers = shop, parts, workers
        self.began = self.told = time.monotonic()
        self.began_at: dict[str, float] = {}
        self.there = len(parts) - len(todo)

    def tell(
        self, running: dict[str, Part], todo: Sequence[Part], *, only_if_due: bool = False
    ) -> None:
        now_s = time.monotonic()
        if only_if_due and now_s - self.told < TELL_EVERY_S:
            return
        self.told = now_s
        done = len(self.parts) - len(todo) - len(running)
        at_work = ", ".join(name + self._step(part) for name, part in running.items())
        left = self._seconds_left(running, todo, now_s)
        print(
            f"{done}/{len(self.parts)} parts done ({self.there} were there); "
            f"{at_work or 'nothing'} at work; {(now_s - self.began) / 60:.1f} min gone, "
            f"about {left / 60:.0f} min to go",
            file=sys.stderr,
            flush=True,
        )

    def _step(self, part: Part) -> str:
        try:
            last = (part.folder(self.shop.out) / "log.jsonl").read_text().split("\n")[-2]
            return f" (step {json.loads(last)['step']})"
        except (OSError, IndexError, ValueError, KeyError):
            return ""

    def _seconds_left(self, running: dict[str, Part], todo: Sequence[Part], now_s: float) -> float:
        """From the speed of the parts that are there; an estimate before the first one is."""
        results = [(part, self.shop.result(part)) for part in self.parts]
        work = sum(part.cost for part, result in results if result)
        seconds = sum(float(result["seconds"]) for _, result in results if result)
        speed = seconds / work if work else 0.3
        for name in running:
            self.began_at.setdefault(name, now_s)
        at_work = sum(
            max(0.0, part.cost * speed - (now_s - self.began_at[name]))
            for name, part in running.items()
        )
        return (at_work + speed * sum(part.cost for part in todo)) / self.workers
