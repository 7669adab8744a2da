"""The parts of the review window that are drawn as images: classes, colors, timeline, help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

from viz.render.layers import RenderedLayers
from viz.render.text import fitted, font
from viz.render.theme import BAD, DOUBT, FAINT, GOOD, HELD, PANEL, RAISED, TEXT, WINDOW, Color
from viz.review.keys import SECTIONS
from viz.review.state import ReviewState
from viz.session.picking import class_name

ROW_PX = 19
TIMELINE_PX = 14
VERDICT_COLORS: dict[str, Color] = {"accept": GOOD, "reject": BAD, "unsure": DOUBT}
_RAMP_FROM = 7
"""So many colors or more are shown as a ramp."""


def draw_classes(state: ReviewState, counts: Mapping[int, int], width: int) -> Image.Image:
    """A row for each class: color, name, number of shown voxels. Hidden ones are hollow, and the
    class at hand has a ground of its own."""
    ids = state.taxonomy.semantic_ids
    canvas = Image.new("RGB", (width, ROW_PX * len(ids)), PANEL)
    draw, face = ImageDraw.Draw(canvas), font(12)
    shown = state.shown_classes()
    for row, class_id in enumerate(ids):
        top, middle = row * ROW_PX, row * ROW_PX + ROW_PX // 2
        if class_id == state.class_id:
            draw.rounded_rectangle((0, top, width - 1, top + ROW_PX - 2), 3, fill=HELD)
        visible, n = class_id in shown, counts.get(class_id, 0)
        color = state.taxonomy.colors[class_id]
        swatch = (5, middle - 6, 16, middle + 5)
        draw.rectangle(swatch, fill=color if visible else None, outline=color, width=2)
        number = f"{n:,}" if visible else "hidden"
        ink = TEXT if visible and (n or class_id == state.class_id) else FAINT
        end = width - 5
        draw.text((end, middle), number, font=face, fill=ink, anchor="rm")
        room = end - face.getlength(number) - 30
        name = fitted(class_name(state.taxonomy, class_id), face, room)
        draw.text((23, middle), name, font=face, fill=ink, anchor="lm")
    return canvas


def class_row(state: ReviewState, y: float) -> int | None:
    """Class id at a height of the image of ``draw_classes``."""
    row, ids = int(y // ROW_PX), state.taxonomy.semantic_ids
    return ids[row] if 0 <= row < len(ids) else None


def draw_color_key(drawn: RenderedLayers, *, by_class: bool, max_width: int) -> Image.Image:
    """What the colors of the voxels mean: the caption, and where they are not classes their rows
    (or a ramp where there are many)."""
    face, bold = font(12), font(12, bold=True)
    rows = [] if by_class else [row for row in drawn.legend if row.name]
    ramp = len(rows) >= _RAMP_FROM
    parts = drawn.caption.split("; ")
    if rows:
        parts[0] = parts[0].partition(":")[0]  # the rows say the rest
    lines = [fitted(part[:1].upper() + part[1:], bold, max_width - 20) for part in parts if part]
    texts = [] if ramp else [f"{row.name}   {row.count:,}" for row in rows]
    widest = max([bold.getlength(t) for t in lines] + [face.getlength(t) + 18 for t in texts] + [0])
    if ramp:
        widest = max(widest, 220)
    width = min(max_width, round(widest) + 22)
    height = 8 + 18 * (len(lines) + len(texts)) + (34 if ramp else 0)
    canvas = Image.new("RGB", (width, height), WINDOW)
    draw, y = ImageDraw.Draw(canvas), 6
    for text in lines:
        draw.text((10, y), text, font=bold, fill=TEXT)
        y += 18
    if ramp:
        step = (width - 20) / len(rows)
        for i, row in enumerate(rows):
            draw.rectangle((10 + i * step, y, 10 + (i + 1) * step, y + 10), fill=row.color)
        ends = (rows[0].name, rows[-1].name)
        draw.text((10, y + 13), ends[0].split()[-1], font=font(11), fill=FAINT)
        draw.text((width - 10, y + 13), ends[1].split()[-1], font=font(11), fill=FAINT, anchor="ra")
    for row, text in zip(rows, texts, strict=False):
        draw.rectangle((10, y + 2, 20, y + 12), fill=row.color)
        draw.text((28, y), fitted(text, face, width - 38), font=face, fill=TEXT)
        y += 18
    return canvas


def draw_timeline(state: ReviewState, verdicts: Sequence[str], width: int) -> Image.Image:
    """One block per frame: the color of its verdict, the frames a verdict is on, this frame.

    Args:
        verdicts: of every frame; empty where there is none.
    """
    canvas = Image.new("RGB", (width, TIMELINE_PX), PANEL)
    draw, n = ImageDraw.Draw(canvas), len(verdicts)
    for k, verdict in enumerate(verdicts):
        left, right = round(k * width / n), round((k + 1) * width / n) - 1
        if n <= width // 3:
            right -= 1
        fill = VERDICT_COLORS.get(verdict, RAISED)
        draw.rectangle((left, 3, right, TIMELINE_PX - 4), fill=fill)
        if k in state.frames and len(state.frames) > 1:
            draw.rectangle((left, TIMELINE_PX - 2, right, TIMELINE_PX - 1), fill=HELD)
        if k == state.k:
            draw.rectangle((left, 0, right, TIMELINE_PX - 1), outline=TEXT, width=2)
    return canvas


def timeline_frame(x: float, width: int, n_frames: int) -> int:
    """Frame at a place of the timeline."""
    return min(max(int(x * n_frames / width), 0), n_frames - 1)


def draw_facts(rows: Sequence[tuple[str, str]], width: int, *, empty: str) -> Image.Image:
    """Names on the left, what is so on the right, in at most three lines."""
    face = font(12)
    column = round(max([face.getlength(name) for name, _ in rows] + [0])) + 12
    lines = [(name, _wrapped(text, face, width - column)) for name, text in rows]
    height = ROW_PX * max(sum(len(parts) for _, parts in lines), 1)
    canvas = Image.new("RGB", (width, height), PANEL)
    draw, middle = ImageDraw.Draw(canvas), ROW_PX // 2
    if not rows:
        draw.text((0, middle), fitted(empty, face, width), font=face, fill=FAINT, anchor="lm")
    for name, parts in lines:
        draw.text((0, middle), name, font=face, fill=FAINT, anchor="lm")
        for part in parts:
            draw.text((column, middle), part, font=face, fill=TEXT, anchor="lm")
            middle += ROW_PX
    return canvas


def _wrapped(text: str, face: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """Lines of whole words, at most three; the last one is cut where it is too long."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if face.getlength(longer) <= width or len(lines) == 3 or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [fitted(line, face, width) for line in lines]


def draw_help(max_width: int, max_height: int) -> Image.Image:
    """Every key and what it does, in as many columns as the room asks for."""
    for size in (13, 12, 11, 10, 9):
        face, bold, line = font(size), font(size, bold=True), round(size * 1.55)
        keys = [b for part in SECTIONS.values() for b in part]
        key_w = round(max(face.getlength(b.label) for b in keys)) + 14
        column_w = key_w + round(max(face.getlength(b.action.value) for b in keys)) + 26
        n_columns = max(1, min(3, (max_width - 30) // column_w))
        columns = _columns(n_columns)
        height = max(sum(len(SECTIONS[s]) + 2 for s in names) for names in columns) * line + 64
        if height <= max_height:
            break
    canvas = Image.new("RGB", (n_columns * column_w + 30, height), PANEL)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, canvas.width - 1, canvas.height - 1), outline=HELD, width=2)
    draw.text((20, 14), "Keys", font=font(size + 3, bold=True), fill=TEXT)
    hint = "click: pick a voxel, also in an image     drag: turn     wheel: nearer     H: close"
    hint = fitted(hint, face, canvas.width - 110)
    draw.text((canvas.width - 20, 18), hint, font=face, fill=FAINT, anchor="ra")
    for c, names in enumerate(columns):
        x, y = 20 + c * column_w, 48
        for name in names:
            draw.text((x, y), name, font=bold, fill=DOUBT)
            y += line
            for binding in SECTIONS[name]:
                draw.text((x, y), binding.label, font=face, fill=TEXT)
                draw.text((x + key_w, y), binding.action.value, font=face, fill=FAINT)
                y += line
            y += line // 2
    return canvas


def _columns(n: int) -> list[list[str]]:
    """Sections shared out, in order, over columns of like length."""
    weights = {name: len(part) + 2 for name, part in SECTIONS.items()}
    total, done = sum(weights.values()), 0
    columns: list[list[str]] = [[] for _ in range(n)]
    for name, weight in weights.items():
        columns[min(n - 1, int((done + weight / 2) * n / total))].append(name)
        done += weight
    return columns
