"""Train a small camera-only student on a label store.

python scripts/examples/train_on_store.py runs/labels.zarr runs/city runs/my-student 400
"""

from __future__ import annotations

import sys
from pathlib import Path

from datasets.loading import FrameDataset, PseudoLabels
from datasets.sources.opening import open_source
from models.checkpoints import save_checkpoint
from models.presets import build, preset
from models.training import fit, recipe


def main(store: Path, log: Path, out: Path, steps: int) -> None:
    chosen = recipe("city_student")
    student = preset(chosen.preset)
    source = open_source("city", log, past_sweeps=0)  # no LiDAR file is opened
    labels = PseudoLabels(store, expect_grid=student.grid, expect_taxonomy=student.taxonomy)
    frames = FrameDataset(source, [labels], student.inputs, augment=chosen.augmentation)
    trained = fit(
        build(student.name),
        frames,
        objective=chosen.label_loss(student.taxonomy, frames),
        config=chosen.training(len(frames.items), steps=steps, loaders=0),
        folder=out,  # the same command continues a stopped training
    )
    weights = out / "student.safetensors"
    save_checkpoint(weights, trained.network, student.name, {})
    print(f"{trained.report.steps} steps on {len(frames.items)} frames: {weights}")


if __name__ == "__main__":
    store, log, out = map(Path, sys.argv[1:4])
    main(store, log, out, int(sys.argv[4]))
