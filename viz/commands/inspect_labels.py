"""The command line of ``viz/inspect.py``: options in; a window, an image or a video out."""

from __future__ import annotations

import argparse
import ctypes
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets.benchmarks import NAMES
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.exit_codes import print_bad_scene
from datasets.cli.logs import name_log_of
from datasets.cli.next_step import print_next
from datasets.errors import SetupError
from datasets.files.printable import printable
from datasets.files.replacing import replacing
from datasets.frames import SceneSource
from datasets.labels.header import StoreHeader
from datasets.labels.label_set import GroundTruthLabels, LabelSet, StoredLabels
from datasets.reviews.overlay import Reviews
from datasets.storage.remote_path import remote_or_local
from datasets.taxonomy import Taxonomy
from viz.commands.options.inspect_labels import (
    DEFAULT_FPS,
    DEFAULT_SIZE_PX,
)
from viz.render.layers import LayerSettings
from viz.review.priority import ReviewPriority
from viz.review.review_queue import QueueItem, queue_of, review_priority
from viz.session.session import ReviewFrame, ReviewSession, open_log


def run(options: argparse.Namespace) -> int:
    """Open a window, write an image or a video, or serve a page; gives the exit code.

    Raises:
        SetupError: the store, the log or an option cannot be used.
    """
    if options.screenshot is not None and options.screenshot.suffix.lower() != ".png":
        raise SetupError(f"--screenshot {options.screenshot}: the name must end in .png")
    session = _session(options)
    show = layers_of(options, session.labels.header.taxonomy)
    if options.video is not None:
        _video(options, session, show)
        return 0
    queue: tuple[QueueItem, ...] = ()
    priority: ReviewPriority | None = None
    if options.queue and session.reviews is not None:
        store = session.reviews.store
        priority = review_priority(store, options.audit or ())
        queue = queue_of(store, session.reviews, priority)
        if not queue:
            print("note: every frame of the store is judged", file=sys.stderr)
    if queue:
        frame = session.frame(queue[0].scene_id, queue[0].k)
    else:
        frame = session.frame(_scene_of(options, session), options.frame or 0)
    _require_log_of(options, session, frame.scene_id)
    for note in frame.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    if options.screenshot is not None:
        _screenshot(options, frame, show)
    elif options.serve is not None:
        _serve(options, session, frame, show, queue, priority)
    else:
        _window(options, session, frame, show, queue, priority)
    return 0


def _window(
    options: argparse.Namespace,
    session: ReviewSession,
    frame: ReviewFrame,
    show: LayerSettings,
    queue: Sequence[QueueItem],
    priority: ReviewPriority | None,
) -> None:
    if _no_display():
        raise SetupError(
            "there is no display to open a window on; use --screenshot FILE.png, "
            "--video FILE.mp4 or --serve"
        )
    try:
        from viz.window.launch import show as show_window
    except (ImportError, OSError) as error:
        why = str(error).splitlines()[0]
        raise SetupError(
            f"Open3D does not load ({why}); on Debian: apt install libusb-1.0-0 libgl1 "
            "libgomp1; --screenshot FILE.png works without it"
        ) from error
    show_window(
        session,
        frame,
        show=show,
        size_px=options.size or DEFAULT_SIZE_PX,
        reviewer=reviewer_of(options),
        queue=queue,
        priority=priority,
    )


def _serve(
    options: argparse.Namespace,
    session: ReviewSession,
    frame: ReviewFrame,
    show: LayerSettings,
    queue: Sequence[QueueItem],
    priority: ReviewPriority | None,
) -> None:
    try:
        from viz.browser.server import serve
    except ImportError as error:
        raise SetupError(
            f"the browser's viewer does not load ({error}); pip install 'effocc-autolabel[browser]'"
        ) from error
    serve(
        session,
        frame,
        show=show,
        port=options.serve,
        reviewer=reviewer_of(options),
        queue=queue,
        priority=priority,
    )


def _screenshot(options: argparse.Namespace, frame: ReviewFrame, show: LayerSettings) -> None:
    from viz.render.screenshot import screenshot

    shot = screenshot(
        frame,
        show=show,
        size_px=options.size or DEFAULT_SIZE_PX,
        renderer=options.renderer or "auto",
    )
    if shot.note:
        print(printable(f"note: {shot.note}"), file=sys.stderr)
    try:
        with replacing(options.screenshot) as partial:
            shot.image.save(partial)
    except OSError as error:
        raise SetupError(f"--screenshot {options.screenshot}: {error.strerror or error}") from error
    print(f"{options.screenshot} (3D view drawn by {shot.drawn_by})")
    _print_window(options, "--scene", frame.scene_id, "--frame", frame.k)


def _video(options: argparse.Namespace, session: ReviewSession, show: LayerSettings) -> None:
    from viz.render.video import video

    scene_id = _scene_of(options, session)
    _require_log_of(options, session, scene_id)
    first, end = options.frames or (0, session.n_frames(scene_id))
    made = video(
        session,
        scene_id,
        range(first, end),
        show=show,
        size_px=options.size or DEFAULT_SIZE_PX,
        fps=options.fps or DEFAULT_FPS,
        renderer=options.renderer or "auto",
        out=options.video,
    )
    for note in made.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    print(f"{options.video}: {made.n_frames} frames (3D view drawn by {made.drawn_by})")
    _print_window(options, "--scene", scene_id, "--frame", first)


def _print_window(options: argparse.Namespace, *words: object) -> None:
    """Next: the same labels in a window."""
    labels = [] if options.store is None else [options.store]
    for name in ("truth", "benchmark", "source", "root", "version", "with_truth", "second"):
        if (value := getattr(options, name)) is not None:
            labels += [f"--{name.replace('_', '-')}", value]
    print_next("inspect", *labels, *words)


def _scene_of(options: argparse.Namespace, session: ReviewSession) -> str:
    return options.scene if options.scene is not None else session.labels.first_scene()


def _session(options: argparse.Namespace) -> ReviewSession:
    if options.truth is not None:
        source = _log(options, None)
        return ReviewSession(_truth(options, options.truth, source), source)
    labels = StoredLabels(options.store, print_bad_scene)
    log: SceneSource | str
    try:
        log = _log(options, labels.store.header)
    except SetupError as error:
        log = str(error)
    truth: LabelSet | None = None
    if options.with_truth is not None:
        if isinstance(log, str):
            raise SetupError(f"--with-truth needs the log: {log}")
        truth = _truth(options, options.with_truth, log)
    second = None if options.second is None else StoredLabels(options.second, print_bad_scene)
    reviews = Reviews(labels.store)
    return ReviewSession(labels, log, truth=truth, second=second, reviews=reviews)


def _require_log_of(options: argparse.Namespace, session: ReviewSession, scene_id: str) -> None:
    """Raises ``SetupError``: the log that was named is not the one that was labeled. Of another
    log that lies where none was named, nothing is shown, and a note says so."""
    if options.root is not None and session.reviews is not None:
        session.require_log_of(session.reviews.store, scene_id)


def _truth(options: argparse.Namespace, folder: Path, source: SceneSource) -> GroundTruthLabels:
    chosen = benchmark(options.benchmark or NAMES[0])
    if not remote_or_local(folder).is_dir():
        option = "--truth" if options.with_truth is None else "--with-truth"
        raise SetupError(f"{option} {folder}: there is no such folder")
    return GroundTruthLabels(chosen, folder, source, every_frame=True)


def _log(options: argparse.Namespace, header: StoreHeader | None) -> SceneSource:
    args = argparse.Namespace(**vars(options))
    name_log_of(args, header)
    return open_log(args.source, args.root, args.version)


def layers_of(options: argparse.Namespace, taxonomy: Taxonomy) -> LayerSettings:
    """The layers asked for. Raises ``SetupError`` for a class that there is not."""
    classes = None
    if options.classes is not None:
        names = [name.strip().replace(" ", "_") for name in options.classes.split(",")]
        for name in names:
            if name not in taxonomy.names:
                raise SetupError(
                    f"--classes: there is no class {name!r}; there are {', '.join(taxonomy.names)}"
                )
        classes = frozenset(taxonomy.id_of(name) for name in names)
    return LayerSettings(
        voxels=options.voxels,
        color=options.color or "class",
        mask=options.mask or ("trusted" if options.truth is None else "all"),
        classes=classes,
        height_m=options.height,
        points=options.points,
        flow=options.flow,
        boxes=options.boxes,
    )


def reviewer_of(options: argparse.Namespace) -> str:
    """Who judges. Raises ``SetupError`` where the system does not tell and nobody is named."""
    if options.reviewer is not None:
        return str(options.reviewer)
    try:
        return getpass.getuser()
    except (OSError, KeyError) as error:
        raise SetupError("the system does not know your name; give --reviewer NAME") from error


def _no_display() -> bool:
    """Open3D without a display goes on with no window, for ever."""
    if not sys.platform.startswith("linux") or os.environ.get("WAYLAND_DISPLAY"):
        return False
    if not os.environ.get("DISPLAY"):
        return True
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return False  # it cannot be asked
    x11.XOpenDisplay.restype = ctypes.c_void_p
    x11.XCloseDisplay.argtypes = (ctypes.c_void_p,)
    display = x11.XOpenDisplay(None)
    if display:
        x11.XCloseDisplay(display)
    return not display
