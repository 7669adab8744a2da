"""Print how equal our metrics are to the published code's, and how fast rays are scored.

    python scripts/conformance/check_metrics.py
    python scripts/conformance/check_metrics.py --oracle DIR --threads 2 --json OUT.json

Needs the oracle folder: grids and what the published code made of them. Exit code 0: every number
is the published one (voxel and ray counts exactly, fractions to 1e-12); 1: not so, with what
differs named.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from metric_cases import Arrays, Difference, compare, read_case
from network_stages import load_arrays, oracle_folder

from datasets.benchmarks.occ3d_nuscenes import GRID
from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.files.json_files import write_json
from datasets.geometry.raycast import first_hits, first_hits_plain
from datasets.metrics.rays import RayScore, lidar_rays
from datasets.taxonomy import IGNORE_ID, OCC3D_NUSCENES

REPEATS = 9
ORIGINS = 8
EVERY = 10
"""The plain traversal is timed on every tenth ray."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Medians over repeated runs.

    Attributes:
        threads: of the fast traversal; the plain one has one.
        frames_per_s: whole RayIoU updates with 8 origins, truth and prediction cast.
        rays_per_s, plain_rays_per_s: the traversal alone, and its plain twin's.
    """

    threads: int
    frames_per_s: float
    rays_per_s: float
    plain_rays_per_s: float

    def __str__(self) -> str:
        return (
            f"RayIoU: {self.frames_per_s:.1f} frames/s ({ORIGINS} origins, {self.threads} threads, "
            f"median of {REPEATS}); traversal {self.rays_per_s:,.0f} rays/s, plain numpy "
            f"{self.plain_rays_per_s:,.0f} rays/s: {self.rays_per_s / self.plain_rays_per_s:.0f} "
            "times as fast"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--oracle",
        type=Path,
        default=oracle_folder(os.environ),
        help="reference outputs; default: AUTOLABEL_ORACLE or shared/oracle beside the project",
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the traversal")
    parser.add_argument("--json", type=Path, metavar="OUT", help="JSON file for the figures")
    args = parser.parse_args()

    if args.threads < 1:
        raise SetupError(f"--threads {args.threads}: must be at least 1")
    arrays, expected = load_arrays(args.oracle, "metrics_cases"), load_expected(args.oracle)
    try:
        differences = compare(arrays, expected)
    except KeyError as error:
        raise SetupError(f"{args.oracle}: the metric cases lack {error}") from error
    print(f"{'quantity':52}{'values':>9}{'max error':>11}{'allowed':>10}")
    for d in differences:
        print(row(d))
    speed = measure(arrays, expected["_order"][0], threads=args.threads)
    print(speed)
    if args.json:
        figures = {"differences": [asdict(d) for d in differences], "speed": asdict(speed)}
        write_json(args.json, figures)
    if failures := [d.quantity for d in differences if not d.ok]:
        print(f"NOT EQUAL to the published metrics: {', '.join(failures)}", file=sys.stderr)
        return 1
    print("equal to the published metrics")
    return 0


def row(d: Difference) -> str:
    end = "" if d.ok else "  NOT EQUAL"
    return f"{d.quantity:52}{d.values:>9,}{d.error:>11.2e}{d.allowed:>10.0e}{end}"


def load_expected(folder: Path) -> dict[str, Any]:
    """Raises ``SetupError``: ``metrics_expected.json`` is missing or damaged."""
    path = folder / "metrics_expected.json"
    try:
        expected: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SetupError(f"{path}: no expected metrics: {error}") from error
    return expected


def measure(arrays: Arrays, name: str, *, threads: int) -> Speed:
    """Time RayIoU on one of the cases with 8 origins around its own."""
    case = read_case(arrays, name)
    origins_m = np.resize(case.origins_m, (ORIGINS, 3)) + np.linspace(0, 8, ORIGINS)[:, None] * [
        1.0,
        0.25,
        0.0,
    ]
    score = RayScore(OCC3D_NUSCENES, GRID, threads=threads)
    frame_s = median_s(lambda: score.update(case.truth, case.prediction, origins_m))

    rays = lidar_rays().astype(np.float64)
    starts = np.repeat(GRID.cells(origins_m), len(rays), axis=0)
    directions = np.tile(rays, (ORIGINS, 1))
    occupied = ~np.isin(case.truth, (OCC3D_NUSCENES.free_id, IGNORE_ID))
    fast_s = median_s(lambda: first_hits(occupied, starts, directions, threads=threads))
    sampled = (starts[::EVERY], directions[::EVERY])
    plain_s = median_s(lambda: first_hits_plain(occupied, *sampled))
    return Speed(
        threads=threads,
        frames_per_s=1 / frame_s,
        rays_per_s=len(directions) / fast_s,
        plain_rays_per_s=len(sampled[1]) / plain_s,
    )


def median_s(run: Callable[[], object]) -> float:
    run()  # compiles, fills caches
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(exit_code(main))
