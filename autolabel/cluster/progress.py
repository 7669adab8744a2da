"""Progress of a labeling job for people: a bar or lines while it runs, then a report."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tqdm import tqdm

from autolabel.cluster.summary import JobSummary, Progress
from datasets.files.printable import printable
from datasets.files.store_path import StorePath


class Reporter:
    """A progress bar on a terminal, a line every ``INTERVAL_S`` elsewhere."""

    INTERVAL_S = 10.0

    def __init__(self) -> None:
        self.bar = tqdm(unit="frame", desc="label") if sys.stderr.isatty() else None
        self.last_s = 0.0

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def __call__(self, p: Progress) -> None:
        state = f"{p.scenes_done}/{p.scenes} scenes" + (f", {p.failed} failed" if p.failed else "")
        state += f", {p.workers} workers"
        if self.bar is not None:
            self.bar.total, self.bar.n = p.frames, p.frames_done
            self.bar.set_postfix_str(state)
        elif time.monotonic() - self.last_s >= self.INTERVAL_S:
            self.last_s = time.monotonic()
            eta = f"ETA {p.eta_s / 60:.1f} min" if p.frames_done else "starting"
            rate = f"{p.frames_per_s:.2f} frames/s"
            print(f"{state}, {p.frames_done}/{p.frames} frames, {rate}, {eta}", file=sys.stderr)


def describe(summary: JobSummary, store: StorePath) -> str:
    """The closing report."""
    s = summary
    trusted = 100 * s.trusted / s.voxels if s.voxels else 0.0
    occupied = 100 * s.trusted_occupied / s.trusted if s.trusted else 0.0
    lines = [
        f"labeled {s.frames} frames of {s.scenes} scenes in {s.seconds:.1f} s "
        f"({s.frames_per_s:.2f} frames/s); {s.skipped} scenes were there already, "
        f"{s.retries} tries repeated, {len(s.failures)} scenes quarantined",
        f"trusted by the mask: {trusted:.1f} % of {s.voxels:,} voxels; "
        f"{occupied:.1f} % of these are occupied",
        *([f"LiDAR: {s.returns}"] if s.returns.dropped else []),
        *(
            printable(f"  quarantined: {scene_id}: {reason}")
            for scene_id, reason in s.failures.items()
        ),
        f"store: {store.resolve() if isinstance(store, Path) else store}",
    ]
    return "\n".join(lines)
