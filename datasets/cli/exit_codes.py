"""What every command line does alike: how it ends, and which scenes a split gives it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from datasets.cli.supervisor import STOPPED, Leaves, leaving, stopped_line, supervised
from datasets.errors import AutolabelError, SceneError, SetupError
from datasets.files.printable import Guarded, printable, redacted
from datasets.frames import SceneSource
from datasets.names import fault_of_scene_id

if TYPE_CHECKING:  # commands without a store need no zarr
    from datasets.labels.store import LabelStore


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


def scenes_of(source: SceneSource, split: str, *, root: Path) -> tuple[str, ...]:
    """Scene ids of a split, those included whose data will turn out to be bad.

    Args:
        root: of the log, for the message.

    Raises:
        SetupError: the split is unknown, or has no scene or no frame.
    """
    scenes = source.scene_ids(split)
    if not scenes:
        raise SetupError(f"{root}: split {split!r} has no scene")
    if not any(_may_have_frames(source, scene) for scene in scenes):
        raise SetupError(f"{root}: split {split!r} has no frame in its {len(scenes)} scenes")
    return scenes


def usable_scenes_of(source: SceneSource, split: str, *, root: Path) -> tuple[str, ...]:
    """``scenes_of`` without those whose ids cannot be used, which are named on stderr.

    Raises:
        SetupError: as ``scenes_of``, or none is left.
    """
    scenes = scenes_of(source, split, root=root)
    for scene in scenes:
        if fault := fault_of_scene_id(scene):
            print(f"set aside: {printable(scene)}: {fault}", file=sys.stderr)
    usable = tuple(scene for scene in scenes if not fault_of_scene_id(scene))
    if not usable:
        raise SetupError(f"{root}: split {split!r} has no scene whose id can be used")
    return usable


def scenes_in(store: LabelStore) -> tuple[str, ...]:
    """Committed scenes of a store.

    Raises:
        SetupError: it has none.
    """
    if not (scenes := store.scene_ids()):
        raise SetupError(f"label store {store.place}: no scene is committed yet")
    return scenes


def _may_have_frames(source: SceneSource, scene_id: str) -> bool:
    try:
        return source.n_frames(scene_id) > 0
    except SceneError:  # whoever opens the scene says what is wrong
        return True
