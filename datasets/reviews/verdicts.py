"""What holds for a frame where several reviewers gave verdicts, or one changed his mind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from datasets.reviews.entries import Entry, Verdict, VerdictEntry

_CARE = {Verdict.ACCEPT: 0, Verdict.UNSURE: 1, Verdict.REJECT: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameVerdict:
    """What holds for a frame.

    Attributes:
        verdict: of each reviewer the latest counts, and of these the most careful: reject before
            unsure before accept.
        reviewer, time_us, note: of whoever said that, the latest where several did.
        disputed: reviewers differ.
    """

    verdict: Verdict
    reviewer: str
    time_us: int
    note: str
    disputed: bool


def frame_verdicts(entries: Iterable[Entry]) -> dict[str, FrameVerdict]:
    """Of the entries of one scene, oldest first, the verdict of every judged frame by its token."""
    latest: dict[str, dict[str, tuple[Entry, VerdictEntry]]] = {}
    for entry in entries:
        if isinstance(verdict := entry.what, VerdictEntry):
            for token in verdict.tokens:
                latest.setdefault(token, {})[entry.reviewer] = (entry, verdict)
    verdicts = {}
    for token, said in latest.items():
        entry, verdict = max(said.values(), key=lambda pair: (_CARE[pair[1].verdict], pair[0].id))
        verdicts[token] = FrameVerdict(
            verdict=verdict.verdict,
            reviewer=entry.reviewer,
            time_us=entry.time_us,
            note=verdict.note,
            disputed=len({pair.verdict for _, pair in said.values()}) > 1,
        )
    return verdicts
