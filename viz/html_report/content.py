"""All that a report tells, gathered before a page is made of it."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

from datasets.labels.audit_record import AuditedScene, AuditRecord
from datasets.labels.calibration_record import CalibrationRecord, RiskBound
from datasets.labels.store import LabelStore
from datasets.labels.validity import ConfidenceValidity
from viz.html_report.frame_images import FrameImages
from viz.html_report.review_section import ReviewNumbers
from viz.html_report.store_statistics import SceneNumbers, StoreNumbers, expected_wrong, share


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Why a scene has no labels: one line, and what was printed, such as a traceback."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Content:
    """Attributes:
    where: the store, as it was named on the command line.
    source, root: kind of the log, and its folder as it was named; empty where it was not.
    n_bytes: of the committed scenes' files.
    inputs_sha256: of what was labelled; empty where the store does not tell.
    validity: whether confidence holds on the log; None: its record cannot be read.
    truth: what the labels were compared with, in words; empty without.
    images: of the worst scenes, worst first; undrawn: scene id -> why it has none.
    asked_images: whether there were to be any.
    renderer_note: why Open3D did not draw every 3D view; empty if it did.
    notes: what could not be read or shown, one line each.
    """

    where: str
    source: str
    root: str
    numbers: StoreNumbers
    n_bytes: int
    inputs_sha256: str
    calibration: CalibrationRecord | None
    promise: RiskBound | None
    validity: ConfidenceValidity | None
    audit: AuditRecord | None
    truth: str
    set_aside: dict[str, SetAside]
    reviews: ReviewNumbers
    images: tuple[FrameImages, ...]
    undrawn: dict[str, str]
    asked_images: bool
    renderer_note: str
    notes: tuple[str, ...]

    @property
    def unreadable(self) -> dict[str, str]:
        """Scene id -> what is wrong with its labels or its truth."""
        numbers = self.numbers
        return {**self.undrawn, **numbers.truth_damaged, **numbers.damaged}

    def command(self, script: str, *options: str) -> str:
        """A line for a shell that runs a script on the store and its log."""
        words = ["python", script, self.where, *options]
        if self.source != "city":
            words += ["--source", self.source]
        if self.root or self.source != "city":
            words += ["--root", self.root or "LOG"]
        return shlex.join(words)

    @property
    def audited(self) -> dict[str, AuditedScene]:
        """What the audit found, by scene id."""
        return {} if self.audit is None else {scene.scene_id: scene for scene in self.audit.scenes}


def ranked(
    numbers: StoreNumbers, audit: AuditRecord | None
) -> tuple[tuple[SceneNumbers, ...], str]:
    """Scenes, worst first, and by what."""
    if audit is not None:
        place = {scene.scene_id: i for i, scene in enumerate(audit.scenes)}
        scenes = sorted(
            numbers.scenes,
            key=lambda s: (place.get(s.scene_id, len(place)), -doubt(s, numbers), s.scene_id),
        )
        return tuple(scenes), "the audit's score"
    if numbers.scored.any():
        # scenes without truth come after all others
        scenes = sorted(numbers.scenes, key=lambda s: (-known_wrong(s), s.scene_id))
        return tuple(scenes), "their share of wrong labels, by the ground truth"
    scenes = sorted(numbers.scenes, key=lambda s: (-doubt(s, numbers), s.scene_id))
    return tuple(scenes), "the share of wrong labels that their own confidence lets expect"


def doubt(scene: SceneNumbers, numbers: StoreNumbers) -> float:
    """Share of the scene's observed voxels that is wrong by their own confidence; 0 of none."""
    wrong = expected_wrong(scene.labels.sum(1), numbers.levels)
    return wrong if math.isfinite(wrong) else 0.0


def known_wrong(scene: SceneNumbers) -> float:
    """Share of the scored voxels that is wrong; -1 without truth."""
    wrong = share(scene.scored - scene.right, scene.scored)
    return wrong if math.isfinite(wrong) else -1.0


def set_aside(store: LabelStore) -> dict[str, SetAside]:
    """Scenes without labels by id; a note that cannot be read says so."""
    return {
        scene_id: SetAside(reason=note["reason"], detail=note["detail"])
        for scene_id, note in store.quarantined().items()
    }
