"""What benchmarks share: options, medians, tables, and figures in files with date and machine."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from datasets.files.json_files import plain, write_json
from datasets.files.replacing import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Name = TypeVar("Name", bound=Hashable)


def parser(doc: str | None, *, json: bool = False) -> argparse.ArgumentParser:
    """A parser whose ``--help`` shows the module's docstring.

    Args:
        json: add ``--json FILE``, for ``write_figures``.
    """
    built = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if json:
        built.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return built


def stamp() -> dict[str, Any]:
    """Date (UTC) and machine of a measurement."""
    cores = os.cpu_count()
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "cores": cores,
        "machine": f"{cores} CPU cores",
    }


def write_figures(figures: Mapping[str, Any], path: Path | None) -> None:
    """Write figures as JSON with date and machine, and print where they lie.

    Args:
        path: None prints how to keep them instead.
    """
    if path is None:
        print("figures: above only; --json FILE keeps them")
        return
    write_json(path, stamp() | plain(dict(figures)))
    print_files(path)


def print_files(*paths: Path) -> None:
    """Say where the figures lie, as the last line of a benchmark."""
    print(f"figures: {', '.join(map(str, paths))}")


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; ends without a line feed."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def table_of(figures: Mapping[str, Mapping[str, object]], name: str) -> str:
    """A Markdown table of figures by row and column; a row may lack columns.

    Args:
        name: of the first column, which names the rows.
    """
    columns = list(dict.fromkeys(column for row in figures.values() for column in row))
    rows = ([key, *(row.get(column, "") for column in columns)] for key, row in figures.items())
    return markdown_table([name, *columns], rows)


def median_seconds(calls: Mapping[Name, Callable[[], object]], rounds: int) -> dict[Name, float]:
    """Median seconds of each call over so many rounds, after one that does not count.

    The calls take turns, so that a busy minute hits all of them.
    """
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for k in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if k:
                seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in seconds.items()}


def new_figure(width_in: float, height_in: float) -> Figure:
    """A figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, *, dpi: int = 120) -> None:
    """Write an image in one step."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=dpi)
