"""What refinement does to a real log's labels, with its poses as logged and with noise on them.

    python scripts/calibrate.py TEACHER --source folder --root LOG --split A --refine -o C
    python scripts/benchmarks/refinement.py C --source folder --root LOG --split B --json OUT.json

Scores of the frames on their own and of all put together over the drive, by the refiner that C was
given, against ground truth (``make_labels.py``, or a benchmark's files). ``gap closed``: of the
static classes' distance from 100 %. Ghosting: share of voxels predicted as a moving class that are
none but are one in another frame of the drive.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import reporting
import torch
from confidence_study.faulty import ChangedLog, poses_noisy
from confidence_study.refined_scores import Scores, score_scene
from tqdm import tqdm

from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import frame_evidence
from autolabel.labeling.stored_calibration import calibration_of
from datasets.benchmarks import NAMES
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.exit_codes import exit_code
from datasets.cli.scenes import usable_scenes_of
from datasets.errors import SetupError
from datasets.files.json_files import plain
from datasets.frames import SceneSource
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.sources import SOURCES
from datasets.sources.opening import open_source
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.predictor import OccupancyPredictor, keep_freed_memory

NOISES = ((0.0, 0.0), (0.05, 0.1), (0.2, 0.5))
"""Metres and degrees, standard deviations of the noise on every pose."""
SCORES = ("mIoU", "static", "moving", "static gap closed %")


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    parser.add_argument("weights", type=Path, metavar="C", help="calibrated with --refine")
    parser.add_argument("--source", choices=SOURCES, required=True)
    parser.add_argument("--root", type=Path, required=True, metavar="LOG")
    parser.add_argument("--split", default="all")
    parser.add_argument("--truth", type=Path, metavar="DIR", help="default: the log's folder")
    parser.add_argument("--benchmark", choices=NAMES, default="occ3d_coarse")
    parser.add_argument("--past-sweeps", type=int, help="default: as many as the network reads")
    parser.add_argument("--visibility-split", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    poses = plain(measure(args))
    print(table(poses))
    reporting.write_figures({"poses": poses}, args.json)
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Figures by noise of the poses and way to refine."""
    model = load_checkpoint(args.weights)
    refiner = calibration_of(model, args.weights).refiner
    if refiner is None:
        raise SetupError(f"{args.weights}: has no refiner; calibrate with --refine")
    taxonomy, grid = model.preset.taxonomy, model.preset.grid
    teacher = OccupancyPredictor(model.module, model.preset)
    config = LabelingConfig(past_sweeps=args.past_sweeps, visibility_split=args.visibility_split)
    past = config.input_spec(model.preset.inputs).past_sweeps
    source = open_source(args.source, args.root, past_sweeps=past)
    scenes = usable_scenes_of(source, args.split, root=args.root)
    truth = GroundTruthTargets(benchmark(args.benchmark), args.truth or args.root, source, scenes)
    out = {}
    for metres, degrees in NOISES:
        log: SceneSource = source
        if metres or degrees:
            log = ChangedLog(source, poses_noisy(metres, degrees))
        scores = {name: Scores(taxonomy) for name in ("none", "all")}
        noise = f"{metres:g} m, {degrees:g} degrees" if metres else "as logged"
        for scene_id in tqdm(scenes, desc=f"poses {noise}", unit="scene"):
            scene = log.scene(scene_id)
            began = time.perf_counter()
            evidence = [s for _, s in frame_evidence(scene, log, teacher, config)]
            scores["none"].seconds += time.perf_counter() - began
            truths = [truth.labels(frame) for frame in source.scene(scene_id).frames]
            score_scene(
                scores, {"all": (refiner.config, refiner)}, evidence, truths, taxonomy, grid
            )
        out[noise] = {name: score.to_json(scores["none"]) for name, score in scores.items()}
    return out


def table(by_pose: dict[str, Any]) -> str:
    """A row for the poses, the way to refine and the voxels that are scored."""
    rows = []
    for poses, ways in by_pose.items():
        for way, figures in ways.items():
            for mask in ("visible", "observed", "lidar"):
                if mask in figures:
                    scores = [figures[mask][name] for name in SCORES]
                    cells = ["-" if score is None else score for score in scores]
                    cells += [figures["trails %"], figures["seconds a frame"]]
                    rows.append([poses, way, mask, *cells])
    columns = ["poses", "refined", "voxels", *SCORES, "ghosting %", "s a frame"]
    return reporting.markdown_table(columns, rows)


if __name__ == "__main__":
    sys.exit(exit_code(main))
