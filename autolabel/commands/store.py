"""Look after a label store."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from datasets.cli.next_step import print_next
from datasets.errors import SetupError
from datasets.files.json_files import json_text
from datasets.files.printable import printable
from datasets.labels.calibration_record import stored_calibration, stored_risk_bound
from datasets.labels.store import LabelStore, StoreHeader
from datasets.labels.validity import DOMAIN_KEY, ConfidenceValidity, validity_of
from datasets.reviews.overlay import Reviews
from datasets.reviews.summary import ReviewCounts
from datasets.store_ops.compare import RINGS, StoreDifference, diff
from datasets.store_ops.export import sharing
from datasets.store_ops.maintenance import info, leftovers, prune, verify
from datasets.store_ops.merge import merge

R = TypeVar("R")


@contextmanager
def progress(total: int, name: str) -> Iterator[tqdm]:
    with tqdm(total=total, desc=name, unit="scene") as bar:
        yield bar


def show_info(args: argparse.Namespace) -> int:
    store = LabelStore.open(args.store)
    summary, header = info(store), store.header
    if args.json:
        facts: dict[str, Any] = {
            "scenes": summary.scenes,
            "frames": summary.frames,
            "bytes": summary.bytes_,
        }
        facts |= {"voxels": summary.voxels, "trusted": summary.trusted, "run_id": header.run_id}
        facts |= {"quarantined": summary.quarantined, "inputs_sha256": summary.inputs_sha256}
        facts |= {"reviews": asdict(summary.reviews)}
        facts |= {"confidence": verdict_of(store).to_json()}
        facts |= {"licence": header.licence, "provenance": header.provenance}
        print(json_text(facts, indent=1))
        return 0
    print(f"{store.place}: {summary.scenes} scenes, {summary.frames} frames")
    shape = "x".join(str(n) for n in header.grid.shape)
    print(f"  {shape} voxels of {header.grid.size_m[0]} m, {header.taxonomy.name} classes")
    per_frame = summary.bytes_ / max(1, summary.frames) / 1e3
    print(f"  {summary.bytes_ / 1e6:.1f} MB, {per_frame:.1f} kB a frame")
    share = 100 * summary.trusted / max(1, summary.voxels)
    print(f"  trusted: {share:.1f} % of {summary.voxels:,} voxels, of these")
    for name, n in zip(header.taxonomy.names, summary.trusted_by_class, strict=True):
        if n:
            print(f"    {name:24s} {100 * n / summary.trusted:7.3f} %")
    for scene_id, reason in summary.quarantined.items():
        print(f"  quarantined: {printable(scene_id)}: {printable(reason)}")
    print_reviews(summary.reviews)
    print(f"  {sharing(header.licence)}")
    print(f"  run {header.run_id}, inputs {summary.inputs_sha256}")
    for name, value in header.provenance.items():
        if name == "config" and (bound := record_of(stored_risk_bound, header)) is not None:
            print("  " + bound.to_text(header.taxonomy.names).replace("\n", "\n  "))
            value = {k: v for k, v in value.items() if k != "promise"}
        if name not in ("calibration", DOMAIN_KEY):
            print(printable(f"  {name}: {value}"))
    print_calibration(header)
    verdict = verdict_of(store)
    text = printable(verdict.to_text(bound=bound_of(header)), lines=True)
    print("  " + text.replace("\n", "\n  "))
    print_next("inspect", args.store)
    return 0


def print_reviews(reviews: ReviewCounts) -> None:
    if reviews.reviewers:
        print(
            f"  reviewed by {', '.join(reviews.reviewers)}: {reviews.accepted} frames accepted, "
            f"{reviews.rejected} rejected, {reviews.unsure} unsure, {reviews.disputed} of these "
            f"disputed; {reviews.strokes} strokes, {reviews.notes} notes"
        )
        print(f"  for students and exports: {reviews.changes or 'nothing changes'}")
    if reviews.stale:
        print(f"  {reviews.stale} reviews of labels that were made anew since: not applied")
    if reviews.damaged:
        print(f"  {len(reviews.damaged)} damaged reviews; verify names them")


def record_of(read: Callable[[StoreHeader], R], header: StoreHeader) -> R:
    """A typed record of a header. Raises ``SetupError`` where it is damaged."""
    try:
        return read(header)
    except ValueError as error:
        raise SetupError(f"damaged provenance: {error}") from error


def bound_of(header: StoreHeader) -> bool:
    """Whether the labels were made for an error bound."""
    return record_of(stored_risk_bound, header) is not None


def verdict_of(store: LabelStore) -> ConfidenceValidity:
    """Whether confidence holds on the store's log. Raises ``SetupError`` where it is damaged."""
    try:
        return validity_of(store)
    except ValueError as error:
        raise SetupError(f"label store {store.place}: damaged: {error}") from error


def print_calibration(header: StoreHeader) -> None:
    """What its confidence was worth on calibration scenes left out of the fit."""
    if (record := record_of(stored_calibration, header)) is None:
        return
    if record.voxels == 0:
        print("  uncalibrated: the softmax is taken at its word")
    else:
        print(f"  calibrated ({record.method}) on {record.voxels:,} voxels")
    if record.refiner:
        print(printable(f"  refined by {record.refiner}"))
    if (counts := record.reliability) is None:
        return
    free = np.arange(header.taxonomy.n_classes) == header.taxonomy.free_id
    print(f"  {'P claimed':>9}  {'right of occupied':>30}  {'right of free':>30}")
    for level, p in enumerate(header.levels):
        cells = []
        for group in (~free, free):
            seen, right = (int(of[group, level].sum()) for of in (counts.seen, counts.right))
            cells.append(f"{100 * right / seen:.2f} % of {seen:,}" if seen else "-")
        print(f"  {p:9g}  {cells[0]:>30}  {cells[1]:>30}")


def check(args: argparse.Namespace) -> int:
    store = LabelStore.open(args.store)
    scenes, unreadable = store.looked_at()
    total = len(scenes) + len(unreadable)
    with progress(total, "verify") as bar:
        bad = verify(args.store, workers=args.workers, on_scene=bar.update)
    for scene_id, why in bad.items():
        print(printable(f"damaged: {scene_id}: {why}"))
    reviews = Reviews(store)
    for name in (torn := reviews.damaged()):
        print(printable(f"damaged review: {name}: {reviews.why_damaged(name)}"))
    for name, why in (notes := store.torn_notes()).items():
        print(printable(f"damaged note on a quarantined scene: {name}: {why}"))
    for key in () if unreadable else leftovers(store):
        print(printable(f"left over, read by nobody: {key} (prune removes it)"))
    print(f"{total - len(bad)} of {total} scenes are whole")
    if entries := len(reviews.entries()) + len(reviews.stale()):
        print(f"{entries} reviews are whole")
    if bad or torn or notes:
        return 1
    print_next("store", "info", args.store)
    return 0


def compare(args: argparse.Namespace) -> int:
    a, b = LabelStore.open(args.store), LabelStore.open(args.other)
    with progress(len(set(a.scene_ids()) & set(b.scene_ids())), "diff") as bar:
        difference = diff(a, b, on_scene=bar.update)
    describe(difference)
    if difference.frames:
        print_next("inspect", args.store, "--second", args.other, "--voxels", "difference")
    return 0 if difference.same else 1


def describe(difference: StoreDifference) -> None:
    for name, scenes in (("first", difference.only_a), ("second", difference.only_b)):
        if scenes:
            print(f"only in the {name}: {len(scenes)} scenes: {', '.join(scenes[:5])} ...")
    for frame in difference.unmatched[:5]:
        print(printable(f"not in both: frame {frame}"))
    if difference.elsewhere:
        print(
            f"not compared: the grids of {len(difference.elsewhere)} frames lie elsewhere in the "
            "other store, which was made from other poses or calibration of the log:"
        )
    for frame in difference.elsewhere[:5]:
        print(printable(f"  frame {frame}"))
    if not difference.frames:
        print("nothing is compared: no frame is in both stores at the same place")
        return
    total = int(difference.confusion.sum())
    print(
        f"{difference.frames} frames: {difference.differ:,} of {total:,} observed voxels have "
        f"another class ({100 * difference.differ / max(1, total):.3f} %)"
    )
    (_, second), (first, both) = difference.trusted
    print(f"trusted by both {both:,}, by the first alone {first:,}, by the second alone {second:,}")
    edges = [0.0, *RINGS.edges_m, float("inf")]
    rings = [f"{a:g}-{b:g} m" for a, b in itertools.pairwise(edges)]
    print(f"{'IoU of the two, %':24s} {'all':>8s} " + " ".join(f"{r:>9s}" for r in rings))
    columns = [difference.iou(), *(difference.iou(ring) for ring in range(len(rings)))]
    for name, row in zip(difference.taxonomy.names, np.stack(columns, -1), strict=True):
        if not np.isnan(row[0]):
            cells = [f"{100 * v:9.2f}" if not np.isnan(v) else f"{'-':>9s}" for v in row]
            print(f"{name:24s}" + " ".join(cells))


def put_together(args: argparse.Namespace) -> int:
    stores = [LabelStore.open(where) for where in args.stores]
    with progress(len({s for store in stores for s in store.scene_ids()}), "merge") as bar:
        merged = merge(stores, args.out, on_scene=bar.update)
    print(f"{merged.place}: {len(merged.scene_ids())} scenes")
    print_next("store", "verify", args.out)
    return 0


def tidy(args: argparse.Namespace) -> int:
    store = LabelStore.open(args.store)
    leftover_keys = leftovers(store) if args.dry_run else prune(store)
    for key in leftover_keys:
        print(printable(f"{'would remove' if args.dry_run else 'removed'} {key}"))
    print(f"{len(leftover_keys)} leftovers")
    print_next("store", "verify", args.store)
    return 0


COMMANDS = {
    "info": show_info,
    "verify": check,
    "diff": compare,
    "merge": put_together,
    "prune": tidy,
}


def run(args: argparse.Namespace) -> int:
    """Carry out a subcommand; gives the exit code. Raises ``SetupError``."""
    if args.command == "export":  # slow to import
        from autolabel.commands.store_export import export_store

        return export_store(args)
    return COMMANDS[args.command](args)
