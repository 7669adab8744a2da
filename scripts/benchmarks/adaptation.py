"""How well does confidence hold on a new log after a few frames of it, by each way to adapt?

    python scripts/benchmarks/adaptation.py WEIGHTS --real FOLDER_LOG --out OUT
    python scripts/benchmarks/adaptation.py WEIGHTS --city SHIFTED_CITY --out OUT

Of a real log with two scenes (``convert_pandaset.py --parts 30-49 50-79``, ``make_labels.py``) the
first teaches and the second tests: all its frames, or 20 draws of ``--taught`` of them each, from
a log with ``convert_pandaset.py --key-frames sweep``. Of a city other than the one that was
calibrated on (rain and night, a lower LiDAR: ``--make``), five scenes that are drawn teach and the
others test, 20 times. Compared, for occupied and for free labels with P >= 0.5: the share that is
claimed to be wrong, and the share that is; log loss of all; and an error bound of 10 %: whether it
can be had, is broken, and what it keeps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import numpy as np
import reporting
import torch
from numpy.typing import NDArray

from autolabel.calibration.adapt import FrameCounts, Step, adapt, count_frames
from autolabel.confidence.calibration import Calibration
from autolabel.confidence.held_out_sweeps import HELD_OUT_SWEEPS
from autolabel.confidence.risk_control import control_risk
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.stored_calibration import calibration_of
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.geometry.transforms import Transform
from datasets.labels.domain import LogDomain
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.sources.opening import open_source
from datasets.sources.synthetic.city import CityConfig, generate_city
from datasets.sources.synthetic.export import nuscenes_writer
from datasets.sources.synthetic.sensors import weather
from datasets.sources.synthetic.sensors.lidar import lidar_mount
from datasets.taxonomy import Taxonomy
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.predictor import OccupancyPredictor, keep_freed_memory

DRAWS, TAUGHT = 20, 5
MAX_ERROR = 0.1
LOWER_M = 0.5
COLUMNS = ("step", "occupied: claimed wrong", "wrong", "free: claimed wrong", "wrong", "log loss")
BOUND_COLUMNS = (
    "step",
    "draws",
    "refused",
    "broken",
    "occupied kept",
    "wrong",
    "free kept",
    "wrong",
)
Counts = NDArray[np.int64]
Draw = tuple[Sequence[FrameCounts], Sequence[FrameCounts]]
"""What teaches and what tests."""


def main() -> int:
    parser = reporting.parser(__doc__)
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    parser.add_argument("--real", type=Path, metavar="FOLDER_LOG")
    parser.add_argument("--city", type=Path, metavar="SHIFTED_CITY")
    parser.add_argument("--taught", type=int, nargs="+", default=[0], help="frames; 0: all")
    parser.add_argument("--make", action="store_true", help="generate the shifted city first")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if args.make:
        make_shifted(args.city)
    model = load_checkpoint(args.weights)
    teacher = OccupancyPredictor(model.module, model.preset)
    calibration, taxonomy = calibration_of(model, args.weights), model.preset.taxonomy
    figures: dict[str, Any] = {}
    for name, kind, root in (("real", "folder", args.real), ("city", "city", args.city)):
        if root is None:
            continue
        source = open_source(
            kind,
            root,
            past_sweeps=model.preset.inputs.past_sweeps,
            future_sweeps=HELD_OUT_SWEEPS,
        )
        scenes = source.scene_ids("all")
        truth = GroundTruthTargets(benchmark("occ3d_nuscenes"), root, source, scenes)
        config = LabelingConfig()
        frames = count_frames(teacher, calibration, source, truth.labels, scenes, config)
        if kind == "city":
            figures[name] = compared(name, of_scenes(frames, scenes), calibration, taxonomy)
            continue
        for n in args.taught:
            title = f"{name}, {n} frames teach" if n else name
            draws = of_first_scene(frames, scenes[0], n)
            figures[title] = compared(title, draws, calibration, taxonomy)
    reporting.write_figures(figures, args.out)
    return 0


def of_scenes(frames: Sequence[FrameCounts], scenes: Sequence[str]) -> list[Draw]:
    """Some scenes teach and the others test."""
    rng = np.random.default_rng(0)
    draws: list[Draw] = []
    for _ in range(DRAWS):
        chosen = {scenes[k] for k in rng.permutation(len(scenes))[:TAUGHT]}
        taught = [f for f in frames if f.scene_id in chosen]
        draws.append((taught, [f for f in frames if f.scene_id not in chosen]))
    return draws


def of_first_scene(frames: Sequence[FrameCounts], scene_id: str, n: int) -> list[Draw]:
    """So many frames of it teach, or all, and the other scenes test."""
    own = [f for f in frames if f.scene_id == scene_id]
    tested = [f for f in frames if f.scene_id != scene_id]
    if not n:
        return [(own, tested)]
    rng = np.random.default_rng(0)
    return [([own[k] for k in rng.permutation(len(own))[:n]], tested) for _ in range(DRAWS)]


def compared(
    title: str, draws: Sequence[Draw], calibration: Calibration, taxonomy: Taxonomy
) -> dict[str, Any]:
    steps = {step: of_step(step, draws, calibration, taxonomy) for step in get_args(Step)}
    print(f"{title}: {len(draws)} draws, {len(draws[0][1])} frames test")
    rows = [
        (step, *(f"{100 * row[k]:.1f} %" for k in list(row)[:4]), f"{row['log loss']:.3f}")
        for step, row in steps.items()
    ]
    print(reporting.markdown_table(COLUMNS, rows))
    rows = [(step, *map(str, row["bound"].values())) for step, row in steps.items()]
    print(reporting.markdown_table(BOUND_COLUMNS, rows))
    return steps


def make_shifted(root: Path) -> None:
    """A city in rain and at night, seen by a lower LiDAR."""
    if (root / "city.json").is_file():
        return

    def lower() -> Transform:
        T = lidar_mount()
        T[2, 3] -= LOWER_M
        return T

    chances = [0.5 if name in ("rain", "night") else 0.0 for name in weather.WEATHERS]
    config = CityConfig(
        seed=909, labeled_scenes=0, unlabeled_scenes=0, val_scenes=25, frames_per_scene=3
    )
    with (
        mock.patch.object(nuscenes_writer, "lidar_mount", lower),
        mock.patch.object(weather, "_CHANCES", chances),
    ):
        generate_city(root, config, workers=1)


def of_step(
    step: Step,
    draws: Sequence[Draw],
    calibration: Calibration,
    taxonomy: Taxonomy,
) -> dict[str, Any]:
    """Means over the draws, and how the bounds fared."""
    log = LogDomain(source="folder", log="new", licence="", scenes=0, frames=0, reference=None)
    rows, kept = [], []
    refused = broken = 0
    for taught, tested in draws:
        fit = adapt(taught, calibration, taxonomy, LabelingConfig(), log, None, step=step)
        seen, right = counted(fit.calibration, tested)
        rows.append(scores(fit.calibration, seen, right, taxonomy))
        try:
            bound = control_risk(
                fit.evidence,
                fit.calibration.levels,
                taxonomy.class_groups(),
                max_error=MAX_ERROR,
            )
        except SetupError:
            refused += 1
            continue
        thresholds = np.asarray(bound.thresholds)[:, None]
        take = np.arange(seen.shape[1]) >= thresholds
        free = np.arange(len(seen)) == taxonomy.free_id
        row, errors = [], []
        for group in (~free, free):
            n = int((seen * take)[group].sum())
            wrong = n - int((right * take)[group].sum())
            row += [n / max(1, int(seen[group].sum())), wrong / max(1, n)]
            errors.append(wrong / max(1, n))
        kept.append(row)
        broken += max(errors) > MAX_ERROR
    shares = np.mean(kept, axis=0) if kept else [float("nan")] * 4
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    return {
        **means,
        "bound": {
            "draws": len(draws),
            "refused": refused,
            "broken": broken,
            **{
                key: f"{100 * value:.1f} %"
                for key, value in zip(
                    ("occupied kept", "occupied wrong", "free kept", "free wrong"),
                    shares,
                    strict=True,
                )
            },
        },
    }


def counted(calibration: Calibration, frames: Sequence[FrameCounts]) -> tuple[Counts, Counts]:
    """(K, L) voxels that could be trusted, and right ones."""
    parts = [frame.counts.trustable(calibration.min_free_rays) for frame in frames]
    seen, right = (
        np.sum([calibration.by_level(of).sum(0) for of in counts], axis=0)
        for counts in ([p.seen for p in parts], [p.right for p in parts])
    )
    return seen, right


def scores(
    calibration: Calibration, seen: Counts, right: Counts, taxonomy: Taxonomy
) -> dict[str, float]:
    """Of labels with P >= 0.5: claimed and true shares of wrong ones; and the log loss of all."""
    levels = np.asarray(calibration.levels)
    free = np.arange(len(seen)) == taxonomy.free_id
    out = {}
    for name, group in (("occupied", ~free), ("free", free)):
        n = seen[group][:, levels >= 0.5]
        good = right[group][:, levels >= 0.5]
        total = max(1, int(n.sum()))
        out[f"{name}, claimed"] = float((n * (1 - levels[levels >= 0.5])).sum() / total)
        out[f"{name}, wrong"] = 1 - int(good.sum()) / total
    p = levels.clip(0.003, 0.998)
    loss = 0.0
    for group in (~free, free):
        n, good = seen[group].sum(0), right[group].sum(0)
        part = -(good * np.log(p) + (n - good) * np.log1p(-p)).sum() / max(1, int(n.sum()))
        loss += float(part) / 2
    return out | {"log loss": loss}


if __name__ == "__main__":
    sys.exit(exit_code(main))
