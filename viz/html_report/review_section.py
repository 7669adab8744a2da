"""What people said of the labels: counts, disputes, notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from datasets.reviews.overlay import (
    EditEntry,
    FrameVerdict,
    NoteEntry,
    Reviews,
    Verdict,
    VerdictEntry,
)
from viz.html_report.markup import Html, join, tag
from viz.html_report.page import (
    NOTHING,
    Column,
    Section,
    card,
    empty,
    notice,
    number,
    percent,
    table,
    words,
)
from viz.review.error_rate import Estimate

MOST_NOTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Somebody's words on a frame of a scene; ``what`` was done with them."""

    time_us: int
    reviewer: str
    scene_id: str
    frames: str
    what: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewNumbers:
    """Attributes:
    frames: of the store.
    standing: the verdict of every judged frame by scene and token.
    by_reviewer: entries of each by what they are.
    disputed: scene and frame of the verdicts that reviewers differ in, and what stands.
    edits, painted: edits of voxels, and the voxels in them.
    stale: entries on labels that were made anew since; damaged: files that are no entry.
    notes: the latest last.
    estimate: of the share of wrong frames; None as long as nobody judged one.
    """

    frames: int
    standing: Mapping[tuple[str, str], FrameVerdict] = field(default_factory=dict)
    by_reviewer: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    disputed: tuple[tuple[str, str, Verdict], ...] = ()
    edits: int = 0
    painted: int = 0
    stale: int = 0
    damaged: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()
    estimate: Estimate | None = None

    @property
    def judged(self) -> int:
        """Frames with a verdict."""
        return len(self.standing)

    @property
    def verdicts(self) -> dict[tuple[str, str], Verdict]:
        """Of every judged frame, by scene and token."""
        return {key: standing.verdict for key, standing in self.standing.items()}

    @property
    def by_verdict(self) -> Counter[Verdict]:
        """Frames."""
        return Counter(self.verdicts.values())


def review_numbers(reviews: Reviews, frames: Mapping[str, Sequence[str]]) -> ReviewNumbers:
    """Args:
    frames: tokens of the store's readable scenes.
    """
    standing: dict[tuple[str, str], FrameVerdict] = {}
    by_reviewer: dict[str, Counter[str]] = {}
    disputed, notes = [], []
    edits = painted = 0
    for scene_id, tokens in frames.items():
        for token, verdict in reviews.verdicts(scene_id).items():
            standing[scene_id, token] = verdict
            if verdict.disputed:
                disputed.append((scene_id, _frame(tokens, token), verdict.verdict))
    for entry in reviews.entries():
        content, counts = entry.what, by_reviewer.setdefault(entry.reviewer, Counter())
        match content:
            case VerdictEntry():
                counts[content.verdict] += len(content.tokens)
                done, on = str(content.verdict), content.tokens
            case NoteEntry():
                done, on = "note", (content.token,)
                counts["note"] += 1
            case EditEntry():
                edits, painted = edits + 1, painted + len(content.voxels)
                done, on = f"painted {len(content.voxels):,} voxels", (content.token,)
                counts["edit"] += 1
            case _:
                continue
        if content.note:
            names = [_frame(frames.get(content.scene_id, ()), token) for token in on]
            shown = ", ".join(names[:6]) + (f", {len(names) - 6} more" if len(names) > 6 else "")
            notes.append(
                Note(
                    time_us=entry.time_us,
                    reviewer=entry.reviewer,
                    scene_id=content.scene_id,
                    frames=shown,
                    what=done,
                    text=content.note,
                )
            )
    return ReviewNumbers(
        frames=sum(len(tokens) for tokens in frames.values()),
        standing=standing,
        by_reviewer=by_reviewer,
        disputed=tuple(disputed),
        edits=edits,
        painted=painted,
        stale=len(reviews.stale()),
        damaged=reviews.damaged(),
        notes=tuple(notes),
    )


def _frame(tokens: Sequence[str], token: str) -> str:
    """Its place in the scene, as the viewer's ``--frame`` takes it."""
    return str(tokens.index(token)) if token in tokens else token


def review_cards(found: ReviewNumbers) -> list[Html]:
    """For the summary."""
    share = found.judged / found.frames if found.frames else 0.0
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in found.by_verdict.items() if n)
    caption = f"of {found.frames:,} frames; {verdicts}" if verdicts else "nobody judged a frame yet"
    cards = [card("Reviewed", percent(share), caption)]
    if (guess := found.estimate) is not None:
        more = guess.more_for()
        caption = f"95\u00a0%: {percent(guess.low)} to {percent(guess.high)}"
        if more:
            caption += f"; {more:,} more drawn by chance for +-2\u00a0points"
        value = percent(guess.wrong_share)
        cards.append(card("Frames wrong", "not known" if value == NOTHING else value, caption))
    return cards


def review_notices(found: ReviewNumbers) -> list[Html]:
    """What needs attention."""
    lines = []
    link = tag("a", "Reviews", href="#reviews")
    if n := len(found.disputed):
        lines.append(notice("warn", f"Reviewers differ on {n} frame{'s' * (n > 1)}. ", link))
    if n := len(found.damaged):
        text = f"{n} file{'s' * (n > 1)} of the review overlay cannot be read. "
        lines.append(notice("warn", text, link))
    return lines


def reviews_section(found: ReviewNumbers, command: str) -> Section:
    """Args:
    command: that opens the viewer on the store.
    """
    parts: list[Html] = []
    if not (found.by_reviewer or found.stale or found.damaged):
        parts.append(
            empty("No reviews yet: look at frames and judge them with ", tag("code", command), ".")
        )
    else:
        parts += _tables(found)
    return Section(
        id="reviews",
        title="Reviews",
        lead="Verdicts and mendings lie beside the labels and never change them. The figures of "
        "the other sections are of the labels as the teacher made them.",
        body=join(parts),
        alarms=len(found.disputed) + len(found.damaged),
    )


def _tables(found: ReviewNumbers) -> list[Html]:
    kinds = (*(str(v) for v in Verdict), "edit", "note")
    columns = [Column(name="Reviewer", text=True), *(Column(name=kind) for kind in kinds)]
    rows = [
        [words(reviewer), *(number(f"{counts.get(kind, 0):,}") for kind in kinds)]
        for reviewer, counts in sorted(found.by_reviewer.items())
    ]
    standing = [number(f"{found.by_verdict.get(v, 0):,}") for v in Verdict]
    others = [number(f"{found.edits:,}"), number(f"{len(found.notes):,}")]
    rows.append([words(tag("strong", "what stands, frames")), *standing, *others])
    parts = [table(columns, rows, "Entries by reviewer and kind")]
    if found.estimate is not None:
        parts.insert(0, tag("p", f"{found.estimate}."))
    if found.edits:
        parts.append(tag("p", f"{found.painted:,} voxels were painted.", class_="lead"))
    if found.stale:
        text = f"{found.stale:,} entries are on labels that were made anew since; none is applied."
        parts.append(tag("p", text, class_="lead"))
    if found.disputed:
        rows = [
            [words(scene), words(frame), words(str(verdict))]
            for scene, frame, verdict in found.disputed
        ]
        heads = [Column(name=name, text=True) for name in ("Scene", "Frame", "What stands")]
        parts += [tag("h3", "Disputed frames"), table(heads, rows, "Frames that reviewers dispute")]
    if found.notes:
        latest = found.notes[::-1][:MOST_NOTES]
        heads = [
            Column(name=name, text=True)
            for name in ("When", "Reviewer", "Scene", "Frames", "Done", "Note")
        ]
        rows = [
            [
                words(_when(note.time_us)),
                *(words(text) for text in (note.reviewer, note.scene_id, note.frames)),
                words(note.what),
                words(note.text),
            ]
            for note in latest
        ]
        hidden = len(found.notes) - len(latest)
        title = "Notes, latest first" + (f" ({hidden:,} older ones are left out)" if hidden else "")
        parts += [tag("h3", title), table(heads, rows, "Notes of the reviewers")]
    if found.damaged:
        names = tag("pre", "\n".join(found.damaged))
        parts += [tag("h3", "Files that are no entry of this store"), names]
    return parts


def _when(time_us: int) -> str:
    try:
        return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return f"{time_us} us"
