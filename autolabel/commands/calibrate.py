"""Calibrate the confidence of weights: ``options/calibrate.py`` says how."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autolabel.calibration.adapt import Adapted, TruthOf, adapt, count_frames
from autolabel.calibration.class_offsets import add_offsets, fit_offsets, offsets_text
from autolabel.calibration.fit import calibrate, metadata_of
from autolabel.calibration.reviewed import ReviewedFrames
from autolabel.confidence.held_out_sweeps import HELD_OUT_SWEEPS
from autolabel.confidence.risk_control import control_risk
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.stored_calibration import calibration_of, domain_of, evidence_of
from autolabel.refinement.temporal_fusion import Refinement
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.logs import log_words, name_log_of, open_log, truth_folder
from datasets.cli.next_step import print_next_job
from datasets.cli.scenes import usable_scenes_of
from datasets.errors import SceneError, SetupError
from datasets.frames import Frame, SceneSource
from datasets.labels.domain import LogDomain
from datasets.labels.log_identity import labeled_scene
from datasets.labels.store import LabelStore
from datasets.loading.frame_dataset import GroundTruthTargets
from datasets.taxonomy import GROUP_LABELS, Taxonomy
from models.checkpoints.checkpoint import LoadedModel, load_checkpoint, save_checkpoint
from models.inference.device import best_device
from models.inference.predictor import OccupancyPredictor, keep_freed_memory

BOUNDS = (0.02, 0.05, 0.1, 0.2)
"""Error bounds that are tried and told."""


def run(args: argparse.Namespace) -> int:
    """Calibrate; gives the exit code. Raises ``SetupError``."""
    device = args.device or best_device()
    if str(device) == "cpu":
        keep_freed_memory()
    model = load_checkpoint(args.weights, device=device)
    if args.adapt is not None:
        return _adapt(args, model)
    name_log_of(args, None)
    source = open_log(
        args, past_sweeps=model.preset.inputs.past_sweeps, future_sweeps=HELD_OUT_SWEEPS
    )
    scenes = usable_scenes_of(source, args.split, root=args.root)
    of = benchmark(args.benchmark)
    truth = GroundTruthTargets(of, truth_folder(args, of), source, scenes)
    refinement = Refinement() if args.refine else None
    config = LabelingConfig(fast=args.fast, flips=args.flips, refinement=refinement)
    if args.balance:
        offsets = fit_offsets(_predictor(model, config), source, truth, scenes)
        add_offsets(model.module, offsets)
        print(offsets_text(offsets, model.preset.taxonomy))
    teacher = _predictor(model, config)  # a copy, so made of the network that will be saved
    fit = calibrate(teacher, source, truth, scenes, config, kind=args.source)
    calibration = fit.calibration
    print(fit.table)
    print(calibration.summary())
    for choice in calibration.method_scores:
        print(f"  {choice.name:<34} log loss {choice.log_loss:.4f}  Brier {choice.brier:.4f}")
    metadata = model.metadata | fit.metadata()
    save_checkpoint(args.out, model.module, model.preset.name, metadata)
    print(f"weights: {args.out}")
    print_next_job(*log_words(args), "--split", "unlabeled", "--weights", args.out)
    return 0


def _predictor(model: LoadedModel, config: LabelingConfig) -> OccupancyPredictor:
    return OccupancyPredictor(
        model.module, model.preset, bfloat16=config.fast, tta_flips=config.flips
    )


def _adapt(args: argparse.Namespace, model: LoadedModel) -> int:
    calibration = calibration_of(model, args.weights)
    config = _config_of(model, args.weights)
    if calibration.refiner is not None:
        config = replace(config, refinement=calibration.refiner.config)
    teacher = _predictor(model, config)
    source, truth_of, scenes = _truth_of(args, model)
    frames = count_frames(teacher, calibration, source, truth_of, scenes, config)
    log = LogDomain(
        source=args.source,
        log=source.name,
        licence=source.licence,
        scenes=0,
        frames=0,
        reference=None,
    )
    taxonomy, domain = model.preset.taxonomy, domain_of(model, args.weights)
    fit = adapt(frames, calibration, taxonomy, config, log, domain)
    own = fit.domain.logs[0]
    print(f"adapted to {own.name} by {own.frames} frames of {own.scenes} scenes")
    print(_beside(fit, taxonomy))
    print(_bounds(fit, taxonomy))
    metadata = model.metadata | metadata_of(fit.calibration, fit.evidence, fit.domain)
    save_checkpoint(args.out, model.module, model.preset.name, metadata)
    print(f"weights: {args.out}")
    print_next_job(*log_words(args), "--split", "unlabeled", "--weights", args.out)
    return 0


def _config_of(model: LoadedModel, weights: Path) -> LabelingConfig:
    """How the labels are made that the old calibration holds for."""
    if (evidence := evidence_of(model, weights)) is None:
        return LabelingConfig()
    signature = evidence.config_signature
    return LabelingConfig(**{key: signature[key] for key in ("fast", "flips") if key in signature})


def _truth_of(
    args: argparse.Namespace, model: LoadedModel
) -> tuple[SceneSource, TruthOf, Sequence[str]]:
    """The log of ``--adapt``, what is known of its frames, and the scenes that have such frames.

    Raises:
        SetupError: the store has other voxels or classes than the weights, or the log has no truth.
    """
    preset = model.preset
    if _is_store(args.adapt):
        store = LabelStore.open(
            args.adapt,
            expect_grid=preset.grid,
            expect_taxonomy=preset.taxonomy,
            expect_frame=preset.inputs.frame,
        )
        reviewed = ReviewedFrames(store)
        name_log_of(args, store.header)
        source = open_log(
            args, past_sweeps=preset.inputs.past_sweeps, future_sweeps=HELD_OUT_SWEEPS
        )
        truth_of: Callable[[Frame], Any] = reviewed.labels
        scenes = reviewed.scene_ids()
        for scene_id in scenes:
            labeled_scene(store, scene_id, source)
    else:
        args.root = args.adapt
        name_log_of(args, None)
        source = open_log(
            args, past_sweeps=preset.inputs.past_sweeps, future_sweeps=HELD_OUT_SWEEPS
        )
        scenes = usable_scenes_of(source, args.split, root=args.root)
        of = benchmark(args.benchmark)
        of.require(f"preset {preset.name}", preset.grid, preset.taxonomy, preset.inputs.frame)
        truth = GroundTruthTargets(of, truth_folder(args, of), source, scenes)
        truth_of = truth.labels
    if args.frames is None:
        return source, truth_of, scenes
    chosen = _spread(source, truth_of, scenes, args.frames)
    return source, lambda f: truth_of(f) if f.token in chosen else None, scenes


def _is_store(place: Any) -> bool:
    try:
        LabelStore.open(place)
    except SetupError:
        return False
    return True


def _spread(
    source: SceneSource, truth_of: TruthOf, scenes: Sequence[str], n: int
) -> frozenset[str]:
    """Tokens of so many frames with truth, evenly spread over the scenes."""
    tokens = []
    for scene_id in scenes:
        for frame in source.scene(scene_id).frames:
            try:
                known = truth_of(frame) is not None
            except SceneError:
                continue
            if known:
                tokens.append(frame.token)
    n = min(n, len(tokens))
    return frozenset(tokens[(2 * i + 1) * len(tokens) // (2 * n)] for i in range(n))


def _beside(fit: Adapted, taxonomy: Taxonomy) -> str:
    """What the levels claim beside what was right, on frames left out."""
    reliability = fit.calibration.reliability
    assert reliability is not None
    lines = [
        f"  {'on ' + fit.units + ' left out':<26} {'voxels':>12} {'claimed wrong':>14} {'wrong':>8}"
    ]
    for group, ids in taxonomy.class_groups().items():
        seen, right = (of[list(ids)].sum(0) for of in (reliability.seen, reliability.right))
        if not (n := int(seen.sum())):
            continue
        claimed = float((seen * [1 - v for v in fit.calibration.levels]).sum()) / n
        wrong = 1 - float(right.sum()) / n
        lines.append(
            f"  {GROUP_LABELS[group]:<26} {n:>12,} {100 * claimed:>12.1f} % {100 * wrong:>6.1f} %"
        )
    return "\n".join(lines)


def _bounds(fit: Adapted, taxonomy: Taxonomy) -> str:
    """Which error bounds can be had, what they keep, and what the others would need."""
    lines = []
    for max_error in BOUNDS:
        try:
            bound = control_risk(
                fit.evidence,
                fit.calibration.levels,
                taxonomy.class_groups(),
                max_error=max_error,
            )
        except SetupError as error:
            lines.append(f"  at most {100 * max_error:g} % wrong: {error}")
            continue
        kept = ", ".join(
            f"{GROUP_LABELS.get(name, name)} {100 * group.coverage:.0f} %"
            for name, group in bound.groups.items()
        )
        lines.append(f"  at most {100 * max_error:g} % wrong: kept of {kept}")
    return "\n".join(lines)
