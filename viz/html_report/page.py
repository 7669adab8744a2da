"""The page of a report: its frame, its style, and the pieces that sections are made of."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from viz.html_report.markup import Child, Html, join, tag

STYLE = Path(__file__).with_name("report.css")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Attributes:
    id: what links lead to.
    lead: a sentence under the heading.
    alarms: how many things in it need attention; shown beside its link.
    """

    id: str
    title: str
    lead: str
    body: Html
    alarms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Attributes:
    hint: what the numbers are, shown where the pointer rests on the heading.
    text: left-aligned words rather than numbers.
    """

    name: str
    hint: str = ""
    text: bool = False


def page(title: str, subtitle: Child, sections: Sequence[Section], written: str) -> str:
    """The whole document; it asks for nothing from anywhere, and its browser sees to that."""
    style = STYLE.read_text(encoding="ascii")
    links = [
        tag(
            "a",
            section.title,
            tag("span", str(section.alarms), class_="badge") if section.alarms else None,
            href=f"#{section.id}",
        )
        for section in sections
    ]
    bodies = [
        tag(
            "section",
            tag("h2", section.title),
            tag("p", section.lead, class_="lead") if section.lead else None,
            section.body,
            id=section.id,
        )
        for section in sections
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title}: label report"),
        tag("style", Html(style)),
    )
    body = tag(
        "body",
        tag("nav", tag("strong", "Label report"), *links, aria_label="Sections"),
        tag(
            "main",
            tag("header", tag("h1", title), tag("p", subtitle, class_="lead")),
            *bodies,
            tag("footer", written),
        ),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _policy(style: str) -> str:
    """What the page may do: show itself, its one style sheet, which is named by its hash, colors
    and lengths of elements, and the images inside it. No script, no request."""
    digest = base64.b64encode(hashlib.sha256(style.encode("ascii")).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )


def table(columns: Sequence[Column], rows: Sequence[Sequence[Html]], caption: str) -> Html:
    """A table that scrolls by itself where it is too large. Cells are ``words``, ``number`` or
    ``bar``."""
    heads = [
        tag(
            "th",
            column.name,
            scope="col",
            title=column.hint or None,
            class_="words" if column.text else None,
        )
        for column in columns
    ]
    body = tag("tbody", join(tag("tr", *row) for row in rows))
    inner = tag("table", tag("caption", caption), tag("thead", tag("tr", *heads)), body)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def words(*children: Child) -> Html:
    """A cell of text."""
    return tag("td", *children, class_="words")


def name_cell(*children: Child) -> Html:
    """A cell of a short name, never broken."""
    return tag("td", *children, class_="words name")


def number(text: str) -> Html:
    """A cell of digits."""
    return tag("td", text, class_="none" if text == NOTHING else None)


def bar(value: float, text: str, *, style: str = "") -> Html:
    """A cell of digits over a bar, ``value`` 0..1 of the cell's width."""
    if not math.isfinite(value):
        return number(NOTHING)
    length = f"--v:{100 * min(max(value, 0.0), 1.0):.1f}%"
    return tag("td", text, class_=f"bar {style}".strip(), style=length)


NOTHING = "-"


def percent(share: float | None, digits: int = 1) -> str:
    """``12.3 %``; a dash where it is not known."""
    if share is None or not math.isfinite(share):
        return NOTHING
    return f"{100 * share:.{digits}f}\u00a0%"


def many(n: int, unit: str = "") -> str:
    """A large count in a few characters, such as ``76.8 M``, or ``1.71 MB`` of the unit B."""
    for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= size:
            return f"{n / size:.3g}\u00a0{prefix}{unit}"
    return f"{n:,}\u00a0{unit}" if unit else f"{n:,}"


def card(name: str, value: str, hint: Child = None, *, style: str = "") -> Html:
    """A number to be seen first."""
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", value, class_="value"),
        tag("div", hint, class_="hint") if hint else None,
        class_=f"card {style}".strip(),
    )


def swatch(color: tuple[int, int, int]) -> Html:
    """A class's color."""
    return tag("i", class_="swatch", style=f"background:rgb({color[0]},{color[1]},{color[2]})")


def empty(*children: Child) -> Html:
    """What stands where there is nothing to show."""
    return tag("p", *children, class_="empty")


def notice(style: str, *children: Child) -> Html:
    """A line that must not be missed: ``bad``, ``warn`` or ``good``."""
    return tag("li", *children, class_=style)
