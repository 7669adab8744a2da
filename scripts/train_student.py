"""Train a camera-only student on the pseudo-labels of a store.

    python scripts/train_student.py --labels runs/labels.zarr --out runs/student
    python scripts/train_student.py --labels DIR.zarr --labelled-split labeled ...

Trusted voxels that a camera sees count, each with its calibrated confidence as weight;
``--labelled-split`` adds scenes with ground truth. No LiDAR file and no teacher is opened.
Stopped and started again with the same options it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from datasets.benchmarks.catalogue import NAMES, benchmark
from datasets.errors import AutolabelError, SetupError
from datasets.sources.opening import SOURCES, open_source
from datasets.splits import parse_labelled
from datasets.training_sets import FrameSet, GroundTruth, LabelSource, PseudoLabels
from models.checkpoint import save_checkpoint
from models.presets import build, preset
from models.training import TrainingConfig, fit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--source", choices=SOURCES, default="city")
    parser.add_argument("--root", type=Path, default=Path("runs/city"))
    parser.add_argument(
        "--labelled", help="share in %% or file of scenes in the split labeled (20, as published)"
    )
    parser.add_argument("--labels", type=Path, help="label store to learn from")
    parser.add_argument("--labelled-split", help="scenes whose ground truth is used as well")
    parser.add_argument("--benchmark", choices=NAMES, default=NAMES[0], help="of the ground truth")
    parser.add_argument("--truth", type=Path, help="folder of the ground truth; default: the log's")
    parser.add_argument("--preset", default="camera_tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/student"))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    chosen = preset(args.preset)
    labelled = parse_labelled(args.labelled) if args.labelled else None
    source = open_source(args.source, args.root, past_sweeps=0, labelled=labelled)
    labels: list[LabelSource] = []
    if args.labels:
        labels.append(PseudoLabels(args.labels, expect_grid=chosen.grid))
    if args.labelled_split:
        truth = benchmark(args.benchmark)
        truth.require(f"preset {chosen.name}", chosen.grid, chosen.taxonomy, chosen.inputs.frame)
        folder, scenes = args.truth or args.root / truth.folder, args.labelled_split
        labels.append(GroundTruth(truth, folder, source, source.scene_ids(scenes)))
    if not labels:
        raise SetupError("nothing to learn from: give --labels STORE or --labelled-split NAME")
    samples = FrameSet(source, labels, chosen.inputs, batch=args.batch, seed=args.seed)
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
    training = {
        "command": "python scripts/train_student.py " + " ".join(sys.argv[1:]),
        "frames": len(samples.items),
        "steps": config.steps,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    weights = args.out / f"{args.preset}_student.safetensors"
    save_checkpoint(weights, network, args.preset, {"training": json.dumps(training)})
    print(f"weights: {weights}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AutolabelError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
