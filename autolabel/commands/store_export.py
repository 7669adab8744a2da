"""``store.py export``: a store as the label files of a benchmark."""

from __future__ import annotations

import argparse
import sys

from tqdm import tqdm

from datasets.benchmarks.catalogue import benchmark
from datasets.cli.logs import log_words, name_log_of, open_log
from datasets.cli.next_step import print_next
from datasets.cli.scenes import scenes_in
from datasets.files.printable import printable
from datasets.files.replacing import write_text
from datasets.labels.store import LabelStore
from datasets.reviews.overlay import Reviews
from datasets.reviews.summary import count_reviews
from datasets.store_ops.card import card
from datasets.store_ops.export import export, sharing


def export_store(args: argparse.Namespace) -> int:
    """Write the files; gives the exit code. Raises ``SetupError``."""
    store, chosen = LabelStore.open(args.store), benchmark(args.format)
    name_log_of(args, store.header)
    source = open_log(args)
    scenes = scenes_in(store)
    with tqdm(total=len(scenes), desc="export", unit="scene") as bar:
        bad = export(
            args.store,
            chosen,
            source,
            args.out,
            workers=args.workers,
            use_reviews=not args.no_reviews,
            on_scene=bar.update,
        )
    for scene_id, why in bad.items():
        print(printable(f"not exported: {scene_id}: {why}"), file=sys.stderr)
    notice = sharing(store.header.licence)
    write_text(args.out / "LICENCE.txt", notice + "\n")
    write_text(args.out / "CARD.md", card(store))
    print(f"{args.out}: {len(scenes) - len(bad)} scenes as {chosen.name}")
    if not args.no_reviews and (changes := count_reviews(Reviews(store)).changes):
        print(f"reviews: {changes.replace('left out', 'given empty masks')}")
    print(notice)
    words = ["--benchmark", chosen.name, *log_words(args)]
    print_next("inspect", "--truth", args.out, *words)
    return 1 if bad else 0
