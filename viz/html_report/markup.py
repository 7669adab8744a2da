"""HTML and SVG out of Python: whatever is not markup already is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable

from datasets.files.printable import printable

VOID = frozenset(("br", "img", "meta", "rect", "line", "circle", "path", "polygon", "polyline"))


class Html(str):
    """Markup, taken as it is."""

    __slots__ = ()


Child = str | int | None
"""Text to be escaped, or ``Html``; None is nothing."""


def tag(name: str, /, *children: Child, **attributes: str | float | None) -> Html:
    """An element. ``class_="a"`` gives ``class="a"``, ``text_anchor`` gives ``text-anchor``;
    attributes that are None are left out."""
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(_text(value), lines=True))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in VOID:
        return Html(f"<{name}{pairs}>" if name in ("br", "img", "meta") else f"<{name}{pairs}/>")
    return Html(f"<{name}{pairs}>{join(children)}</{name}>")


def join(children: Iterable[Child], between: str = "") -> Html:
    """One after the other, escaped where they are not markup."""
    return Html(
        between.join(
            child if isinstance(child, Html) else html.escape(printable(child, lines=True))
            for child in children
            if child is not None
        )
    )


def _text(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
