"""Scalars for TensorBoard, in its file of events.

``torch.utils.tensorboard.SummaryWriter`` writes from a thread, which prints a traceback where the
disk is full and may leave half a record. Here a record is written when it is given.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import scalar

from datasets.files.appending import AppendedFile


class TensorboardFile:
    """A new file of events in a folder.

    Args:
        first_step: values that earlier files have of this step and later ones do not count.

    Raises:
        OSError: it cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, *, first_step: int) -> None:
        began = time.time()
        name = f"events.out.tfevents.{began:.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = AppendedFile(folder / name, lines=False)
        self._records = RecordWriter(self._file)
        self._add(Event(wall_time=began, file_version="brain.Event:2"))
        start = SessionLog(status=SessionLog.START)
        self._add(Event(wall_time=began, step=first_step, session_log=start))

    def add(self, name: str, value: float, step: int) -> None:
        """One value of a curve."""
        summary = scalar(name, value)  # type: ignore[no-untyped-call]
        self._add(Event(wall_time=time.time(), step=step, summary=summary))

    def _add(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        self._file.close()
