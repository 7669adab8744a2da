"""Is confidence said to hold where it does, and not where it does not?

    python scripts/make_city.py --root T --seed 202 --val 40 --frames 6
    python scripts/benchmarks/validity.py WEIGHTS --test T --real FOLDER_LOG --json OUT.json

WEIGHTS were calibrated on another city (``scripts/calibrate.py``). T's scenes are labeled as a job
labels them and compared with their truth, and so are those of a real log with ground truth
(``make_labels.py``). Printed:

*Domain*: each scene of T alone, and in many random splits of the calibration scenes of the same
weather one part against the other: how often are they taken for another log? T's scenes in rain and
in the dark, and the real log: are they?
*LiDAR check*: of each scene of T, the share of trusted occupied voxels that is free, as estimated
from held-out sweeps and as it is: correlation, and how often the interval holds it. Of the real log
claimed, estimated and true side by side.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import reporting
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from autolabel.confidence.held_out_sweeps import HELD_OUT_SWEEPS
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import label_frames
from autolabel.labeling.stored_calibration import calibration_of, domain_of, risk_bound_of
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.labels.domain import Reference, SceneStatistics, domain_shift
from datasets.labels.lidar_check import LidarEvidence, estimate
from datasets.labels.voxel_labels import MaskBit
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.sources.opening import open_source
from models.checkpoints.checkpoint import LoadedModel, load_checkpoint
from models.inference.predictor import OccupancyPredictor, keep_freed_memory

DAY, DARK = ("sun", "overcast"), ("dusk", "night")
SPLITS, PART = 200, 10
"""Random splits of scenes of the same weather, and the scenes of the smaller part."""
COLUMNS = ("scenes", "claimed free", "estimated", "interval", "true", "wrong, claimed", "true")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabeledScene:
    """Labels of a scene beside their truth.

    Attributes:
        statistics: of each frame.
        trusted, free, wrong: occupied voxels that are trusted and whose truth is known; of these
            so many are free, or of another class.
        expected_wrong: of all trusted occupied voxels, by their confidence; of ``voxels``.
        free_space: (3,) the same of trusted free ones: known, wrong, and expected share.
    """

    scene_id: str
    statistics: tuple[dict[str, float], ...]
    evidence: LidarEvidence | None
    trusted: int
    free: int
    wrong: int
    expected_wrong: float
    free_space: tuple[int, int, float]

    @property
    def mean(self) -> SceneStatistics:
        names = dict.fromkeys(name for frame in self.statistics for name in frame)
        values = {
            name: float(np.mean([f[name] for f in self.statistics if name in f])) for name in names
        }
        return SceneStatistics(values=values, frames=len(self.statistics))


class Bench:
    """Labels scenes of a log as a job would."""

    def __init__(self, weights: Path, max_error: float | None) -> None:
        self.model: LoadedModel = load_checkpoint(weights)
        self.teacher = OccupancyPredictor(self.model.module, self.model.preset)
        self.calibration = calibration_of(self.model, weights)
        domain = domain_of(self.model, weights)
        if domain is None or domain.logs[0].reference is None or domain.lidar is None:
            raise SetupError(f"{weights}: calibrate it first (scripts/calibrate.py)")
        self.reference, self.lidar = domain.logs[0].reference, domain.lidar
        config = LabelingConfig()
        if self.calibration.refiner is not None:
            config = replace(config, refinement=self.calibration.refiner.config)
        if max_error is not None:
            bound = risk_bound_of(
                self.model,
                self.calibration,
                config,
                weights=weights,
                max_error=max_error,
                confidence=0.9,
                test="t",
            )
            config = replace(config, risk_bound=bound)
        self.config = config

    @property
    def groups(self) -> list[str]:
        return [g for g in self.model.preset.taxonomy.class_groups() if g != "free"]

    def scenes(self, kind: str, root: Path, split: str) -> list[LabeledScene]:
        preset = self.model.preset
        source = open_source(
            kind,
            root,
            past_sweeps=preset.inputs.past_sweeps,
            future_sweeps=HELD_OUT_SWEEPS,
        )
        ids = source.scene_ids(split)
        of = benchmark("occ3d_nuscenes")
        truth = GroundTruthTargets(of, root, source, ids)
        levels = np.asarray(self.calibration.levels)
        free_id = preset.taxonomy.free_id
        out = []
        for scene_id in tqdm(ids, desc=root.name, unit="scene"):
            scene = source.scene(scene_id)
            statistics, evidence = [], None
            counts = np.zeros(6)
            expected, voxels, expected_free = 0.0, 0, 0.0
            labeled = label_frames(scene, source, self.teacher, self.calibration, self.config)
            for frame, labels in zip(scene.frames, labeled, strict=True):
                statistics.append(labels.statistics)
                if isinstance(check := labels.lidar_check, LidarEvidence):
                    evidence = check if evidence is None else evidence + check
                true = truth.labels(frame)
                trusted = (labels.mask & np.uint8(MaskBit.TRUSTED)) > 0
                known = trusted & true.observed() & (true.semantics < preset.taxonomy.n_classes)
                occupied = labels.semantics != free_id
                wrong = labels.semantics != true.semantics
                doubt = 1 - levels[labels.confidence]
                counts += (
                    int((known & occupied).sum()),
                    int((known & occupied & (true.semantics == free_id)).sum()),
                    int((known & occupied & wrong).sum()),
                    int((known & ~occupied).sum()),
                    int((known & ~occupied & wrong).sum()),
                    int((trusted & ~occupied).sum()),
                )
                expected += float(doubt[trusted & occupied].sum())
                voxels += int((trusted & occupied).sum())
                expected_free += float(doubt[trusted & ~occupied].sum())
            out.append(
                LabeledScene(
                    scene_id=scene_id,
                    statistics=tuple(statistics),
                    evidence=evidence,
                    trusted=int(counts[0]),
                    free=int(counts[1]),
                    wrong=int(counts[2]),
                    expected_wrong=expected / max(1, voxels),
                    free_space=(
                        int(counts[3]),
                        int(counts[4]),
                        expected_free / max(1.0, float(counts[5])),
                    ),
                )
            )
        return out

    def row(self, scenes: Sequence[LabeledScene]) -> dict[str, Any]:
        """Claimed, estimated and true shares, and the verdicts on these scenes."""
        evidence = [s.evidence for s in scenes if s.evidence is not None]
        found = estimate(evidence, self.lidar, self.groups)
        shift = domain_shift([s.mean for s in scenes], self.reference)
        trusted = max(1, sum(s.trusted for s in scenes))
        known_free = max(1, sum(s.free_space[0] for s in scenes))
        out: dict[str, Any] = {
            "scenes": len(scenes),
            "another log": shift.shifted,
            "p of domain": shift.p,
            "differs in": [str(d) for d in shift.differences],
            "free, true": sum(s.free for s in scenes) / trusted,
            "wrong, claimed": float(np.mean([s.expected_wrong for s in scenes])),
            "wrong, true": sum(s.wrong for s in scenes) / trusted,
            "free space wrong, claimed": float(np.mean([s.free_space[2] for s in scenes])),
            "free space wrong, true": sum(s.free_space[1] for s in scenes) / known_free,
        }
        if found is not None:
            out |= {
                "free, claimed": found.claimed,
                "free, estimated": found.wrong,
                "interval": [found.low, found.high],
                "p of LiDAR": found.p,
                "contradicted": found.invalid,
            }
        return out


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    parser.add_argument("--test", type=Path, required=True, metavar="T")
    parser.add_argument("--real", type=Path, metavar="FOLDER_LOG")
    parser.add_argument("--max-error", type=float, help="label with this error bound")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    bench = Bench(args.weights, args.max_error)
    scenes = bench.scenes("city", args.test, "val")
    weather = weather_of(args.test)
    logs = {"the same kind of city": scenes}
    for name, kinds in (("day", DAY), ("rain", ("rain",)), ("dusk and night", DARK)):
        logs[f"of these, {name}"] = [s for s in scenes if weather[s.scene_id] in kinds]
    if args.real is not None:
        real = bench.scenes("folder", args.real, "all")
        logs |= {f"real log: {s.scene_id}": [s] for s in real} | {"real log": real}
    figures: dict[str, Any] = {name: bench.row(part) for name, part in logs.items() if part} | {
        "each scene": each_scene(bench, scenes)
    }
    day = logs["of these, day"]
    figures["random splits of day scenes"] = splits(day)
    print(reporting.markdown_table(("log", *COLUMNS), [cells(n, f) for n, f in figures.items()]))
    for name in ("each scene", "random splits of day scenes"):
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in figures[name].items()))
    reporting.write_figures(figures, args.json)
    return 0


def each_scene(bench: Bench, scenes: Sequence[LabeledScene]) -> dict[str, Any]:
    """The verdicts on every scene alone."""
    rows = [bench.row([scene]) for scene in scenes if scene.evidence is not None and scene.trusted]
    estimated, true = (
        np.array([row[k] for row in rows]) for k in ("free, estimated", "free, true")
    )
    inside = [row["interval"][0] <= row["free, true"] <= row["interval"][1] for row in rows]
    return {
        "scenes": len(rows),
        "correlation": float(np.corrcoef(estimated, true)[0, 1]),
        "interval holds it": float(np.mean(inside)),
        "error, mean": float((estimated - true).mean()),
        "error, deviation": float((estimated - true).std(ddof=1)),
        "taken for another log": sum(row["another log"] for row in rows),
        "contradicted": sum(row["contradicted"] for row in rows),
    }


def splits(scenes: Sequence[LabeledScene]) -> dict[str, Any]:
    """Of scenes of one kind, one part against the other: false alarms."""
    rng = np.random.default_rng(0)
    size = min(PART, len(scenes) // 3)
    out: dict[str, Any] = {"splits": SPLITS}
    for part in (1, size):
        alarms = 0
        for _ in range(SPLITS):
            order: NDArray[np.int64] = rng.permutation(len(scenes))
            reference = Reference.of([scenes[k].statistics for k in order[part:]])
            alarms += domain_shift([scenes[k].mean for k in order[:part]], reference).shifted
        out[f"{part} against {len(scenes) - part}: taken for another log"] = alarms
    return out


def cells(name: str, row: dict[str, Any]) -> list[str]:
    def percent(key: str) -> str:
        return f"{100 * row[key]:.1f} %" if row.get(key) is not None else "-"

    low, high = row.get("interval") or (None, None)
    interval = "-" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f} %"
    keys = ("free, claimed", "free, estimated", "free, true", "wrong, claimed", "wrong, true")
    claimed, estimated, *rest = map(percent, keys)
    return [name, str(row.get("scenes", "-")), claimed, estimated, interval, *rest]


def weather_of(root: Path) -> dict[str, str]:
    """Of the scenes of a city."""
    described = json.loads((root / "v1.0-trainval" / "scene.json").read_text())
    return {row["name"]: row["description"].split(", ")[1] for row in described}


if __name__ == "__main__":
    sys.exit(exit_code(main))
