"""What is known of a voxel, in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from datasets.labels.store import MaskBit
from datasets.taxonomy import Taxonomy
from viz.session.picking import Moment, VoxelFacts, class_name

_BITS = {
    MaskBit.TRUSTED: "trusted",
    MaskBit.LIDAR_OBSERVED: "LiDAR saw it",
    MaskBit.CAMERA_VISIBLE: "cameras see it",
    MaskBit.DYNAMIC: "can move",
}


def fact_rows(facts: VoxelFacts, taxonomy: Taxonomy) -> list[tuple[str, str]]:
    """Names and values, most important first; what is not at hand is left out, but for the second
    choice and the evidence, of which one should know that they are missing."""
    x, y, z = facts.centre_m
    confidence = "" if facts.confidence is None else f", {100 * facts.confidence:.0f} % sure"
    rows = [
        ("class", f"{facts.class_name}{confidence}"),
        ("second choice", facts.second_choice),
        ("evidence", _evidence(facts)),
        ("mask", ", ".join(word for bit, word in _BITS.items() if facts.bits & bit) or "nothing"),
    ]
    if facts.instance:
        rows.append(("object", f"number {facts.instance}"))
    if facts.flow_mps is not None:
        rows.append(("flow", f"{facts.flow_mps[0]:.1f}, {facts.flow_mps[1]:.1f} m/s"))
    if facts.truth is not None:
        rows.append(("ground truth", class_name(taxonomy, facts.truth)))
    if facts.other is not None:
        rows.append(("second store", class_name(taxonomy, facts.other)))
    rows.append(("place", f"{x:.1f}, {y:.1f}, {z:.1f} m   cell {facts.cell}"))
    rows.append(("over frames", history_words(facts.history, taxonomy)))
    return rows


def history_words(history: Sequence[Moment], taxonomy: Taxonomy) -> str:
    """Runs of frames in which the place has one class, e.g. ``0-4 car, 5 free``."""
    runs = []
    # frames without the place are a gap: k grows faster than the number of the moment
    for (class_id, _), run in groupby(
        enumerate(history), key=lambda one: (one[1].class_id, one[1].k - one[0])
    ):
        ks = [moment.k for _, moment in run]
        frames = f"{ks[0]}-{ks[-1]}" if len(ks) > 1 else f"{ks[0]}"
        runs.append(f"{frames} {class_name(taxonomy, class_id)}")
    return ", ".join(runs) or "seen in this frame only"


def _evidence(facts: VoxelFacts) -> str:
    if facts.hits is None or facts.passes is None:
        return "neither stored nor a sweep at hand"
    origin = "" if facts.evidence_stored else " (key sweep alone)"
    return f"{facts.hits} rays end here, {facts.passes} pass through{origin}"
