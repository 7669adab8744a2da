"""Plots as inline SVG whose colors the page's style decides, so that they follow its theme.

Legend: N points of a series.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from viz.html_report.markup import Html, join, tag

WIDTH, HEIGHT = 430.0, 312.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 14.0, 14.0, 48.0
LEAST, MOST = 0.05, 0.998
"""Ends of an axis of probabilities."""
MANY_TICKS = 10
PROBABILITY_TICKS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.96, 0.99)

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """Attributes:
    x, y: (N,); what is not finite is left out.
    voxels: (N,) behind each point; empty: not known.
    style: class of the style sheet.
    """

    name: str
    x: Values
    y: Values
    style: str
    voxels: tuple[int, ...] = ()

    @property
    def points(self) -> list[tuple[float, float]]:
        pairs = zip(self.x.tolist(), self.y.tolist(), strict=True)
        return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Attributes:
    place: of a value along the axis, 0..1.
    ticks: values and what is written at them.
    """

    label: str
    place: Callable[[float], float]
    ticks: tuple[tuple[float, str], ...]


def linear(label: str, end: float, *, n_ticks: int = 6) -> Axis:
    """Shares from 0 to ``end``, written in percent."""
    step = _round_step(end / n_ticks)
    n = math.floor(end / step + 1e-9)
    ticks = tuple((i * step, f"{100 * i * step:.6g} %") for i in range(n + 1))
    return Axis(label=label, place=lambda v: v / end, ticks=ticks)


def probabilities(label: str) -> Axis:
    """Uniform in logit(p): 96 and 99 % lie as far apart as 80 and 95 %."""
    low, high = _logit(LEAST), _logit(MOST)
    return Axis(
        label=label,
        place=lambda p: (_logit(min(max(p, LEAST), MOST)) - low) / (high - low),
        ticks=tuple((p, f"{100 * p:.4g} %") for p in PROBABILITY_TICKS),
    )


def reliability_plot(series: Sequence[Series], title: str) -> Html:
    """Share of right labels against what they claim; on the diagonal both are the same."""
    x, y = probabilities("confidence claimed"), probabilities("labels right")
    diagonal = tag("line", x1=_px(0), y1=_py(0), x2=_px(1), y2=_py(1), class_="diagonal")
    marks = [diagonal]
    for line in series:
        places = [(x.place(a), y.place(b)) for a, b in line.points]
        marks.append(_path(places, f"curve {line.style}"))
        voxels = line.voxels or (1,) * len(line.points)
        for (a, b), place, n in zip(line.points, places, voxels, strict=True):
            tooltip = tag(
                "title", f"{line.name}: claimed {100 * a:g} %, right {100 * b:.2f} % of {n:,}"
            )
            radius = 1.6 + 0.55 * math.log10(max(n, 1))
            marks.append(_dot(place, radius, line.style, tooltip))
    return _framed(x, y, marks, title)


def risk_coverage_plot(
    series: Sequence[Series],
    title: str,
    *,
    promised: float | None = None,
    trusted: Sequence[tuple[float, float, str]] = (),
) -> Html:
    """Share of wrong labels among the surest, as more of them are taken.

    Args:
        promised: the error that is promised, a line.
        trusted: (coverage, risk, style of its series) of what the store trusts.
    """
    ends = [y for line in series for _, y in line.points] + [y for _, y, _ in trusted]
    highest = max([0.01, *ends, (promised or 0) * 1.15])
    x = linear("share of the observed voxels taken, surest first", 1.0)
    y = linear("wrong", 1.04 * highest)
    marks = []
    if promised is not None:
        height = _py(y.place(promised))
        marks.append(tag("line", x1=_px(0), x2=_px(1), y1=height, y2=height, class_="promised"))
    marks += [
        _path([(x.place(a), y.place(b)) for a, b in line.points], f"curve {line.style}")
        for line in series
    ]
    for coverage, risk, style in trusted:
        if math.isfinite(coverage) and math.isfinite(risk):
            tooltip = tag("title", f"trusted: {100 * coverage:.1f} %, {100 * risk:.2f} % wrong")
            marks.append(_dot((x.place(coverage), y.place(risk)), 5.0, f"here {style}", tooltip))
    return _framed(x, y, marks, title)


def histogram(levels: Sequence[float], series: Sequence[Series], title: str) -> Html:
    """Shares of voxels at each level of confidence, series side by side."""
    highest = max([0.01, *(float(line.y.max(initial=0.0)) for line in series)])
    y = linear("share of voxels", 1.04 * highest)
    n = len(levels)
    x = Axis(
        label="confidence level of the store, %",
        place=lambda i: (i + 0.5) / n,
        # short, but near certainty a tenth of a percent counts
        ticks=tuple((i, f"{100 * p:.{int(0.99 <= p < 1)}f}") for i, p in enumerate(levels)),
    )
    slot = (_px(1) - _px(0)) / n
    width = 0.8 * slot / max(len(series), 1)
    marks = []
    for s, one in enumerate(series):
        for i, (value, voxels) in enumerate(zip(one.y.tolist(), one.voxels, strict=True)):
            top = _py(y.place(value))
            tooltip = tag("title", f"{one.name}, level {100 * levels[i]:g} %: {voxels:,} voxels")
            bar = tag(
                "rect",
                x=_px(0) + (i + 0.1) * slot + s * width,
                y=top,
                width=width,
                height=_py(0) - top,
                class_=f"bar {one.style}",
            )
            marks.append(tag("g", tooltip, bar))
    return _framed(x, y, marks, title)


def sparkline(values: Sequence[float], most: float, title: str) -> Html:
    """A value per frame, 0 to ``most``, in the height of a line of text."""
    width, height = 120.0, 20.0
    step = width / max(len(values), 1)
    tops = [(i * step, height * (1 - min(v / most, 1.0))) for i, v in enumerate(values)]
    steps = "".join(f"V{top:.1f}H{left + step:.1f}" for left, top in tops)
    shape = tag("path", d=f"M0 {height:g}{steps}V{height:g}Z", class_="area")
    box = f"0 0 {width:g} {height:g}"
    tooltip = tag("title", title)
    return tag("svg", tooltip, shape, viewBox=box, class_="spark", role="img", aria_label=title)


def _framed(x: Axis, y: Axis, marks: Sequence[Html], title: str) -> Html:
    left, right, bottom, top = _px(0), _px(1), _py(0), _py(1)
    parts = [tag("title", title)]
    for value, text in y.ticks:
        pixel = _py(y.place(value))
        parts.append(tag("line", x1=left, x2=right, y1=pixel, y2=pixel, class_="grid"))
        parts.append(_text(left - 7, pixel + 4, text, "end"))
    small = "small" if len(x.ticks) > MANY_TICKS else None
    for value, text in x.ticks:
        pixel = _px(x.place(value))
        parts.append(tag("line", x1=pixel, x2=pixel, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(_text(pixel, bottom + 17, text, "middle", small))
    parts.append(tag("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis"))
    parts.append(_text((left + right) / 2, HEIGHT - 8, x.label, "middle", "label"))
    middle = (top + bottom) / 2
    turn = f"rotate(-90 13 {middle:g})"
    parts.append(tag("text", y.label, x=13, y=middle, text_anchor="middle", transform=turn))
    box = f"0 0 {WIDTH:g} {HEIGHT:g}"
    return tag("svg", *parts, *marks, viewBox=box, class_="plot", role="img", aria_label=title)


def _px(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _py(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _path(places: Sequence[tuple[float, float]], style: str) -> Html:
    points = " ".join(f"{_px(a):.1f},{_py(b):.1f}" for a, b in places)
    return tag("polyline", points=points, class_=style)


def _dot(place: tuple[float, float], radius: float, style: str, hint: Html) -> Html:
    circle = tag("circle", cx=_px(place[0]), cy=_py(place[1]), r=radius, class_=f"dot {style}")
    return tag("g", hint, circle)


def _text(x: float, y: float, text: str, anchor: str, style: str | None = None) -> Html:
    return tag("text", text, x=x, y=y, text_anchor=anchor, class_=style)


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _round_step(least: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least - 1e-12)


def legend(looks: Sequence[tuple[str, str]]) -> Html:
    """Names of the series and the styles of their keys, for below a plot."""
    items = [
        tag("span", tag("i", class_=f"key {style}"), name, class_="entry") for name, style in looks
    ]
    return tag("div", join(items), class_="legend")
