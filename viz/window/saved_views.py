"""Places that a reviewer likes to look from, kept from one session to the next."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from datasets.files.json_files import read_json_file, write_json

Point = tuple[float, float, float]
N_VIEWS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A camera: its place, what it looks at and which way is up, metres, grid's frame."""

    eye_m: Point
    target_m: Point
    up: Point = (0.0, 0.0, 1.0)


def views_file() -> Path:
    """In the user's own configuration folder."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "effocc-autolabel" / "views.json"


def read_views(path: Path) -> dict[int, View]:
    """Views by their number, 1..4; what cannot be read counts as not saved."""
    try:
        data = read_json_file(path)
        views = {int(number): _view(view) for number, view in data.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return {}
    return {number: view for number, view in views.items() if 1 <= number <= N_VIEWS}


def write_views(path: Path, views: dict[int, View]) -> None:
    """Replace the file at once. Raises ``OSError``."""
    data = {
        str(number): {"eye_m": view.eye_m, "target_m": view.target_m, "up": view.up}
        for number, view in sorted(views.items())
    }
    write_json(path, data)


def _view(data: dict[str, list[float]]) -> View:
    return View(
        eye_m=_point(data["eye_m"]), target_m=_point(data["target_m"]), up=_point(data["up"])
    )


def _point(values: list[float]) -> Point:
    x, y, z = (float(v) for v in values)
    if not all(math.isfinite(v) for v in (x, y, z)):
        raise ValueError(f"not a place: {values}")
    return x, y, z
