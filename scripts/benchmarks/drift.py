"""Does a log of another kind raise the drift warning, and one of the same kind not?

    python scripts/benchmarks/drift.py TEACHER --calibration C --test T --out OUT

C and T are the cities of ``confidence.py``. Calibrated is on C's scenes by day and in dry
weather. Logs compared with them: T's scenes of the same weather; T's scenes in rain, in the dark;
and, simulated here, the same weather seen by a LiDAR mounted 0.7 m lower. Then C's scenes are split
at random many times: how often does one part raise the warning against the other?
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import reporting
import torch
from tqdm import tqdm

from autolabel.confidence.drift import Statistics, drift, mean_of
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import predict_frames
from datasets.cli.exit_codes import exit_code
from datasets.geometry.transforms import Transform
from datasets.sources.opening import open_source
from datasets.sources.synthetic.city import CityConfig, generate_city
from datasets.sources.synthetic.export import nuscenes_writer
from datasets.sources.synthetic.sensors.lidar import lidar_mount
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.predictor import OccupancyPredictor, keep_freed_memory

DAY = ("sun", "overcast")
DARK = ("dusk", "night")
SPLITS = 500
LOWER_M = 0.7


def main() -> int:
    parser = reporting.parser(__doc__)
    parser.add_argument("weights", type=Path, metavar="TEACHER")
    parser.add_argument("--calibration", type=Path, required=True, metavar="C")
    parser.add_argument("--test", type=Path, required=True, metavar="T")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    model = load_checkpoint(args.weights)
    teacher = OccupancyPredictor(model.module, model.preset)
    args.out.mkdir(parents=True, exist_ok=True)
    lower = args.out / "lower"
    with mock.patch.object(nuscenes_writer, "lidar_mount", _lower_mount):
        config = CityConfig(
            seed=303, labeled_scenes=0, unlabeled_scenes=0, val_scenes=16, frames_per_scene=2
        )
        if not (lower / "city.json").is_file():
            generate_city(lower, config, workers=1)
    calibration = statistics(teacher, args.calibration)
    test = statistics(teacher, args.test)
    low = statistics(teacher, lower)
    reference = of_weather(calibration, DAY)
    logs = {
        "the same weather": of_weather(test, DAY),
        "rain": of_weather(test, ("rain",)),
        "dusk and night": of_weather(test, DARK),
        "night": of_weather(test, ("night",)),
        f"LiDAR {LOWER_M} m lower": of_weather(low, DAY),
    }
    figures: dict[str, object] = {"scenes": len(reference)}
    for name, log in logs.items():
        differences = drift(log, reference)
        figures[name] = {
            "scenes": len(log),
            "raised": bool(differences),
            "differs in": [str(difference) for difference in differences],
        }
        text = "; ".join(map(str, differences[:3])) or "nothing differs"
        print(f"{name} ({len(log)} scenes): {text}")
    rng = np.random.default_rng(0)
    scenes = [scene for _, scene in calibration] + [scene for _, scene in test]
    alarms = 0
    for _ in range(SPLITS):
        order = rng.permutation(len(scenes))
        sample, others = order[:20], order[20:]
        alarms += bool(drift([scenes[k] for k in sample], [scenes[k] for k in others]))
    figures["false alarms"] = {"splits": SPLITS, "raised": alarms}
    print(f"random splits of both cities' scenes, 20 against the rest: {alarms} of {SPLITS} raised")
    reporting.write_figures(figures, args.out / "drift.json")
    return 0


def _lower_mount() -> Transform:
    T = lidar_mount()
    T[2, 3] -= LOWER_M
    return T


def statistics(teacher: OccupancyPredictor, root: Path) -> list[tuple[str, Statistics]]:
    """Weather and statistics of a city's scenes, each from its first and middle frame."""
    source = open_source("city", root, past_sweeps=teacher.preset.inputs.past_sweeps, labelled=None)
    described = json.loads((root / "v1.0-trainval" / "scene.json").read_text())
    weather = {row["name"]: row["description"].split(", ")[1] for row in described}
    scenes = []
    for scene_id in tqdm(source.scene_ids("val"), desc=root.name, unit="scene"):
        scene = source.scene(scene_id)
        two_frames = replace(scene, frames=(scene.frames[0], scene.frames[len(scene.frames) // 2]))
        predictions = predict_frames(two_frames, source, teacher, LabelingConfig())
        scenes.append((weather[scene_id], mean_of([p.statistics for p in predictions])))
    return scenes


def of_weather(
    scenes: Sequence[tuple[str, Statistics]], weathers: Sequence[str]
) -> list[Statistics]:
    return [scene for weather, scene in scenes if weather in weathers]


if __name__ == "__main__":
    sys.exit(exit_code(main))
