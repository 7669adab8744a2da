"""Audit labels without ground truth: which scenes to doubt, and what is wrong with the log.

    python autolabel/audit.py STORE --source nuscenes --root DIR
    python autolabel/audit.py STORE --weights FILE --json audit.json --picture audit.png
    python autolabel/audit.py --truth DIR --benchmark occ3d_nuscenes --source nuscenes --root DIR

LiDAR sweeps that the teacher did not read vote on the labels: returns that end in free voxels
(misses), upright voxels that rays see through (violations), trails behind what moves, static voxels
that flicker from frame to frame (autolabel/auditing/lidar_votes.py). Scenes are ranked by these
votes and by the store's own confidence. Faults of poses, calibration and labelling are named by
what would fit better (autolabel/auditing/faults.py). --weights predicts a few frames of each scene
from mirrored inputs and compares. --truth audits the files of a benchmark, such as Occ3D's, instead
of a store.

Exit codes: 0 nothing alarming, 1 faults named or scenes that could not be read, 2 cannot start.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from autolabel.auditing.audit import audit_report, audit_scenes
from autolabel.auditing.lidar_votes import HELD_OUT_SWEEPS
from autolabel.auditing.ranking_plot import draw_ranking
from autolabel.auditing.report import report_text
from autolabel.auditing.scene_audit import Predict
from datasets.benchmarks.catalogue import NAMES, benchmark
from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.files.json_files import write_json
from datasets.frames import Scene, SceneSource, earlier_frames
from datasets.labels.label_set import GroundTruthLabels, LabelSet, LabelSetHeader, StoredLabels
from datasets.model_inputs import collate, prepare_frame
from datasets.sources.opening import SOURCES, open_source
from datasets.storage.backend import parse_store_path
from datasets.storage.remote_path import remote_or_local
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.predictor import OccupancyPredictor


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SetupError(f"{message}; see --help")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ``SetupError`` for an unknown or bad option."""
    parser = _Parser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("store", type=parse_store_path, nargs="?", metavar="STORE", help="label store")
    add("--truth", type=Path, metavar="DIR", help="audit ground truth in this folder instead")
    add("--benchmark", choices=NAMES, help=f"of the ground truth's files ({NAMES[0]})")
    add("--source", choices=SOURCES, default="city", help="kind of the log")
    add("--root", type=Path, default=Path("runs/city"), help="the log that was labelled")
    add("--scenes", metavar="IDS", help="only these, separated by commas")
    add("--weights", type=Path, metavar="FILE", help="compare with this teacher's mirrored labels")
    add("--picture", type=Path, metavar="PNG", help="draw the ranking")
    add("--json", type=Path, metavar="FILE", help="write the report here as well")
    args = parser.parse_args(argv)
    if (args.store is None) == (args.truth is None):
        parser.error("name a STORE, or a folder with --truth")
    if args.benchmark and args.truth is None:
        parser.error("--benchmark needs --truth")
    return args


def run(args: argparse.Namespace) -> int:
    """Audit and print; gives the exit code. Raises ``SetupError`` before a scene is audited."""
    if not remote_or_local(args.root).is_dir():  # no city is made only to be audited
        raise SetupError(f"{args.root}: no such folder; name the labelled log with --root")
    opener = functools.partial(open_source, args.source, args.root)
    labels: LabelSet
    past_sweeps = 0
    teacher = None
    if args.weights:
        model = load_checkpoint(args.weights)
        teacher = OccupancyPredictor(model.module, model.preset, tta_flips=True)
        past_sweeps = model.preset.inputs.past_sweeps
    source = opener(past_sweeps=past_sweeps, future_sweeps=HELD_OUT_SWEEPS)
    if args.store is not None:
        labels = StoredLabels(args.store)
    else:
        labels = GroundTruthLabels(benchmark(args.benchmark or NAMES[0]), args.truth, source)
    header, fingerprint, predict = labels.header, None, None
    if header.past_sweeps is not None:  # a fingerprint covers the sweeps that were read
        fingerprint = opener(past_sweeps=header.past_sweeps).fingerprint
    if teacher is not None:
        predict = mirrored_labels(teacher, header)
    labels.first_scene()
    there = labels.scene_ids()
    scene_ids = args.scenes.split(",") if args.scenes else there
    if lacking := [s for s in scene_ids if s not in there]:
        raise SetupError(f"{header.what}: it has no scene {', '.join(lacking)}")
    gathered = audit_scenes(
        labels,
        source,
        tqdm(scene_ids, desc="audit", unit="scene"),
        fingerprint=fingerprint,
        predict=predict,
    )
    found = audit_report(labels, gathered)
    print(report_text(found))
    if args.picture:
        draw_ranking(found, args.picture)
        print(f"picture: {args.picture}")
    if args.json:
        write_json(args.json, found.to_json())
        print(f"report: {args.json}")
    return 1 if found.alarming else 0


def mirrored_labels(teacher: OccupancyPredictor, header: LabelSetHeader) -> Predict:
    """A teacher's labels averaged over mirrored inputs.

    Raises:
        SetupError: it predicts other voxels or classes than are audited.
    """
    preset = teacher.preset
    theirs = preset.grid, preset.taxonomy, preset.inputs.frame
    if theirs != (header.grid, header.taxonomy, header.frame):
        raise SetupError(f"--weights: {preset.name} predicts other voxels than {header.what} has")

    def predict(source: SceneSource, scene: Scene, k: int) -> NDArray[np.uint8]:
        spec = preset.inputs
        earlier = earlier_frames(scene.frames, k, spec.past_frames)
        logits = teacher.predict(collate([prepare_frame(source, scene.frames[k], spec, earlier)]))
        return np.asarray(logits[0].argmax(-1).to(torch.uint8).cpu().numpy())

    return predict


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(argv)))
