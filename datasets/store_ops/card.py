"""The card that goes with exported labels: what they are, and how far to trust them."""

from __future__ import annotations

from datasets.errors import SetupError
from datasets.files.printable import printable
from datasets.labels.calibration_record import stored_risk_bound
from datasets.labels.store import LabelStore
from datasets.labels.validity import validity_of
from datasets.store_ops.export import sharing
from datasets.store_ops.maintenance import info


def card(store: LabelStore) -> str:
    """Markdown. Raises ``SetupError`` where what the store says of itself is damaged."""
    header, counts = store.header, info(store)
    try:
        bound, verdict = stored_risk_bound(header), validity_of(store)
    except ValueError as error:
        raise SetupError(f"label store {store.place}: damaged: {error}") from error
    made = header.provenance.get("preset") or "unknown weights"
    log = header.provenance.get("log") or header.provenance.get("source") or "an unknown log"
    trusted = 100 * counts.trusted / max(1, counts.voxels)
    lines = [
        "# Pseudo-labels",
        "",
        f"{counts.frames} frames of {counts.scenes} scenes of {log}, labeled by {made} "
        f"(run {header.run_id[:12]}). {header.taxonomy.name} classes, voxels of "
        f"{header.grid.size_m[0]:g} m. {trusted:.1f} % of the voxels are trusted; the masks hold "
        "these alone.",
        "",
        "## Confidence",
        "",
        "```",
        verdict.to_text(bound=bound is not None),
        *([] if bound is None else [bound.to_text(header.taxonomy.names)]),
        "```",
        "",
        "## Licence",
        "",
        sharing(header.licence) + ".",
        "",
    ]
    return "\n".join(printable(line) for text in lines for line in text.split("\n"))
