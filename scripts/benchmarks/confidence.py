"""How right are refined labels, what is their confidence worth, and do their error bounds hold?

    python scripts/make_city.py --root C --seed 101 --val 100 --frames 6
    python scripts/make_city.py --root T --seed 202 --val 30 --frames 12
    python scripts/benchmarks/confidence.py TEACHER --calibration C --test T --out OUT

All that is learnt or chosen is learnt on C; every figure is of T. Four parts, each kept in OUT, so
that a run that was stopped goes on:

*Refinement*: mIoU of the labels with no refinement, each of its parts and all of them, in the
camera mask and over all voxels that a sensor observed; how much of the gap to the truth is closed;
ghosting, the share of voxels predicted as a moving class that are none but are one in another frame
of the drive; seconds a frame.
*Calibration*: expected calibration error and Brier score of the raw confidence, softmax or verdict
of a meta classifier, and of the chosen map.
*Risk*: 30 and 60 scenes of C are drawn 20 times: how often is a bound broken on T? And 100 times as
many of C and T together: how often is it broken on the others?
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import reporting
import torch
from confidence_study.calibration_scores import CalibrationScore, Curve, draw_reliability, sum_of
from confidence_study.refined_scores import BOUNDS, Scores, score_scene
from tqdm import tqdm

from autolabel.calibration.evaluation import SceneCounts, collect_counts
from autolabel.calibration.fit import CrossFitted, fit_calibration, fit_classifiers, fit_refiners
from autolabel.confidence.calibration import Calibration, CalibrationHistogram
from autolabel.confidence.meta_classifier import MetaClassifier
from autolabel.confidence.risk_control import control_risk
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import frame_evidence
from autolabel.labeling.visibility import FREE_PASSES
from autolabel.refinement.crops import CropDraws
from autolabel.refinement.fit import RefinerFit
from autolabel.refinement.temporal_fusion import Refinement, Refiner
from datasets.benchmarks import NAMES
from datasets.benchmarks.catalogue import benchmark
from datasets.benchmarks.label_files import write_npz
from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.files.json_files import plain, write_json
from datasets.files.replacing import write_text
from datasets.frames import SceneSource
from datasets.geometry.grid import VoxelGrid
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.sources.opening import open_source
from datasets.taxonomy import GROUP_LABELS, Taxonomy
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.predictor import OccupancyPredictor, keep_freed_memory

UNFOLLOWED = "all, without looking moving objects up"
PARTS: dict[str, Refinement] = {
    "own prediction and its LiDAR": Refinement(near=(), far=()),
    "other frames' predictions": Refinement(evidence=False),
    "all, past frames only": Refinement(past_only=True),
    "all": Refinement(),
    UNFOLLOWED: Refinement(objects=False),
}
POOL = "all, without the network"
DRAWS, SPLITS = 20, 100
SIZES = (30, 60)
"""Scenes of a draw."""
ERRORS = (0.01, 0.02, 0.05)
CONFIDENCE = 0.9
RAW = ("softmax", "meta classifier")
"""Whose confidence is mapped."""
REFINEMENT_COLUMNS = (
    *("labels", "mIoU[camera-visible]", "static", "moving", "gap closed, static"),
    *("mIoU[observed]", "static", "moving", "ghosting", "s a frame"),
)
CALIBRATION_COLUMNS = ("voxels predicted", "ECE raw", "calibrated", "Brier raw", "calibrated")
RISK_COLUMNS = ("at most", "voxels", "error, mean", "worst", "broke", "kept", "refused")
T = TypeVar("T")


def main() -> int:
    parser = reporting.parser(__doc__)
    parser.add_argument("weights", type=Path, metavar="TEACHER")
    parser.add_argument("--calibration", type=Path, required=True, metavar="C", help="a city")
    parser.add_argument("--test", type=Path, required=True, metavar="T", help="another one")
    parser.add_argument("--benchmark", choices=NAMES, default="occ3d_coarse")
    parser.add_argument("--scenes", type=int, help="at most so many of each")
    parser.add_argument("--visibility-split", type=int, default=2)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=("refinement", "flips", "trust"),
        default=["refinement", "trust"],
        help="flips: refinement of labels made with test-time flips; trust: calibration and risk",
    )
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    args.out.mkdir(parents=True, exist_ok=True)
    model = load_checkpoint(args.weights)
    bench = Bench(args, OccupancyPredictor(model.module, model.preset))
    figures: dict[str, Any] = {
        **reporting.stamp(),
        "teacher": model.preset.name,
    }
    if "refinement" in args.only:
        figures["refinement"] = bench.kept("refinement", bench.refinement)
    if "flips" in args.only:
        mirrored = Bench(args, OccupancyPredictor(model.module, model.preset, tta_flips=True))
        figures["refinement_with_flips"] = bench.kept("flips", mirrored.refinement)
    ways = (("as predicted", None), ("refined", Refinement())) if "trust" in args.only else ()
    rows: dict[str, list[Curve]] = {}
    for name, refinement in ways:
        rows[name] = []
        counts = [bench.counts(part, refinement) for part in ("calibration", "test")]
        (all_learnt, passes), (all_tested, _) = counts
        for raw in RAW:
            learnt, tested, title = all_learnt[raw], all_tested[raw], f"{name}, by {raw}"
            score = CalibrationScore(learnt, tested, passes, bench.taxonomy)
            figures[f"calibration, {title}"] = score.to_json()
            rows[name] += score.curves(raw)
            for size in SIZES:
                if size < len(learnt):
                    risk = risk_figures(learnt, tested, passes, size, bench.taxonomy)
                    figures[f"risk, {title}, {size} scenes"] = risk
                scenes = [*learnt, *tested]
                if size < len(scenes):
                    risk = split_figures(scenes, passes, size, bench.taxonomy)
                    figures[f"risk, {title}, splits of both cities, {size} scenes"] = risk
    if rows:
        draw_reliability(rows, bench.taxonomy, args.out / "reliability.png")
    write_json(args.out / "trust.json", figures)
    text = markdown(figures)
    write_text(args.out / "trust.md", text)
    print(text)
    reporting.print_files(args.out / "trust.json", args.out / "trust.md")
    return 0


class Bench:
    """The two cities and a teacher."""

    def __init__(self, args: argparse.Namespace, teacher: OccupancyPredictor) -> None:
        self.args, self.teacher = args, teacher
        self.taxonomy: Taxonomy = teacher.preset.taxonomy
        self.grid: VoxelGrid = teacher.preset.grid
        self.config = LabelingConfig(
            visibility_split=args.visibility_split, flips=teacher.tta_flips
        )

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.args.out / f"{name}.json"
        if not path.is_file():
            write_json(path, make())
        return json.loads(path.read_text())

    def city(self, part: str) -> tuple[SceneSource, GroundTruthTargets]:
        root = getattr(self.args, part)
        past = self.teacher.preset.inputs.past_sweeps
        source = open_source("city", root, past_sweeps=past, labelled=None)
        scored = benchmark(self.args.benchmark)
        scenes = source.scene_ids("val")[: self.args.scenes]
        return source, GroundTruthTargets(scored, root / scored.folder, source, scenes)

    def counts(
        self, part: str, refinement: Refinement | None
    ) -> tuple[dict[str, list[SceneCounts]], int]:
        """Counts per scene of a city by the softmax and by a meta classifier, and the passes of a
        trusted free voxel; kept in OUT."""
        path = self.args.out / f"counts-{part}-{'refined' if refinement else 'plain'}.npz"
        if not path.is_file():
            self._count(part, replace(self.config, refinement=refinement), path)
        taxonomy = self.taxonomy
        with np.load(path, allow_pickle=False) as data:
            counts: dict[str, list[SceneCounts]] = {}
            for raw in RAW:
                counts[raw] = []
                for s, name in enumerate(data["scenes"]):
                    scene_counts = SceneCounts(
                        scene_id=str(name),
                        observed=CalibrationHistogram(taxonomy.n_classes, free_id=taxonomy.free_id),
                        free=CalibrationHistogram(len(FREE_PASSES)),
                    )
                    for kind in ("observed", "free"):
                        histogram = getattr(scene_counts, kind)
                        histogram.seen, histogram.right = data[f"{kind} by {raw}"][s]
                    counts[raw].append(scene_counts)
            return counts, int(data["passes"])

    def _count(self, part: str, config: LabelingConfig, path: Path) -> None:
        source, truth = self.city(part)
        refiners, classifiers = self.learnt(config)
        evaluated = collect_counts(
            self.teacher,
            source,
            truth,
            truth.scenes,
            config,
            self._for(part, truth, refiners) if refiners else None,
            self._for(part, truth, classifiers),
        )
        arrays = {
            f"{kind} by {raw}": np.array(
                [(getattr(s, kind).seen, getattr(s, kind).right) for s in scenes]
            )
            for raw, scenes in zip(RAW, (evaluated.by_softmax, evaluated.by_meta), strict=True)
            for kind in ("observed", "free")
        }
        names = np.array([s.scene_id for s in evaluated.by_softmax])
        write_npz(path, {"scenes": names, "passes": np.asarray(evaluated.passes.best()), **arrays})

    @staticmethod
    def _for(part: str, truth: GroundTruthTargets, learnt: CrossFitted[T]) -> dict[str, T]:
        return dict.fromkeys(truth.scenes, learnt.on_all) if part == "test" else learnt.held_out

    @functools.cache  # noqa: B019
    def learnt(
        self, config: LabelingConfig
    ) -> tuple[CrossFitted[Refiner] | None, CrossFitted[MetaClassifier]]:
        """On the calibration city."""
        source, truth = self.city("calibration")
        data = (self.teacher, source, truth, truth.scenes, config)
        refiners = fit_refiners(*data) if config.refinement else None
        classifiers = fit_classifiers(*data, refiners.held_out if refiners else None)
        if classifiers is None:
            raise SetupError(f"{self.args.calibration}: too few scenes to learn what is sure")
        return refiners, classifiers

    def refinement(self) -> dict[str, Any]:
        """Scores of each part."""
        config = replace(self.config, refinement=Refinement())
        source, truth = self.city("calibration")
        n_frames = sum(len(source.scene(scene_id).frames) for scene_id in truth.scenes)
        learning = {
            name: RefinerFit(
                self.taxonomy,
                part,
                crops=CropDraws(
                    self.grid, self.taxonomy.n_classes, n_frames, free_id=self.taxonomy.free_id
                )
                if name in ("all", UNFOLLOWED)
                else None,
            )
            for name, part in PARTS.items()
        }
        for scene_id in tqdm(truth.scenes, desc="learn to refine", unit="scene"):
            scene = source.scene(scene_id)
            evidence = [s for _, s in frame_evidence(scene, source, self.teacher, config)]
            for k, frame in enumerate(scene.frames):
                expected = truth.labels(frame)
                for learner in learning.values():
                    learner.update(evidence, k, self.grid, expected, scene_id)
        refiners = {name: (PARTS[name], learner.fit()) for name, learner in learning.items()}
        del learning
        how, fitted = refiners["all"]
        refiners = {POOL: (how, replace(fitted, network=None)), **refiners}
        source, truth = self.city("test")
        scores = {name: Scores(self.taxonomy) for name in ("none", POOL, *PARTS, *BOUNDS)}
        for scene_id in tqdm(truth.scenes, desc="refine", unit="scene"):
            scene = source.scene(scene_id)
            began = time.perf_counter()
            evidence = [s for _, s in frame_evidence(scene, source, self.teacher, config)]
            scores["none"].seconds += time.perf_counter() - began
            truths = [truth.labels(frame) for frame in scene.frames]
            score_scene(scores, refiners, evidence, truths, self.taxonomy, self.grid)
        base = scores["none"]
        out = {name: score.to_json(base) for name, score in scores.items()}
        weights = refiners["all"][1].to_json()
        out["weights of all"] = {k: weights[k] for k in ("own", "near", "far", "alone", "voxels")}
        return out


def risk_figures(
    learnt: Sequence[SceneCounts],
    tested: Sequence[SceneCounts],
    min_free_rays: int,
    size: int,
    taxonomy: Taxonomy,
) -> dict[str, Any]:
    """Error bounds from drawn calibration scenes, and whether they hold on the test scenes."""
    rng = np.random.default_rng(0)
    draws = [rng.choice(len(learnt), size, replace=False) for _ in range(DRAWS)]
    test = sum_of(tested, min_free_rays)
    splits = [([learnt[s] for s in draw], test) for draw in draws]
    return bounds_kept(splits, min_free_rays, taxonomy)


def split_figures(
    scenes: Sequence[SceneCounts], min_free_rays: int, size: int, taxonomy: Taxonomy
) -> dict[str, Any]:
    """Error bounds from scenes drawn of all, and whether they hold on those not drawn: draws from a
    few scenes are much alike, and so would be their luck on one set of test scenes."""
    rng = np.random.default_rng(0)
    splits = []
    for _ in range(SPLITS):
        order = rng.permutation(len(scenes))
        test = sum_of([scenes[s] for s in order[size:]], min_free_rays)
        splits.append(([scenes[s] for s in order[:size]], test))
    return bounds_kept(splits, min_free_rays, taxonomy)


def bounds_kept(
    splits: Sequence[tuple[Sequence[SceneCounts], tuple[Any, Any]]],
    min_free_rays: int,
    taxonomy: Taxonomy,
) -> dict[str, Any]:
    """Of splits into calibration scenes and the counts of test scenes."""
    out: dict[str, Any] = {
        "draws": len(splits),
        "scenes of each": len(splits[0][0]),
        "confidence": CONFIDENCE,
    }
    fits = [(fit_calibration(scenes, min_free_rays), test) for scenes, test in splits]
    for max_error in ERRORS:
        groups = taxonomy.class_groups()
        parts = {"occupied": taxonomy.semantic_ids, **groups}
        rows: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}
        nothing = dict.fromkeys(parts, 0)
        refused: list[str] = []
        for (calibration, evidence), (n_seen, right) in fits:
            try:
                bound = control_risk(
                    evidence,
                    calibration.levels,
                    groups,
                    max_error=max_error,
                    confidence=CONFIDENCE,
                )
            except SetupError as error:
                refused.append(str(error))
                continue
            mask = trusted(calibration, bound.thresholds, n_seen)
            for group, members in parts.items():
                ids = list(members)
                n, good = (n_seen * mask)[:, ids].sum(), (right * mask)[:, ids].sum()
                nothing[group] += bound.groups[group].error is None
                if n:
                    rows[group].append((1 - good / n, n / n_seen[:, ids].sum()))
        row: dict[str, Any] = {"refused": len(refused)}
        if refused:
            row["why"] = refused[0]
        for group, pairs in rows.items():
            if pairs:
                errors, coverage = np.array(pairs).T
                row[group] = {
                    "error % mean": round(100 * float(errors.mean()), 3),
                    "error % worst": round(100 * float(errors.max()), 3),
                    "broke": int((errors > max_error).sum()),
                    "of": len(pairs),
                    "coverage %": round(100 * float(coverage.mean()), 1),
                    "nothing trusted": nothing[group],
                }
        out[f"{100 * max_error:g} %"] = row
    return out


def trusted(calibration: Calibration, thresholds: Sequence[int], n_seen: Any) -> Any:
    """(R, K, B): bins that are trusted."""
    levels = np.broadcast_to(calibration.table, n_seen.shape)
    return levels >= np.asarray(thresholds)[None, :, None]


def _shown(figures: dict[str, Any]) -> dict[str, Any]:
    """A dash for what does not exist."""
    return {name: "-" if value is None else value for name, value in plain(figures).items()}


def markdown(figures: dict[str, Any]) -> str:
    lines = [f"Labels one can trust, {figures['date']}, {figures['teacher']}.", ""]
    for key in ("refinement", "refinement_with_flips"):
        if key not in figures:
            continue
        lines += [
            f"## {key.replace('_', ' ').capitalize()}",
            "",
        ]
        rows = []
        for name, row in figures[key].items():
            if "visible" in row:
                v, o = _shown(row["visible"]), _shown(row["observed"])
                cells = [v["mIoU"], v["static"], v["moving"], f"{v['static gap closed %']} %"]
                cells += [o["mIoU"], o["static"], o["moving"], f"{row['trails %']} %"]
                rows.append([name, *cells, row["seconds a frame"]])
        lines += [reporting.markdown_table(REFINEMENT_COLUMNS, rows), ""]
    for key, result in figures.items():
        if key.startswith("calibration"):
            lines += [
                f"## {key.capitalize()} (map: {result['map']})",
                "",
            ]
            rows = []
            for name, row in result["of"].items():
                a, b = _shown(row["raw"]), _shown(row["calibrated"])
                cells = [f"{a['ECE %']} %", f"{b['ECE %']} %", a["Brier"], b["Brier"]]
                rows.append([name, *cells])
            lines += [reporting.markdown_table(CALIBRATION_COLUMNS, rows), ""]
        if key.startswith("risk"):
            lines += [
                f"## {key.capitalize()}: {result['draws']} draws, "
                f"confidence {100 * result['confidence']:g} %",
                "",
            ]
            rows = []
            for name, row in result.items():
                if not isinstance(row, dict):
                    continue
                for group in ("occupied", *GROUP_LABELS):
                    if group in row:
                        g = row[group]
                        cells = [f"{g['error % mean']} %", f"{g['error % worst']} %"]
                        cells += [f"{g['broke']} of {g['of']}", f"{g['coverage %']} %"]
                        rows.append([name, group, *cells, row["refused"]])
                if row["refused"]:
                    rows.append([name, *[""] * 5, f"{row['refused']}: {row['why']}"])
            lines += [reporting.markdown_table(RISK_COLUMNS, rows), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_code(main))
