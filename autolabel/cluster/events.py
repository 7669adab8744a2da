"""Events of a job as JSON lines in a file, and its metrics for Prometheus through Ray."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

from ray.util import metrics

from datasets.files.appending import AppendedFile
from datasets.files.json_files import json_text
from datasets.files.printable import redacted
from datasets.storage.backend import writing


class Events:
    """Appends one JSON object a line: ``time`` (Unix seconds), ``event``, and its fields.

    Args:
        path: appended to, so that a continued job has one file; None: nothing is written.

    A line is written whole or not at all. If events cannot be written later on, a line on stderr
    says so and the job continues.

    Raises:
        UnwritableError: the file cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self._file: AppendedFile | None = None
        if path is not None:
            with writing(f"events {path}", any_failure=True):
                self._file = AppendedFile(path)

    def __call__(self, event: str, **fields: Any) -> None:
        if self._file is not None:
            line = {"time": round(time.time(), 3), "event": event, **fields}
            try:
                self._file.write(f"{redacted(json_text(line))}\n".encode())
            except OSError as error:
                name = self._file.path
                print(f"warning: {name}: no more events: {error.strerror}", file=sys.stderr)
                self.close()

    def close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # of what could not be written before
                self._file.close()
            self._file = None


class Metrics:
    """Gauges and counters of the driver, as ``autolabel_...`` where Ray exports its own."""

    def __init__(self) -> None:
        self.frames = metrics.Counter("autolabel_frames", "Frames of committed scenes.")
        self.scenes = metrics.Counter(
            "autolabel_scenes", "Scenes by how they ended.", tag_keys=("outcome",)
        )
        self.retries = metrics.Counter("autolabel_retries", "Tries of a scene beyond the first.")
        self.workers = metrics.Gauge("autolabel_workers", "Workers that are there.")
        self.waiting = metrics.Gauge("autolabel_scenes_waiting", "Scenes not yet begun.")
        self.rate = metrics.Gauge("autolabel_frames_per_second", "Mean rate of this run.")
