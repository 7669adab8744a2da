"""The section of objects that move: how many there are, and how long each is followed."""

from __future__ import annotations

import numpy as np

from viz.html_report.content import Content
from viz.html_report.page import (
    Column,
    Section,
    bar,
    name_cell,
    number,
    percent,
    swatch,
    table,
    words,
)


def objects(content: Content) -> Section | None:
    """A row per class of objects; None where the store numbers no objects."""
    numbers, taxonomy = content.numbers, content.numbers.header.taxonomy
    scenes = [scene for scene in numbers.scenes if scene.objects is not None]
    if not scenes:
        return None
    n_frames = sum(len(scene.tokens) for scene in scenes)
    columns = [
        Column(name="Class", text=True),
        Column(name="Objects", hint="numbers of their own, over all scenes"),
        Column(name="A frame", hint="objects in a frame, mean"),
        Column(name="Frames of an object", hint="median; the scene's length is the most"),
        Column(name="In one frame only", hint="share of the objects that no other frame has"),
    ]
    rows = []
    for class_id in taxonomy.dynamic:
        frames = [n for scene in scenes for n in (scene.objects or {}).get(class_id, ())]
        if not frames:
            continue
        once = sum(n == 1 for n in frames) / len(frames)
        name = taxonomy.names[class_id].replace("_", " ")
        rows.append(
            [
                name_cell(swatch(taxonomy.colors[class_id]), name),
                number(f"{len(frames):,}"),
                number(f"{sum(frames) / n_frames:.2f}"),
                number(f"{np.median(frames):g}"),
                bar(once, percent(once), style="risk"),
            ]
        )
    if not rows:
        rows = [[words("no object"), *(number("0") for _ in columns[1:])]]
    return Section(
        id="objects",
        title="Objects",
        lead="Connected voxels of classes that can move, numbered over the frames of a scene; the "
        "viewer shows them with --color object.",
        body=table(columns, rows, "Objects per class"),
    )
