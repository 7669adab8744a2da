"""Train a camera-only student on pseudo-labels, ground truth, a teacher, or all of them.

    python scripts/train_student.py --labels runs/labels.zarr --out runs/student
    python scripts/train_student.py --labels DIR.zarr --labelled-split labeled ...
    python scripts/train_student.py --labelled-split labeled --unlabelled-split unlabeled \\
        --distill TEACHER.safetensors ...

Of a store, the trusted voxels that a camera sees count, each with its calibrated confidence as
weight; voxels that reviewers painted and frames that they rejected count as they said, unless
``--no-reviews``. ``--labelled-split`` adds scenes with ground truth. Without ``--distill`` no LiDAR
file and no teacher is opened. Stopped and started again with the same options, and the same
reviews, it goes on where it was. Exit codes: 0 trained; 1 trained, but some frames are bad and were
left out; 2 it could not be trained.
"""

from __future__ import annotations

from datasets.cli.supervisor import supervise

if __name__ == "__main__":  # before what is slow to import
    supervise(goes_on=True)


import argparse
import functools
import sys

from autolabel.training.distillation_options import (
    add_distillation,
    distilled,
    inputs_for,
    teacher_of,
)
from autolabel.training.options import (
    chosen,
    config_of,
    job_of,
    parse_training,
    save_trained,
    start_network,
    training_parser,
    validation,
)
from autolabel.training.ray_train import train_together
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.exit_codes import exit_code, usable_scenes_of
from datasets.errors import SetupError
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
from datasets.sources.opening import open_source
from datasets.storage.backend import parse_store_path
from models.presets import Preset
from models.training.loop import ProcessGroup, fit
from models.training.objectives import Objective
from models.training.recipes import Recipe


def options() -> argparse.Namespace:
    parser = training_parser(__doc__, default="city_student", out="runs/student")
    parser.add_argument("--labels", type=parse_store_path, help="label store to learn from")
    parser.add_argument(
        "--balance",
        type=float,
        help="weigh classes that trust drops or trusts little, up to so much (10 where the store "
        "was made with --max-error, else 1: not at all)",
    )
    parser.add_argument(
        "--no-reviews", action="store_true", help="labels as the teacher wrote them"
    )
    parser.add_argument("--labelled-split", help="scenes whose ground truth is used as well")
    parser.add_argument(
        "--human-share",
        type=float,
        help="share of the frames drawn that have ground truth (as many as there are)",
    )
    add_distillation(parser)
    return parse_training(parser, "scripts/train_student.py")


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
        folder = args.truth or args.root / truth.folder
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
        raise SetupError("nothing to learn from: give --labels STORE or --labelled-split NAME")
    return labels


def train(args: argparse.Namespace, reviews: Reviews | None, process_group: ProcessGroup) -> int:
    how, preset = chosen(args)
    teacher = teacher_of(args, preset)
    inputs = inputs_for(preset, teacher)
    sweeps = inputs.past_sweeps if inputs.lidar else 0
    source = open_source(args.source, args.root, past_sweeps=sweeps, labelled=args.labelled)
    samples = FrameDataset(
        source,
        label_sources(args, how, preset, source, reviews),
        inputs,
        batch=args.batch or how.batch,
        augment=how.augmentation,
        seed=args.seed,
        memory_gib=args.memory_gib,
        human_share=args.human_share,
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
    save_trained(args.out / f"{preset.name}_student.safetensors", trained, preset, notes)
    return 1 if trained.report.bad_frames else 0


def told_by(reviews: Reviews | None) -> dict[str, str]:
    """The reviews' part in what a run's weights depend on: a run goes on with the same ones."""
    fingerprint = "" if reviews is None else reviews.fingerprint()
    return {"reviews": fingerprint} if fingerprint else {}


def main() -> int:
    args = options()
    reviews = None  # read once: every process of the training has the same
    if args.labels and not args.no_reviews:
        reviews = Reviews(LabelStore.open(args.labels))
    return train_together(
        functools.partial(train, args, reviews),
        args.num_workers,
        device=args.device,
        folder=args.out,
    )


if __name__ == "__main__":
    sys.exit(exit_code(main, goes_on=True))
