"""Train the LiDAR-camera teacher on the labelled share, calibrate it, write its weights.

    python scripts/train_teacher.py --out runs/teacher                      # the built-in city
    python scripts/train_teacher.py --source nuscenes --root DIR --recipe fusion_r18 ...
    python scripts/train_teacher.py --num-workers 8 ...                     # 8 GPUs, by Ray Train

Scenes of the labelled split are divided: the last ones (``--held-out``) are never trained on;
they calibrate the confidence and give the printed scores. Stopped and started again with the
same options it goes on where it was. Exit codes: 0 trained; 1 trained, but some frames are bad and
were left out; 2 it could not be trained.
"""

from __future__ import annotations

from datasets.cli.supervisor import supervise

if __name__ == "__main__":  # before what is slow to import
    supervise(goes_on=True)


import argparse
import functools
import sys
from typing import cast

from autolabel.calibration.fit import calibrate
from autolabel.labeling.config import LabelingConfig
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
from datasets.files.json_files import write_json
from datasets.loading.frame_dataset import FrameDataset, GroundTruthTargets
from datasets.sources.opening import open_source
from models.inference.predictor import OccupancyPredictor
from models.presets import OccupancyNet
from models.training.loop import ProcessGroup, fit


def options() -> argparse.Namespace:
    parser = training_parser(__doc__, default="city_teacher", out="runs/teacher")
    parser.add_argument("--split", default="labeled", help="scenes that carry ground truth")
    parser.add_argument("--held-out", type=int, default=2, help="scenes kept for calibration")
    return parse_training(parser, "scripts/train_teacher.py")


def train(args: argparse.Namespace, process_group: ProcessGroup) -> int:
    how, network = chosen(args)
    truth = benchmark(args.benchmark)
    truth.require(f"preset {network.name}", network.grid, network.taxonomy, network.inputs.frame)
    folder = args.truth or args.root / truth.folder
    inputs = how.inputs(network.inputs)
    sweeps = max(network.inputs.past_sweeps, how.sweeps_to_draw_from)
    source = open_source(args.source, args.root, past_sweeps=sweeps, labelled=args.labelled)
    scenes = usable_scenes_of(source, args.split, root=args.root)
    if not 1 <= args.held_out < len(scenes):
        raise SetupError(
            f"--held-out {args.held_out}: must be at least 1 and below the {len(scenes)} scenes of "
            f"split {args.split!r}"
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

    # held-out labelled scenes: what does a confidence mean, and how good are the labels?
    teacher = OccupancyPredictor(cast(OccupancyNet, trained.network), network)
    held_out_truth = GroundTruthTargets(truth, folder, source, held_out)
    found = calibrate(teacher, source, held_out_truth, held_out, LabelingConfig())
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
    return 1 if trained.report.bad_frames else 0


def main() -> int:
    args = options()
    return train_together(
        functools.partial(train, args), args.num_workers, device=args.device, folder=args.out
    )


if __name__ == "__main__":
    sys.exit(exit_code(main, goes_on=True))
