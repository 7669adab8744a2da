"""Score a model or a label store against ground truth, masked and unmasked.

    python scripts/evaluate.py --store runs/labels.zarr
    python scripts/evaluate.py --weights runs/student/camera_tiny_student.safetensors --split val

    python scripts/evaluate.py --store DIR.zarr --source nuscenes --root DIR --lidar   # no truth

``mIoU[camera-visible]`` counts voxels in the ground truth's camera mask (the benchmark's figure),
``mIoU[all]`` every voxel; for a store also ``mIoU[trusted]``, the voxels that its mask keeps.
``--lidar`` compares a store with the log's own key sweeps instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from autolabel.audit import LidarAgreement, lidar_agreement
from autolabel.calibrate import require_known_truth
from datasets.benchmarks.occ3d_nuscenes import labels_path
from datasets.errors import AutolabelError
from datasets.frames import Frame, SceneSource, earlier_frames, points_in_ego
from datasets.inputs import collate, prepare_frame
from datasets.label_store import LabelStore, MaskBit
from datasets.metrics.confusion import ConfusionMatrix, ScoreTable
from datasets.sources.opening import SOURCES, open_source
from datasets.training_sets import GroundTruth
from models.checkpoint import load_checkpoint
from models.inference import Teacher

Prediction = tuple[Frame, NDArray[np.uint8], NDArray[np.bool_] | None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--store", type=Path, help="label store; every finished scene is scored")
    what.add_argument("--weights", type=Path, help="teacher or student weights")
    parser.add_argument("--source", choices=SOURCES, default="city")
    parser.add_argument("--root", type=Path, default=Path("runs/city"))
    parser.add_argument("--split", default="val", help="scenes to run the weights on")
    parser.add_argument("--lidar", action="store_true", help="compare a store with the LiDAR")
    parser.add_argument("--fast", action="store_true", help="run the weights in bfloat16")
    parser.add_argument("--flips", action="store_true", help="average over mirrored inputs")
    parser.add_argument("--out", type=Path, help="JSON file for the scores")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if (args.fast or args.flips) and not args.weights:
        parser.error("--fast and --flips need --weights")

    if args.lidar:
        if not args.store:
            parser.error("--lidar needs --store")
        store = LabelStore.open(args.store)
        compare_with_lidar(store, open_source(args.source, args.root, past_sweeps=0), args.root)
        return 0
    if args.store:
        store = LabelStore.open(args.store)
        source: SceneSource = open_source(args.source, args.root, past_sweeps=0)
        taxonomy = store.header.taxonomy
        predictions = stored_labels(store, source)
        masks = ["camera-visible", "all", "trusted"]
    else:
        model = load_checkpoint(args.weights, device=args.device)
        require_known_truth(model.preset)
        teacher = Teacher(model.module, model.preset, fast=args.fast, flips=args.flips)
        sweeps = model.preset.inputs.past_sweeps
        source = open_source(args.source, args.root, past_sweeps=sweeps)
        taxonomy = model.preset.taxonomy
        scenes = [source.scene(scene_id).frames for scene_id in source.scene_ids(args.split)]
        moments = [(frames, k) for frames in scenes for k in range(len(frames))]
        predictions = (
            predict(teacher, source, frames, k) for frames, k in tqdm(moments, desc="evaluate")
        )
        masks = ["camera-visible", "all"]

    truth = GroundTruth(args.root, ())
    matrices = {mask: ConfusionMatrix(taxonomy.n_classes) for mask in masks}
    kept = 0
    for frame, predicted, trusted in predictions:
        expected = truth.labels(frame)
        matrices["camera-visible"].update(expected.semantics, predicted, expected.mask_camera)
        matrices["all"].update(expected.semantics, predicted)
        if trusted is not None:
            matrices["trusted"].update(expected.semantics, predicted, trusted)
            kept += int((trusted & expected.mask_camera).sum())
    table = ScoreTable(taxonomy=taxonomy, matrices=matrices)
    scores = table.to_json()
    print(table)
    if args.store:
        right = np.trace(matrices["trusted"].counts) / max(matrices["trusted"].counts.sum(), 1)
        visible = max(int(matrices["camera-visible"].counts.sum()), 1)
        scores["trusted voxels that are right"] = round(float(100 * right), 2)
        scores["camera-visible voxels that are trusted"] = round(100 * kept / visible, 2)
        print(f"trusted voxels that are right: {100 * right:.2f} %")
        print(f"voxels in the truth's camera mask that are trusted: {100 * kept / visible:.2f} %")
    for mask in masks:
        print(f"mIoU[{mask}] = {scores[f'mIoU[{mask}]']}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(scores, indent=1) + "\n")
    return 0


def stored_labels(store: LabelStore, source: SceneSource) -> Iterator[Prediction]:
    for scene_id in tqdm(store.scene_ids(), desc="evaluate"):
        scene = store.scene(scene_id)
        for frame in source.scene(scene_id).frames:
            labels = scene.frame(scene.index_of(frame.token))
            yield frame, labels.semantics, (labels.mask & MaskBit.TRUSTED) > 0


def compare_with_lidar(store: LabelStore, source: SceneSource, root: Path) -> None:
    truth, totals, frames = GroundTruth(root, ()), dict[str, LidarAgreement](), 0
    free = store.header.taxonomy.free_id
    for scene_id in store.scene_ids():
        scene = store.scene(scene_id)
        for frame in source.scene(scene_id).frames:
            if frame.lidar is None:
                continue
            labels = scene.frame(scene.index_of(frame.token))
            occupied = labels.semantics != free
            layers = {
                "all labels": occupied,
                "trusted labels": occupied & ((labels.mask & MaskBit.TRUSTED) > 0),
            }
            if labels_path(root, scene_id, frame.token).exists():
                layers["ground truth"] = truth.labels(frame).semantics != free
            points = points_in_ego(source, frame, key_with_vehicle=True)[:, :3]
            origin = frame.lidar.T_ego_lidar[:3, 3]
            frames += 1
            for name, voxels in layers.items():
                agreement = lidar_agreement(voxels, points, origin, store.header.grid)
                print(f"{scene_id} frame {frame.token}, {name}: {agreement}")
                totals[name] = totals[name] + agreement if name in totals else agreement
    for name, agreement in totals.items():
        print(f"{frames} frames together, {name}: {agreement}")


def predict(teacher: Teacher, source: SceneSource, frames: Sequence[Frame], k: int) -> Prediction:
    spec = teacher.preset.inputs
    earlier = earlier_frames(frames, k, spec.past_frames)
    inputs = collate([prepare_frame(source, frames[k], spec, earlier)])
    labels = teacher.predict(inputs)[0].argmax(-1).to(torch.uint8).cpu().numpy()
    return frames[k], labels, None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AutolabelError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
