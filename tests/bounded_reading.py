"""Reads what no limit may let through: in good time, in little memory, or the test fails."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path

from datasets.errors import AutolabelError

MAX_BYTES = 1 << 30
DEADLINE_S = 5.0
_HANGS_S = 30.0
_SPACE_BYTES = 4 << 30


def refusal_of(read: Callable[[], object]) -> str:
    """The message of the package's own error that ``read`` raises.

    Fails where it raises another error or none, waits, or takes more than ``MAX_BYTES`` or
    ``DEADLINE_S`` of computing (the machine may be busy with other work).
    """
    messages: list[str] = []

    def run() -> None:
        try:
            read()
        except AutolabelError as error:
            messages.append(str(error))
        except Exception as error:
            messages.append(f"not the package's own: {error!r}")
        else:
            messages.append("not refused")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (space + _SPACE_BYTES, limits[1]))
    before, began = _resident(reset=True), time.process_time()
    try:
        reading = threading.Thread(target=run, daemon=True)
        reading.start()
        reading.join(_HANGS_S)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    taken_s, taken = time.process_time() - began, _resident() - before
    assert messages, "it hangs"
    assert not messages[0].startswith("not "), messages[0]
    assert taken_s < DEADLINE_S, f"{taken_s:.1f} s, then: {messages[0]}"
    assert taken < MAX_BYTES, f"{taken:,} bytes, then: {messages[0]}"
    messages[0].encode("utf-8")
    return messages[0]


def _resident(*, reset: bool = False) -> int:
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("this system does not tell the peak of memory")
