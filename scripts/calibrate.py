"""Give weights a calibration table: what does their confidence mean on labelled scenes?

    python scripts/calibrate.py imported.safetensors --source nuscenes --root DIR -o OUT.safetensors

Imported weights have none, so their softmax is taken at its word. Use scenes that the weights were
not trained on. ``scripts/train_teacher.py`` does this itself, on scenes it holds out.
"""

from __future__ import annotations

from datasets.cli.supervisor import supervise

if __name__ == "__main__":  # before what is slow to import
    supervise()


import argparse
import sys
from pathlib import Path

import torch

from autolabel.calibration.fit import calibrate
from autolabel.labeling.config import LabelingConfig
from autolabel.refinement.temporal_fusion import Refinement
from datasets.benchmarks.catalogue import NAMES, benchmark
from datasets.cli.exit_codes import exit_code, usable_scenes_of
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.sources.opening import SOURCES, open_source
from models.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from models.inference.predictor import OccupancyPredictor


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("weights", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--source", choices=SOURCES, default="city")
    parser.add_argument("--root", type=Path, default=Path("runs/city"))
    parser.add_argument("--split", default="val", help="scenes with ground truth")
    parser.add_argument("--benchmark", choices=NAMES, default=NAMES[0], help="of the ground truth")
    parser.add_argument("--truth", type=Path, help="folder of the ground truth; default: the log's")
    parser.add_argument("--fast", action="store_true", help="for labels made with --fast")
    parser.add_argument("--flips", action="store_true", help="for labels made with --flips")
    parser.add_argument(
        "--refine",
        action="store_true",
        help="learn what other frames of a drive say about each, for labels made with them",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    model = load_checkpoint(args.weights, device=args.device)
    source = open_source(args.source, args.root, past_sweeps=model.preset.inputs.past_sweeps)
    scenes = usable_scenes_of(source, args.split, root=args.root)
    teacher = OccupancyPredictor(
        model.module, model.preset, bfloat16=args.fast, tta_flips=args.flips
    )
    of = benchmark(args.benchmark)
    truth = GroundTruthTargets(of, args.truth or args.root / of.folder, source, scenes)
    refinement = Refinement() if args.refine else None
    config = LabelingConfig(fast=args.fast, flips=args.flips, refinement=refinement)
    found = calibrate(teacher, source, truth, scenes, config)
    calibration = found.calibration
    print(found.table)
    print(calibration.summary())
    for choice in calibration.method_scores:
        print(f"  {choice.name:<34} log loss {choice.log_loss:.4f}  Brier {choice.brier:.4f}")
    metadata = model.metadata | found.metadata()
    save_checkpoint(args.out, model.module, model.preset.name, metadata)
    print(f"weights: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
