"""Print which frames of a store to look at first, and write a verdict on the first of them.

python scripts/examples/review_queue.py runs/labels.zarr Ada
"""

from __future__ import annotations

import sys
from pathlib import Path

from datasets.labels import LabelStore
from datasets.reviews import Reviews, Verdict, VerdictEntry, count_reviews
from viz.review import queue_of, review_priority


def main(path: Path, reviewer: str) -> None:
    store = LabelStore.open(path)
    reviews = Reviews(store)
    queue = queue_of(store, reviews, review_priority(store))
    for item in queue[:10]:
        print(f"{item.scene_id} frame {item.k} ({item.token}): {item.why}")
    first = queue[0]
    verdict = VerdictEntry(scene_id=first.scene_id, tokens=(first.token,), verdict=Verdict.REJECT)
    reviews.add(verdict, reviewer=reviewer)  # a student is not trained on a rejected frame
    print(f"{len(queue) - 1} frames are left to review; {count_reviews(reviews).changes}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
