"""What the audit without labels is worth: its ranking against the truth, faults that it names.

    python scripts/benchmarks/audit.py WEIGHTS --root CITY --root CITY --out runs/audit
    python scripts/benchmarks/audit.py WEIGHTS --root CITY --out runs/audit \\
        --real folder LOG STORE.zarr --real nuscenes LOG TRUTH

The cities' scenes must have no part in the training of WEIGHTS, and should have none in the choice
of the audit's constants (city seeds 101, 102, 7301 and 7304; 7303 and 7305 were seen too). They
are labelled and audited; each scene's score is compared with its true error. Then faults are put
into the log after labelling, the labels are moved or exchanged, and, for some scenes of the first
city, labels are made from the faulty log as well. Every case is judged for each city's scenes
together and for each scene alone: is there an alarm, is the cause named rightly, wrongly, or said
to be unknown?
``--real`` audits labels of a real log: a store, or a folder of Occ3D's files, as they are and with
the faults that any log can have.

OUT/audit.json, OUT/audit.md and OUT/audit.png hold the figures. Labels that are in OUT already are
not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import reporting
import torch
from confidence_study.faulty import (
    Change,
    ChangedLabels,
    ChangedLog,
    camera_turned,
    cameras_late,
    cameras_mounted,
    cameras_swapped,
    focal_length_scaled,
    lidar_moved,
    lidar_turned,
    poses_delayed,
    poses_noisy,
)
from scipy.stats import spearmanr
from tqdm import tqdm

from autolabel.auditing.audit import SceneAudits, audit_scenes
from autolabel.auditing.faults import UNKNOWN, find_faults
from autolabel.auditing.lidar_votes import VOTES, VoteCounts
from autolabel.auditing.motion_fit import explain
from autolabel.auditing.report import score
from autolabel.auditing.scene_audit import Part, SceneAudit
from autolabel.confidence.calibration import Calibration
from autolabel.confidence.held_out_sweeps import HELD_OUT_SWEEPS
from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import write_labels
from autolabel.labeling.store_header import store_header
from datasets.benchmarks import NAMES
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.exit_codes import exit_code
from datasets.cli.scenes import usable_scenes_of
from datasets.errors import SetupError
from datasets.files.json_files import write_json
from datasets.files.replacing import write_text
from datasets.frames import SceneSource
from datasets.geometry.transforms import inverse
from datasets.labels.audit_record import AuditFault
from datasets.labels.label_set import GroundTruthLabels, LabelSet, StoredLabels
from datasets.labels.store import LabelStore
from datasets.metrics.confusion import ConfusionMatrix
from datasets.sources import SOURCES
from datasets.sources.opening import open_source
from models.checkpoints.checkpoint import CALIBRATION_KEY, load_checkpoint
from models.inference.predictor import OccupancyPredictor

RELABELLED = 10
"""Scenes that are labelled from the faulty log as well."""
NOISE_M, NOISE_DEG = 0.2, 0.5


Labels = Callable[[LabelSet, LabelSet | None], LabelSet]
"""Changed labels, of a log's own and those of another log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault and what it must be called.

    Attributes:
        log: put into the log; ``labels``: into the labels.
        parts: of the audit that the fault can change; the others are those of the right log.
        any_log: other logs than cities can have it.
        two_logs: it needs another log.
        relabel: labels are made from the faulty log, of the first city's first scenes.
    """

    what: str
    name: str
    log: Change | None = None
    labels: Labels | None = None
    parts: tuple[Part, ...] = ("fits", "motion", "cameras")
    any_log: bool = False
    two_logs: bool = False
    relabel: bool = False


def of_cameras(fault: str, name: str, change: Change, *, any_log: bool = False) -> Case:
    return Case(what=fault, name=name, log=change, parts=("cameras",), any_log=any_log)


def of_lidar(fault: str, name: str, change: Change) -> Case:
    return Case(what=fault, name=name, log=change, any_log=True)


def of_labels(fault: str, name: str, *, two_logs: bool = False, **change: Any) -> Case:
    def changed(own: LabelSet, other: LabelSet | None) -> LabelSet:
        return ChangedLabels(own, of_log=other if two_logs else None, **change)

    return Case(what=fault, name=name, labels=changed, parts=("fits",), two_logs=two_logs)


LEFT, FRONT = "CAM_FRONT_LEFT", "CAM_FRONT"
SWAPPED = cameras_swapped(LEFT, "CAM_BACK_RIGHT")
FOCAL = [(f"focal length {100 * s:+.0f} %", focal_length_scaled, 1 + s) for s in (0.05, 0.1)]
LATE = [(f"pictures {s:g} s late", cameras_late, s) for s in (0.1, 0.3)]
CASES = (
    Case(what="nothing", name="", any_log=True),
    of_cameras("CAM_BACK 2 degrees up", "camera turned", camera_turned("CAM_BACK", 0, 2)),
    of_cameras(
        "CAM_BACK_LEFT 2 degrees down", "camera turned", camera_turned("CAM_BACK_LEFT", 0, -2)
    ),
    of_cameras("CAM_FRONT 2 degrees aside", "camera turned", camera_turned(FRONT, 1, 2)),
    of_cameras(f"{LEFT} 2 degrees about its view", "camera turned", camera_turned(LEFT, 2, 2)),
    of_cameras(f"{LEFT} and CAM_BACK_RIGHT swapped", "cameras swapped", SWAPPED),
    of_cameras(
        "extrinsics of all cameras inverted",
        "camera convention",
        cameras_mounted(inverse),
        any_log=True,
    ),
    of_cameras(
        "focal length x 0.5, all cameras", "focal length", focal_length_scaled(0.5), any_log=True
    ),
    *(of_cameras(f"{what}, {FRONT}", "focal length", of(by, FRONT)) for what, of, by in FOCAL),
    *(
        of_cameras(f"{what}, all cameras", "focal length", of(by), any_log=True)
        for what, of, by in FOCAL
    ),
    *(of_cameras(f"{what}, {LEFT}", "cameras late", of(by, LEFT)) for what, of, by in LATE),
    *(
        of_cameras(f"{what}, all cameras", "cameras late", of(by), any_log=True)
        for what, of, by in LATE
    ),
    of_lidar("LiDAR 2 degrees about its x", "LiDAR tilted", lidar_turned(0, 2)),
    of_lidar("LiDAR 2 degrees about its y", "LiDAR tilted", lidar_turned(1, 2)),
    of_lidar("LiDAR 2 degrees about its z", "LiDAR turned", lidar_turned(2, 2)),
    of_lidar("LiDAR 0.15 m to the left", "LiDAR moved", lidar_moved(left_m=0.15)),
    of_lidar("LiDAR 0.15 m up", "LiDAR height", lidar_moved(up_m=0.15)),
    of_lidar("poses 100 ms late", "poses delayed", poses_delayed(0.1)),
    of_lidar(
        f"poses with noise of {NOISE_M} m and {NOISE_DEG} degrees",
        "poses noisy",
        poses_noisy(NOISE_M, NOISE_DEG),
    ),
    of_labels("labels one voxel along x", "labels shifted", shift=(1, 0, 0)),
    of_labels("labels one voxel along y", "labels shifted", shift=(0, 1, 0)),
    of_labels("labels one voxel along z", "labels shifted", shift=(0, 0, 1)),
    of_labels("labels mirrored left to right", "labels mirrored", mirrored=True),
    of_labels("labels of the next frame", "labels of other frames", frames_late=1),
    of_labels("labels of the next scene", "labels of other frames", scenes_late=1),
    of_labels("labels of another log", "labels of other frames", two_logs=True),
    *(
        Case(what=f"{what}, labelled so", name=name, log=change, relabel=True)
        for what, name, change in (
            ("CAM_BACK 2 degrees up", "camera turned", camera_turned("CAM_BACK", 0, 2)),
            ("LiDAR 2 degrees about its z", "LiDAR turned", lidar_turned(2, 2)),
            ("LiDAR 2 degrees about its y", "LiDAR tilted", lidar_turned(1, 2)),
            ("poses 100 ms late", "poses delayed", poses_delayed(0.1)),
            (f"{LEFT} and CAM_BACK_RIGHT swapped", "cameras swapped", SWAPPED),
        )
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class City:
    """A city, its labels, and the audit of them as they are."""

    root: Path
    log: SceneSource
    scene_ids: Sequence[str]
    store: Path
    clean: SceneAudits


def main() -> int:
    parser = reporting.parser(__doc__)
    parser.add_argument("weights", type=Path, help="calibrated teacher of a benchmark's voxels")
    parser.add_argument("--root", type=Path, required=True, action="append", help="a city")
    parser.add_argument("--split", default="val")
    parser.add_argument("--benchmark", choices=NAMES, default="occ3d_coarse")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--faulty", type=int, help="cities that faults are put into (default: all); clean are all"
    )
    parser.add_argument(
        "--no-relabel", action="store_true", help="leave out the labels made from a faulty log"
    )
    parser.add_argument(
        "--real",
        nargs=3,
        action="append",
        default=[],
        metavar=("SOURCE", "LOG", "LABELS"),
        help=f"a real log ({', '.join(SOURCES)}) with a store, or a folder of Occ3D's files",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)

    past_sweeps = load_checkpoint(args.weights).preset.inputs.past_sweeps
    cities = [open_city(args, root, past_sweeps) for root in args.root]
    cases = {}
    for case in CASES:
        if (case.two_logs and len(cities) < 2) or (case.relabel and args.no_relabel):
            continue
        results = []
        chosen = cities[: args.faulty] if case.log or case.labels else cities
        for k, city in enumerate(cities[:1] if case.relabel else chosen):
            other = StoredLabels(cities[(k + 1) % len(cities)].store)
            results.append(try_case(case, args, city, other, past_sweeps))
        cases[case.what] = judged(case, results)
    audits = [audit for city in cities for audit in city.clean.audits]
    errors = [error for city in cities for error in true_errors(args.benchmark, city)]
    figures: dict[str, Any] = {
        **reporting.stamp(),
        "weights": args.weights.stem,
        "cities": [json.loads((c.root / "city.json").read_text())["config"] for c in cities],
        "scenes": len(audits),
        "frames": sum(audit.frames for audit in audits),
        "ranking": ranking(audits, errors),
        "cases": cases,
        "real": [
            row for kind, root, path in args.real for row in real(kind, Path(root), Path(path))
        ],
    }
    write_json(args.out / "audit.json", figures)
    write_text(args.out / "audit.md", markdown(figures))
    draw(args.out / "audit.png", audits, errors, figures["ranking"])
    print(markdown(figures))
    reporting.print_files(*(args.out / f"audit.{ending}" for ending in ("json", "md", "png")))
    return 0


def open_city(args: argparse.Namespace, root: Path, past_sweeps: int) -> City:
    log = open_log("city", root, past_sweeps=0)
    scene_ids = usable_scenes_of(log, args.split, root=root)
    store = args.out / f"labels-{root.name}.zarr"
    label(args.weights, original(root, CASES[0], past_sweeps), scene_ids, store)
    bar = tqdm(scene_ids, desc=f"audit {root.name}", unit="scene")
    clean = audit_scenes(StoredLabels(store), log, bar)
    return City(root=root, log=log, scene_ids=scene_ids, store=store, clean=clean)


def try_case(
    case: Case, args: argparse.Namespace, city: City, other: LabelSet, past_sweeps: int
) -> SceneAudits:
    """The audit of a faulty city; what the fault cannot change is taken from the right one."""
    if case.log is None and case.labels is None:
        return city.clean
    chosen = city.scene_ids[: RELABELLED if case.relabel else None]
    faulty = city.log if case.log is None else ChangedLog(city.log, case.log)
    log = original(city.root, case, past_sweeps)
    store = args.out / f"{slug(case.what)}.zarr" if case.relabel else city.store
    if case.relabel:
        label(args.weights, log, chosen, store)
    labels: LabelSet = StoredLabels(store)
    labels = case.labels(labels, other) if case.labels else labels
    bar = tqdm(chosen, desc=f"{case.what}, {city.root.name}", unit="scene")
    gathered = audit_scenes(labels, faulty, bar, fingerprint=log.fingerprint, parts=case.parts)
    right = {audit.scene_id: audit for audit in city.clean.audits}
    return replace(
        gathered,
        audits=[joined(right[audit.scene_id], audit, case.parts) for audit in gathered.audits],
    )


def joined(right: SceneAudit, faulty: SceneAudit, parts: Sequence[Part]) -> SceneAudit:
    fields = {
        "fits": ("fits", "elsewhere"),
        "motion": ("motion", "slopes", "heights_m"),
        "cameras": ("matches", "crossings", "conventions"),
    }
    changed = {name: getattr(faulty, name) for part in parts for name in fields.get(part, ())}
    return replace(right, **changed)


def open_log(kind: str, root: Path, *, past_sweeps: int) -> SceneSource:
    return open_source(kind, root, past_sweeps=past_sweeps, future_sweeps=HELD_OUT_SWEEPS)


def original(root: Path, case: Case, past_sweeps: int) -> SceneSource:
    """The log as it is when it is audited, with the sweeps that the teacher reads alone."""
    log = open_source("city", root, past_sweeps=past_sweeps)
    return log if case.log is None else ChangedLog(log, case.log)


def slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text).split())


def label(weights: Path, log: SceneSource, scene_ids: Sequence[str], path: Path) -> Path:
    """Scenes that are there already are not labelled again."""
    model = load_checkpoint(weights)
    if CALIBRATION_KEY not in model.metadata:
        raise SetupError(f"{weights}: it has no calibration table; see scripts/calibrate.py")
    calibration = Calibration.from_json(json.loads(model.metadata[CALIBRATION_KEY]))
    coarse = model.preset.grid.size_m[0] > 0.5
    config = LabelingConfig(visibility_split=2 if coarse else 1)
    teacher = OccupancyPredictor(model.module, model.preset)
    header = store_header(model, calibration, config, source="city", licence=log.licence)
    store = LabelStore.open_or_create(path, header)
    for scene_id in tqdm([s for s in scene_ids if s not in store], desc="label", unit="scene"):
        write_labels(store, log.scene(scene_id), log, teacher, calibration, config)
    return path


def judged(case: Case, gathered: Sequence[SceneAudits]) -> dict[str, Any]:
    """Alarms, and how they were named: of all scenes of a log together, and of each alone."""
    of_logs = [find_faults(log.audits) for log in gathered]
    of_scenes = [find_faults([audit]) for log in gathered for audit in log.audits]
    return {
        "must be named": case.name,
        "logs": verdicts(case, of_logs),
        "scenes": verdicts(case, of_scenes),
        "with the records": names(fault for log in gathered for fault in log.records),
        "evidence": [str(fault) for faults in of_logs for fault in faults][:3],
        "wrong": [
            str(fault)
            for faults in (*of_logs, *of_scenes)
            for fault in faults
            if fault.name not in (case.name, UNKNOWN)
        ][:6],
        "set aside": {
            scene: reason for log in gathered for scene, reason in log.quarantined.items()
        },
    }


def verdicts(case: Case, faults_of: Sequence[Sequence[AuditFault]]) -> dict[str, int]:
    """Of so many logs or scenes: alarms, right and wrong names, and alarms of unknown cause."""
    named = [set(names(faults)) for faults in faults_of]
    return {
        "of": len(named),
        "alarms": sum(bool(causes) for causes in named),
        "right": sum(case.name in causes for causes in named),
        "wrong": sum(bool(causes - {case.name, UNKNOWN}) for causes in named),
        "unknown": sum(causes == {UNKNOWN} for causes in named),
    }


def names(faults: Iterable[AuditFault]) -> list[str]:
    return list(dict.fromkeys(fault.name for fault in faults))


def true_errors(benchmark_name: str, city: City) -> list[dict[str, float]]:
    """Of each scene, in the mask of the benchmark: 1 - accuracy and 1 - mIoU."""
    scored, labels = benchmark(benchmark_name), StoredLabels(city.store)
    scored.require(
        labels.header.what, labels.header.grid, labels.header.taxonomy, labels.header.frame
    )
    out = []
    for audit in tqdm(city.clean.audits, desc="truth", unit="scene"):
        matrix = ConfusionMatrix(scored.taxonomy.n_classes)
        scene = labels.scene(audit.scene_id)
        for frame in city.log.scene(audit.scene_id).frames:
            truth = scored.labels(city.root / scored.folder, city.log, frame)
            semantics = scene.frame(scene.index_of(frame.token)).semantics
            matrix.update(truth.semantics, semantics, truth.scored())
        right = float(np.trace(matrix.counts) / matrix.counts.sum())
        miou = matrix.miou(scored.taxonomy.semantic_ids)
        out.append({"1 - accuracy": 1 - right, "1 - mIoU": 1 - miou})
    return out


def ranking(audits: Sequence[SceneAudit], errors: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Spearman's correlation of the score, and of its parts, with the true errors."""
    columns = {
        "score": [score(audit) for audit in audits],
        "expected error": [a.expected_errors / max(a.judged, 1) for a in audits],
        "untrusted": [a.untrusted / max(a.judged, 1) for a in audits],
        **{vote: [audit.votes[vote].share for audit in audits] for vote in VOTES},
    }
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {}
    for measure in ("1 - accuracy", "1 - mIoU"):
        truth = np.array([error[measure] for error in errors])
        out[measure] = {name: rounded(correlation(x, truth)) for name, x in columns.items()}
        draws = [
            correlation(np.array(columns["score"])[chosen], truth[chosen])
            for chosen in rng.integers(0, len(truth), (1000, len(truth)))
        ]
        out[measure]["score, 90 % interval"] = [
            rounded(q) for q in np.nanquantile(draws, (0.05, 0.95))
        ]
    mean = {name: rounded(float(np.nanmean(x))) for name, x in columns.items()}
    out["means"] = mean | {
        measure: rounded(float(np.mean([error[measure] for error in errors])))
        for measure in ("1 - accuracy", "1 - mIoU")
    }
    return out


def correlation(x: Any, y: Any) -> float:
    return float(spearmanr(x, y)[0])


def rounded(value: float) -> float | None:
    """None where the figure does not exist."""
    return round(float(value), 4) if np.isfinite(value) else None


def real(kind: str, root: Path, path: Path) -> list[dict[str, Any]]:
    """A real log as it is and with every fault that any log can have."""
    source = open_log(kind, root, past_sweeps=0)
    stored = (path / "zarr.json").exists()

    def found(case: Case) -> SceneAudits:
        log = source if case.log is None else ChangedLog(source, case.log)
        truth = None if stored else GroundTruthLabels(benchmark(NAMES[0]), path, source)
        labels: LabelSet = truth or StoredLabels(path)
        return audit_scenes(labels, log, tqdm(labels.scene_ids(), desc=case.what, unit="scene"))

    out = []
    for case in (case for case in CASES if case.any_log):
        audits = found(case).audits
        if case.parts == ("cameras",) and not any(audit.matches for audit in audits):
            continue
        n = len(next(iter(audits[0].votes.values())).bad)
        faults = find_faults(audits)
        fits = [fit.own for audit in audits for fit in audit.fits]
        out.append(
            {
                "log": source.name,
                "labels": path.name if stored else "ground truth",
                "fault": case.what,
                "must be named": case.name,
                "frames": sum(audit.frames for audit in audits),
                **{
                    vote: rounded(sum((a.votes[vote] for a in audits), VoteCounts.none(n)).share)
                    for vote in VOTES
                },
                "fit": rounded(float(np.mean(fits))) if fits else None,
                "poses m": rounded(explain([p for a in audits for p in a.motion]).noise_m),
                "named": names(faults),
                "evidence": [str(fault) for fault in faults],
                "verdicts": verdicts(case, [faults]),
            }
        )
    return out


def shown(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def markdown(figures: dict[str, Any]) -> str:
    seeds = ", ".join(str(config["seed"]) for config in figures["cities"])
    lines = [
        "# Audit without labels",
        "",
        f"{figures['scenes']} scenes of {figures['frames']} frames of cities (seeds {seeds}) that "
        f"no training saw. {figures['date']}, {figures['machine']}. Made by "
        "`python scripts/benchmarks/audit.py`, docstring there.",
        "",
        "The audit's constants were chosen on cities of seeds 101, 102, 4301, 7301 and 7304 and on "
        "PandaSet, after first results on 7303 and 7305 had been seen as well.",
        "",
        "## Rank correlation with the true error of a scene (Spearman)",
        "",
    ]
    scores = [n for n in figures["ranking"]["1 - accuracy"] if "interval" not in n]
    rows = []
    for measure in ("1 - accuracy", "1 - mIoU"):
        ranking_row = figures["ranking"][measure]
        low, high = ranking_row["score, 90 % interval"]
        cells = [shown(ranking_row[n]) for n in scores]
        cells[0] += f" ({shown(low)} to {shown(high)})"
        rows.append([measure, *cells])
    lines += [
        reporting.markdown_table(["true error", *scores], rows),
        "",
        "## Faults",
        "",
        "Of every log (all its scenes together) and of every scene alone: alarms, of these with "
        "the right name, with a wrong one, and with the cause said to be unknown. The store's "
        "records, which tell that a log changed since it was labelled, have no part in this.",
        "",
    ]
    counts = ("alarms", "right", "wrong", "unknown")
    rows = [
        [name, case["must be named"] or "-"]
        + [case[part][count] for part in ("logs", "scenes") for count in ("of", *counts)]
        for name, case in figures["cases"].items()
    ]
    columns = ["fault", "must be named", "logs", *counts, "scenes alone", *counts]
    lines.append(reporting.markdown_table(columns, rows))
    if figures["real"]:
        columns = ["log, labels", "fault", "must be named", "named", "frames", *VOTES]
        rows = []
        for log in figures["real"]:
            percents = [None if log[vote] is None else 100 * log[vote] for vote in VOTES]
            cells = [log["fault"], log["must be named"] or "-", ", ".join(log["named"]) or "-"]
            cells += [str(log["frames"]), *(shown(p, 1) + " %" for p in percents)]
            cells += [shown(log["fit"], 3), shown(log["poses m"], 3)]
            rows.append([f"{log['log']}, {log['labels']}", *cells])
        table = reporting.markdown_table([*columns, "fit", "poses m"], rows)
        lines += ["", "## Real logs", "", table]
    return "\n".join(lines) + "\n"


def draw(
    path: Path,
    audits: Sequence[SceneAudit],
    errors: Sequence[dict[str, float]],
    figures: dict[str, Any],
) -> None:
    """Score against true error, a point per scene."""
    figure = reporting.new_figure(10, 4.2)
    panels = figure.subplots(1, 2)
    for panel, measure in zip(panels, ("1 - accuracy", "1 - mIoU"), strict=True):
        truth = [100 * error[measure] for error in errors]
        panel.scatter([score(audit) for audit in audits], truth, s=28, color="#00635d")
        panel.set_xlabel("score of the audit (higher: more suspect)")
        panel.set_ylabel(f"true error: {measure}, %")
        panel.set_title(f"Spearman {shown(figures[measure]['score'])}, {len(audits)} scenes")
        panel.spines[["top", "right"]].set_visible(False)
    reporting.save_figure(figure, path, dpi=110)


if __name__ == "__main__":
    sys.exit(exit_code(main))
