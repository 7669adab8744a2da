"""The options that training a teacher and training a student share, and what they mean."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from autolabel.calibration.evaluation import score
from datasets.benchmarks.catalogue import NAMES, benchmark
from datasets.cli.exit_codes import usable_scenes_of
from datasets.errors import SetupError
from datasets.files.json_files import json_text
from datasets.frames import SceneSource
from datasets.labels.store import LabelStore
from datasets.loading.frame_dataset import FrameDataset, GroundTruthTargets
from datasets.sources.opening import SOURCES, open_source
from datasets.splits import parse_labelled
from datasets.storage.remote_path import absolute
from models.checkpoints.checkpoint import file_sha256, initialise, save_checkpoint
from models.inference.predictor import OccupancyPredictor, channels_last
from models.presets import OccupancyNet, Preset, build, preset
from models.training.loop import Trained, TrainingConfig, Validate
from models.training.recipes import RECIPES, Recipe, recipe


def training_parser(description: str, *, default: str, out: str) -> argparse.ArgumentParser:
    """The shared options; the script adds its own.

    Args:
        default: name of the recipe.
        out: default folder of the run.
    """
    parser = argparse.ArgumentParser(
        description=description.split("\n")[0],
        epilog="recipes: " + "; ".join(f"{r.name} ({r.paper})" for r in RECIPES.values()),
        allow_abbrev=False,
    )
    log = parser.add_argument_group("log and labels").add_argument
    log("--source", choices=SOURCES, default="city")
    log("--root", type=Path, default=Path("runs/city"))
    log("--labelled", help="share in %% or file of scenes in the split labeled (20, as published)")
    log("--benchmark", choices=NAMES, default=NAMES[0], help="of the ground truth")
    log("--truth", type=Path, help="folder of the ground truth; default: the log's")
    how = parser.add_argument_group("training").add_argument
    how("--recipe", default=default, metavar="NAME", help=f"see below ({default})")
    how("--preset", help="network, if not the recipe's")
    how("--init", type=Path, metavar="WEIGHTS", help="start from a weights file: fine-tune")
    how("--init-parts", nargs="+", metavar="PART", help="only these of it: img_backbone, say")
    how("--steps", type=int, help="instead of the recipe's length")
    how("--epochs", type=float, help="instead of the recipe's length")
    how("--batch", type=int, help="frames of a step, over all workers and parts")
    how("--learning-rate", type=float, help="default: the recipe's times sqrt(batch ratio)")
    how("--parts", type=int, default=1, help="compute a batch in parts, for want of memory")
    how("--precision", choices=("float32", "bfloat16", "float16"))
    how("--seed", type=int, default=0)
    how("--validate-split", help="scenes with ground truth that are scored at the end")
    how("--validate-every", type=int, default=0, metavar="STEPS", help="and every so many steps")
    where = parser.add_argument_group("machine").add_argument
    where("--out", type=Path, default=Path(out))
    where("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    where("--threads", type=int, default=0, help="of torch on a CPU; resume with as many")
    where("--loaders", type=int, default=1, help="processes that prepare data")
    where("--memory-gib", type=float, default=0.0, help="keep so much of what a loader has read")
    where("--num-workers", type=int, default=1, help="processes that train together, by Ray Train")
    where("--save-every", type=int, default=200, metavar="STEPS", help="keep a state to go on from")
    where("--log-every", type=int, default=20, metavar="STEPS")
    return parser


def parse_training(parser: argparse.ArgumentParser, script: str) -> argparse.Namespace:
    """The command line, fit for a process elsewhere: ``labelled`` read, paths absolute, and with
    the ``command`` itself.

    Raises:
        SetupError: the labelled share is neither a percentage nor a file.
    """
    args = parser.parse_args()
    args.command = " ".join(["python", script, *sys.argv[1:]])
    args.labelled = parse_labelled(args.labelled) if args.labelled else None
    for name, value in vars(args).items():
        if isinstance(value, Path):
            setattr(args, name, absolute(value))
    if args.validate_every and not args.validate_split:
        raise SetupError("--validate-every needs --validate-split NAME")
    if args.num_workers > 1:  # a city is made here once, not by every worker
        open_source(args.source, args.root, past_sweeps=0, labelled=args.labelled)
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
            parts=args.parts,
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
    labels = GroundTruthTargets(truth, args.truth or args.root / truth.folder, source, scenes)

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
    *("source", "root", "truth", "labelled", "command", "out", "num_workers", "memory_gib"),
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
