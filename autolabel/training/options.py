"""What the options of training a teacher and a student mean."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from autolabel.calibration.evaluation import score
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.logs import open_log, truth_folder
from datasets.cli.scenes import usable_scenes_of
from datasets.errors import SetupError
from datasets.files.json_files import json_text
from datasets.frames import SceneSource
from datasets.labels.store import LabelStore
from datasets.loading.frame_dataset import FrameDataset, GroundTruthTargets
from datasets.splits import parse_labelled
from datasets.storage.remote_path import absolute
from models.checkpoints.checkpoint import file_sha256, initialise, save_checkpoint
from models.inference.device import best_device
from models.inference.predictor import OccupancyPredictor, channels_last
from models.presets import OccupancyNet, Preset, build, preset
from models.training.loop import Trained, TrainingConfig, Validate
from models.training.recipes import Recipe, recipe


def with_places(args: argparse.Namespace) -> argparse.Namespace:
    """The command line, fit for a process elsewhere: ``labelled`` read, paths absolute, the log
    named and made where it is the simulated city.

    Raises:
        SetupError: the labeled share is neither a percentage nor a file, or there is no such log.
    """
    args.labelled = parse_labelled(args.labelled) if args.labelled else None
    args.device = args.device or best_device()
    for name, value in vars(args).items():
        if isinstance(value, Path):
            setattr(args, name, absolute(value))
    if args.num_workers > 1:  # a city is made here once, not by every worker
        open_log(args, labelled=args.labelled)
    return args


def chosen(args: argparse.Namespace) -> tuple[Recipe, Preset]:
    """The recipe, and the network it shall train.

    Raises:
        SetupError: there is no recipe or preset of that name.
    """
    how = recipe(args.recipe)
    return how, preset(args.preset or how.preset)


def config_of(args: argparse.Namespace, how: Recipe, samples: FrameDataset) -> TrainingConfig:
    """The recipe for this set, with what the command line says otherwise.

    Raises:
        SetupError: a number makes no sense.
    """
    others = {"precision": args.precision} if args.precision else {}
    try:
        return how.training(
            len(samples.items),
            batch=samples.batch,
            steps=args.steps,
            epochs=args.epochs,
            learning_rate=args.learning_rate,
            device=args.device,
            accumulation_steps=args.parts,
            seed=args.seed,
            threads=args.threads,
            loaders=args.loaders,
            save_every=args.save_every,
            validate_every=args.validate_every,
            log_every=args.log_every,
            **others,
        )
    except ValueError as error:
        raise SetupError(str(error)) from error


def validation(args: argparse.Namespace, network: Preset, source: SceneSource) -> Validate | None:
    """mIoU on ``--validate-split``, in the benchmark's mask and everywhere.

    Raises:
        SetupError: the benchmark has other voxels than the network, or there is no such split.
    """
    if not args.validate_split:
        return None
    truth = benchmark(args.benchmark)
    truth.require(f"preset {network.name}", network.grid, network.taxonomy, network.inputs.frame)
    scenes = usable_scenes_of(source, args.validate_split, root=args.root)
    labels = GroundTruthTargets(truth, truth_folder(args, truth), source, scenes)

    def validate(module: nn.Module) -> dict[str, float]:
        teacher = OccupancyPredictor(cast(OccupancyNet, module), network)
        table = score(teacher, source, labels, scenes)
        semantic = table.taxonomy.semantic_ids
        return {
            f"mIoU[{mask}]": round(100 * matrix.miou(semantic), 2)
            for mask, matrix in table.matrices.items()
        }

    return validate


def start_network(args: argparse.Namespace, network: Preset) -> OccupancyNet:
    """The network, freshly initialised from the seed or filled from ``--init``; says what of that
    file was not taken.

    Raises:
        SetupError: the weights file is bad, or fits the network nowhere.
    """
    torch.manual_seed(args.seed)
    built = channels_last(build(network.name))
    if args.init_parts and not args.init:
        raise SetupError("--init-parts names parts of the weights file that --init names")
    if args.init:
        print(f"{args.init}: {initialise(built, args.init, args.init_parts or ())}")
    return built


_DECIDED_ELSEWHERE = {  # by the training's configuration or its frames, or of no effect
    *(
        "source",
        "root",
        "version",
        "truth",
        "labelled",
        "command",
        "out",
        "num_workers",
        "memory_gib",
    ),
    *("steps", "epochs", "batch", "learning_rate", "parts", "precision", "seed", "threads"),
    *("loaders", "save_every", "log_every", "validate_split", "validate_every", "no_reviews"),
}


def job_of(args: argparse.Namespace, network: Preset) -> dict[str, Any]:
    """What a run's weights depend on besides its configuration and its frames: every other option,
    weights files by their hash and a store by its run id."""
    job: dict[str, Any] = {}
    for name, value in vars(args).items():
        if name in _DECIDED_ELSEWHERE:
            continue
        if isinstance(value, Path) and value.is_file():
            value = file_sha256(value)
        elif isinstance(value, Path) or (isinstance(value, str) and "://" in value):
            value = LabelStore.open(value).header.run_id
        job[name] = value
    return job | {"preset": network.name}


def save_trained(
    path: Path, trained: Trained, network: Preset, training: Mapping[str, Any], **metadata: str
) -> None:
    """The averaged weights, with how they came about."""
    notes = {"training": json_text(dict(training)), **metadata}
    save_checkpoint(path, trained.network, network.name, notes)
    print(trained.report)
    print(f"weights: {path}\nreport: {path.parent / 'report.json'}, {path.parent / 'curves.png'}")
