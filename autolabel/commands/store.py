"""Look after a label store."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from tqdm import tqdm

from datasets.cli.next_step import print_next
from datasets.errors import SetupError
from datasets.files.json_files import json_text
from datasets.files.printable import printable
from datasets.labels.calibration_record import RiskBound, stored_calibration
from datasets.labels.store import LabelStore, StoreHeader
from datasets.reviews.overlay import Reviews
from datasets.reviews.summary import ReviewCounts
from datasets.store_ops.compare import RINGS, StoreDifference, diff
from datasets.store_ops.export import sharing
from datasets.store_ops.maintenance import info, leftovers, prune, verify
from datasets.store_ops.merge import merge


@contextmanager
def progress(total: int, what: str) -> Iterator[tqdm]:
    with tqdm(total=total, desc=what, unit="scene") as bar:
        yield bar


def show_info(args: argparse.Namespace) -> int:
    store = LabelStore.open(args.store)
    found, header = info(store), store.header
    if args.json:
        facts: dict[str, Any] = {
            "scenes": found.scenes,
            "frames": found.frames,
            "bytes": found.bytes_,
        }
        facts |= {"voxels": found.voxels, "trusted": found.trusted, "run_id": header.run_id}
        facts |= {"quarantined": found.quarantined, "inputs_sha256": found.inputs_sha256}
        facts |= {"reviews": asdict(found.reviews)}
        facts |= {"licence": header.licence, "provenance": header.provenance}
        print(json_text(facts, indent=1))
        return 0
    print(f"{store.place}: {found.scenes} scenes, {found.frames} frames")
    shape = "x".join(str(n) for n in header.grid.shape)
    print(f"  {shape} voxels of {header.grid.size_m[0]} m, {header.taxonomy.name} classes")
    per_frame = found.bytes_ / max(1, found.frames) / 1e3
    print(f"  {found.bytes_ / 1e6:.1f} MB, {per_frame:.1f} kB a frame")
    share = 100 * found.trusted / max(1, found.voxels)
    print(f"  trusted: {share:.1f} % of {found.voxels:,} voxels, of these")
    for name, n in zip(header.taxonomy.names, found.trusted_by_class, strict=True):
        if n:
            print(f"    {name:24s} {100 * n / found.trusted:7.3f} %")
    for scene_id, reason in found.quarantined.items():
        print(f"  quarantined: {printable(scene_id)}: {printable(reason)}")
    print_reviews(found.reviews)
    print(f"  {sharing(header.licence)}")
    print(f"  run {header.run_id}, inputs {found.inputs_sha256}")
    for name, value in header.provenance.items():
        if name == "config" and "promise" in value:
            made = RiskBound.from_json(value["promise"])
            print("  " + made.to_text(header.taxonomy.names).replace("\n", "\n  "))
            value = {k: v for k, v in value.items() if k != "promise"}
        if name != "calibration":
            print(printable(f"  {name}: {value}"))
    print_calibration(header)
    print_next("inspect", args.store)
    return 0


def print_reviews(found: ReviewCounts) -> None:
    if found.reviewers:
        print(
            f"  reviewed by {', '.join(found.reviewers)}: {found.accepted} frames accepted, "
            f"{found.rejected} rejected, {found.unsure} unsure, {found.disputed} of these "
            f"disputed; {found.strokes} strokes, {found.notes} notes"
        )
        print(f"  for students and exports: {found.changes or 'nothing changes'}")
    if found.stale:
        print(f"  {found.stale} reviews of labels that were made anew since: not applied")
    if found.damaged:
        print(f"  {len(found.damaged)} damaged reviews; verify names them")


def print_calibration(header: StoreHeader) -> None:
    """What its confidence was worth on calibration scenes left out of the fit."""
    try:
        record = stored_calibration(header)
    except ValueError as error:
        raise SetupError(f"damaged provenance: {error}") from error
    if record is None:
        return
    if record.voxels == 0:
        print("  uncalibrated: the softmax is taken at its word")
    else:
        print(f"  calibrated ({record.method}) on {record.voxels:,} voxels")
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
        found = diff(a, b, on_scene=bar.update)
    describe(found)
    return 0 if found.same else 1


def describe(found: StoreDifference) -> None:
    for name, scenes in (("first", found.only_a), ("second", found.only_b)):
        if scenes:
            print(f"only in the {name}: {len(scenes)} scenes: {', '.join(scenes[:5])} ...")
    for frame in found.unmatched[:5]:
        print(printable(f"not in both: frame {frame}"))
    if found.elsewhere:
        print(
            f"not compared: the grids of {len(found.elsewhere)} frames lie elsewhere in the other "
            "store, which was made from other poses or calibration of the log:"
        )
    for frame in found.elsewhere[:5]:
        print(printable(f"  frame {frame}"))
    if not found.frames:
        print("nothing is compared: no frame is in both stores at the same place")
        return
    total = int(found.confusion.sum())
    print(
        f"{found.frames} frames: {found.differ:,} of {total:,} observed voxels have another class "
        f"({100 * found.differ / max(1, total):.3f} %)"
    )
    (_, second), (first, both) = found.trusted
    print(f"trusted by both {both:,}, by the first alone {first:,}, by the second alone {second:,}")
    edges = [0.0, *RINGS.edges_m, float("inf")]
    rings = [f"{a:g}-{b:g} m" for a, b in itertools.pairwise(edges)]
    print(f"{'IoU of the two, %':24s} {'all':>8s} " + " ".join(f"{r:>9s}" for r in rings))
    columns = [found.iou(), *(found.iou(ring) for ring in range(len(rings)))]
    for name, row in zip(found.taxonomy.names, np.stack(columns, -1), strict=True):
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
    found = leftovers(store) if args.dry_run else prune(store)
    for key in found:
        print(printable(f"{'would remove' if args.dry_run else 'removed'} {key}"))
    print(f"{len(found)} leftovers")
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
