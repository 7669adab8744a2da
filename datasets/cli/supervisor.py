"""Stopping a command, at any moment, by Ctrl-C or SIGTERM: one line, 130, and nothing left behind.

A command is supervised by a small process in front of it. The terminal and whoever sends signals
know that process only. It tells the command to leave, if the command said that it can; it ends
what still runs after ``GRACE_S``, and every process that the command started, wherever they put
themselves. The command itself never sees a signal at a moment that it did not choose: libraries
take signals badly while they are loaded, and Ray's own handlers print stacks.

Only the standard library is needed, so that the supervisor is there before anything slow is.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

GRACE_S = 9.0
"""How long a command that can leave by itself is given."""
SWEEP_S = 4.0
"""How long the end of its other processes is awaited."""
STOPPED = 130
"""Exit code of a stopped command."""

_SUPERVISED, _ASKED, _LEAVES = range(3)
_state = bytearray(3)
"""Shared by a command and its supervisor, once there is one."""
_PDEATHSIG, _CHILD_SUBREAPER = 1, 36  # prctl(2)

Leaves = Literal["at once", "interrupted", "asked"]
_WAYS: tuple[Leaves, ...] = ("at once", "interrupted", "asked")


def supervised() -> bool:
    """Whether a supervisor says that the command was stopped."""
    return bool(_state[_SUPERVISED])


def asked_to_stop() -> bool:
    """For a command that leaves when ``asked``."""
    return bool(_state[_ASKED])


@contextlib.contextmanager
def leaving(how: Leaves) -> Iterator[None]:
    """How the command leaves from here on: ``at once`` (it is killed, which loses nothing that was
    kept), ``interrupted`` (``KeyboardInterrupt``), ``asked`` (it looks at ``asked_to_stop``).

    After an exception the way stays: the command is on its way out.
    """
    before = _state[_LEAVES]
    _state[_LEAVES] = _WAYS.index(how)
    yield
    _state[_LEAVES] = before


def supervise(*, goes_on: bool = False) -> None:
    """Go on as a process under supervision; the one that called ends as the command does.

    To be called first of all in a script. Where there is no ``fork``, or where other threads run,
    which a copy of the process would wait for in vain, nothing happens.

    Args:
        goes_on: the same command, started again, continues a stopped one.
    """
    global _state
    if not hasattr(os, "fork") or supervised() or _threads() > 1:
        return
    watched = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup
        watched.add(signal.SIGHUP)
    signals = watched | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    _state = mmap.mmap(-1, len(_state))  # type: ignore[assignment]
    _state[_SUPERVISED] = 1
    _prctl(_CHILD_SUBREAPER, 1)
    supervisor = os.getpid()
    command = os.fork()
    if command == 0:
        os.setsid()  # the terminal's signals go to the supervisor
        _prctl(_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(STOPPED)
        # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before - signals)
        return
    code: int | None = None
    while code is None:
        if signal.sigwait(signals) in watched:
            code = _stop(command, signals, goes_on=goes_on)
        else:
            code = _ended(command)
    _sweep(command)  # some that it ended may still be on their way out
    os._exit(code)


def stopped_line(*, goes_on: bool) -> str:
    """What a stopped command says."""
    if not goes_on:
        return "stopped"
    return "stopped; what is done is kept, and the same command continues"


def _stop(command: int, signals: set[signal.Signals], *, goes_on: bool) -> int:
    _state[_ASKED] = 1
    deadline = time.monotonic() + GRACE_S
    if _WAYS[_state[_LEAVES]] == "interrupted":
        os.kill(command, signal.SIGINT)
    ended = None
    while ended is None and _WAYS[_state[_LEAVES]] != "at once" and time.monotonic() < deadline:
        signal.sigtimedwait(signals, 0.2)  # further ones change nothing
        ended = _ended(command)
    _sweep(command)
    with contextlib.suppress(OSError):
        bar = "\n" if sys.stderr.isatty() else ""  # one may stand in the line
        sys.stderr.write(f"{bar}{stopped_line(goes_on=goes_on)}\n")
        sys.stderr.flush()
    return STOPPED


def _ended(command: int) -> int | None:
    """Exit code of the command if it ended; whatever else ended is forgotten."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0] != 0:
            if found[0] == command:
                ended = os.waitstatus_to_exitcode(found[1])
                code = ended if ended >= 0 else 128 - ended
    return code


def _sweep(command: int) -> None:
    """Kill the command and every process that it started.

    Orphans come to the supervisor as their reaper, so that all are below it.
    """
    deadline = time.monotonic() + SWEEP_S
    if not Path("/proc/self/stat").exists():  # no telling who is below
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(command, signal.SIGKILL)
    while (below := descendants(os.getpid())) and time.monotonic() < deadline:
        for process in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        _ended(command)
        time.sleep(0.02)


def descendants(ancestor: int) -> list[int]:
    """Processes below one, nearest first; none where there is no ``/proc``."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found = [ancestor]
    for process in found:
        found.extend(children.get(process, ()))
    return found[1:]


def _threads() -> int:
    """Of this process, those of libraries included where that can be told."""
    with contextlib.suppress(OSError):
        return len(list(Path("/proc/self/task").iterdir()))
    return threading.active_count()


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
