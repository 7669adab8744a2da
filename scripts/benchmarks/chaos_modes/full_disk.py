"""Write where nothing fits any more, and see what is lost and what goes on.

A small file system in memory (``mount -t tmpfs``, which root alone may do) is filled up to a few
bytes, and one command after the other writes to it: a labelling job, its events, reviews, exports,
the lists of a selection, an audit's report, the HTML report, a training's state. Then there is room
again, and the same command runs once more. Good is: the command ends with exit code 2 and one line
that names the file and says so (events that cannot be written only warn); a good file that stood
there is as it was, and no new one is torn; and the second time leaves the bytes of an undisturbed
run. What may differ, such as times, and which files grow while a command runs, stands in
``result_files.py``.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from chaos_modes.flips import labelled
from chaos_modes.outcome import Options, Outcome, broke, facts_of
from chaos_modes.result_files import Tree, differing, format_of, torn
from tqdm import tqdm

from datasets.errors import SetupError
from datasets.labels.store import LabelStore
from datasets.reviews.entries import NoteEntry
from datasets.reviews.overlay import Reviews
from datasets.storage.atomic_files import PARTIAL
from datasets.storage.backend import LocalBackend

ROOT = Path(__file__).resolve().parents[3]
SIZE_MIB = 64


@dataclass(slots=True)
class Counts:
    """Attributes:
    commands: name -> exit code on the full disk, and the last line on stderr.
    wrong_codes: another exit code, no line or several, or a traceback.
    torn: files that are neither as they were nor what an undisturbed run writes; of those that grow
        line by line, files with a line that is cut off.
    unequal: what the second run left is not what an undisturbed one leaves.
    cases: those that broke a promise.
    """

    commands: dict[str, list[object]] = field(default_factory=dict)
    wrong_codes: int = 0
    torn: int = 0
    unequal: int = 0
    cases: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.wrong_codes + self.torn + self.unequal


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Attributes:
    name: of what is written.
    line: arguments of the command that writes below a folder.
    left: bytes that the disk has left.
    code: exit code on the full disk.
    before: files that stand there.
    done: exit code where there is room.
    """

    name: str
    line: Callable[[Path], list[str]]
    left: int = 0
    code: int = 2
    before: tuple[str, ...] = ()
    done: int = 0


def run(options: Options, folder: Path) -> Outcome:
    store = labelled(folder)
    attack = Attack(folder, options.seed)
    attack.reviews(store)
    for command in tqdm(list(commands(folder / "city", store, folder)), desc="commands"):
        attack.command(command)
        tqdm.write(describe(attack.counts), file=sys.stderr)
    counts = attack.counts
    return Outcome(text=describe(counts), facts=facts_of(counts), bad=counts.bad)


def commands(city: Path, store: Path, folder: Path) -> Iterator[Command]:
    label = ["autolabel/run.py", "--split", "unlabeled", "--root", str(city), "--workers", "1"]
    label += ["--address", "local"]
    log = ["--source", "city", "--root", str(city)]
    yield Command(
        name="labels",
        line=lambda out: [*label, "--store", str(out / "a.zarr"), "--events", f"{folder}/events"],
        left=200_000,
        done=1,  # one scene of the city is bad
    )
    yield Command(
        name="events",
        line=lambda out: [
            *(*label, "--store", f"{folder}/{out.name}.zarr"),
            *("--events", f"{out}/events.jsonl"),
        ],
        code=1,  # the job ends as it would, and warns
        done=1,
    )
    yield Command(
        name="merge",
        line=lambda out: ["scripts/store.py", "merge", str(out / "a.zarr"), str(store)],
        left=50_000,
    )
    yield Command(
        name="export",
        line=lambda out: ["scripts/store.py", "export", str(store), *log, "--out", str(out / "x")],
        left=30_000,
    )
    yield Command(
        name="selection",
        line=lambda out: [
            *("scripts/select_scenes.py", str(store), "--frames", "2", "--gap", "1"),
            *("--voxels", "1%", "--out", str(out), "--json", str(out / "choice.json")),
        ],
        before=("chosen.txt", "frames.txt", "choice.json"),
    )
    yield Command(
        name="audit",
        line=lambda out: ["autolabel/audit.py", str(store), *log, "--json", str(out / "audit")],
        before=("audit",),
    )
    yield Command(
        name="report",
        line=lambda out: [
            *("viz/report.py", str(store), *log, "--out", str(out / "report.html")),
            *("--pictures", "0"),
        ],
        before=("report.html",),
    )
    yield Command(
        name="training",
        line=lambda out: [
            *("scripts/train_student.py", "--labels", str(store), *log, "--out", str(out / "t")),
            *("--steps", "2", "--save-every", "1", "--log-every", "1"),
            *("--device", "cpu", "--threads", "1"),
        ],
        left=500_000,
    )
    yield Command(
        name="onnx",
        line=lambda out: [
            *("scripts/export_onnx.py", "--preset", "camera_tiny", "--argmax"),
            *("--threads", "1", "-o", str(out / "student.onnx")),
        ],
        left=100_000,
        before=("student.onnx",),
    )


class Attack:
    """Fills a disk, and counts what happens."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.counts = Counts()

    def command(self, command: Command) -> None:
        """Attack it twice: with the bytes left that it names, and with a part, drawn by chance, of
        what it writes."""
        undisturbed = self.folder / f"whole-{command.name}"
        undisturbed.mkdir()
        first = spoken(command.line(undisturbed))
        if first.returncode != command.done:
            last = first.stderr[-600:]
            self._broken("unequal", f"{command.name}, undisturbed: {first.returncode}: {last}")
            return
        wanted = tree(undisturbed)
        size = sum(map(len, wanted.values()))
        for left in (command.left, self.rng.randrange(size)):
            self.attack(command, wanted, left)

    def attack(self, command: Command, wanted: Tree, left: int) -> None:
        attack = f"{command.name}, {left:,} bytes left"
        with small_disk(self.folder / f"disk-{command.name}-{left}") as disk:
            for name in command.before:
                (disk / name).write_bytes(b"good")
            ballast = filled(disk, left)
            ended = spoken(command.line(disk))
            written = tree(disk)
            self._said(command, attack, ended, complete=not differing(written, wanted))
            for name, data in written.items():
                if f"/{PARTIAL}/" in f"/{name}":
                    continue  # of a draft, which no reader sees; it goes with the second run
                if data == b"good" and name in command.before:
                    continue
                if fault := torn(name, data, wanted.get(name)):
                    self._broken("torn", f"{attack}: {name}, {len(data)} bytes: {fault}")
            for name in set(command.before) - written.keys():
                self._broken("torn", f"{attack}: {name} is gone")
            ballast.unlink()
            repeated = spoken(command.line(disk))
            after = tree(disk)
            other = differing(after, wanted)
            if repeated.returncode != command.done or other:
                case = f"{attack}, again: exit {repeated.returncode}, {other[:4]}"
                self._broken("unequal", f"{case} {repeated.stderr[-300:]}")
            for name, data in written.items():
                if format_of(name).goes_on and not after.get(name, b"").startswith(data):
                    self._broken("unequal", f"{attack}, again: lines of {name} are gone")

    def _said(
        self,
        command: Command,
        attack: str,
        ended: subprocess.CompletedProcess[str],
        *,
        complete: bool,
    ) -> None:
        """Whether the exit code is right, and one line says that there is no space left."""
        lines = [x for x in ended.stderr.splitlines() if "error:" in x or "warning:" in x]
        last = (lines or ended.stderr.splitlines() or [""])[-1]
        self.counts.commands[attack] = [ended.returncode, self._short(last)[-300:]]
        if complete and ended.returncode == command.done:  # it fits
            return
        full = [line for line in ended.stderr.splitlines() if "No space left" in line]
        right = len(full) == 1 and f"{self.folder}/disk-{command.name}" in full[0]
        clean = "Traceback" not in ended.stderr and "Exception ignored" not in ended.stderr
        if ended.returncode != command.code or not right or not clean:
            case = f"{attack}: exit {ended.returncode}: {ended.stderr[-900:]}"
            self._broken("wrong_codes", case)

    def reviews(self, store: Path) -> None:
        with small_disk(self.folder / "disk-reviews") as disk:
            for key, data in tree(store).items():
                LocalBackend(disk / "a.zarr").write(key, data)
            opened = LabelStore.open(disk / "a.zarr")
            before, first = tree(disk), opened.scene_ids()[0]
            note = NoteEntry(
                scene_id=first, token=opened.scene(first).frame_tokens[0], note="n" * 900
            )
            ballast = filled(disk, 0)
            try:
                Reviews(opened).add(note, reviewer="eve")
            except SetupError as error:
                self.counts.commands["review"] = [2, self._short(str(error))]
            else:
                self._broken("wrong_codes", "a review fits on the full disk")
            ballast.unlink()
            if tree(disk) != before:
                self._broken("torn", "review")
            wrote = Reviews(opened).add(note, reviewer="eve")
            if wrote not in Reviews(opened).entries():
                self._broken("unequal", "review")

    def _broken(self, promise: str, case: str) -> None:
        broke(self.counts, promise, self._short(case))

    def _short(self, text: str) -> str:
        """Without the folder that goes with the attack."""
        return text.replace(f"{self.folder}/", "")


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of its own, in memory. Raises ``SetupError`` where none may be mounted."""
    path.mkdir()
    size = f"size={SIZE_MIB}m"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], capture_output=True, text=True
    )
    if done.returncode:
        raise SetupError(f"--full-disk mounts a tmpfs, which root may: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def filled(disk: Path, left: int) -> Path:
    """A file that leaves so many bytes, rounded up to blocks."""
    ballast = disk / ".ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    with ballast.open("r+b") as file:
        file.truncate(max(0, ballast.stat().st_size - left))
    return ballast


def spoken(line: list[str]) -> subprocess.CompletedProcess[str]:
    done = [sys.executable, *line]
    return subprocess.run(done, cwd=ROOT, capture_output=True, text=True, timeout=900)


def tree(folder: Path) -> Tree:
    backend = LocalBackend(folder)
    keys = (key for key, _ in backend.files("") if not Path(key).name.startswith(".ballast"))
    return {key: backend.read(key) for key in keys}


def describe(counts: Counts) -> str:
    return "\n".join(
        (
            *(f"{name}: exit {code}: {line}" for name, (code, line) in counts.commands.items()),
            f"wrong exit code or no line {counts.wrong_codes}, torn files {counts.torn}, "
            f"unequal in the end {counts.unequal}",
            *(f"  {case}" for case in counts.cases),
        )
    )
