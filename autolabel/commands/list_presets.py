"""Print every network and every training recipe."""

from __future__ import annotations

import argparse
import sys

import torch

from datasets.cli.next_step import print_next
from datasets.errors import SetupError
from models.presets import PRESETS, build, count_parameters, preset
from models.training.recipes import RECIPES


def run(args: argparse.Namespace) -> int:
    """Print them; gives the exit code. Raises ``SetupError``."""
    print("| preset | parameters | reads | predicts | published as |")
    print("|---|---:|---|---|---|")
    wrong = []
    for name in PRESETS:
        chosen = preset(name)
        counted = "not built"
        try:
            with torch.device("meta"):
                parameters = count_parameters(build(name))
            counted = f"{parameters:,}"
            if parameters != chosen.parameters:
                wrong.append(f"{name}: {counted} parameters, states {chosen.parameters:,}")
        except SetupError as error:  # an extra is not installed
            counted = f"{chosen.parameters:,} (stated; {error})"
        spec, grid = chosen.inputs, "x".join(map(str, chosen.grid.shape))
        cameras = chosen.network.camera is not None
        reads = [f"{spec.height}x{spec.width} images"] if cameras else []
        reads += [f"{spec.past_frames} earlier frames"] if spec.past_frames else []
        reads += [f"LiDAR, 1 + {spec.past_sweeps} sweeps"] if spec.lidar else []
        reads += ["elongation"] if spec.point_features == "tanh_intensity_elongation" else []
        print(
            f"| {name} | {counted} | {' + '.join(reads)} | {grid}, {chosen.taxonomy.name} | "
            f"{chosen.paper} |"
        )
    print()
    print("| recipe | preset | starts from | follows |")
    print("|---|---|---|---|")
    for recipe in RECIPES.values():
        print(f"| {recipe.name} | {recipe.preset} | {recipe.starts_from} | {recipe.paper} |")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    log = ("--source", "nuscenes", "--root", "DIR")
    print_next("train-teacher", *log, "--recipe", next(iter(RECIPES)))
    return 1 if wrong else 0
