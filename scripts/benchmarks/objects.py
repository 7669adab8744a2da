"""Are a store's objects those of the log, and do they keep their number?

    python scripts/benchmarks/objects.py STORE --root CITY --json OUT.json

STORE holds labels of a city's scenes. Panoptic quality of the classes that can move, in the camera
mask, and the share of true objects that always match the same number: by the tracker, and beside it
by plain components, numbered frame by frame (``components``), or as the nearest component of the
frame before (``nearest``). The same on the true classes: what numbering alone costs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import reporting
from numpy.typing import NDArray
from tqdm import tqdm

from autolabel.instances.scores import ObjectScores
from autolabel.instances.segmentation import Segment, segments
from autolabel.instances.tracking import Tracker
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.exit_codes import exit_code
from datasets.frames import Frame
from datasets.geometry.grid import VoxelGrid
from datasets.labels.log_identity import labeled_scene
from datasets.labels.store import LabelStore
from datasets.sources.opening import open_source
from datasets.taxonomy import Taxonomy

NEAREST_M = 5.0
COLUMNS = ("labels", "numbers", "PQ", "tracks", "one number", "other number")
Numbering = Callable[[NDArray[np.uint8], Frame], NDArray[np.uint16]]


class Plain:
    """Components of one frame; ``linked``: the closest pairs with the frame before share a
    number."""

    def __init__(self, grid: VoxelGrid, taxonomy: Taxonomy, *, linked: bool) -> None:
        self.grid, self.taxonomy, self.linked = grid, taxonomy, linked
        self._before: list[tuple[Segment, int]] = []
        self._next = 1

    def update(self, semantics: NDArray[np.uint8], frame: Frame) -> NDArray[np.uint16]:
        """(X, Y, Z) numbers."""
        out = np.zeros(semantics.size, np.uint16)
        parts = segments(semantics, self.grid, frame.T_global_ego, self.taxonomy)
        numbers = self._linked(parts) if self.linked else list(range(1, len(parts) + 1))
        for part, number in zip(parts, numbers, strict=True):
            out[part.voxels] = number
        self._before = list(zip(parts, numbers, strict=True))
        return out.reshape(semantics.shape)

    def _linked(self, parts: list[Segment]) -> list[int]:
        pairs = sorted(
            (float(np.linalg.norm(old.centre_m - part.centre_m)), i, number)
            for i, part in enumerate(parts)
            for old, number in self._before
            if old.group == part.group
        )
        numbers: dict[int, int] = {}
        for distance, i, number in pairs:
            if distance <= NEAREST_M and i not in numbers and number not in numbers.values():
                numbers[i] = number
        for i in range(len(parts)):
            if i not in numbers:
                numbers[i], self._next = self._next, self._next + 1
        return [numbers[i] for i in range(len(parts))]


def numberings(grid: VoxelGrid, taxonomy: Taxonomy) -> dict[str, Numbering]:
    """For the frames of one scene."""
    tracker = Tracker(grid, taxonomy)
    return {
        "tracks": lambda semantics, f: tracker.update(semantics, f.T_global_ego, f.timestamp_us),
        "nearest": Plain(grid, taxonomy, linked=True).update,
        "components": Plain(grid, taxonomy, linked=False).update,
    }


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    parser.add_argument("store", type=Path, metavar="STORE")
    parser.add_argument("--root", type=Path, required=True, metavar="CITY")
    args = parser.parse_args()
    store = LabelStore.open(args.store)
    grid, taxonomy = store.header.grid, store.header.taxonomy
    source = open_source("city", args.root, past_sweeps=0)
    truth = benchmark("occ3d_nuscenes")
    truth.require(str(args.store), grid, taxonomy, store.header.frame)
    scores: dict[tuple[str, str], ObjectScores] = {}
    for scene_id in tqdm(store.scene_ids(), unit="scene"):
        stored, scene = labeled_scene(store, scene_id, source)
        by_kind = {kind: numberings(grid, taxonomy) for kind in ("true", "predicted")}
        for frame in scene.frames:
            expected = truth.labels(args.root / truth.folder, source, frame)
            labels = stored.frame(stored.index_of(frame.token))
            for kind, semantics in (
                ("true", expected.semantics),
                ("predicted", labels.semantics),
            ):
                for name, number in by_kind[kind].items():
                    score = scores.setdefault((kind, name), ObjectScores(source, taxonomy.dynamic))
                    numbers = number(semantics, frame)
                    score.update(frame, (semantics, numbers), expected, expected.scored())
    figures: dict[str, Any] = {"scenes": len(store.scene_ids())}
    rows = []
    for (kind, name), score in scores.items():
        figures[f"{kind}, {name}"] = result = score.to_json(taxonomy.names)
        tracks = result["tracks"]
        whole = round(100 * result["tracks with one number"] / tracks, 1) if tracks else "-"
        links, switched = (
            result["matches that follow each other"],
            result["of these with another number"],
        )
        other = round(100 * switched / links, 1) if links else "-"
        rows.append((kind, name, result["PQ"], tracks, whole, other))
    print(reporting.markdown_table(COLUMNS, rows))
    reporting.write_figures(figures, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
