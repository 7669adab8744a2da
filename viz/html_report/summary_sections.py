"""Sections of numbers: summary, classes, distance, confidence.

Legend: K classes, R rings of distance, L levels of confidence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datasets.store_ops.export import sharing
from datasets.taxonomy import GROUP_LABELS
from viz.html_report.content import Content
from viz.html_report.markup import Html, join, tag
from viz.html_report.page import (
    NOTHING,
    Column,
    Section,
    bar,
    card,
    many,
    name_cell,
    notice,
    number,
    percent,
    swatch,
    table,
)
from viz.html_report.review_section import review_cards, review_notices
from viz.html_report.store_statistics import RINGS, Counts, expected_wrong, share


def summary(content: Content) -> Section:
    """What one should know before anything else."""
    n = content.numbers
    observed, trusted = n.labels.sum(), n.labels[..., 1].sum()
    cards = [
        card("Scenes", f"{len(n.scenes):,}", f"{n.frames:,} frames"),
        card("Observed", percent(share(observed, n.voxels)), _seen_by(content)),
        card("Trusted", percent(share(trusted, observed)), _trusted_by_group(content)),
        card(
            "Wrong of occupied, expected",
            percent(expected_wrong(n.labels[n.occupied][..., 1], n.levels)),
            "of the trusted occupied voxels, by their confidence; of the free ones "
            + percent(expected_wrong(n.labels[~n.occupied][..., 1], n.levels)),
        ),
        _validity_card(content),
        _error_bound_card(content),
    ]
    if content.truth:
        cards.append(_truth_card(content))
    cards += review_cards(content.reviews)
    return Section(
        id="summary",
        title="Summary",
        lead="Shares are of voxels that LiDAR or a camera observed; nothing may use a label "
        "elsewhere.",
        body=join(
            [tag("div", *cards, class_="cards"), tag("ul", *_notices(content), class_="notices")]
        ),
    )


def _seen_by(content: Content) -> str:
    n = content.numbers
    lidar, camera = (sum(getattr(s, key) for s in n.scenes) for key in ("lidar", "camera"))
    return (
        f"of {many(n.voxels)} voxels; LiDAR {percent(share(lidar, n.voxels))}, "
        f"cameras {percent(share(camera, n.voxels))}"
    )


def _trusted_by_group(content: Content) -> str:
    """Of occupied and of free voxels: the share that is trusted."""
    n = content.numbers
    rates = []
    for name, ids in (("occupied", n.occupied), ("free", ~n.occupied)):
        part = n.labels[ids]
        rates.append(f"{name} {percent(share(part[..., 1].sum(), part.sum()))}")
    return ", ".join(rates)


def _validity_card(content: Content) -> Html:
    verdict = content.validity
    if verdict is None:
        return card("Confidence", "unknown", "its record cannot be read", style="bad")
    if verdict.verified:
        return card("Confidence", "verified", "it was calibrated on this log, and nothing differs")
    return card("Confidence", "not verified", f"on this log: {verdict.reasons[0]}", style="bad")


def _error_bound_card(content: Content) -> Html:
    promise = content.promise
    if promise is None:
        config = content.numbers.header.provenance.get("config")
        threshold = config.get("min_confidence") if isinstance(config, dict) else None
        caption = "autolabel/run.py --max-error E picks trusted labels with a bound"
        if threshold is not None:
            caption = f"trusted from P {threshold} on; {caption}"
        return card("Error bound", "none", caption)
    if content.validity is None or not content.validity.verified:
        return card(
            "Error bound",
            "does not hold here",
            f"at most {100 * promise.max_error:g} % was promised for the logs that confidence was "
            "calibrated on",
            style="bad",
        )
    refused = [GROUP_LABELS.get(n, n) for n, g in promise.groups.items() if g.error is None]
    return card(
        "Error bound",
        f"at most {100 * promise.max_error:g} %",
        f"wrong of the trusted of each group of classes; {100 * promise.confidence:g}\u00a0% "
        f"confidence, {promise.test} test, {promise.scenes} {promise.unit}"
        + (f"; nothing trusted of {', '.join(refused)}" if refused else ""),
    )


def _truth_card(content: Content) -> Html:
    n, occupied = content.numbers, content.numbers.occupied
    scored, right = n.scored[..., 1], n.right[..., 1]
    parts = {
        name: share(scored[ids].sum() - right[ids].sum(), scored[ids].sum())
        for name, ids in (("occupied", occupied), ("free", ~occupied))
    }
    limit = content.promise.max_error if content.promise else 1.0
    return card(
        "Wrong of occupied, measured",
        percent(parts["occupied"]),
        f"of the trusted occupied voxels that {content.truth} scores; of the free ones "
        + percent(parts["free"]),
        style="bad" if any(value > limit for value in parts.values()) else "",
    )


def _notices(content: Content) -> list[Html]:
    """What needs attention, worst first."""
    notices = []

    def link(section: str, text: str) -> Html:
        return tag("a", text, href=f"#{section}")

    if bad := content.unreadable:
        notices.append(
            notice(
                "bad", f"{_n(len(bad), 'scene')} could not be read whole: ", link("aside", "why")
            )
        )
    if quarantined := content.set_aside:
        text = f"{_n(len(quarantined), 'scene')} quarantined by the labeling job: "
        notices.append(notice("bad", text, link("aside", "reasons")))
    if (verdict := content.validity) is not None and not verdict.verified:
        text = "Confidence is not verified on this log, and no error bound holds: "
        reasons = "; ".join(verdict.reasons)
        notices.append(notice("bad", text, link("confidence", reasons)))
    if content.audit is not None and (faults := content.audit.faults):
        names = ", ".join(dict.fromkeys(fault.name for fault in faults))
        text = f"The audit names faults: {names}. "
        notices.append(notice("bad", text, link("audit", "Evidence")))
    notices += review_notices(content.reviews)
    notices += [notice("warn", note) for note in content.notes]
    if not (content.numbers.scenes or content.unreadable):
        notices.append(notice("warn", "The store holds no scene yet."))
    elif not notices:
        notices.append(notice("good", "Every scene could be read, and none was quarantined."))
    licence = _licence(content)
    notices.append(notice("good" if "may be shared" in licence else "warn", licence))
    return notices


def _licence(content: Content) -> str:
    text = sharing(content.numbers.header.licence)
    return text[0].upper() + text[1:] + "."


def _n(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def classes(content: Content) -> Section:
    """A row per class."""
    n, taxonomy = content.numbers, content.numbers.header.taxonomy
    promise, truth = content.promise, bool(content.truth)
    columns = [
        Column(name="Class", text=True),
        Column(name="Observed voxels"),
        Column(name="Share", hint="of the observed voxels"),
        Column(name="Trusted", hint="share of the class's observed voxels that is trusted"),
        Column(name="Mean confidence", hint="of the observed voxels, P(label is right)"),
        Column(name="Expected wrong", hint="share of the trusted voxels, by their confidence"),
        Column(
            name="Balance kept",
            hint="share of the class among the trusted over its share among the observed voxels; "
            "below 1 a student sees less of it than there is",
        ),
    ]
    if promise is not None:
        caption = "share of the trusted voxels, on the calibration scenes of the promise"
        columns.append(Column(name="Wrong in calibration", hint=caption))
    if truth:
        caption = f"share of the trusted voxels of this label that {content.truth} contradicts"
        columns.append(Column(name="Wrong, measured", hint=caption))
    order = [*taxonomy.semantic_ids, taxonomy.free_id]
    total, all_trusted = n.labels.sum(), n.labels[..., 1].sum()
    rows = []
    for i in order:
        count, trusted = n.labels[i].sum(), n.labels[i][..., 1].sum()
        name = name_cell(swatch(taxonomy.colors[i]), taxonomy.names[i].replace("_", " "))
        among = share(count, total)
        balance = share(share(trusted, all_trusted), among) if among else float("nan")
        row = [
            name,
            number(f"{count:,}" if count else NOTHING),
            bar(among, percent(among, 2)) if count else number(NOTHING),
            *_trust_cells(n.labels[i], n.levels),
            number(f"{balance:.2f}" if np.isfinite(balance) else NOTHING),
        ]
        if promise is not None:
            row.append(number(percent(promise.class_error[i], 2)))
        if truth:
            row.append(_wrong_cell(n.scored[i][..., 1], n.right[i][..., 1]))
        rows.append(row)
    return Section(
        id="classes",
        title="Classes",
        lead="By the class of the label. Free space comes last.",
        body=table(columns, rows, "Voxels, trust and confidence per class"),
    )


def distances(content: Content) -> Section:
    """A row per ring."""
    n, occupied = content.numbers, content.numbers.occupied
    frame = "vehicle" if n.header.frame == "ego" else "LiDAR"
    columns = [
        Column(name="Distance", text=True),
        Column(name="Observed voxels"),
        Column(name="Occupied", hint="share of the observed voxels that is labeled occupied"),
        Column(name="Trusted of occupied"),
        Column(name="Trusted of free"),
        Column(name="Expected wrong of occupied", hint="of the trusted ones, by their confidence"),
        Column(name="Expected wrong of free", hint="of the trusted ones, by their confidence"),
    ]
    if content.truth:
        caption = f"share of the trusted voxels that {content.truth} contradicts"
        columns.append(Column(name="Wrong of occupied, measured", hint=caption))
        columns.append(Column(name="Wrong of free, measured", hint=caption))
    rows = []
    for ring, name in enumerate(RINGS.names):
        in_ring = n.labels[:, ring]
        parts = in_ring[occupied], in_ring[~occupied]
        occupied_share = share(parts[0].sum(), in_ring.sum())
        trusted = [share(part[..., 1].sum(), part.sum()) for part in parts]
        wrong = [expected_wrong(part[..., 1], n.levels) for part in parts]
        row = [
            name_cell(name),
            number(f"{in_ring.sum():,}" if in_ring.any() else NOTHING),
            bar(occupied_share, percent(occupied_share)),
            *(bar(value, percent(value)) for value in trusted),
            *(bar(value, percent(value), style="risk") for value in wrong),
        ]
        if content.truth:
            scored, right = n.scored[:, ring, ..., 1], n.right[:, ring, ..., 1]
            row += [_wrong_cell(scored[ids], right[ids]) for ids in (occupied, ~occupied)]
        rows.append(row)
    return Section(
        id="distance",
        title="Distance",
        lead=f"By the horizontal distance of a voxel's centre from the {frame}.",
        body=table(columns, rows, "Voxels, trust and confidence per ring of distance"),
    )


def _trust_cells(labels: Counts, levels: NDArray[np.float64]) -> Sequence[Html]:
    """Trusted, mean confidence, expected wrong of (..., L, 2) voxels."""
    trusted = share(labels[..., 1].sum(), labels.sum())
    sure = 1 - expected_wrong(labels.sum(-1), levels)
    wrong = expected_wrong(labels[..., 1], levels)
    return (
        bar(trusted, percent(trusted)),
        bar(sure, f"{sure:.3f}"),
        bar(wrong, percent(wrong), style="risk"),
    )


def _wrong_cell(scored: Counts, right: Counts) -> Html:
    wrong = share(scored.sum() - right.sum(), scored.sum())
    return bar(wrong, percent(wrong, 2), style="risk")
