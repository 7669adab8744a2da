"""Score a model or a label store against a benchmark's ground truth."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from autolabel.auditing.lidar_agreement import COLUMNS, LEGEND, LidarAgreement, lidar_agreement
from autolabel.instances.scores import ObjectScores
from datasets.benchmarks import occ3d_nuscenes
from datasets.benchmarks.catalogue import benchmark as benchmark_named
from datasets.benchmarks.conversion import Conversion, Prediction
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.cli.logs import log_words, name_log_of, open_log, truth_folder
from datasets.cli.next_step import print_next
from datasets.cli.scenes import scenes_in, usable_scenes_of
from datasets.errors import SetupError
from datasets.files.json_files import in_words, write_json
from datasets.files.printable import printable
from datasets.frames import (
    Scene,
    SceneSource,
    earlier_frames,
    from_vehicle,
    in_lidar_frame,
    points_in_ego,
)
from datasets.geometry.transforms import apply, inverse
from datasets.labels.log_identity import labeled_scene
from datasets.labels.store import LabelStore, MaskBit
from datasets.metrics import rays
from datasets.metrics.calibration import ConfidenceScore
from datasets.metrics.confusion import RangeBins, RangedConfusion, ScoreTable
from datasets.metrics.openoccupancy import OpenOccupancyScore
from datasets.metrics.rays import RayScore
from datasets.model_inputs import collate, prepare_frame
from datasets.reviews.overlay import Reviews
from datasets.reviews.summary import count_reviews
from datasets.taxonomy import Taxonomy
from datasets.visibility import ray_origins
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.device import best_device
from models.inference.predictor import OccupancyPredictor


class Scores:
    """All figures of one model or store. Streaming: one ``update`` per frame."""

    def __init__(
        self, conversion: Conversion, *, levels: tuple[float, ...] | None, rays: bool
    ) -> None:
        """``levels`` of confidence: of a store."""
        self.conversion, self.benchmark = conversion, conversion.benchmark
        taxonomy, grid = self.benchmark.taxonomy, self.benchmark.grid
        has_unmapped = conversion.unmapped_id is not None
        predicted = _with_unmapped(taxonomy) if has_unmapped else taxonomy
        masks = [self.benchmark.mask, "all", None if levels is None else "trusted"]
        self.by_range = {mask: RangedConfusion(predicted.n_classes) for mask in masks if mask}
        self.labelled = dict.fromkeys(self.by_range, 0)
        self.rays = None
        if rays:
            self.rays = RayScore(taxonomy, grid, threads=_cpus(), has_unmapped=has_unmapped)
        self.confidence = None if levels is None else ConfidenceScore(predicted, levels)
        self.trusted_and_scored = 0

    def update(self, prediction: Prediction, truth: GroundTruth) -> None:
        prediction = self.conversion.apply(prediction)
        frames, frame, semantics = prediction.scene.frames, prediction.frame, prediction.semantics
        to_grid = np.eye(4)
        if self.benchmark.frame == "lidar" and frame.lidar is not None:
            to_grid = inverse(frame.lidar.T_ego_lidar)
        ring = RangeBins().of(truth.grid, (float(to_grid[0, 3]), float(to_grid[1, 3])))
        labelled = truth.semantics < truth.taxonomy.n_classes
        masks = {"all": labelled}
        if self.benchmark.mask:
            masks[self.benchmark.mask] = truth.scored()
        if self.confidence is not None:
            assert prediction.mask is not None and prediction.confidence is not None
            # what no sensor saw in the truth is called free there, and is not known
            trusted = truth.observed() & labelled & ((prediction.mask & MaskBit.TRUSTED) > 0)
            masks["trusted"] = trusted
            self.trusted_and_scored += int((trusted & masks[self.benchmark.mask or "all"]).sum())
            seen = prediction.mask & (MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE)
            known = (seen > 0) & truth.observed()
            self.confidence.update(prediction.confidence, semantics, truth.semantics, ring, known)
        for mask, voxels in masks.items():
            self.labelled[mask] += int(voxels.sum())
            valid = voxels if prediction.valid is None else voxels & prediction.valid
            self.by_range[mask].update(truth.semantics, semantics, ring, valid)
        if self.rays is not None:
            both = truth.flow is not None and prediction.flow is not None
            if (unmapped_id := self.conversion.unmapped_id) is not None:
                # rays pass unlabelled voxels of the truth, so also unmapped classes there
                passed = (semantics == unmapped_id) & ~labelled
                semantics = np.where(passed, np.uint8(truth.taxonomy.free_id), semantics)
            self.rays.update(
                truth.semantics,
                semantics,
                apply(to_grid, rays.lidar_origins(frames, prediction.k)),
                truth_flow=truth.flow if both else None,
                predicted_flow=prediction.flow if both else None,
            )

    def table(self) -> ScoreTable:
        return ScoreTable.ranged(self.benchmark.taxonomy, self.by_range)

    def store_figures(self) -> dict[str, float | None]:
        """How good and how many a store's trusted voxels are, in percent; None of nothing."""
        matrices = {mask: ranged.total() for mask, ranged in self.by_range.items()}
        trusted = matrices["trusted"].counts
        right, labeled = np.diag(trusted), trusted.sum(0)
        free = self.benchmark.taxonomy.free_id
        scored = matrices[self.benchmark.mask or "all"].counts.sum()
        name = self.benchmark.mask or "labelled"
        return {
            # apart: free space is nine in ten, and easy
            "trusted occupied voxels that are right": _percent(
                right.sum() - right[free], labeled.sum() - labeled[free]
            ),
            "trusted free voxels that are right": _percent(right[free], labeled[free]),
            f"{name} voxels that are trusted": _percent(self.trusted_and_scored, scored),
        }

    def conversion_figures(self) -> dict[str, float | None]:
        """Under each mask, percent of the labelled voxels; None where there is none."""
        unmapped_id, out = self.conversion.unmapped_id, dict[str, float | None]()
        for mask, ranged in self.by_range.items():
            counts, labelled = ranged.total().counts, self.labelled[mask]
            if not self.conversion.same_voxels:
                out[f"voxels that the prediction reaches[{mask}]"] = _percent(
                    counts.sum(), labelled
                )
            if unmapped_id is not None:
                out[f"voxels predicted as a class without counterpart[{mask}]"] = _percent(
                    counts[:, unmapped_id].sum(), labelled
                )
        return out

    def to_json(self) -> dict[str, object]:
        b = self.benchmark
        table = self.table()
        out: dict[str, object] = {
            "benchmark": b.name,
            "classes": b.taxonomy.name,
            "grid": b.grid.to_json() | {"frame": b.frame},
            "masks": list(self.by_range),
            "converted": None,
        } | table.to_json()
        if (words := self.conversion.to_json()) is not None:
            out["converted"] = words | self.conversion_figures()
        if self.confidence is not None:
            out |= self.store_figures()
            out["confidence[observed]"] = self.confidence.to_json()
        if b.name == "openoccupancy":
            score = OpenOccupancyScore.of(table.matrices["all"])
            out["SC IoU"] = _rounded(score.sc_iou())
            out["SSC mIoU (plain mean)"] = _rounded(score.ssc_miou())
        if self.rays is not None:
            out["rays"] = self.rays.to_json()
        return out


def _with_unmapped(taxonomy: Taxonomy) -> Taxonomy:
    """With one more class, which no truth has."""
    names, colors = (*taxonomy.names, "no class here"), (*taxonomy.colors, (0, 0, 0))
    return replace(taxonomy, names=names, colors=colors)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _percent(part: float, whole: float) -> float | None:
    return round(float(100 * part / whole), 2) if whole else None


def _told(percent: float | None) -> str:
    return in_words(percent, ".2f", "does not exist: no such voxel") + " %" * (percent is not None)


def _rounded(fraction: float) -> float | None:
    return round(100 * fraction, 2) if np.isfinite(fraction) else None


def run(args: argparse.Namespace) -> int:
    """Score and print; gives the exit code. Raises ``SetupError``."""
    benchmark = benchmark_named(args.benchmark)
    levels, left_out = None, 0
    if args.store:
        store = LabelStore.open(args.store)
        scenes_in(store)
        name_log_of(args, store.header)
        if args.lidar:
            source = open_log(args)
            compare_with_lidar(store, source, args.truth or args.root)
            print_next("inspect", args.store)
            return 0
        header = store.header
        conversion = Conversion(
            benchmark, f"label store {args.store}", header.grid, header.taxonomy, header.frame
        )
        source, levels = open_log(args), header.levels
        reviews = Reviews(store) if args.reviewed else None
        if reviews is not None:
            print(f"reviews: {count_reviews(reviews).changes or 'nothing changes'}")
        predictions = stored_labels(store, source, reviews)
    else:
        name_log_of(args, None)
        model = load_checkpoint(args.weights, device=args.device or best_device())
        preset = model.preset
        conversion = Conversion(
            benchmark,
            f"preset {preset.name}",
            preset.grid,
            preset.taxonomy,
            preset.inputs.frame,
        )
        teacher = OccupancyPredictor(model.module, preset, bfloat16=args.fast, tta_flips=args.flips)
        source = open_log(args, past_sweeps=preset.inputs.past_sweeps)
        scene_ids = usable_scenes_of(source, args.split, root=args.root)
        left_out = len(source.scene_ids(args.split)) - len(scene_ids)
        predictions = predicted_labels(teacher, source, scene_ids)

    folder = truth_folder(args, benchmark)
    scores = Scores(conversion, levels=levels, rays=args.rays or args.benchmark == "openocc_flow")
    objects = ObjectScores(source, benchmark.taxonomy.dynamic)
    for prediction in predictions:
        if not (path := benchmark.path(folder, source, prediction.frame)).exists():
            instead = ", or compare with the LiDAR of the log: --lidar" if args.store else ""
            raise SetupError(
                f"{path}: no such file; name the ground truth of {benchmark.name} with --truth DIR"
                f"{instead}"
            )
        truth = benchmark.labels(folder, source, prediction.frame)
        scores.update(prediction, truth)
        if conversion.nothing and prediction.instances is not None and benchmark.frame == "ego":
            labels = prediction.semantics, prediction.instances
            objects.update(prediction.frame, labels, truth, truth.scored())
    figures = scores.to_json()
    report(scores, figures)
    if objects.frames:
        figures["objects"] = objects.to_json(benchmark.taxonomy.names)
        print(objects.to_text())
    if args.out:
        write_json(args.out, figures)
        print(f"scores: {args.out}")
    if args.store:
        print_next("inspect", args.store, "--with-truth", folder)
    else:
        print_next("export-onnx", "--weights", args.weights, "-o", "OUT.onnx", *log_words(args))
    return 1 if left_out else 0


def report(scores: Scores, figures: dict[str, object]) -> None:
    """Print what a person wants to see; the JSON has the rest."""
    b, grid = scores.benchmark, scores.benchmark.grid
    box = ", ".join(
        f"{axis} {low:g}..{high:g}"
        for axis, low, high in zip("xyz", grid.min_m, grid.max_m, strict=True)
    )
    print(scores.table())
    print(f"{b.name}: classes of {b.taxonomy.name}, {b.frame} frame, metres {box}")
    if (converted := scores.conversion.to_json()) is not None:
        print(printable(f"converted from {converted['from']}"))
        print(f"  classes: {converted['classes']}")
        print(f"  voxels: {converted['voxels']}")
        for name, value in scores.conversion_figures().items():
            print(f"  {name}: {_told(value)}")
    if b.mask is None:
        print(f"{b.name} has no mask: every labeled voxel is scored")
    if scores.confidence is not None:
        for name, value in scores.store_figures().items():
            print(printable(f"{name}: {_told(value)}"))
        if scores.confidence.total().seen.any():
            curve = scores.confidence.risk_coverage()
            print(
                f"confidence of observed voxels: ECE (plain) {scores.confidence.ece():.4f}, "
                f"AURC {curve.area:.4f}, error rate of all of them {curve.risk[-1]:.4f}"
            )
        else:
            print("confidence of observed voxels: no voxel is observed in labels and truth")
    if scores.rays is not None:
        r = scores.rays
        per_threshold = ", ".join(in_words(100 * v, ".2f", "none") for v in r.threshold_iou())
        rays = f"{r.truth.sum():,} rays from {r.origins} origins of {r.frames} frames"
        if r.truth.any():
            print(
                f"RayIoU[rays that hit in the truth] = {100 * r.ray_iou():.2f} "
                f"(at 1, 2, 4 m: {per_threshold}); {rays}, {r.missed:,} more without a hit"
            )
        else:
            print(
                f"RayIoU does not exist: none of {r.missed:,} rays meets an occupied voxel of the "
                "truth; are its free id and its origins right?"
            )
        if r.velocity_rays.any():
            moving = len(b.taxonomy.dynamic)
            print(f"mAVE[right rays at 2 m, {moving} movable classes] = {r.mave():.3f} m/s")
            print(f"OccScore = {100 * r.occ_score():.2f}")
        else:
            print("no mAVE, no OccScore: flow is not predicted, or not in the truth")
    for name in ("SC IoU", "SSC mIoU (plain mean)"):
        if name in figures:
            print(f"{name}[all] = {_miou(figures[name], 'one class occurs')}")
    for mask in scores.by_range:
        print(f"mIoU[{mask}] = {_miou(figures[f'mIoU[{mask}]'], 'the classes occur')}")


def _miou(percent: object, which: str) -> str:
    """``which``: what a missing mean says of classes."""
    return (
        f"does not exist: {which} neither in truth nor prediction"
        if percent is None
        else f"{percent}"
    )


def stored_labels(
    store: LabelStore, source: SceneSource, reviews: Reviews | None = None
) -> Iterator[Prediction]:
    for scene_id in tqdm(store.scene_ids(), desc="evaluate"):
        stored, scene = labeled_scene(store, scene_id, source)
        try:
            index = [stored.index_of(frame.token) for frame in scene.frames]
        except KeyError as error:
            raise SetupError(f"{store.place}: labels of another log: no {error}") from error
        for k, i in enumerate(index):
            labels = stored.frame(i)
            if reviews is not None:
                if labels.token in reviews.rejected(scene_id):
                    continue
                labels = reviews.reviewed(labels, scene_id)
            yield Prediction(
                scene=scene,
                k=k,
                semantics=labels.semantics,
                flow=None if labels.flow is None else np.nan_to_num(labels.flow.astype(np.float32)),
                confidence=labels.confidence,
                mask=labels.mask,
                instances=labels.instances,
            )


def predicted_labels(
    teacher: OccupancyPredictor, source: SceneSource, scene_ids: Sequence[str]
) -> Iterator[Prediction]:
    scenes = [source.scene(scene_id) for scene_id in scene_ids]
    moments = [(scene, k) for scene in scenes for k in range(len(scene.frames))]
    for scene, k in tqdm(moments, desc="evaluate"):
        yield predict(teacher, source, scene, k)


@torch.inference_mode()
def predict(teacher: OccupancyPredictor, source: SceneSource, scene: Scene, k: int) -> Prediction:
    spec = teacher.preset.inputs
    earlier = earlier_frames(scene.frames, k, spec.past_frames)
    inputs = collate([prepare_frame(source, scene.frames[k], spec, earlier)])
    flow = None
    if teacher.has_flow:
        logits, velocity = teacher.predict_with_flow(inputs)
        flow = velocity[0].cpu().numpy()
    else:
        logits = teacher.predict(inputs)
    labels = logits[0].argmax(-1).to(torch.uint8).cpu().numpy()
    return Prediction(scene=scene, k=k, semantics=labels, flow=flow)


def _columns(frame: str, layer: str, *cells: str) -> str:
    """A row of the LiDAR's table, at most 120 characters; a long name keeps its end."""
    frame = frame if len(frame) <= 30 else f"..{frame[-28:]}"
    return f"{frame:30} {layer:14} " + " ".join(f"{cell:>11}" for cell in cells)


def compare_with_lidar(store: LabelStore, source: SceneSource, root: Path) -> None:
    totals, frames = dict[str, LidarAgreement](), 0
    print(f"{LEGEND}\n{_columns('frame', 'layer', *COLUMNS)}")
    header, free = store.header, store.header.taxonomy.free_id
    comparable = (header.grid, header.frame) == (occ3d_nuscenes.GRID, occ3d_nuscenes.FRAME)
    for scene_id in store.scene_ids():
        scene, logged = labeled_scene(store, scene_id, source)
        for frame in logged.frames:
            if frame.lidar is None:
                continue
            labels = scene.frame(scene.index_of(frame.token))
            occupied = labels.semantics != free
            layers = {
                "all labels": occupied,
                "trusted labels": occupied & ((labels.mask & MaskBit.TRUSTED) > 0),
            }
            path = occ3d_nuscenes.labels_path(root, scene_id, frame.token)
            if comparable and path.exists():
                layers["ground truth"] = occ3d_nuscenes.read_labels(path).semantics != free
            if header.frame == "lidar":
                frame = in_lidar_frame(frame)
            points = points_in_ego(source, frame, vehicle="kept")
            origins, own = ray_origins(frame, points), from_vehicle(frame, points)
            frames += 1
            for name, voxels in layers.items():
                agreement = lidar_agreement(voxels, points[:, :3], origins, own, header.grid)
                frame_name = f"{scene_id} {frame.token}"
                print(printable(_columns(frame_name, name, *agreement.row())))
                totals[name] = totals[name] + agreement if name in totals else agreement
    for name, agreement in totals.items():
        print(_columns(f"{frames} frames together", name, *agreement.row()))
