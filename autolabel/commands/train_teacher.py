"""Train the LiDAR-camera teacher, calibrate it, write its weights."""

from __future__ import annotations

import argparse
import functools
from typing import cast

from autolabel.calibration.fit import calibrate
from autolabel.confidence.held_out_sweeps import HELD_OUT_SWEEPS
from autolabel.labeling.config import LabelingConfig
from autolabel.training.options import (
    chosen,
    config_of,
    job_of,
    save_trained,
    start_network,
    validation,
    with_places,
)
from autolabel.training.ray_train import train_together
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.logs import log_words, open_log, truth_folder
from datasets.cli.next_step import print_next_job
from datasets.cli.scenes import first_split, usable_scenes_of
from datasets.errors import SetupError
from datasets.files.json_files import write_json
from datasets.loading.frame_dataset import FrameDataset, GroundTruthTargets
from models.inference.predictor import OccupancyPredictor
from models.presets import OccupancyNet
from models.training.loop import ProcessGroup, fit


def train(args: argparse.Namespace, process_group: ProcessGroup) -> int:
    how, network = chosen(args)
    truth = benchmark(args.benchmark)
    truth.require(f"preset {network.name}", network.grid, network.taxonomy, network.inputs.frame)
    folder = truth_folder(args, truth)
    inputs = how.inputs(network.inputs)
    sweeps = max(network.inputs.past_sweeps, how.sweeps_to_draw_from)
    source = open_log(args, past_sweeps=sweeps, labelled=args.labelled)
    scenes = usable_scenes_of(source, args.split, root=args.root)
    if not 1 <= args.held_out < len(scenes):
        raise SetupError(
            f"--held-out {args.held_out}: split {args.split!r} has {len(scenes)} scenes; at least "
            "1 is held out and at least 1 trained on"
        )
    used, held_out = scenes[: -args.held_out], scenes[-args.held_out :]
    samples = FrameDataset(
        source,
        [GroundTruthTargets(truth, folder, source, used, only_visible=how.only_visible)],
        inputs,
        batch=args.batch or how.batch,
        augment=how.augmentation,
        seed=args.seed,
        memory_gib=args.memory_gib,
        mixing=how.mixing(network.grid, network.taxonomy, args.mix),
    )
    trained = fit(
        start_network(args, network),
        samples,
        objective=how.label_loss(network.taxonomy, samples, seed=args.seed),
        config=config_of(args, how, samples),
        folder=args.out,
        device=args.device,
        job=job_of(args, network),
        validate=validation(args, network, source),
        process_group=process_group,
    )
    if process_group.rank > 0:
        return 0

    # held-out labeled scenes: what does a confidence mean, and how good are the labels?
    teacher = OccupancyPredictor(cast(OccupancyNet, trained.network), network)
    with_future = open_log(
        args,
        past_sweeps=network.inputs.past_sweeps,
        future_sweeps=HELD_OUT_SWEEPS,
        labelled=args.labelled,
    )
    held_out_truth = GroundTruthTargets(truth, folder, with_future, held_out)
    found = calibrate(
        teacher, with_future, held_out_truth, held_out, LabelingConfig(), kind=args.source
    )
    print(found.table)
    print(found.calibration.summary())

    notes = {
        "command": args.command,
        "scenes": list(used),
        "held_out": list(held_out),
        "steps": trained.report.steps,
        "minutes": round(trained.report.seconds / 60, 1),
        "scores": found.table.to_json(),
    }
    weights = args.out / f"{network.name}_teacher.safetensors"
    save_trained(weights, trained, network, notes, **found.metadata())
    write_json(args.out / "scores.json", notes)
    print_next_job(
        *log_words(args), "--split", first_split(source, "unlabeled"), "--weights", weights
    )
    return 1 if trained.report.bad_frames else 0


def run(args: argparse.Namespace) -> int:
    """Train; gives the exit code. Raises ``SetupError``."""
    args = with_places(args)
    return train_together(
        functools.partial(train, args), args.num_workers, device=args.device, folder=args.out
    )
