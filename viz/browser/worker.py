"""One thread that does a browser tab's jobs, so that none waits on another tab's event thread."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

from datasets.errors import AutolabelError

Job = Callable[[], None]


class Worker:
    """Does jobs one at a time, the one first due first.

    A job posted under the name of one that still waits takes its place: of ten steps of a slider
    only the last frame is drawn, and what is posted with a delay waits for quiet.

    Args:
        on_error: called with a job's ``AutolabelError`` in one line; other errors are bugs and are
            printed whole.
    """

    def __init__(self, name: str, on_error: Callable[[str], None]) -> None:
        self._on_error = on_error
        self._changed = threading.Condition()
        self._waiting: dict[str, tuple[float, Job]] = {}
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, name: str, job: Job, *, after_s: float = 0.0) -> None:
        """Do ``job`` when ``after_s`` have passed; nothing happens once stopped."""
        with self._changed:
            if not self._stopped:
                self._waiting[name] = (time.monotonic() + after_s, job)
                self._changed.notify_all()

    def waits(self, name: str) -> bool:
        """Whether a job of that name is still to be begun."""
        with self._changed:
            return name in self._waiting

    def stop(self) -> None:
        """Drop what waits; the job under way ends by itself."""
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._changed.notify_all()

    def _next(self) -> Job | None:
        """The next job when it is due; None once stopped."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                name = min(self._waiting, key=lambda n: self._waiting[n][0], default=None)
                if name is None:
                    self._changed.wait()
                elif self._waiting[name][0] <= now:
                    return self._waiting.pop(name)[1]
                else:
                    self._changed.wait(self._waiting[name][0] - now)
            return None

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except AutolabelError as error:
                self._on_error(str(error))
            except Exception:
                traceback.print_exc()
                self._on_error("that failed; the terminal says how")
