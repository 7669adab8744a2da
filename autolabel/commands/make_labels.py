"""Build Occ3D label files from LiDAR, boxes and point classes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from datasets.annotations import AnnotatedSource
from datasets.benchmarks.ground_truth import GroundTruth
from datasets.benchmarks.label_files import write_npz
from datasets.benchmarks.occ3d_nuscenes import GRID, TAXONOMY, labels_path, write_labels
from datasets.cli.logs import log_words, open_log
from datasets.cli.next_step import print_next
from datasets.cli.scenes import scenes_of
from datasets.errors import SceneError, SetupError
from datasets.files.json_files import in_words, is_figure, write_json
from datasets.files.printable import printable
from datasets.ground_truth.scene_reconstruction import (
    BuiltLabels,
    LabelBuildingConfig,
    SceneReconstruction,
    key_returns,
)
from datasets.returns import CountsReturns, DroppedReturns
from datasets.taxonomy import IGNORE_ID


def run(args: argparse.Namespace) -> int:
    """Build them; gives the exit code. Raises ``SetupError``."""
    config = LabelBuildingConfig(correct_heights=not args.no_height_correction)
    if args.vehicle:
        low, high = tuple(args.vehicle[:3]), tuple(args.vehicle[3:])
        try:
            config = replace(config, vehicle_m=(low, high))
        except ValueError as error:
            raise SetupError(f"--vehicle: {error}") from error

    source = open_log(args, past_sweeps=args.past_sweeps)
    if source.taxonomy != TAXONOMY:
        raise SetupError(
            f"{args.root}: annotated as {source.taxonomy.name}; Occ3D files hold {TAXONOMY.name}"
        )
    report: dict[str, Any] = {
        "source": source.name,
        "licence": source.licence,
        "past_sweeps": args.past_sweeps,
        "config": asdict(config),
        "scenes": {},
        "set_aside": {},
    }
    scene_ids = scenes_of(source, args.split, root=args.root)
    for scene_id in tqdm(scene_ids, desc="scenes", disable=len(scene_ids) < 2):
        try:
            figures, bad = make_scene(source, scene_id, config, args.out, args)
        except SceneError as error:
            bad, figures = {"": str(error)}, None
        if figures:
            report["scenes"][scene_id] = figures
            print(f"{scene_id}: {describe(figures)}")
        if bad:
            report["set_aside"][scene_id] = bad
            for token, why in bad.items():
                print(printable(f"quarantined: {scene_id} {token}: {why}"), file=sys.stderr)
    write_json(args.out / "make_labels.json", report)
    print(f"labels: {args.out / 'gts'}")
    held_out = {t for figures in report["scenes"].values() for t in figures["held_out"]}
    if missing := sorted(set(args.hold_out) - held_out):
        raise SetupError(f"--hold-out {missing[0]}: no key-frame that was labeled")
    print_next("inspect", "--truth", args.out, *log_words(args))
    return 1 if report["set_aside"] else 0


def make_scene(
    source: AnnotatedSource,
    scene_id: str,
    config: LabelBuildingConfig,
    out: Path,
    args: argparse.Namespace,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Label a scene; its figures, and the quarantined frames with the reason."""
    scene = source.scene(scene_id)
    with tqdm(total=2 * len(scene.frames), desc=scene_id, unit="step", leave=False) as bar:
        built = SceneReconstruction(
            scene, source, config, hold_out=args.hold_out, progress=bar.update
        )
        scores = {}
        for frame in built.frames:
            labels = built.labels(frame.token, GRID)
            path = labels_path(out, scene_id, frame.token)
            write_labels(
                path,
                GroundTruth(
                    grid=GRID,
                    taxonomy=TAXONOMY,
                    semantics=labels.semantics,
                    mask_lidar=labels.mask_lidar,
                    mask_camera=labels.mask_camera,
                ),
            )
            if args.evidence:
                evidence = {"hits": labels.hits, "passes": labels.passes}
                write_npz(path.with_name("evidence.npz"), evidence)
            if frame.token in args.hold_out:
                points, classes = key_returns(source, frame, config)
                scores[frame.token] = asdict(returns_in(labels, points, classes))
            bar.update()
    returns = DroppedReturns()
    if isinstance(source, CountsReturns):
        returns = source.returns.total(s for f in built.frames for s in f.sweeps)
    figures = {
        "frames": len(built.frames),
        "annotated": built.annotated,
        "returns": asdict(returns),
        "ground_thickness_m": built.ground_thickness(),
        "ground_thickness_as_logged_m": built.ground_thickness(corrected=False),
        "held_out": scores,
    }
    return figures, built.bad_frames


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnsFound:
    """Where the returns of a sweep lie in labels, as shares of those inside the grid.

    Attributes:
        occupied, free, unknown: of the voxel in which a return ends; they add up to one.
        right_class: the voxel is occupied and has the class of the return; of marked returns.
    """

    returns: int
    occupied: float
    free: float
    unknown: float
    right_class: float


def returns_in(
    labels: BuiltLabels, points: NDArray[np.float32], classes: NDArray[np.uint8]
) -> ReturnsFound:
    inside = GRID.contains(points)
    voxel = tuple(GRID.indices(points[inside]).T)
    marks, semantics = classes[inside], labels.semantics[voxel]
    occupied, known = semantics != TAXONOMY.free_id, labels.mask_lidar[voxel]
    marked = marks != IGNORE_ID
    return ReturnsFound(
        returns=int(inside.sum()),
        occupied=share(occupied),
        free=share(~occupied & known),
        unknown=share(~known),
        right_class=share((semantics == marks)[marked]),
    )


def share(where: NDArray[np.bool_]) -> float:
    """NaN of nothing."""
    return float(where.mean()) if len(where) else float("nan")


def describe(figures: dict[str, Any]) -> str:
    thickness_m, as_logged_m = (
        figures[name] for name in ("ground_thickness_m", "ground_thickness_as_logged_m")
    )
    ground = "flat ground: none found"
    if is_figure(thickness_m):
        ground = f"flat ground is {thickness_m:.3f} m thick, "
        ground += in_words(as_logged_m, ".3f", "an unknown number of")
        ground += " m under the poses as logged"
    lines = [f"{figures['frames']} key-frames; {ground}"]
    returns = DroppedReturns(**figures["returns"])
    if returns.dropped:
        lines.append(f"  {returns}")
    if not figures["annotated"]:
        lines.append(
            "  nobody annotated objects here: all is taken for static, what moves is smeared"
        )
    for token, s in figures["held_out"].items():
        if not s["returns"]:
            lines.append(f"  held out {token}: no return in the grid")
            continue
        in_kinds = ", ".join(f"{100 * s[k]:.1f} % {k}" for k in ("occupied", "free", "unknown"))
        right = "no return has a class"
        if is_figure(s["right_class"]):
            right = f"right class {100 * s['right_class']:.1f} %"
        lines.append(
            f"  held out {token}: {s['returns']:,} returns in the grid end in voxels that are "
            f"{in_kinds}; {right}"
        )
    return "\n".join(lines)
