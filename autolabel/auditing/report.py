"""What an audit found, as a table to read and as JSON for other tools.

Legend: K classes, R rings of distance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autolabel.auditing.lidar_votes import RINGS, VOTES, VoteCounts, vote_rows
from autolabel.auditing.motion_fit import MIN_PAIRS, explain
from autolabel.auditing.scene_audit import SceneAudit
from datasets.labels.audit_record import AuditedScene, AuditFault, AuditRecord
from datasets.labels.label_set import LabelSetHeader

SHOWN = 20
WEIGHTS = {"expected": 1.0, "untrusted": 1.0, "flicker": 0.5, "misses": 0.1, "violations": 0.1}
"""Of the shares that rank scenes. What spreads little between scenes weighs more: on 40 city scenes
(seed 101) expected errors, untrusted voxels and half the flicker spread by 0.8 points each."""


def report(
    header: LabelSetHeader,
    audits: Sequence[SceneAudit],
    faults: Sequence[AuditFault],
    quarantined: dict[str, str],
    notes: Sequence[str],
) -> AuditRecord:
    """Rank scenes and add up their votes."""
    usual = usual_shares(audits)
    scenes = sorted((_scene(a, usual) for a in audits), key=lambda s: (-s.score, s.scene_id))
    n = header.taxonomy.n_classes
    totals = {
        name: sum((audit.votes[name] for audit in audits), VoteCounts.none(n)) for name in VOTES
    }
    return AuditRecord(
        what=header.what,
        scenes=tuple(scenes),
        by_class={
            name: {c: (bad, judged) for c, bad, judged in vote_rows(t, header.taxonomy.names, 0)}
            for name, t in totals.items()
        },
        by_range={
            name: {r: (bad, judged) for r, bad, judged in vote_rows(t, RINGS.names, 1)}
            for name, t in totals.items()
        },
        faults=tuple(faults),
        quarantined=quarantined,
        notes=tuple(notes),
    )


def score(audit: SceneAudit, usual: Mapping[str, float] | None = None) -> float:
    """How suspect a scene is: a sum of shares, weighted by ``WEIGHTS``. What was not judged is
    taken to be as in the other scenes (``usual_shares``), else it adds 0."""
    usual = usual or {}
    parts = _parts(audit)
    shares = {name: parts[name] if parts[name] >= 0 else usual.get(name, 0.0) for name in WEIGHTS}
    return sum(weight * shares[name] for name, weight in WEIGHTS.items())


def usual_shares(audits: Sequence[SceneAudit]) -> dict[str, float]:
    """The mean of each of ``WEIGHTS`` over the scenes in which it was judged."""
    shares = [_parts(audit) for audit in audits]
    by_name = {name: [parts[name] for parts in shares if parts[name] >= 0] for name in WEIGHTS}
    return {name: sum(values) / len(values) for name, values in by_name.items() if values}


def _parts(audit: SceneAudit) -> dict[str, float]:
    """NaN: not judged."""
    judged = audit.judged or float("nan")
    return {
        "expected": audit.expected_errors / judged,
        "untrusted": audit.untrusted / judged,
        **{name: audit.votes[name].share for name in VOTES},
    }


def _scene(audit: SceneAudit, usual: Mapping[str, float]) -> AuditedScene:
    fits = [fit.own for fit in audit.fits]
    is_explained = len(audit.motion) >= MIN_PAIRS
    noise_m = explain(audit.motion).noise_m if is_explained else float("nan")
    return AuditedScene(
        scene_id=audit.scene_id,
        score=score(audit, usual),
        frames=audit.frames,
        expected_error=audit.expected_errors / audit.judged if audit.judged else None,
        untrusted=audit.untrusted / audit.judged if audit.judged else None,
        votes={name: _known(audit.votes[name].share) for name in VOTES},
        flips=audit.flips_differ / audit.flips_judged if audit.flips_judged else None,
        fit=sum(fits) / len(fits) if fits else None,
        pose_noise_m=_known(noise_m),
        problems=tuple(audit.problems),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _counted(bad: int, judged: int) -> str:
    return f"{100 * bad / judged:.1f} % of {judged:,}" if judged else "-"


def report_text(record: AuditRecord) -> str:
    """A table of scenes, the votes by class and distance, and the faults."""
    lines = [f"{record.what}: {len(record.scenes)} scenes audited, most suspect first", ""]
    heads = ("score", "expected", "untrusted", *VOTES, "flips", "fit", "poses m")
    lines.append(f"{'scene':<24}" + "".join(f"{head:>11}" for head in heads))
    for scene in record.scenes:
        votes = (scene.votes[name] for name in VOTES)
        shown = (scene.expected_error, scene.untrusted, *votes, scene.flips)
        cells = [f"{scene.score:>11.4f}", *(f"{_percent(v):>11}" for v in shown)]
        cells.append(f"{_plain(scene.fit):>11}")
        cells.append(f"{_plain(scene.pose_noise_m):>11}")
        lines.append(f"{scene.scene_id:<24}" + "".join(cells))
    for title, tables in (("class", record.by_class), ("distance", record.by_range)):
        names = list(dict.fromkeys(name for table in tables.values() for name in table))
        if not names:
            continue
        lines += ["", f"{title:<24}" + "".join(f"{vote:>22}" for vote in tables)]
        for name in names:
            cells = [_counted(*tables[vote].get(name, (0, 0))) for vote in tables]
            lines.append(f"{name:<24}" + "".join(f"{cell:>22}" for cell in cells))
    lines.append("")
    lines += [f"note: {note}" for note in record.notes]
    lines += [f"quarantined: {scene}: {why}" for scene, why in sorted(record.quarantined.items())]
    problems = [f"{s.scene_id}: {p}" for s in record.scenes for p in s.problems]
    lines += [f"left out: {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"... {len(problems) - SHOWN} more")
    judged = not any(note.startswith("not judged") for note in record.notes)
    no_fault = "no fault found" + ("" if judged else " in what could be judged")
    lines += [f"FAULT {fault}" for fault in record.faults] or [no_fault]
    return "\n".join(lines)
