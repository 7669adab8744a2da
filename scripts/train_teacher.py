"""Train the LiDAR-camera teacher on the labelled share, calibrate it, write its weights.

    python scripts/train_teacher.py --out runs/teacher                      # the built-in city
    python scripts/train_teacher.py --source nuscenes --root DIR --preset fusion_r18_occ3d ...

Scenes of the labelled split are divided: the last ones (``--held-out``) are never trained on;
they calibrate the confidence and give the printed scores. Stopped and started again with the
same options it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from autolabel.calibrate import calibrate
from datasets.benchmarks.catalogue import NAMES, benchmark
from datasets.errors import AutolabelError, SetupError
from datasets.sources.opening import SOURCES, open_source
from datasets.splits import parse_labelled
from datasets.training_sets import FrameSet, GroundTruth
from models.checkpoint import CALIBRATION_KEY, save_checkpoint
from models.inference import Teacher
from models.presets import build, preset
from models.training import TrainingConfig, fit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--source", choices=SOURCES, default="city")
    parser.add_argument("--root", type=Path, default=Path("runs/city"))
    parser.add_argument(
        "--labelled", help="share in %% or file of scenes in the split labeled (20, as published)"
    )
    parser.add_argument("--split", default="labeled", help="scenes that carry ground truth")
    parser.add_argument("--benchmark", choices=NAMES, default=NAMES[0], help="of the ground truth")
    parser.add_argument("--truth", type=Path, help="folder of the ground truth; default: the log's")
    parser.add_argument("--preset", default="city_tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/teacher"))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--held-out", type=int, default=2, help="scenes kept for calibration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    chosen = preset(args.preset)
    truth = benchmark(args.benchmark)
    truth.require(f"preset {chosen.name}", chosen.grid, chosen.taxonomy, chosen.inputs.frame)
    folder = args.truth or args.root / truth.folder
    labelled = parse_labelled(args.labelled) if args.labelled else None
    sweeps = chosen.inputs.past_sweeps
    source = open_source(args.source, args.root, past_sweeps=sweeps, labelled=labelled)
    scenes = source.scene_ids(args.split)
    if not 1 <= args.held_out < len(scenes):
        raise SetupError(
            f"--held-out {args.held_out}: must be at least 1 and below the {len(scenes)} scenes of "
            f"split {args.split!r}"
        )
    used, held_out = scenes[: -args.held_out], scenes[-args.held_out :]
    samples = FrameSet(
        source,
        [GroundTruth(truth, folder, source, used, only_visible=False)],
        chosen.inputs,
        batch=args.batch,
        seed=args.seed,
    )
    config = TrainingConfig(steps=args.steps, learning_rate=args.learning_rate, seed=args.seed)

    torch.manual_seed(args.seed)
    network = build(args.preset)
    began = time.monotonic()
    network = fit(
        network,
        samples,
        config=config,
        taxonomy=chosen.taxonomy,
        folder=args.out,
        device=args.device,
    )
    minutes = (time.monotonic() - began) / 60

    # held-out labelled scenes: what does a confidence mean, and how good are the labels?
    teacher = Teacher(network, chosen)
    held_out_truth = GroundTruth(truth, folder, source, held_out)
    calibration, table = calibrate(teacher, source, held_out_truth, held_out)
    print(table)
    print(calibration.summary())

    training = {
        "command": "python scripts/train_teacher.py " + " ".join(sys.argv[1:]),
        "scenes": list(used),
        "held_out": list(held_out),
        "steps": config.steps,
        "minutes": round(minutes, 1),
        "scores": table.to_json(),
    }
    weights = args.out / f"{args.preset}_teacher.safetensors"
    save_checkpoint(
        weights,
        network,
        args.preset,
        {
            CALIBRATION_KEY: json.dumps(calibration.to_json()),
            "training": json.dumps(training),
        },
    )
    (args.out / "scores.json").write_text(json.dumps(training, indent=1) + "\n")
    print(f"weights: {weights}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AutolabelError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
