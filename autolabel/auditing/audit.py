"""Audit all scenes of a store or of a ground truth, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from autolabel.auditing.faults import (
    EVERYWHERE,
    confidence_faults,
    find_faults,
    not_judged,
    plain_faults,
    record_faults,
)
from autolabel.auditing.report import report
from autolabel.auditing.scene_audit import PARTS, Auditor, Part, Predict, SceneAudit
from autolabel.confidence.held_out_sweeps import held_out
from datasets.errors import SceneError
from datasets.frames import Scene, SceneSource
from datasets.labels.audit_record import AuditFault, AuditRecord
from datasets.labels.label_set import LabelSet
from datasets.labels.validity import ConfidenceValidity

LEVEL_DRIVE_M = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneAudits:
    """What was found scene by scene.

    Attributes:
        records: labels that are not of the log as it is now.
        quarantined: scenes that could not be read, and why.
        notes: what could not be tested, and why.
    """

    audits: list[SceneAudit]
    records: list[AuditFault]
    quarantined: dict[str, str]
    notes: list[str]


def audit_report(
    labels: LabelSet, audits: SceneAudits, verdict: ConfidenceValidity | None = None
) -> AuditRecord:
    """Ranking, figures and faults of what was gathered.

    Args:
        verdict: on the confidence of a store's labels; None: the labels have none.
    """
    faults = [*_together(audits.records, len(audits.audits)), *find_faults(audits.audits)]
    faults += plain_faults(audits.audits, labels.header.taxonomy.n_classes)
    notes = list(audits.notes)
    if verdict is not None:
        faults += confidence_faults(verdict)
        notes += [verdict.note] if verdict.note else []
        notes += [f"not tested: {what}" for what in verdict.untested]
    return report(labels.header, audits.audits, faults, audits.quarantined, notes)


def audit_scenes(
    labels: LabelSet,
    source: SceneSource,
    scene_ids: Iterable[str],
    *,
    fingerprint: Callable[[str], str] | None = None,
    predict: Predict | None = None,
    parts: Sequence[Part] = PARTS,
) -> SceneAudits:
    """Go through scenes; one that cannot be read is quarantined.

    Args:
        source: the log, opened with ``held_out_sweeps.HELD_OUT_SWEEPS`` future sweeps.
        fingerprint: of a scene as the labels' maker saw it; None: not compared.
        predict, parts: see ``Auditor``.
    """
    audits, quarantined, records = list[SceneAudit](), dict[str, str](), list[AuditFault]()
    auditor = Auditor(labels.header, source, predict, parts)
    unknown = voting = level = 0
    for scene_id in scene_ids:
        try:
            labeled, scene = labels.scene(scene_id), source.scene(scene_id)
            current = fingerprint(scene_id) if fingerprint else ""
            unknown += not labeled.inputs
            records += record_faults(labeled, scene, current, labels.header.frame)
            voting += max(map(held_out, scene.frames))
            level += one_height(scene)
            audits.append(auditor.audit(labeled, scene))
        except SceneError as error:
            quarantined[scene_id] = str(error)
        except KeyError:
            text = "the log has no such scene"
            records.append(AuditFault(name="stale labels", scene_id=scene_id, evidence=text))
    auditor.match(audits)
    notes = []
    if unknown:
        notes.append(f"{unknown} scenes do not tell from what inputs they were labeled")
    if level:
        notes.append(
            f"the poses of {level} scenes have no height: on a slope held-out sweeps lie too low "
            "or high, and the ground is missed"
        )
    if not voting:
        notes.append(
            "not judged: misses, and violations but by key sweeps alone: there are no held-out "
            "sweeps"
        )
    if audits and set(parts) == set(PARTS):
        notes += not_judged(audits)
    return SceneAudits(audits=audits, records=records, quarantined=quarantined, notes=notes)


def one_height(scene: Scene) -> bool:
    """Whether a drive of some length has all its poses at the same height, as in nuScenes."""
    places = np.array([frame.T_global_ego[:3, 3] for frame in scene.frames])
    far = np.linalg.norm(places - places[0], axis=1).max() > LEVEL_DRIVE_M
    return bool(far and np.ptp(places[:, 2]) == 0)


def _together(records: Sequence[AuditFault], scenes: int) -> list[AuditFault]:
    """A fault that every scene has, once."""
    out = []
    for name in dict.fromkeys(fault.name for fault in records):
        faults = [fault for fault in records if fault.name == name]
        scene_ids = list(dict.fromkeys(fault.scene_id for fault in faults))
        if scenes > 1 and len(scene_ids) >= scenes:
            text = f"{scene_ids[0]}: {faults[0].evidence}"
            out.append(AuditFault(name=name, scene_id=EVERYWHERE, evidence=text))
        else:
            out += faults
    return out
