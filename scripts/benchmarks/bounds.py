"""Do error bounds hold, in total and for each group of classes, and what do they keep?

    python scripts/benchmarks/bounds.py WEIGHTS --json OUT.json

WEIGHTS hold the counts of their calibration scenes (``scripts/calibrate.py``), each scene counted
by what was fitted on others. A hundred times two thirds of the scenes set the thresholds and the
others test them: how often is more wrong than the bound allows? Beside it what was before: one
threshold for all occupied voxels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import reporting

from autolabel.confidence.risk_control import CalibrationCounts, control_risk
from autolabel.labeling.stored_calibration import calibration_of, evidence_of
from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.taxonomy import GROUP_LABELS
from models.checkpoints.checkpoint import load_checkpoint

DRAWS = 100
ERRORS = (0.02, 0.05, 0.1)
COLUMNS = ("bound", "voxels", "draws with some trusted", "broken", "wrong, mean", "worst", "kept")
Groups = Mapping[str, Sequence[int]]


def main() -> int:
    parser = reporting.parser(__doc__, json=True)
    parser.add_argument("weights", type=Path, metavar="WEIGHTS")
    args = parser.parse_args()
    model = load_checkpoint(args.weights)
    if (counts := evidence_of(model, args.weights)) is None:
        raise SetupError(f"{args.weights}: no calibration evidence (scripts/calibrate.py)")
    levels = calibration_of(model, args.weights).levels
    taxonomy = model.preset.taxonomy
    by_group = taxonomy.class_groups()
    together = {"occupied": taxonomy.semantic_ids, "free": (taxonomy.free_id,)}
    parts = {"occupied": taxonomy.semantic_ids, **by_group}
    figures: dict[str, Any] = {"scenes": len(counts.scene_ids), "draws": DRAWS}
    for name, groups in (("a threshold for each group", by_group), ("one for all", together)):
        figures[name] = {
            f"{100 * e:g} %": of_bound(counts, levels, groups, parts, e) for e in ERRORS
        }
        rows = [
            (bound, GROUP_LABELS.get(group, group), *row.values())
            for bound, of_groups in figures[name].items()
            for group, row in of_groups.items()
        ]
        print(f"{name}, {len(counts.scene_ids)} scenes, {DRAWS} draws")
        print(reporting.markdown_table(COLUMNS, rows))
    reporting.write_figures(figures, args.json)
    return 0


def of_bound(
    counts: CalibrationCounts,
    levels: Sequence[float],
    groups: Groups,
    parts: Groups,
    max_error: float,
) -> dict[str, dict[str, Any]]:
    """Of one bound, for each of ``parts``."""
    rng = np.random.default_rng(0)
    n = len(counts.scene_ids)
    wrong: dict[str, list[float]] = {name: [] for name in parts}
    kept: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(DRAWS):
        order = rng.permutation(n).tolist()
        try:
            bound = control_risk(
                counts.part(order[: 2 * n // 3]), levels, groups, max_error=max_error
            )
        except SetupError:
            continue
        take = np.arange(len(levels)) >= np.asarray(bound.thresholds)[:, None]
        tested = counts.part(order[2 * n // 3 :])
        seen, right = (of.sum((0, 1)) for of in (tested.seen, tested.right))
        for name, members in parts.items():
            ids = list(members)
            trusted = int((seen * take)[ids].sum())
            kept[name].append(trusted / max(1, int(seen[ids].sum())))
            if trusted:
                wrong[name].append(1 - int((right * take)[ids].sum()) / trusted)
    return {
        name: {
            "draws": len(errors),
            "broken": sum(e > max_error for e in errors),
            "wrong, mean": _percent(errors),
            "worst": f"{100 * max(errors):.2f} %" if errors else "-",
            "kept": _percent(kept[name]),
        }
        for name, errors in wrong.items()
    }


def _percent(values: Sequence[float]) -> str:
    return f"{100 * float(np.mean(values)):.2f} %" if values else "-"


if __name__ == "__main__":
    sys.exit(exit_code(main))
