"""Calibrate the confidence of weights: ``options/calibrate.py`` says how."""

from __future__ import annotations

import argparse

from autolabel.calibration.fit import calibrate
from autolabel.confidence.held_out_sweeps import HELD_OUT_SWEEPS
from autolabel.labeling.config import LabelingConfig
from autolabel.refinement.temporal_fusion import Refinement
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.logs import log_words, open_log, truth_folder
from datasets.cli.next_step import print_next
from datasets.cli.scenes import usable_scenes_of
from datasets.loading.frame_dataset import GroundTruthTargets
from models.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from models.inference.device import best_device
from models.inference.predictor import OccupancyPredictor


def run(args: argparse.Namespace) -> int:
    """Calibrate; gives the exit code. Raises ``SetupError``."""
    model = load_checkpoint(args.weights, device=args.device or best_device())
    source = open_log(
        args, past_sweeps=model.preset.inputs.past_sweeps, future_sweeps=HELD_OUT_SWEEPS
    )
    scenes = usable_scenes_of(source, args.split, root=args.root)
    teacher = OccupancyPredictor(
        model.module, model.preset, bfloat16=args.fast, tta_flips=args.flips
    )
    of = benchmark(args.benchmark)
    truth = GroundTruthTargets(of, truth_folder(args, of), source, scenes)
    refinement = Refinement() if args.refine else None
    config = LabelingConfig(fast=args.fast, flips=args.flips, refinement=refinement)
    fit = calibrate(teacher, source, truth, scenes, config, kind=args.source)
    calibration = fit.calibration
    print(fit.table)
    print(calibration.summary())
    for choice in calibration.method_scores:
        print(f"  {choice.name:<34} log loss {choice.log_loss:.4f}  Brier {choice.brier:.4f}")
    metadata = model.metadata | fit.metadata()
    save_checkpoint(args.out, model.module, model.preset.name, metadata)
    print(f"weights: {args.out}")
    print_next("label", *log_words(args), "--split", "unlabeled", "--weights", args.out)
    return 0
