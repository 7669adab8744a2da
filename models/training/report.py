"""Log, TensorBoard file, report and curves of a training.

In the run's folder: ``log.jsonl`` (a line every few steps), ``tensorboard/`` (the same numbers),
and at the end ``report.json`` and ``curves.png``.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from datasets.errors import SetupError
from datasets.files.appending import AppendedFile
from datasets.files.bounded_files import read_bytes
from datasets.files.json_files import in_words, is_figure, json_lines, write_json
from datasets.files.printable import printable
from datasets.files.replacing import replacing, write_text
from datasets.loading.batch import BadFrame, Batch
from models.training.tensorboard_file import TensorboardFile

MAX_LOG_BYTES = 32 << 20
"""Of ``log.jsonl``: a hundred thousand lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """What a training was.

    Attributes:
        steps, frames: optimisation steps, and frames they read.
        seconds: spent training, continued runs included; saving and scoring do not count.
        waited_seconds: of these, waiting for a batch.
        start_seconds: before the first batch came; not part of ``seconds``.
        empty_frames: frames with labels of which none could be used.
        terms: the loss's terms, means over the last log line's steps.
        scores: the last validation's, if there was one; NaN where there was nothing to score.
        bad_frames: what was skipped, and why.
    """

    steps: int
    frames: int
    seconds: float
    waited_seconds: float
    start_seconds: float
    empty_frames: int
    terms: dict[str, float]
    scores: dict[str, float]
    bad_frames: tuple[BadFrame, ...]

    @property
    def frames_per_s(self) -> float:
        return self.frames / self.seconds if self.seconds else 0.0

    @property
    def waited(self) -> float:
        """Share of the time spent waiting for data, 0..1."""
        return self.waited_seconds / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        rates = {"frames_per_s": self.frames_per_s, "waited": self.waited}
        return asdict(self) | {name: round(value, 4) for name, value in rates.items()}

    def __str__(self) -> str:
        lines = [
            f"trained {self.steps} steps of {self.frames} frames in {self.seconds / 60:.1f} min: "
            f"{self.frames_per_s:.2f} frames/s, {100 * self.waited:.1f} % of the time waiting for "
            f"data (and {self.start_seconds:.1f} s for the first batch)",
            *(f"  {name} {value:.4f}" for name, value in self.terms.items()),
            *(
                f"  {name} {in_words(value, '.4f', 'does not exist: nothing to score')}"
                for name, value in self.scores.items()
            ),
        ]
        if self.empty_frames:
            lines.append(f"{self.empty_frames} frames read had labels, but none that may be used")
        if self.bad_frames:
            lines.append(f"{len(self.bad_frames)} bad frames were left out:")
            lines += [printable(f"  {b.scene} {b.frame}: {b.reason}") for b in self.bad_frames]
        return "\n".join(lines)


class TrainingLog:
    """Keeps the clock and the running means of a training, and writes them down.

    Args:
        folder: of the run; lines and pictures of an interrupted run are continued.
        start, steps: first step of this part of the run, and the number of all.
        log_every: steps between lines.
        clock: ``clock()`` of the interrupted run.
        rank, world_size: this process and the number of all; only rank 0 writes and shows a bar.
    """

    def __init__(
        self,
        folder: Path,
        *,
        start: int,
        steps: int,
        log_every: int,
        clock: Mapping[str, Any] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.folder, self.start, self.steps, self.log_every = folder, start, steps, log_every
        self.silent, self.world_size = rank > 0, world_size
        before = clock or {}
        self.seconds = float(before.get("seconds", 0.0))
        self.waited_s = float(before.get("waited_seconds", 0.0))
        self.start_s = float(before.get("start_seconds", 0.0))
        self.frames = int(before.get("frames", 0))
        self.empty_frames = int(before.get("empty_frames", 0))
        self.bad = {BadFrame(scene=s, frame=f, reason=r) for s, f, r in before.get("bad", [])}
        self.terms: dict[str, float] = dict(before.get("terms", {}))
        self.scores: dict[str, float] = dict(before.get("scores", {}))
        self._sums: dict[str, float] = dict(before.get("sums", {}))
        self._line_began = tuple(before.get("line_began", (0.0, 0.0, 0)))
        self._new_empty_frames = 0

    def __enter__(self) -> TrainingLog:
        if not self.silent:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "log.jsonl"
            lines = [line for line in _lines(path) if line["step"] <= self.start]
            write_text(path, json_lines(lines))
            with ExitStack() as files:
                self._file = AppendedFile(path)
                files.callback(self._file.close)
                board = self.folder / "tensorboard"
                self._board = TensorboardFile(board, first_step=self.start + 1)
                files.callback(self._board.close)
                self._files = files.pop_all()
        self._bar = tqdm(
            total=self.steps,
            initial=self.start,
            desc="train",
            mininterval=2.0 if sys.stderr.isatty() else 30.0,
            disable=self.silent,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        if not self.silent:
            self._files.close()

    def timed(self, batches: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
        """Steps and their batches; what it takes to get one is noted as waiting."""
        self._mark = time.monotonic()
        for step, batch in enumerate(batches, start=self.start):
            if step == self.start:
                self.start_s += self._since_mark()
            else:
                waited_s = self._since_mark()
                self.waited_s += waited_s
                self.seconds += waited_s
            self.frames += len(batch) * self.world_size
            self.bad.update(batch.bad)
            usable = batch.weight.flatten(1).any(1)
            empty = int((batch.labelled & ~usable).sum())
            self.empty_frames += empty
            self._new_empty_frames += empty
            yield step, batch
            self.seconds += self._since_mark()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What is done inside does not count as training."""
        self.seconds += self._since_mark()
        yield
        self._since_mark()

    def _since_mark(self) -> float:
        now_s = time.monotonic()
        seconds, self._mark = now_s - self._mark, now_s
        return seconds

    def note(self, step: int, terms: Mapping[str, float], rate: float) -> None:
        """One step's terms of the loss; writes a line where one is due."""
        for name, value in {"loss": sum(terms.values()), **terms}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._bar.update()
        self._bar.set_postfix(loss=f"{sum(terms.values()):.3f}", refresh=False)
        count = step % self.log_every + 1
        if count == self.log_every or step + 1 == self.steps:
            self._write(step + 1, count, rate)

    def _write(self, step: int, count: int, rate: float) -> None:
        self.terms = {name: round(value / count, 5) for name, value in self._sums.items()}
        self._sums = {}
        seconds, waited_s, frames = (
            total - begin
            for total, begin in zip(
                (self.seconds, self.waited_s, self.frames), self._line_began, strict=True
            )
        )
        self._line_began = (self.seconds, self.waited_s, self.frames)
        speed = {
            "lr": rate,
            "frames_per_s": round(frames / seconds, 3) if seconds else 0.0,
            "waited": round(waited_s / seconds, 4) if seconds else 0.0,
        }
        counters = {"empty_frames": self.empty_frames, "bad_frames": len(self.bad)}
        self._line(step, {**self.terms, **speed, "seconds": round(self.seconds, 1), **counters})

    def note_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """What a validation gave."""
        self.scores = dict(scores)
        self._line(step, {f"val/{name}": value for name, value in scores.items()})

    def _line(self, step: int, values: Mapping[str, float]) -> None:
        if self.silent:
            return
        self._file.write(json_lines([{"step": step, **values}]).encode())
        for name, value in values.items():
            if is_figure(value):
                self._board.add(name, value, step)

    def news(self) -> tuple[set[BadFrame], int]:
        """Bad frames, and the empty ones since the last ``learn``: for the other workers."""
        return self.bad, self._new_empty_frames

    def learn(self, news: Iterable[tuple[set[BadFrame], int]]) -> None:
        """The ``news`` of all workers, one's own included."""
        self.empty_frames -= self._new_empty_frames
        self._new_empty_frames = 0
        for bad, empty in news:
            self.bad |= bad
            self.empty_frames += empty

    def clock(self) -> dict[str, Any]:
        """What a continued run needs to know of this one; plain values."""
        return {
            "seconds": self.seconds,
            "waited_seconds": self.waited_s,
            "start_seconds": self.start_s,
            "frames": self.frames,
            "empty_frames": self.empty_frames,
            "bad": [[bad.scene, bad.frame, bad.reason] for bad in sorted(self.bad)],
            "terms": self.terms,
            "scores": self.scores,
            "sums": self._sums,
            "line_began": list(self._line_began),
        }

    def report(self) -> TrainingReport:
        """The report, written to ``report.json`` with its curves beside it."""
        report = TrainingReport(
            steps=self.steps,
            frames=self.frames,
            seconds=round(self.seconds, 2),
            waited_seconds=round(self.waited_s, 2),
            start_seconds=round(self.start_s, 2),
            empty_frames=self.empty_frames,
            terms=self.terms,
            scores=self.scores,
            bad_frames=tuple(sorted(self.bad)),
        )
        if not self.silent:
            write_json(self.folder / "report.json", report.to_json())
            draw_curves(_lines(self.folder / "log.jsonl"), self.folder / "curves.png")
        return report


_NOT_A_LOSS = ("step", "lr", "frames_per_s", "waited", "seconds", "empty_frames", "bad_frames")


def draw_curves(lines: list[dict[str, float | None]], path: Path) -> None:
    """The loss's terms, the learning rate and, if there are any, the validation scores."""
    lines = [{k: v for k, v in line.items() if is_figure(v)} for line in lines]
    names = list(dict.fromkeys(name for line in lines for name in line))
    losses = [n for n in names if n not in _NOT_A_LOSS and not n.startswith("val/")]
    if len(losses) == 2 and "loss" in losses:
        losses.remove("loss")  # the same as its one term
    panels = {"loss": losses, "learning rate": ["lr"]}
    if scores := [n for n in names if n.startswith("val/")]:
        panels["validation"] = scores
    figure = Figure(figsize=(9, 2.6 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, shown) in zip(
        figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels.items(), strict=True
    ):
        for name in shown:
            points = [(line["step"], line[name]) for line in lines if name in line]
            marker = "o" if len(points) == 1 else None  # a line needs two points
            axes.plot(
                *zip(*points, strict=True),
                label=name.removeprefix("val/"),
                linewidth=1,
                marker=marker,
            )
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    axes.set_xlabel("step")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The log's lines; one torn by a kill ends it.

    Raises:
        SetupError: it cannot be read.
    """
    if not path.exists():
        return []
    try:
        log = read_bytes(path, MAX_LOG_BYTES, "MAX_LOG_BYTES").decode(errors="replace")
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: cannot be read: {error}") from error
    lines = []
    for text in log.splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            break
        if not isinstance(line, dict) or not isinstance(line.get("step"), int):
            break
        lines.append(line)
    return lines
