"""Print how equal our networks are to the published ones, stage by stage.

    python scripts/conformance/check_networks.py
    python scripts/conformance/check_networks.py --oracle DIR --device cuda --fast --json OUT.json

Needs the oracle folder: outputs of the published code for one real frame, with weights made by a
formula. ``published cells``: frustum points are pooled as the published code did; ``own geometry``:
our own arithmetic, which is what a user gets. Exit code 0: every stage is within float32 noise and
at least 99.99 % of all voxels have the published class; 1: not so, with what differs named.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from network_stages import (
    STUDENT,
    TEACHER,
    Arrays,
    Case,
    MovedPoints,
    SameClass,
    StageError,
    compare_cells,
    compare_classes,
    compare_stage,
    compare_stages,
    exact_logits,
    lift_of,
    load_arrays,
    load_formula_weights,
    oracle_folder,
    published_cells,
    reference_inputs,
    run_stages,
    with_cells,
)
from tqdm import tqdm

from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.files.json_files import write_json
from models.inference.predictor import Agreement, OccupancyPredictor, agreement
from models.presets import build_network, preset

MIN_SAME = 0.9999


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A whole network's logits against the published ones.

    Attributes:
        name: which network, and where its pooling cells are from.
        exact_cells: whether those are the published ones, so that the logits must be equal too.
    """

    name: str
    exact_cells: bool
    logits: StageError
    classes: SameClass

    def __str__(self) -> str:
        c = self.classes
        return (
            f"{self.name:28}{c.same:>14,}{c.share:>11.4%}{c.clear_same:>14,}{c.clear_share:>11.4%}"
            f"{self.logits.error:>13.2e}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One network against the published one.

    Attributes:
        weights_equal: the formula gave the reference's weights, bit for bit.
        fast: the labelling network in bfloat16 against itself in float32, where asked for.
    """

    title: str
    weights_equal: bool
    stages: list[StageError]
    points: MovedPoints
    predictions: list[Prediction]
    fast: Agreement | None

    def failures(self) -> Iterator[str]:
        """What is not equal, by name."""
        if not self.weights_equal:
            yield "weights"
        yield from (e.stage for e in self.stages if not e.ok)
        if not self.points.ok:
            yield "geometry"
        for p in self.predictions:
            if p.exact_cells and not p.logits.ok:
                yield f"logits ({p.name})"
            if not p.classes.share >= MIN_SAME:
                yield f"classes ({p.name})"

    def __str__(self) -> str:
        moved, first = self.points, self.predictions[0]
        lines = [
            self.title,
            f"{'stage':18}{'values':>9}{'max error':>11}{'largest':>10}{'relative':>10}"
            f"{'allowed':>10}{'channels':>10}  sites",
            *map(_row, self.stages),
            f"frustum points in another cell with own geometry: {moved.moved} of {moved.points:,}, "
            f"at most {moved.border_m:.1e} m from a cell border",
            f"same class as published, of all {first.classes.voxels:,} voxels and of the "
            f"{first.classes.clear:,} outside small margins; largest error of "
            f"{first.logits.compared:,} sampled logits:",
            *map(str, self.predictions),
        ]
        if self.fast:
            lines.append(
                f"labelling in bfloat16 against float32: same class in {self.fast.same:.4%} of "
                f"voxels, mIoU {self.fast.miou:.4f}, confidence off by {self.fast.confidence:.3f} "
                "at most (for information)"
            )
        return "\n".join(lines)


def _row(e: StageError) -> str:
    sites = {None: "", True: "equal", False: "DIFFER"}[e.sites_equal]
    row = (
        f"{e.stage:18}{e.compared:>9,}{e.error:>11.2e}{e.largest:>10.4g}{e.relative:>10.1e}"
        f"{e.allowed:>10.1e}{e.channel_error:>10.1e}  {sites:6}{'' if e.ok else '  NOT EQUAL'}"
    )
    return row.rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--oracle",
        type=Path,
        default=oracle_folder(os.environ),
        help="reference outputs; default: AUTOLABEL_ORACLE or shared/oracle beside the project",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--fast", action="store_true", help="also compare bfloat16 with float32")
    parser.add_argument("--json", type=Path, metavar="OUT", help="JSON file for the figures")
    args = parser.parse_args()

    if args.threads < 1:
        raise SetupError(f"--threads {args.threads}: must be at least 1")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SetupError("--device cuda: there is no CUDA device here")
    torch.set_num_threads(args.threads)
    frame, student = (load_arrays(args.oracle, case.file) for case in (TEACHER, STUDENT))
    reports = []
    for case, arrays in ((TEACHER, frame), (STUDENT, student)):
        reports.append(check(case, arrays, frame, device=args.device, fast=args.fast))
        print(f"{reports[-1]}\n", flush=True)
    if args.json:
        figures = [asdict(r) | {"failures": list(r.failures())} for r in reports]
        write_json(args.json, figures)
    failures = [f"{r.title}: {', '.join(named)}" for r in reports if (named := list(r.failures()))]
    if failures:
        print(f"NOT EQUAL to the published networks: {'; '.join(failures)}", file=sys.stderr)
        return 1
    print("equal to the published networks")
    return 0


def check(case: Case, arrays: Arrays, frame: Arrays, *, device: str, fast: bool) -> Report:
    """Run a network, and the same made ready for labelling, with both kinds of cells.

    Args:
        arrays: the case's; frame: the teacher's, which hold the inputs.
    """
    chosen = preset(case.preset).with_reference_parity()
    own = build_network(chosen.network).eval()
    crc = load_formula_weights(own)
    own.to(device)
    inputs = reference_inputs(frame, arrays["sensor2keyego"]).to(device)
    cells = published_cells(arrays)
    fed = with_cells(own, cells)

    def compared(name: str, logits: torch.Tensor, *, exact_cells: bool) -> Prediction:
        bar.update()
        return Prediction(
            name=name,
            exact_cells=exact_cells,
            logits=compare_stage(arrays, "logits", logits),
            classes=compare_classes(arrays, logits),
        )

    with tqdm(total=5 if fast else 4, desc=case.title, unit="pass") as bar:
        outputs = run_stages(fed, case, inputs)
        stages = compare_stages(arrays, case, outputs)
        lift = lift_of(own)
        points = compare_cells(
            arrays,
            lift.cells(inputs, *cells.shape[-2:]),
            outputs.dense["frustum_ego"],
            lift.config.grid,
        )
        predictions = [
            compared("network, published cells", outputs.dense["logits"], exact_cells=True)
        ]
        del outputs
        predictions.append(
            compared("network, own geometry", exact_logits(own, inputs), exact_cells=False)
        )
        logits = OccupancyPredictor(fed, chosen).predict(inputs)
        predictions.append(compared("labelling, published cells", logits, exact_cells=True))
        logits = OccupancyPredictor(own, chosen).predict(inputs)
        predictions.append(compared("labelling, own geometry", logits, exact_cells=False))
        close = None
        if fast:
            close = agreement(
                logits, OccupancyPredictor(own, chosen, bfloat16=True).predict(inputs)
            )
            bar.update()
    return Report(
        title=f"{case.title} ({case.preset})",
        weights_equal=crc == int(arrays["weights_crc32"]),
        stages=stages,
        points=points,
        predictions=predictions,
        fast=close,
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
