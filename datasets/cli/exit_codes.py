"""How every command ends: its exit code, and one line for what a user can act on."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from datasets.cli.supervisor import STOPPED, Leaves, leaving, stopped_line, supervised
from datasets.errors import AutolabelError
from datasets.files.printable import Guarded, printable, redacted

IN_THE_OPEN = (
    "warning: credentials of a command line stay in the shell's history, the list of processes and "
    "Ray's table of jobs; give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


def exit_code(
    main: Callable[[], int], *, goes_on: bool = False, leaves: Leaves = "interrupted"
) -> int:
    """What a command line ends with.

    Errors that a user can act on are a line and 2, not a traceback: whatever is wrong with the
    set-up or the data, and files that cannot be read or written (a full disk, no permission).

    SIGTERM does what Ctrl-C does.

    Args:
        goes_on: the same command, started again, continues a stopped one.
        leaves: how it does so under supervision (``datasets.cli.supervisor``).
    """
    _guard_streams()
    try:
        if any(redacted(word) != word for word in sys.argv[1:]):
            print(IN_THE_OPEN, file=sys.stderr)
        with _term_as_interrupt(), leaving(leaves):
            code = main()
            sys.stdout.flush()
            return code
    except AutolabelError as error:
        print(f"error: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever read the output has seen enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        print(f"error: {printable(f'{where}{error.strerror or error}')}", file=sys.stderr)
    except KeyboardInterrupt:
        if not supervised():  # else the supervisor says so
            print(stopped_line(goes_on=goes_on), file=sys.stderr)
        return STOPPED
    return 2


def print_bad_scene(scene_id: str, why: str) -> None:
    """On stderr, in a line."""
    print(printable(f"bad scene {scene_id}: {why}"), file=sys.stderr)


def _guard_streams() -> None:
    """Whatever is printed from now on is printable, a traceback too."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, Guarded):
            continue
        if isinstance(stream, io.TextIOWrapper):  # names of a log may be in no encoding
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Guarded(stream))


@contextlib.contextmanager
def _term_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
