"""Train a camera-only student on the pseudo-labels of a store.

    python scripts/train_student.py --labels runs/labels.zarr --out runs/student
    python scripts/train_student.py --labels DIR.zarr --labelled-split labeled ...

Trusted voxels that a camera sees count, each with its calibrated confidence as weight;
``--labelled-split`` adds scenes with ground truth. No LiDAR file and no teacher is opened.
Stopped and started again with the same options it goes on where it was. Exit codes: 0 trained;
1 trained, but some frames are bad and were left out; 2 it could not be trained.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from autolabel.training_options import (
    chosen,
    config_of,
    job_of,
    parse_training,
    save_trained,
    start_network,
    training_parser,
)
from autolabel.training_workers import train_together
from datasets.benchmarks.catalogue import benchmark
from datasets.errors import AutolabelError, SetupError
from datasets.sources.opening import open_source
from datasets.training_sets import FrameSet, GroundTruth, LabelSource, PseudoLabels
from models.training import Team, fit


def options() -> argparse.Namespace:
    parser = training_parser(__doc__, default="city_student", out="runs/student")
    parser.add_argument("--labels", type=Path, help="label store to learn from")
    parser.add_argument("--labelled-split", help="scenes whose ground truth is used as well")
    return parse_training(parser, "scripts/train_student.py")


def train(args: argparse.Namespace, team: Team) -> int:
    how, network = chosen(args)
    source = open_source(args.source, args.root, past_sweeps=0, labelled=args.labelled)
    labels: list[LabelSource] = []
    job = job_of(args, how, network)
    if args.labels:
        pseudo = PseudoLabels(
            args.labels,
            only_visible=how.only_visible,
            expect_grid=network.grid,
            expect_taxonomy=network.taxonomy,
            expect_frame=network.inputs.frame,
        )
        labels.append(pseudo)
        job["labels"] = pseudo.run_id
    if args.labelled_split:
        truth = benchmark(args.benchmark)
        truth.require(
            f"preset {network.name}", network.grid, network.taxonomy, network.inputs.frame
        )
        folder, scenes = (
            args.truth or args.root / truth.folder,
            source.scene_ids(args.labelled_split),
        )
        human = GroundTruth(truth, folder, source, scenes, only_visible=how.only_visible)
        labels.append(human)
    if not labels:
        raise SetupError("nothing to learn from: give --labels STORE or --labelled-split NAME")
    samples = FrameSet(
        source,
        labels,
        network.inputs,
        batch=args.batch or how.batch,
        augment=how.augmentation,
        seed=args.seed,
        memory_gib=args.memory_gib,
    )
    trained = fit(
        start_network(args, network),
        samples,
        objective=how.label_loss(network.taxonomy, samples, seed=args.seed),
        config=config_of(args, how, samples),
        folder=args.out,
        device=args.device,
        job=job,
        team=team,
    )
    if team.worker > 0:
        return 0
    notes = {
        "command": args.command,
        "frames": len(samples.items),
        "steps": trained.report.steps,
        "minutes": round(trained.report.seconds / 60, 1),
    }
    save_trained(args.out / f"{network.name}_student.safetensors", trained, network, notes)
    return 1 if trained.report.bad_frames else 0


def main() -> int:
    args = options()
    return train_together(
        functools.partial(train, args), args.num_workers, device=args.device, folder=args.out
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AutolabelError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
