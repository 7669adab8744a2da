"""Train a camera-only student."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from autolabel.training.distillation_options import (
    distilled,
    inputs_for,
    teacher_of,
)
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
from datasets.benchmarks import NAMES
from datasets.benchmarks.catalogue import Benchmark, benchmark
from datasets.cli.logs import log_words, name_log_of, open_log, truth_folder
from datasets.cli.next_step import print_next
from datasets.cli.scenes import first_split, usable_scenes_of
from datasets.errors import SceneError, SetupError
from datasets.frames import SceneSource
from datasets.labels.store import LabelStore
from datasets.loading.frame_dataset import (
    FrameDataset,
    GroundTruthTargets,
    PseudoLabels,
    TargetSource,
    Unlabelled,
)
from datasets.reviews.overlay import Reviews
from datasets.reviews.summary import count_reviews
from models.presets import Preset
from models.training.loop import ProcessGroup, fit
from models.training.objectives import Objective
from models.training.recipes import Recipe


def label_sources(
    args: argparse.Namespace,
    how: Recipe,
    network: Preset,
    source: SceneSource,
    reviews: Reviews | None,
) -> list[TargetSource]:
    labels: list[TargetSource] = []
    if args.balance is not None and (args.balance < 1 or not args.labels):
        raise SetupError("--balance is at least 1, and for --labels")
    if args.labels:
        pseudo = PseudoLabels(
            args.labels,
            only_visible=how.only_visible,
            expect_grid=network.grid,
            expect_taxonomy=network.taxonomy,
            expect_frame=network.inputs.frame,
            balance=args.balance,
            use_reviews=reviews or False,
        )
        labels.append(pseudo)
    if args.labelled_split:
        truth = benchmark(args.benchmark)
        truth.require(
            f"preset {network.name}", network.grid, network.taxonomy, network.inputs.frame
        )
        folder = truth_folder(args, truth)
        scenes = usable_scenes_of(source, args.labelled_split, root=args.root)
        labels.append(
            GroundTruthTargets(truth, folder, source, scenes, only_visible=how.only_visible)
        )
    if args.unlabelled_split:
        labelled = {scene for one in labels for scene in one.scene_ids()}
        split = usable_scenes_of(source, args.unlabelled_split, root=args.root)
        others = [s for s in split if s not in labelled]
        labels.append(Unlabelled(others, network.grid))
    if not labels:
        raise SetupError("nothing to learn from: give --labels STORE or --labeled-split NAME")
    return labels


def train(args: argparse.Namespace, reviews: Reviews | None, process_group: ProcessGroup) -> int:
    how, preset = chosen(args)
    teacher = teacher_of(args, preset)
    inputs = inputs_for(preset, teacher)
    sweeps = inputs.past_sweeps if inputs.lidar else 0
    source = open_log(args, past_sweeps=sweeps, labelled=args.labelled)
    samples = FrameDataset(
        source,
        label_sources(args, how, preset, source, reviews),
        inputs,
        batch=args.batch or how.batch,
        augment=how.augmentation,
        seed=args.seed,
        memory_gib=args.memory_gib,
        human_share=args.human_share,
        mixing=how.mixing(preset.grid, preset.taxonomy, args.mix),
    )
    changes = "" if reviews is None else count_reviews(reviews).changes
    if changes and process_group.rank == 0:
        print(f"reviews of {args.labels}: {changes}")
    network = start_network(args, preset)
    loss = how.label_loss(preset.taxonomy, samples, seed=args.seed)
    objective: Objective = loss
    if teacher is not None:
        objective = distilled(args, loss, network, teacher)
    trained = fit(
        network,
        samples,
        objective=objective,
        config=config_of(args, how, samples),
        folder=args.out,
        device=args.device,
        job=job_of(args, preset) | told_by(reviews),
        validate=validation(args, preset, source),
        process_group=process_group,
    )
    if process_group.rank > 0:
        return 0
    notes = {
        "command": args.command,
        "frames": len(samples.items),
        "steps": trained.report.steps,
        "minutes": round(trained.report.seconds / 60, 1),
        **told_by(reviews),
    }
    weights = args.out / f"{preset.name}_student.safetensors"
    save_trained(weights, trained, preset, notes)
    split, truth = first_split(source, "val"), benchmark(args.benchmark)
    if has_truth(truth, args.truth or args.root / truth.folder, source, split):
        where = [] if args.truth is None else ["--truth", args.truth]
        where += [] if split == "val" else ["--split", split]
        where += [] if args.benchmark == NAMES[0] else ["--benchmark", args.benchmark]
        print_next("evaluate", "--weights", weights, *log_words(args), *where)
    else:
        print_next("export-onnx", "--weights", weights, "-o", "OUT.onnx", *log_words(args))
    return 1 if trained.report.bad_frames else 0


def has_truth(truth: Benchmark, folder: Path, source: SceneSource, split: str) -> bool:
    """Whether there is ground truth of a split's first frame that can be read."""
    for scene_id in source.scene_ids(split):
        try:
            return truth.path(folder, source, source.scene(scene_id).frames[0]).exists()
        except SceneError:
            continue
    return False


def told_by(reviews: Reviews | None) -> dict[str, str]:
    """The reviews' part in what a run's weights depend on: a run goes on with the same ones."""
    fingerprint = "" if reviews is None else reviews.fingerprint()
    return {"reviews": fingerprint} if fingerprint else {}


def run(args: argparse.Namespace) -> int:
    """Train; gives the exit code. Raises ``SetupError``."""
    store = LabelStore.open(args.labels) if args.labels else None
    name_log_of(args, None if store is None else store.header)
    args = with_places(args)
    # read once: every process of the training has the same
    reviews = None if store is None or args.no_reviews else Reviews(store)
    return train_together(
        functools.partial(train, args, reviews),
        args.num_workers,
        device=args.device,
        folder=args.out,
    )
