"""What the audit without labels is worth: its ranking against the truth, faults that it names.

    python scripts/benchmark_audit.py WEIGHTS --root CITY --out runs/audit
    python scripts/benchmark_audit.py WEIGHTS --root CITY --out runs/audit \\
        --real folder LOG STORE.zarr --real nuscenes LOG TRUTH

The city's scenes must have no part in the training of WEIGHTS or of the audit's own constants (city
seed 101). They are labelled and audited; each scene's score is compared with its true error. Then
faults are put into the log after labelling, the labels are moved or exchanged, and, for some
scenes, labels are made from the faulty log as well. ``--real`` audits labels of a real log: a
store, or a folder of Occ3D's files, as they are and with noise added to the poses.

OUT/audit.json, OUT/audit.md and OUT/audit.png hold the figures. What is in OUT already is not
measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm import tqdm
from trust_bench.faulty import (
    Change,
    ChangedLabels,
    ChangedLog,
    camera_turned,
    cameras_swapped,
    lidar_turned,
    poses_delayed,
    poses_noisy,
)

from autolabel.audit_report import score
from autolabel.audited_labels import AuditedLabels, StoredLabels, TrueLabels
from autolabel.auditing import Gathered, audit_labels, gather
from autolabel.confidence import Calibration
from autolabel.faults import Fault, find_faults
from autolabel.labeling import store_header, write_labels
from autolabel.labeling_config import LabelingConfig
from autolabel.motion_fit import explain
from autolabel.scene_audit import SceneAudit
from autolabel.votes import HELD_OUT_SWEEPS, VOTES, Ballot
from datasets.benchmarks.catalogue import NAMES, benchmark
from datasets.commands import exit_code, usable_scenes_of
from datasets.errors import SetupError
from datasets.frames import SceneSource
from datasets.json_files import write_json
from datasets.label_store import LabelStore
from datasets.metrics.confusion import ConfusionMatrix
from datasets.sources.opening import SOURCES, open_source
from models.checkpoint import CALIBRATION_KEY, load_checkpoint
from models.inference import Teacher

RELABELLED = 10
"""Scenes that are labelled from the faulty log as well."""
NOISE_M, NOISE_DEG = 0.2, 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault and what it must be called.

    Attributes:
        log: put into the log; ``labels``: into the labels.
        relabel: labels are made from the faulty log.
        scenes: only so many; 0: all.
    """

    what: str
    name: str
    log: Change | None = None
    labels: Callable[[AuditedLabels], AuditedLabels] | None = None
    relabel: bool = False
    scenes: int = 0


CASES = (
    Case(what="nothing", name=""),
    Case(what="CAM_BACK 2 degrees up", name="camera turned", log=camera_turned("CAM_BACK", 0, 2)),
    Case(
        what="CAM_BACK_LEFT 2 degrees down",
        name="camera turned",
        log=camera_turned("CAM_BACK_LEFT", 0, -2),
    ),
    Case(
        what="CAM_FRONT 2 degrees aside",
        name="camera turned",
        log=camera_turned("CAM_FRONT", 1, 2),
    ),
    Case(
        what="CAM_FRONT_LEFT 2 degrees about its view",
        name="camera turned",
        log=camera_turned("CAM_FRONT_LEFT", 2, 2),
    ),
    Case(what="LiDAR 2 degrees about its x", name="LiDAR tilted", log=lidar_turned(0, 2)),
    Case(what="LiDAR 2 degrees about its y", name="LiDAR tilted", log=lidar_turned(1, 2)),
    Case(what="LiDAR 2 degrees about its z", name="LiDAR turned", log=lidar_turned(2, 2)),
    Case(what="poses 100 ms late", name="poses delayed", log=poses_delayed(0.1)),
    Case(
        what="CAM_FRONT_LEFT and CAM_BACK_RIGHT swapped",
        name="cameras swapped",
        log=cameras_swapped("CAM_FRONT_LEFT", "CAM_BACK_RIGHT"),
    ),
    Case(
        what=f"poses with noise of {NOISE_M} m and {NOISE_DEG} degrees",
        name="poses noisy",
        log=poses_noisy(NOISE_M, NOISE_DEG),
    ),
    *(
        Case(
            what=f"labels one voxel along {axis}",
            name="labels shifted",
            labels=lambda labels, shift=shift: ChangedLabels(labels, shift=shift),  # type: ignore[misc]
        )
        for axis, shift in (("x", (1, 0, 0)), ("y", (0, 1, 0)), ("z", (0, 0, 1)))
    ),
    Case(
        what="labels of the next frame",
        name="labels of other frames",
        labels=lambda labels: ChangedLabels(labels, frames_late=1),
    ),
    Case(
        what="labels of the next scene",
        name="labels of other frames",
        labels=lambda labels: ChangedLabels(labels, scenes_late=1),
    ),
    *(
        Case(what=f"{what}, labelled so", name=name, log=change, relabel=True, scenes=RELABELLED)
        for what, name, change in (
            ("CAM_BACK 2 degrees up", "camera turned", camera_turned("CAM_BACK", 0, 2)),
            ("LiDAR 2 degrees about its z", "LiDAR turned", lidar_turned(2, 2)),
            ("LiDAR 2 degrees about its y", "LiDAR tilted", lidar_turned(1, 2)),
            ("poses 100 ms late", "poses delayed", poses_delayed(0.1)),
            (
                "CAM_FRONT_LEFT and CAM_BACK_RIGHT swapped",
                "cameras swapped",
                cameras_swapped("CAM_FRONT_LEFT", "CAM_BACK_RIGHT"),
            ),
        )
    ),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("weights", type=Path, help="calibrated teacher of a benchmark's voxels")
    parser.add_argument("--root", type=Path, required=True, help="a city")
    parser.add_argument("--split", default="val")
    parser.add_argument("--benchmark", choices=NAMES, default="occ3d_coarse")
    parser.add_argument("--out", type=Path, required=True)
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

    log = open_log("city", args.root, past_sweeps=9)
    scene_ids = usable_scenes_of(log, args.split, root=args.root)
    past_sweeps = load_checkpoint(args.weights).preset.inputs.past_sweeps
    store = label(
        args.weights,
        original(args.root, CASES[0], past_sweeps),
        scene_ids,
        args.out / "labels.zarr",
    )
    clean = gather(StoredLabels(store), log, tqdm(scene_ids, desc="audit", unit="scene")).audits
    cases = {
        case.what: kept(
            args.out / "parts" / f"{slug(case.what)}.json",
            lambda case=case: try_case(case, args, log, scene_ids, past_sweeps),  # type: ignore[misc]
        )
        for case in CASES
    }
    errors = true_errors(args.benchmark, args.root, log, store, scene_ids)
    figures: dict[str, Any] = {
        "weights": str(args.weights.parent.name),
        "scenes": len(scene_ids),
        "frames": sum(audit.frames for audit in clean),
        "ranking": ranking(clean, errors),
        "cases": cases,
        "real": [
            kept(
                args.out / "parts" / f"real-{slug(' '.join(Path(p).name for p in one))}.json",
                lambda one=one: real(*one),  # type: ignore[misc]
            )
            for one in args.real
        ],
    }
    write_json(args.out / "audit.json", figures)
    (args.out / "audit.md").write_text(markdown(figures))
    draw(args.out / "audit.png", clean, errors, figures["ranking"])
    print(markdown(figures))
    return 0


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured before, or is now."""
    if not path.exists():
        write_json(path, make())
    out: dict[str, Any] = json.loads(path.read_text())
    return out


def try_case(
    case: Case,
    args: argparse.Namespace,
    log: SceneSource,
    scene_ids: Sequence[str],
    past_sweeps: int,
) -> dict[str, Any]:
    chosen = scene_ids[: case.scenes or len(scene_ids)]
    faulty = log if case.log is None else ChangedLog(log, case.log)
    now = original(args.root, case, past_sweeps)
    where = args.out / (f"{slug(case.what)}.zarr" if case.relabel else "labels.zarr")
    if case.relabel:
        label(args.weights, now, chosen, where)
    labels: AuditedLabels = StoredLabels(where)
    labels = case.labels(labels) if case.labels else labels
    bar = tqdm(chosen, desc=case.what, unit="scene")
    return judged(case, labels, gather(labels, faulty, bar, fingerprint=now.fingerprint))


def open_log(kind: str, root: Path, *, past_sweeps: int) -> SceneSource:
    return open_source(kind, root, past_sweeps=past_sweeps, future_sweeps=HELD_OUT_SWEEPS)


def original(root: Path, case: Case, past_sweeps: int) -> SceneSource:
    """The log as it is when it is audited, with the sweeps that the teacher reads alone."""
    log = open_source("city", root, past_sweeps=past_sweeps)
    return log if case.log is None else ChangedLog(log, case.log)


def slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text).split())


def label(weights: Path, log: SceneSource, scene_ids: Sequence[str], where: Path) -> Path:
    """Scenes that are there already are not labelled again."""
    model = load_checkpoint(weights)
    if CALIBRATION_KEY not in model.metadata:
        raise SetupError(f"{weights}: it has no calibration table; see scripts/calibrate.py")
    calibration = Calibration.from_json(json.loads(model.metadata[CALIBRATION_KEY]))
    coarse = model.preset.grid.size_m[0] > 0.5
    config = LabelingConfig(visibility_split=2 if coarse else 1)
    teacher = Teacher(model.module, model.preset)
    header = store_header(model, calibration, config, source="city", licence=log.licence)
    store = LabelStore.open_or_create(where, header)
    for scene_id in tqdm([s for s in scene_ids if s not in store], desc="label", unit="scene"):
        write_labels(store, log.scene(scene_id), log, teacher, calibration, config)
    return where


def judged(case: Case, labels: AuditedLabels, found: Gathered) -> dict[str, Any]:
    """What was named, and in how many scenes alone it would have been."""
    together = find_faults(found.audits)
    alone = [find_faults([audit]) for audit in found.audits]
    report = audit_labels(labels, found)
    return {
        "must be named": case.name,
        "scenes": len(found.audits),
        "named": names(together),
        "named with the records": names(report.faults),
        "named in a scene alone": sum(case.name in names(faults) for faults in alone),
        "other names in a scene alone": sum(
            bool(set(names(faults)) - {case.name}) for faults in alone
        ),
        "evidence": [str(fault) for fault in together if fault.name == case.name][:2],
        "others": [str(fault) for fault in together if fault.name != case.name][:6],
        "set aside": found.set_aside,
    }


def names(faults: Iterable[Fault]) -> list[str]:
    return list(dict.fromkeys(fault.name for fault in faults))


def true_errors(
    benchmark_name: str, root: Path, log: SceneSource, store: Path, scene_ids: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Of each scene, in the mask of the benchmark: 1 - accuracy and 1 - mIoU."""
    of, labels = benchmark(benchmark_name), StoredLabels(store)
    of.require(labels.header.what, labels.header.grid, labels.header.taxonomy, labels.header.frame)
    out = {}
    for scene_id in tqdm(scene_ids, desc="truth", unit="scene"):
        matrix = ConfusionMatrix(of.taxonomy.n_classes)
        scene = labels.scene(scene_id)
        for frame in log.scene(scene_id).frames:
            truth = of.labels(root / of.folder, log, frame)
            semantics = scene.frame(scene.index_of(frame.token)).semantics
            matrix.update(truth.semantics, semantics, truth.scored())
        right = float(np.trace(matrix.counts) / matrix.counts.sum())
        miou = matrix.miou(of.taxonomy.semantic_ids)
        out[scene_id] = {"1 - accuracy": 1 - right, "1 - mIoU": 1 - miou}
    return out


def ranking(audits: Sequence[SceneAudit], errors: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Spearman's correlation of the score, and of its parts, with the true errors."""
    columns = {
        "score": [score(audit) for audit in audits],
        "expected error": [a.expected_wrong / max(a.judged, 1) for a in audits],
        "untrusted": [a.untrusted / max(a.judged, 1) for a in audits],
        **{vote: [audit.votes[vote].share for audit in audits] for vote in VOTES},
    }
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {}
    for measure in ("1 - accuracy", "1 - mIoU"):
        truth = np.array([errors[audit.scene_id][measure] for audit in audits])
        out[measure] = {name: rounded(correlation(x, truth)) for name, x in columns.items()}
        draws = [
            correlation(np.array(columns["score"])[chosen], truth[chosen])
            for chosen in rng.integers(0, len(truth), (1000, len(truth)))
        ]
        out[measure]["score, 90 % interval"] = [
            rounded(q) for q in np.quantile(draws, (0.05, 0.95))
        ]
    mean = {name: rounded(float(np.nanmean(x))) for name, x in columns.items()}
    out["means"] = mean | {
        measure: rounded(float(np.mean([e[measure] for e in errors.values()])))
        for measure in ("1 - accuracy", "1 - mIoU")
    }
    return out


def correlation(x: Any, y: Any) -> float:
    return float(spearmanr(x, y)[0])


def rounded(value: float) -> float:
    return round(float(value), 4)


def real(kind: str, root: str, where: str) -> dict[str, Any]:
    """A real log as it is and with noisy poses."""
    past_sweeps = 9
    source = open_log(kind, Path(root), past_sweeps=past_sweeps)
    stored = (Path(where) / "zarr.json").exists()
    out: dict[str, Any] = {
        "log": source.name,
        "labels": Path(where).name if stored else "ground truth",
    }
    noisy = ChangedLog(source, poses_noisy(NOISE_M, NOISE_DEG))
    for what, log in (("as it is", source), ("poses with noise", noisy)):
        labels: AuditedLabels
        if stored:
            labels = StoredLabels(Path(where))
        else:
            labels = TrueLabels(benchmark(NAMES[0]), Path(where), source)
        ids = tqdm(labels.scene_ids(), desc=f"{Path(where).name}, {what}", unit="scene")
        found = gather(labels, log, ids)
        n = labels.header.taxonomy.n_classes
        fit = explain([pair for audit in found.audits for pair in audit.motion])
        fits = [one.own for audit in found.audits for one in audit.fits]
        out[what] = {
            "frames": sum(audit.frames for audit in found.audits),
            **{
                vote: rounded(sum((a.votes[vote] for a in found.audits), Ballot.none(n)).share)
                for vote in VOTES
            },
            "fit": rounded(float(np.mean(fits))),
            "poses m": rounded(fit.noise_m),
            "score": {audit.scene_id: rounded(score(audit)) for audit in found.audits},
            "named": [str(fault) for fault in find_faults(found.audits)],
            "set aside": found.set_aside,
        }
    return out


def markdown(figures: dict[str, Any]) -> str:
    lines = [
        "# Audit without labels",
        "",
        f"{figures['scenes']} city scenes of {figures['frames']} frames that no training saw. "
        "Made by `python scripts/benchmark_audit.py`, docstring there.",
        "",
        "## Rank correlation with the true error of a scene (Spearman)",
        "",
    ]
    names_ = [n for n in figures["ranking"]["1 - accuracy"] if "interval" not in n]
    lines += ["| true error | " + " | ".join(names_) + " |", "|---" * (len(names_) + 1) + "|"]
    for measure in ("1 - accuracy", "1 - mIoU"):
        row = figures["ranking"][measure]
        low, high = row["score, 90 % interval"]
        cells = [f"{row[n]:.2f}" for n in names_]
        cells[0] += f" ({low:.2f} to {high:.2f})"
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Faults",
        "",
        "| fault | must be named | scenes | named from log and labels | with the store's records | "
        "so named in one scene alone | another name in one scene alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for what, case in figures["cases"].items():
        shown = (
            what,
            case["must be named"] or "-",
            str(case["scenes"]),
            ", ".join(case["named"]) or "-",
            ", ".join(case["named with the records"]) or "-",
            str(case["named in a scene alone"]) if case["must be named"] else "-",
            str(case["other names in a scene alone"]),
        )
        lines.append(f"| {' | '.join(shown)} |")
    if figures["real"]:
        lines += [
            "",
            "## Real logs",
            "",
            f"Noise: {NOISE_M} m along x and y and {NOISE_DEG} degrees, of every pose.",
            "",
            f"| log, labels | poses | frames | {' | '.join(VOTES)} | fit | poses m | named |",
            "|---" * (len(VOTES) + 6) + "|",
        ]
        for one in figures["real"]:
            for what in ("as it is", "poses with noise"):
                row = one[what]
                shares = " | ".join(f"{100 * row[vote]:.1f} %" for vote in VOTES)
                named = ", ".join(dict.fromkeys(text.split(" (")[0] for text in row["named"]))
                lines.append(
                    f"| {one['log']}, {one['labels']} | {what} | {row['frames']} | {shares} | "
                    f"{row['fit']:.3f} | {row['poses m']:.3f} | {named or '-'} |"
                )
    return "\n".join(lines) + "\n"


def draw(
    path: Path,
    audits: Sequence[SceneAudit],
    errors: dict[str, dict[str, float]],
    figures: dict[str, Any],
) -> None:
    """Score against true error, a point per scene."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for panel, measure in zip(panels, ("1 - accuracy", "1 - mIoU"), strict=True):
        truth = [100 * errors[audit.scene_id][measure] for audit in audits]
        panel.scatter([score(audit) for audit in audits], truth, s=28, color="#00635d")
        panel.set_xlabel("score of the audit (higher: more suspect)")
        panel.set_ylabel(f"true error: {measure}, %")
        panel.set_title(f"Spearman {figures[measure]['score']:.2f}, {len(audits)} scenes")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(exit_code(main))
