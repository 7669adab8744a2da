"""The section on confidence: does it mean what it says, and what does trusting cost?

Legend: K classes, L levels of confidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.labels.calibration_record import CalibrationRecord
from datasets.labels.lidar_check import LidarEstimate
from datasets.metrics.calibration import calibration_error, risk_coverage
from datasets.taxonomy import GROUP_LABELS
from viz.html_report.content import Content
from viz.html_report.markup import Child, Html, join, tag
from viz.html_report.page import NOTHING, Column, Section, bar, empty, number, percent, table, words
from viz.html_report.store_statistics import Counts, StoreNumbers, share
from viz.html_report.svg_plots import (
    Series,
    histogram,
    legend,
    reliability_plot,
    risk_coverage_plot,
)

FEWEST = 100
"""Voxels of a level: the share of right ones among fewer says little."""

Masks = Sequence[tuple[str, NDArray[np.bool_]]]


def confidence(content: Content) -> Section:
    """Reliability, risk against coverage, and where the store's confidence lies."""
    n, calibration = content.numbers, content.calibration
    groups: Masks = (("occupied", n.occupied), ("free", ~n.occupied))
    held_out = calibration is not None and calibration.reliability is not None
    parts: list[Html] = []
    if not held_out:
        parts.append(_no_calibration(content))
    if not content.truth:
        parts.append(_no_truth(content))
    charts = [_histogram(n, groups)]
    if reliability := _reliability(content, groups):
        charts.insert(0, reliability)
    charts += [_risk(content, name, ids) for name, ids in groups]
    parts.append(tag("div", *charts, class_="charts"))
    if rows := _error_rows(content, groups):
        columns = [
            Column(name="Measured on", text=True),
            Column(name="Voxels", text=True),
            Column(name="Counted"),
            Column(name="ECE", hint="expected calibration error, plain: mean |right - claimed|"),
            Column(name="AURC", hint="area under the risk-coverage curve"),
            Column(name="Wrong", hint="share of all, trusted or not"),
        ]
        parts.append(table(columns, rows, "Calibration error and risk"))
    if (verdict := content.validity) is not None and verdict.lidar is not None:
        parts.append(_lidar_check(verdict.lidar))
    if verdict is not None:
        parts += [tag("p", f"Not tested: {what}.", class_="lead") for what in verdict.untested]
    return Section(
        id="confidence",
        title="Confidence",
        lead=f"{_method(calibration)} Labels should be right as often as their level claims.",
        body=join(parts),
    )


def _lidar_check(found: LidarEstimate) -> Html:
    """Trusted occupied voxels that are free: as claimed, and as held-out LiDAR sweeps say."""
    columns = [
        Column(name="Classes", text=True),
        Column(name="Distance", text=True),
        Column(name="Trusted voxels", hint="occupied, of the frames that were checked"),
        Column(name="Free, claimed", hint="by their confidence"),
        Column(name="Free, estimated", hint="from LiDAR sweeps that the teacher did not read"),
    ]
    rows = [
        [
            words(GROUP_LABELS.get(group, group)),
            words(ring),
            number(f"{voxels:,}"),
            bar(claimed, percent(claimed), style="risk"),
            bar(estimated, percent(estimated), style="risk"),
        ]
        for (group, ring), (voxels, estimated, claimed) in found.by_group.items()
    ]
    lead = f"LiDAR check: {found.to_text()}. Of classes LiDAR says nothing."
    return join([tag("p", lead, class_="lead"), table(columns, rows, "LiDAR check")])


def _method(calibration: CalibrationRecord | None) -> str:
    if calibration is None:
        return "The store does not tell how its confidence was learnt."
    if not calibration.voxels:
        return "Not calibrated: the softmax is taken at its word."
    return f"Calibrated ({calibration.method}) on {calibration.voxels:,} voxels."


def _no_calibration(content: Content) -> Html:
    return empty(
        "The store's calibration was not measured on scenes left out of its fit. Calibrate with ",
        tag("code", "python scripts/calibrate.py"),
        " and label again, or compare with ground truth below.",
    )


def _no_truth(content: Content) -> Html:
    command = content.command("viz/report.py", "--truth", "DIR")
    return empty("No ground truth given. Where there is some, run ", tag("code", command), ".")


def _measured(content: Content) -> list[tuple[str, str, Counts, Counts]]:
    """What was measured: its name, its style, (K, L) voxels and right ones."""
    curves = []
    calibration, n = content.calibration, content.numbers
    if calibration and (counts := calibration.reliability) is not None:
        curves.append(("calibration", "calibrated", counts.seen, counts.right))
    if content.truth and n.scored.any():
        curves.append(("measured", "actual", n.scored.sum((1, 3)), n.right.sum((1, 3))))
    return curves


def _reliability(content: Content, groups: Masks) -> Html | None:
    levels = content.numbers.levels
    series = []
    for source, style, counts, right in _measured(content):
        for name, ids in groups:
            total, good = counts[ids].sum(0), right[ids].sum(0)
            enough = total >= FEWEST
            series.append(
                Series(
                    name=f"{name}, {source}",
                    x=levels[enough],
                    y=good[enough] / total[enough],
                    style=f"{style} {name}",
                    voxels=tuple(total[enough].tolist()),
                )
            )
    if not series:
        return None
    return _chart(
        "Reliability",
        reliability_plot(series, "Reliability: share of right labels against confidence"),
        _keys(series),
        "On the dotted diagonal labels are as often right as they claim; above it they are "
        f"better. Larger dots stand for more voxels; fewer than {FEWEST} are not shown. Axes are "
        "uniform in the logit.",
    )


def _histogram(n: StoreNumbers, groups: Masks) -> Html:
    title = "Confidence of the store"
    if not n.labels.any():
        return _chart(title, empty("No observed voxel."), None, "")
    series = []
    for name, ids in groups:
        voxels = n.labels[ids].sum((0, 1, 3))
        shares = voxels / max(1, voxels.sum())
        style = f"swatched {name}"
        counted = tuple(voxels.tolist())
        series.append(Series(name=name, x=n.levels, y=shares, style=style, voxels=counted))
    return _chart(
        title,
        histogram(n.levels.tolist(), series, "Share of the observed voxels at each level"),
        _keys(series),
        "Observed voxels of the store by level, in percent of the occupied and of the free ones.",
    )


def _risk(content: Content, name: str, ids: NDArray[np.bool_]) -> Html:
    n, levels = content.numbers, content.numbers.levels
    voxels = n.labels[ids].sum((1, 3)).astype(np.float64)  # (K, L)
    trusted = n.labels[ids][..., 1].sum(1).astype(np.float64)
    claimed = np.broadcast_to(levels, voxels.shape)
    kinds = [("claimed", "claimed", voxels, trusted, claimed)]
    for source, style, counts, right in _measured(content):
        rates = np.divide(right[ids], counts[ids], out=claimed.copy(), where=counts[ids] > 0)
        if style == "actual":
            total, kept = counts[ids].astype(np.float64), n.scored[ids][..., 1].sum(1)
            kinds.append((source, style, total, kept.astype(np.float64), rates))
        else:
            kinds.append((f"expected by the {source}", style, voxels, trusted, rates))
    series, crosses = [], []
    for source, style, total, kept, rates in kinds:
        if not total.any():
            continue
        curve = risk_coverage(levels, total.sum(0), (total * rates).sum(0))
        look = f"{style} {name}"
        series.append(Series(name=source, x=curve.coverage, y=curve.risk, style=look))
        if kept.any():
            wrong = share(float((kept * (1 - rates)).sum()), float(kept.sum()))
            if style == "actual":
                right_kept = n.right[ids][..., 1].sum()
                wrong = share(kept.sum() - right_kept, kept.sum())
            crosses.append((share(kept.sum(), total.sum()), wrong, look))
    if not series:
        return _chart(f"Risk and coverage, {name}", empty(f"No observed {name} voxel."), None, "")
    promised = content.promise.max_error if content.promise else None
    return _chart(
        f"Risk and coverage, {name}",
        risk_coverage_plot(
            series,
            f"Share of wrong {name} labels against the share taken",
            promised=promised,
            trusted=crosses,
        ),
        _keys(series, promised),
        "The large dots are what the store trusts. What is claimed should be what is measured.",
    )


def _error_rows(content: Content, groups: Masks) -> list[list[Html]]:
    levels, rows = content.numbers.levels, []
    names = {"calibration": "calibration, held-out scenes", "measured": content.truth}
    for source, _, counts, right in _measured(content):
        all_ids = np.ones(len(counts), bool)
        for name, ids in (*groups, ("all", all_ids)):
            total, good = counts[ids].sum(0), right[ids].sum(0)
            if not total.any():
                continue
            wrong = share(total.sum() - good.sum(), total.sum())
            area = risk_coverage(levels, total, good).area
            error = calibration_error(levels, total, good)
            rows.append(
                [
                    words(names[source]),
                    words(name),
                    number(f"{total.sum():,}"),
                    number(f"{error:.4f}" if np.isfinite(error) else NOTHING),
                    number(f"{area:.4f}" if np.isfinite(area) else NOTHING),
                    bar(wrong, percent(wrong, 2), style="risk"),
                ]
            )
    return rows


def _keys(series: Sequence[Series], promised: float | None = None) -> Html:
    looks = [(line.name, line.style) for line in series]
    if promised is not None:
        looks.append((f"promised: at most {100 * promised:g}\u00a0%", "limit"))
    return legend(looks)


def _chart(title: str, plot: Html, keys: Child, caption: str) -> Html:
    figcaption = tag("figcaption", caption) if caption else None
    return tag("figure", tag("h3", title), plot, keys, figcaption, class_="chart")
