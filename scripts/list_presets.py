"""Print every network that can be built by name, with its size counted from the built network.

    python scripts/list_presets.py

Exit code 1 if a count is not the one its preset states, which for published networks is the one
that the published code gives.
"""

from __future__ import annotations

import argparse
import sys

import torch

from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from models.presets import PRESETS, build, count_parameters, preset


def main() -> int:
    argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False).parse_args()
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
        reads = [f"{spec.height}x{spec.width} pictures"] if cameras else []
        reads += [f"{spec.past_frames} earlier frames"] if spec.past_frames else []
        reads += [f"LiDAR, 1 + {spec.past_sweeps} sweeps"] if spec.lidar else []
        reads += ["elongation"] if spec.point_features == "tanh_intensity_elongation" else []
        print(
            f"| {name} | {counted} | {' + '.join(reads)} | {grid}, {chosen.taxonomy.name} | "
            f"{chosen.paper} |"
        )
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
