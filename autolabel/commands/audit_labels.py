"""Audit labels without ground truth."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from autolabel.auditing.audit import audit_report, audit_scenes
from autolabel.auditing.ranking_plot import draw_ranking
from autolabel.auditing.report import report_text
from autolabel.auditing.scene_audit import Predict
from autolabel.confidence.held_out_sweeps import HELD_OUT_SWEEPS
from datasets.benchmarks import NAMES
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.logs import log_words, name_log_of, open_log
from datasets.cli.next_step import print_next
from datasets.errors import SetupError
from datasets.files.json_files import write_json
from datasets.frames import Scene, SceneSource, earlier_frames
from datasets.labels.label_set import GroundTruthLabels, LabelSet, LabelSetHeader, StoredLabels
from datasets.labels.store import LabelStore
from datasets.labels.validity import ConfidenceValidity, validity
from datasets.model_inputs import collate, prepare_frame
from datasets.storage.remote_path import remote_or_local
from models.checkpoints.checkpoint import load_checkpoint
from models.inference.predictor import OccupancyPredictor


def run(args: argparse.Namespace) -> int:
    """Audit and print; gives the exit code. Raises ``SetupError`` before a scene is audited."""
    name_log_of(args, None if args.store is None else LabelStore.open(args.store).header)
    if not remote_or_local(args.root).is_dir():  # no city is made only to be audited
        raise SetupError(f"{args.root}: no such folder; name the labeled log with --root")
    opener = functools.partial(open_log, args)
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
    verdict = None
    if isinstance(labels, StoredLabels):
        verdict = verdict_of(labels.store, [scene.scene_id for scene in gathered.audits])
    audited = audit_report(labels, gathered, verdict)
    print(report_text(audited))
    if args.image:
        draw_ranking(audited, args.image)
        print(f"image: {args.image}")
    if args.json:
        write_json(args.json, audited.to_json())
        print(f"report: {args.json}")
    if args.store is not None:
        report = ["--audit", args.json] if args.json else []
        print_next("inspect", args.store, "--queue", *report)
    else:
        print_next("inspect", "--truth", args.truth, *log_words(args))
    return 1 if audited.alarming else 0


def verdict_of(store: LabelStore, scene_ids: Sequence[str]) -> ConfidenceValidity:
    """On the confidence of some scenes. Raises ``SetupError`` where its record is damaged."""
    there = store.looked_at()[0]
    try:
        return validity(store.header, {s: there[s] for s in scene_ids if s in there})
    except ValueError as error:
        raise SetupError(f"label store {store.place}: damaged: {error}") from error


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
