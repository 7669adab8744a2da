"""What a browser tab says in words: HTML of a frame's state, its verdicts, a voxel's facts.

All text that people or files supply is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from datasets.reviews.overlay import (
    EditEntry,
    Entry,
    FrameVerdict,
    NoteEntry,
    Verdict,
    VerdictEntry,
)
from datasets.taxonomy import Taxonomy
from viz.render.layers import RenderedLayers
from viz.render.text import LegendRow
from viz.review.voxel_description import fact_rows
from viz.session.picking import VoxelFacts
from viz.session.session import ReviewFrame

VERDICT_COLORS = {
    Verdict.ACCEPT: (46, 160, 67),
    Verdict.UNSURE: (191, 135, 0),
    Verdict.REJECT: (218, 54, 51),
}
PICK = "Click a voxel."
PAINTING = "Painting and erasing are in the window: python viz/inspect.py STORE"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Names left, values right."""
    cells = "".join(
        f'<tr><td style="opacity:.6;padding:0 10px 2px 0;vertical-align:top;white-space:nowrap">'
        f'{escape(name)}</td><td style="overflow-wrap:anywhere">{escape(value)}</td></tr>'
        for name, value in rows
    )
    return _box(f'<table style="border-spacing:0">{cells}</table>') if cells else ""


def lines(texts: Sequence[str]) -> str:
    """One paragraph each, in small type."""
    return _box("".join(f'<div style="padding-bottom:2px">{escape(t)}</div>' for t in texts))


def frame_facts(frame: ReviewFrame, drawn: RenderedLayers) -> str:
    """Which frame it is, what its colors mean, and what could not be shown."""
    rows = [
        ("frame", f"{frame.scene_id}, {frame.k} of 0..{frame.n_frames - 1}"),
        ("token", frame.labels.token),
        ("colors", drawn.caption),
        *(("note", note) for note in frame.notes),
    ]
    return table(rows)


def legend(rows: Sequence[LegendRow]) -> str:
    """Colors with their meaning and their voxels."""
    cells = "".join(
        f'<tr><td><span style="display:inline-block;width:11px;height:11px;'
        f'background:rgb{row.color}"></span></td><td style="padding:0 10px">{escape(row.name)}'
        f'</td><td style="text-align:right">{row.count:,}</td></tr>'
        for row in rows
    )
    return _box(f"<table>{cells}</table>") if cells else ""


def verdict_facts(
    frame: ReviewFrame, holds: FrameVerdict | None, entries: Sequence[Entry], *, now_s: float
) -> str:
    """What holds for the frame, and who said what, newest first."""
    if holds is None:
        head = '<b style="opacity:.6">not judged yet</b>'
    else:
        r, g, b = VERDICT_COLORS[holds.verdict]
        head = f'<b style="color:rgb({r},{g},{b})">{holds.verdict.value}</b>'
        head += " (reviewers differ: the most careful holds)" if holds.disputed else ""
    said = []
    for entry in reversed(entries):
        match entry.what:
            case VerdictEntry() as judged if frame.labels.token in judged.tokens:
                text, note = judged.verdict.value, judged.note
            case NoteEntry() as note_entry if note_entry.token == frame.labels.token:
                text, note = "note", note_entry.note
            case EditEntry() as edit if edit.token == frame.labels.token:
                text, note = f"painted {len(edit.voxels):,} voxels", edit.note
            case _:
                continue
        ago = _ago(now_s - entry.time_us / 1e6)
        said.append((f"{entry.reviewer}, {ago}", f"{text}: {note}" if note else text))
    return _box(head) + table(said)


def voxel_facts(facts: VoxelFacts, taxonomy: Taxonomy) -> str:
    """All that is known of a voxel."""
    return table(fact_rows(facts, taxonomy))


def _ago(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return "just now"


def _box(inner: str) -> str:
    return f'<div style="font-size:12px;line-height:1.4;padding:2px 12px 4px">{inner}</div>'
