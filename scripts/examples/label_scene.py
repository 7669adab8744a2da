"""Label one scene with the shipped teacher and count the classes of the voxels to trust.

python scripts/examples/label_scene.py runs/city
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from autolabel.labeling import LabelingConfig, calibration_of, label_scene
from datasets.labels import MaskBit
from datasets.sources.opening import open_source
from models.checkpoints import load_checkpoint
from models.inference import OccupancyPredictor

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "models" / "weights" / "city_small_teacher.safetensors"


def main(log: Path) -> None:
    model = load_checkpoint(WEIGHTS)
    teacher = OccupancyPredictor(model.module, model.preset)
    calibration = calibration_of(model, WEIGHTS)
    source = open_source("city", log, past_sweeps=model.preset.inputs.past_sweeps)
    scene = source.scene(source.scene_ids("unlabeled")[0])
    labels = label_scene(scene, source, teacher, calibration, LabelingConfig())
    trusted = (labels.mask & MaskBit.TRUSTED) > 0  # (T, X, Y, Z), as are the classes
    print(f"{scene.scene_id}: {len(labels)} frames, {trusted.mean():.1%} of the voxels trusted")
    names = model.preset.taxonomy.names
    counts = np.bincount(labels.semantics[trusted], minlength=len(names))
    for name, count in zip(names, counts, strict=True):
        print(f"{name:<22}{count:>12,}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
