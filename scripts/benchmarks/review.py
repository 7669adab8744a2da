"""Simulated reviews of stores with known errors, and what writing and reading verdicts costs.

    python scripts/benchmarks/review.py
    python scripts/benchmarks/review.py --runs 100 --json OUT.json

For each share of wrong frames, each suspicion score (one that finds errors, one that knows nothing)
and each way to review, it counts in how many runs the 95 % interval of ``viz/quality_estimate``
covers the truth. Wrong frames come in clusters, as in a scene that failed. The ways to review:

    alone       one reviewer follows the queue and stops at a random time
    two         two at once, who look at frames for different times and meet each other's gaps
    neighbours  whoever finds a wrong frame judges the frames around it as well, and now and then
                passes over one
    enough      stops as soon as the interval is +-2 points: what it covers is no promise (a tenth
                of the runs)

Then: half of the interval after n frames; entries written per second, by one process and by two at
once; milliseconds to open an overlay. Disk and machine decide these: compare on one machine only.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import reporting
from tqdm import tqdm

from datasets.cli.exit_codes import exit_code
from datasets.geometry.grid import VoxelGrid
from datasets.labels.store import LabelStore, SceneLabels, StoreHeader
from datasets.reviews.overlay import EditEntry, Reviews, Verdict, VerdictEntry
from datasets.taxonomy import OCC3D_NUSCENES
from viz.review.error_rate import Estimate, Estimator
from viz.review.review_queue import QueueItem, as_priority, review_queue

SHARES = (0.005, 0.05, 0.3)
SUSPICIONS = ("good", "useless")
WAYS = ("alone", "two", "neighbours", "enough")
FRAMES, IN_A_SCENE, CLUSTER = 800, 20, 4
GRID = VoxelGrid(min_m=(-40.0, -40.0, -1.0), size_m=(0.4, 0.4, 0.4), shape=(200, 200, 16))

Scored = dict[tuple[str, str], Verdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A store's frames, which of them are wrong, and how suspect they seem."""

    scenes: dict[str, list[str]]
    wrong: frozenset[tuple[str, str]]
    suspicion: dict[tuple[str, int], float]
    seed: int

    @property
    def share(self) -> float:
        return len(self.wrong) / FRAMES

    def verdict(self, frame: tuple[str, str]) -> Verdict:
        return Verdict.REJECT if frame in self.wrong else Verdict.ACCEPT

    def queue(self) -> tuple[QueueItem, ...]:
        return review_queue(self.scenes, self.suspicion, set(), seed=self.seed)

    def estimate(self, verdicts: Scored) -> Estimate:
        return self.estimator().of_verdicts(verdicts)

    def estimator(self) -> Estimator:
        return Estimator(self.scenes, as_priority(self.suspicion), seed=self.seed)


def make_world(rng: np.random.Generator, share: float, suspicion: str) -> World:
    n_wrong, wrong = round(share * FRAMES), set[int]()
    while len(wrong) < n_wrong:
        first = int(rng.integers(FRAMES))
        last = min(first + CLUSTER, FRAMES, first + n_wrong - len(wrong))
        wrong.update(range(first, last))
    scores = rng.random(FRAMES)
    if suspicion == "good":
        scores[sorted(wrong)] += 0.7
    names = [(f"s{i // IN_A_SCENE:04d}", i % IN_A_SCENE) for i in range(FRAMES)]
    scenes: dict[str, list[str]] = {}
    for scene_id, k in names:
        scenes.setdefault(scene_id, []).append(f"{scene_id}-{k}")
    return World(
        scenes=scenes,
        wrong=frozenset((names[i][0], f"{names[i][0]}-{names[i][1]}") for i in wrong),
        suspicion=dict(zip(names, scores.tolist(), strict=True)),
        seed=int(rng.integers(2**31)),
    )


def simulate(rng: np.random.Generator, world: World, way: str) -> Scored:
    """The verdicts there when the review is stopped."""
    queue = world.queue()
    stop = int(rng.integers(20, FRAMES))
    frames = [(item.scene_id, item.token) for item in queue]
    if way == "alone":
        return {frame: world.verdict(frame) for frame in frames[:stop]}
    if way == "two":
        busy = [0.0, 0.0]
        done: list[tuple[float, tuple[str, str]]] = []
        for frame in frames[:stop]:  # whoever is free takes the next one; wrong ones take longer
            reviewer = int(np.argmin(busy))
            busy[reviewer] += rng.exponential(3.0 if frame in world.wrong else 1.0)
            done.append((busy[reviewer], frame))
        until = rng.uniform(0, max(busy))
        return {frame: world.verdict(frame) for finished, frame in done if finished <= until}
    if way == "neighbours":
        verdicts: Scored = {}
        for item, frame in zip(queue, frames, strict=True):
            if len(verdicts) >= stop:
                break
            if frame in verdicts or rng.random() < 0.01:
                continue
            verdicts[frame] = world.verdict(frame)
            if frame in world.wrong:
                tokens = world.scenes[item.scene_id]
                for token in tokens[max(0, item.k - CLUSTER) : item.k + CLUSTER + 1]:
                    verdicts[item.scene_id, token] = world.verdict((item.scene_id, token))
        return verdicts
    verdicts, estimator = {}, world.estimator()
    for n, frame in enumerate(frames, 1):
        verdicts[frame] = world.verdict(frame)
        if n % 8 == 0:
            estimate = estimator.of_verdicts(verdicts)
            if estimate.high - estimate.low <= 0.04:
                break
    return verdicts


def coverage(runs: int, share: float, suspicion: str, way: str, *, seed: int = 0) -> dict[str, Any]:
    """Of so many reviews: how many intervals hold the truth, and what they are like."""
    rng = np.random.default_rng((seed, *f"{share}{suspicion}{way}".encode()))
    covered, widths, errors, judged = 0, list[float](), list[float](), list[int]()
    for _ in range(runs):
        world = make_world(rng, share, suspicion)
        estimate = world.estimate(simulate(rng, world, way))
        covered += estimate.low <= world.share <= estimate.high
        widths.append((estimate.high - estimate.low) / 2)
        errors.append(estimate.wrong_share - world.share)
        judged.append(estimate.n_reviewed)
    return {
        "runs": runs,
        "covered": covered,
        "half width, points (median)": round(100 * statistics.median(widths), 2),
        "bias, points (mean)": round(100 * float(np.nanmean(errors)), 2),
        "judged (median)": statistics.median(judged),
    }


def half_widths(runs: int, share: float, suspicion: str) -> dict[int, float]:
    """Median half width, in points, after so many frames of the queue."""
    rng = np.random.default_rng(1)
    worlds = [make_world(rng, share, suspicion) for _ in range(runs)]
    out = {}
    for n in (50, 100, 200, 400, 600):
        half = []
        for world in worlds:
            frames = [(item.scene_id, item.token) for item in world.queue()[:n]]
            estimate = world.estimate({frame: world.verdict(frame) for frame in frames})
            half.append((estimate.high - estimate.low) / 2)
        out[n] = round(100 * statistics.median(half), 2)
    return out


WRITE = """
import sys
from datasets.labels.store import LabelStore
from datasets.reviews.overlay import VerdictEntry, Reviews, Verdict
reviews = Reviews(LabelStore.open(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for i in range(int(sys.argv[3])):
    scene = f"s{i % 10}"
    what = VerdictEntry(scene_id=scene, tokens=(f"{scene}-{i % 2}",), verdict=Verdict.ACCEPT)
    reviews.add(what, reviewer=sys.argv[2])
"""


def write_verdicts(store: Path, writers: int, n: int) -> float:
    """Seconds until so many processes have written n verdicts each."""
    command = [sys.executable, "-c", WRITE, str(store)]
    processes = [
        subprocess.Popen(
            [*command, f"reviewer {i}", str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for i in range(writers)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    start = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    for process in processes:
        if process.wait():
            raise RuntimeError("a writer failed")
    return time.perf_counter() - start


def make_store(path: Path) -> LabelStore:
    """Ten scenes of two empty frames at 200x200x16."""
    store = LabelStore.create(
        path,
        StoreHeader(
            grid=GRID,
            taxonomy=OCC3D_NUSCENES,
            levels=(0.0, 0.9),
            licence="CC0",
            provenance={},
            run_id="benchmark",
        ),
    )
    for i in range(10):
        voxels = np.zeros((2, *GRID.shape), np.uint8)
        store.write_scene(
            SceneLabels(
                scene_id=f"s{i}",
                frame_tokens=(f"s{i}-0", f"s{i}-1"),
                timestamps_us=np.arange(2, dtype=np.int64),
                T_global_grid=np.broadcast_to(np.eye(4), (2, 4, 4)).copy(),
                semantics=voxels,
                confidence=voxels,
                mask=voxels,
            )
        )
    return store


def overlay(folder: Path, *, entries: int, n: int) -> dict[str, Any]:
    """Writing and opening, on this disk. One entry in four is a stroke of 1,000 voxels."""
    store = make_store(folder / "one")
    alone_s = write_verdicts(folder / "one", 1, n)
    make_store(folder / "two")
    together_s = write_verdicts(folder / "two", 2, n)
    n_entries = len(Reviews(LabelStore.open(folder / "two")).entries())
    reviews, rng = Reviews(store), np.random.default_rng(0)
    for i in tqdm(range(len(reviews.entries()), entries), desc="entries"):
        scene_id = f"s{i % 10}"
        token = f"{scene_id}-{i % 2}"
        first = int(rng.integers(0, GRID.n_voxels - 4000))
        voxels = np.unique(rng.integers(first, first + 4000, 1000))
        reviews.add(
            VerdictEntry(scene_id=scene_id, tokens=(token,), verdict=Verdict.REJECT)
            if i % 4
            else EditEntry(scene_id=scene_id, token=token, voxels=voxels, class_id=4),
            reviewer="one",
        )
    labels = store.scene("s0").frame(0)
    seconds = reporting.median_seconds(
        {
            "open": lambda: Reviews(store),
            "refresh": reviews.refresh,
            "apply": lambda: reviews.reviewed(labels, "s0"),
        },
        rounds=5,
    )
    size = sum(n for _, n in store.place.files("reviews"))
    strokes = len(reviews.edits("s0").get("s0-0", ()))
    return {
        "verdicts/s, one writer": round(n / alone_s, 1),
        f"seconds, two writers of {n} at once": round(together_s, 2),
        "entries of the two that are there": n_entries,
        "entries": len(reviews.entries()),
        "bytes an entry": round(size / entries),
        "ms to open": round(1e3 * seconds["open"], 1),
        "ms to refresh": round(1e3 * seconds["refresh"], 1),
        f"ms to apply {strokes} strokes": round(1e3 * seconds["apply"], 1),
    }


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    parser.add_argument("--runs", type=int, default=1000, help="simulated reviews of each kind")
    parser.add_argument("--entries", type=int, default=10_000, help="of the overlay to open")
    parser.add_argument("--verdicts", type=int, default=1000, help="of each writer")
    args = parser.parse_args()

    figures: dict[str, Any] = {"coverage": {}, "half width": {}}
    print(f"{FRAMES} frames; runs whose 95 % interval covers the truth, of {args.runs}:")
    print(f"{'wrong':>6} {'suspicion':>9} {'review':>11} {'covered':>8} {'half':>6} {'bias':>6}")
    for share in SHARES:
        for suspicion in SUSPICIONS:
            for way in WAYS:
                runs = args.runs if way != "enough" else max(1, args.runs // 10)
                result = coverage(runs, share, suspicion, way)
                figures["coverage"][f"{share} {suspicion} {way}"] = result
                half, bias = result["half width, points (median)"], result["bias, points (mean)"]
                covered = f"{100 * result['covered'] / runs:.1f} %"
                print(
                    f"{100 * share:>5g}% {suspicion:>9} {way:>11} {covered:>8} {half:>6} {bias:>6}"
                )
    print("half of the interval, points, after n frames of the queue (median of 50 reviews):")
    for share in SHARES:
        for suspicion in SUSPICIONS:
            widths = half_widths(min(50, args.runs), share, suspicion)
            figures["half width"][f"{share} {suspicion}"] = widths
            cells = " ".join(f"{n}: {width:<6}" for n, width in widths.items())
            print(f"{100 * share:>5g}% {suspicion:>9}  {cells}")
    with tempfile.TemporaryDirectory() as folder:
        figures["overlay"] = overlay(Path(folder), entries=args.entries, n=args.verdicts)
    for name, value in figures["overlay"].items():
        print(f"{name}: {value}")
    reporting.write_figures(figures, args.json)
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
