"""The command line of ``viz/report.py``: options in, a page out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from datasets.benchmarks.catalogue import BENCHMARKS, Benchmark, benchmark, voxels_in_words
from datasets.cli.exit_codes import print_bad_scene
from datasets.cli.logs import name_log_of
from datasets.cli.next_step import print_next
from datasets.errors import AutolabelError, SetupError, UnreadableError
from datasets.files.printable import printable
from datasets.files.replacing import write_text
from datasets.frames import SceneSource
from datasets.labels.audit_record import read_audit
from datasets.labels.calibration_record import stored_calibration, stored_risk_bound
from datasets.labels.label_set import GroundTruthLabels, StoredLabels
from datasets.labels.log_identity import require_log_of
from datasets.labels.store import LabelStore, StoreHeader
from datasets.labels.validity import validity
from datasets.reviews.overlay import Reviews
from datasets.store_ops.maintenance import info
from viz.html_report.confidence_section import confidence
from viz.html_report.content import Content, ranked, set_aside
from viz.html_report.frame_images import frame_images
from viz.html_report.object_section import objects
from viz.html_report.page import page
from viz.html_report.provenance_section import provenance
from viz.html_report.review_section import ReviewNumbers, review_numbers, reviews_section
from viz.html_report.scene_sections import aside, audit, scenes, worst
from viz.html_report.store_statistics import StoreNumbers, TruthFolder, store_numbers
from viz.html_report.summary_sections import classes, distances, summary
from viz.render.renderer import ViewPainter
from viz.review.error_rate import estimate
from viz.review.review_queue import review_priority
from viz.session.session import ReviewSession, open_log

A = TypeVar("A")


def run(options: argparse.Namespace) -> int:
    """Write the page; gives the exit code. Raises ``SetupError``."""
    content = gather(options)
    _write(options.out, render(content))
    for note in content.notes:
        print(printable(f"note: {note}"), file=sys.stderr)
    for scene_id, why in content.unreadable.items():
        print_bad_scene(scene_id, why)
    print(f"{options.out} ({options.out.stat().st_size / 1e6:.2f} MB)")
    by_audit = [] if options.audit is None else ["--audit", options.audit]
    print_next("inspect", options.store, "--queue", *by_audit)
    return 1 if content.unreadable else 0


def gather(options: argparse.Namespace) -> Content:
    """Read all that the page tells.

    Raises:
        SetupError: the store, the audit's report or the ground truth cannot be opened, or the log
            that was named is not the one that was labeled.
    """
    store = LabelStore.open(options.store)
    found_audit = None if options.audit is None else read_audit(options.audit)
    kind = options.source or str(store.header.provenance.get("source") or "city")
    log = _log(options, store.header)
    named = options.root is not None or options.truth is not None
    if named and not isinstance(log, str):
        for scene_id in store.looked_at()[0]:
            require_log_of(store, scene_id, log)
    truth = None if options.truth is None else _truth(options, store.header, log)
    notes: list[str] = []
    frames = _frames(store)
    with tqdm(total=frames, desc="read", unit="frame") as bar:
        numbers = store_numbers(store, truth, on_frame=bar.update)
    if truth is not None and not numbers.scored.any():
        notes.append(
            f"{truth.root}: no ground truth of a frame of the store, or none that "
            f"{truth.benchmark.name} scores"
        )
    order, _ = ranked(numbers, found_audit)
    true_labels = None
    if truth is not None:
        true_labels = GroundTruthLabels(truth.benchmark, truth.root, truth.source, every_frame=True)
    labels = StoredLabels(options.store, print_bad_scene)
    session = ReviewSession(labels, log, truth=true_labels)
    drawn = order[: options.images]
    with (
        tqdm(total=len(drawn), desc="draw", unit="scene", disable=not drawn) as bar,
        ViewPainter(options.renderer) as painter,
    ):
        images, undrawn = frame_images(session, drawn, painter, on_scene=bar.update)
    if isinstance(log, str):
        notes.append(f"no camera images: {log}")
    n_bytes, inputs = _size(store, notes)
    return Content(
        where=str(options.store),
        source=kind,
        root="" if options.root is None else str(options.root),
        numbers=numbers,
        n_bytes=n_bytes,
        inputs_sha256=inputs,
        calibration=_told(lambda: stored_calibration(store.header), notes),
        promise=_told(lambda: stored_risk_bound(store.header), notes),
        validity=_told(lambda: validity(store.header, store.looked_at()[0]), notes),
        audit=found_audit,
        truth=truth.benchmark.name if truth is not None and numbers.scored.any() else "",
        set_aside=set_aside(store),
        reviews=_reviews(store, numbers, options.audit, notes),
        images=images,
        undrawn=undrawn,
        asked_images=options.images > 0,
        renderer_note=painter.note,
        notes=tuple(notes),
    )


def render(content: Content) -> str:
    """The page of what was gathered."""
    header = content.numbers.header
    words = voxels_in_words(header.grid, header.taxonomy, header.frame)
    made = header.provenance.get("preset")
    subtitle = (
        f"{words}" + (f", labeled by {made}" if made else "") + f". Run {header.run_id[:12]}."
    )
    name = content.where.rstrip("/").rsplit("/", 1)[-1]
    sections = [
        summary(content),
        classes(content),
        *filter(None, [objects(content)]),
        distances(content),
        confidence(content),
        scenes(content),
        worst(content),
        audit(content),
        aside(content),
        reviews_section(content.reviews, content.command("viz/inspect.py")),
        provenance(content),
    ]
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return page(name, subtitle, sections, f"Written by viz/report.py on {now}.")


def _log(options: argparse.Namespace, header: StoreHeader) -> SceneSource | str:
    """The log, or why it is not at hand; one that was named must be there."""
    args = argparse.Namespace(**vars(options))
    try:
        name_log_of(args, header)
        return open_log(args.source, args.root, args.version)
    except SetupError as error:
        if options.root is not None:
            raise
        return str(error)


def _truth(options: argparse.Namespace, header: StoreHeader, log: SceneSource | str) -> TruthFolder:
    if isinstance(log, str):
        raise SetupError(f"--truth needs the log that was labeled: {log}")
    if not options.truth.is_dir():
        raise SetupError(f"--truth {options.truth}: there is no such folder")
    return TruthFolder(benchmark=_benchmark(options, header), root=options.truth, source=log)


def _benchmark(options: argparse.Namespace, header: StoreHeader) -> Benchmark:
    if options.benchmark:
        chosen = benchmark(options.benchmark)
        chosen.require(f"label store {options.store}", header.grid, header.taxonomy, header.frame)
        return chosen
    ours = (header.grid, header.taxonomy, header.frame)
    for known in BENCHMARKS:
        if (known.grid, known.taxonomy, known.frame) == ours:
            return known
    raise SetupError(f"--truth: no benchmark has {voxels_in_words(*ours)}")


def _frames(store: LabelStore) -> int:
    """For the bar; scenes whose attributes are damaged are not counted."""
    tokens = (attributes.get("frame_tokens") for attributes in store.looked_at()[0].values())
    return sum(len(one) for one in tokens if isinstance(one, list))


def _size(store: LabelStore, notes: list[str]) -> tuple[int, str]:
    try:
        found = info(store)
    except (UnreadableError, KeyError, TypeError, ValueError, OSError) as error:
        notes.append(f"size and inputs are not known: {type(error).__name__}: {error}")
        return 0, ""
    return found.bytes_, found.inputs_sha256


def _told(read: Callable[[], A], notes: list[str]) -> A | None:
    try:
        return read()
    except ValueError as error:
        notes.append(f"damaged provenance: {error}")
        return None


def _reviews(
    store: LabelStore, numbers: StoreNumbers, audit: Path | None, notes: list[str]
) -> ReviewNumbers:
    tokens = {scene.scene_id: scene.tokens for scene in numbers.scenes}
    try:
        found = review_numbers(Reviews(store), tokens)
        if found.judged:
            priority = review_priority(store, [audit] if audit else [])
            return replace(found, estimate=estimate(tokens, priority, found.verdicts))
    except (AutolabelError, KeyError, TypeError, ValueError) as error:
        notes.append(f"the reviews cannot be read: {error}")
        return ReviewNumbers(frames=numbers.frames)
    return found


def _write(path: Path, text: str) -> None:
    """In one step: readers see the old page or the new one."""
    try:
        write_text(path, text)
    except OSError as error:
        raise SetupError(f"--out {path}: {error.strerror or error}") from error
