"""Sections on scenes: all of them ranked, the worst in images, the audit, those quarantined."""

from __future__ import annotations

import shlex

import numpy as np

from datasets.geometry.grid import VoxelGrid
from datasets.labels.audit_record import AuditRecord, Votes
from viz.html_report.content import Content, doubt, known_wrong, ranked
from viz.html_report.frame_images import Embedded, FrameImages
from viz.html_report.markup import Html, join, tag
from viz.html_report.page import (
    NOTHING,
    Column,
    Section,
    bar,
    empty,
    name_cell,
    number,
    percent,
    swatch,
    table,
    words,
)
from viz.html_report.store_statistics import share
from viz.html_report.svg_plots import sparkline
from viz.render.bev_images import heat
from viz.render.lines import RING_STEP_M

MOST_DETAIL = 20_000
"""Characters of a traceback that are shown, its end."""


def scenes(content: Content) -> Section:
    """A row per scene, worst first."""
    n, audited = content.numbers, content.audited
    order, order_name = ranked(n, content.audit)
    votes = [] if content.audit is None else list(content.audit.by_class)
    columns = [
        Column(name="Scene", text=True),
        Column(name="Frames"),
        Column(name="Trusted", hint="share of the observed voxels"),
        Column(name="Expected wrong", hint="share of the observed voxels, by their confidence"),
    ]
    if content.truth:
        legend = f"share of the observed voxels that {content.truth} contradicts"
        columns.append(Column(name="Wrong, measured", hint=legend))
    if content.audit is not None:
        columns.append(Column(name="Score", hint="of the audit; higher is more suspect"))
        columns += [
            Column(name=vote.capitalize(), hint="share voted against by held-out LiDAR")
            for vote in votes
        ]
        columns.append(Column(name="Fit", hint="of labels and LiDAR, 0..1"))
    legend = "expected share of wrong voxels, frame by frame; all rows have the same height"
    columns.append(Column(name="Over the frames", hint=legend))
    highest = max([float(s.doubt.max(initial=0.0)) for s in order], default=0.0) or 1.0
    rows = []
    for scene in order:
        trusted = share(scene.labels[..., 1].sum(), scene.labels.sum())
        expected = doubt(scene, n)
        row = [
            name_cell(scene.scene_id),
            number(f"{len(scene.tokens):,}"),
            bar(trusted, percent(trusted)),
            bar(expected, percent(expected), style="risk"),
        ]
        if content.truth:
            wrong = known_wrong(scene)
            row.append(bar(wrong, percent(wrong), style="risk") if wrong >= 0 else number(NOTHING))
        if content.audit is not None:
            finding = audited.get(scene.scene_id)
            row.append(number(f"{finding.score:.3f}" if finding else NOTHING))
            row += [number(percent(finding.shares.get(v) if finding else None, 2)) for v in votes]
            fitted = finding is not None and finding.fit is not None
            row.append(number(f"{finding.fit:.3f}" if finding and fitted else NOTHING))
        title = f"{scene.scene_id}: expected wrong, up to {percent(float(scene.doubt.max()))}"
        row.append(tag("td", sparkline(scene.doubt.tolist(), highest, title)))
        rows.append(row)
    body = table(columns, rows, "Scenes, worst first") if rows else empty("No scene is there.")
    return Section(
        id="scenes", title="Scenes", lead=f"Ranked by {order_name}, worst first.", body=body
    )


def worst(content: Content) -> Section:
    """Images of the worst frame of each of the worst scenes."""
    taxonomy = content.numbers.header.taxonomy
    drawn = ""
    if content.images:
        why = f": {content.renderer_note}" if content.renderer_note else ""
        painters = " and ".join(dict.fromkeys(images.drawn_by for images in content.images))
        drawn = f" 3D views are drawn by {painters}{why}."
    if content.images:
        names = [
            tag("span", swatch(taxonomy.colors[i]), taxonomy.names[i].replace("_", " "))
            for i in taxonomy.semantic_ids
        ]
        keys = tag("div", *names, _heat_key(), class_="classes")
        body = join([keys, *(_scene(content, images) for images in content.images)])
    elif content.asked_images:
        body = empty("No scene could be drawn.")
    else:
        body = empty("Images were not asked for: leave ", tag("code", "--images 0"), " out.")
    return Section(
        id="worst",
        title="Worst scenes",
        lead="The frame with the most errors of each of the worst scenes, trusted labels only."
        + drawn,
        body=body,
    )


def _scene(content: Content, found: FrameImages) -> Html:
    n = content.numbers
    scene = next(s for s in n.scenes if s.scene_id == found.scene_id)
    expected = percent(float(scene.doubt[found.k]))
    facts = [f"{expected} of its observed voxels are wrong by their own confidence"]
    if np.isfinite(wrong := scene.wrong[found.k]):
        facts.append(f"{percent(float(wrong))} are by {content.truth}")
    if (audit := content.audited.get(found.scene_id)) is not None:
        facts.append(f"audit score {audit.score:.3f}")
        facts += [f"could not be audited whole: {problem}" for problem in audit.problems]
    said = content.reviews.standing.get((found.scene_id, found.token))
    if said is not None:
        differ = ", others differ" if said.disputed else ""
        facts.append(f"{said.verdict} by {said.reviewer}{differ}")
    command = content.command("viz/inspect.py", "--scene", found.scene_id, "--frame", str(found.k))
    facing = n.header.frame == "ego"
    maps = [_image(above, found.grid, facing=facing) for above in found.maps]
    look = "images four" if len(maps) > 2 else "images"
    parts = [
        tag("h3", f"{found.scene_id}, frame {found.k} ({found.n_frames} in all)"),
        tag("p", "; ".join(facts), ".", tag("br"), tag("code", command), class_="lead"),
        tag("div", _image(found.view), tag("div", *maps, class_="maps"), class_=look),
    ]
    if found.cameras:
        parts.append(tag("div", *(_image(image) for image in found.cameras), class_="cameras"))
    parts += [tag("p", note, class_="lead") for note in found.notes]
    return tag("article", *parts, class_="scene")


def _image(found: Embedded, grid: VoxelGrid | None = None, *, facing: bool = True) -> Html:
    image = tag("img", src=found.uri, width=found.width, height=found.height, alt=found.alt)
    over = None if grid is None else _rings(grid, facing=facing)
    frame = tag("div", image, over, class_="frame map" if grid is not None else "frame")
    return tag("figure", frame, tag("figcaption", found.caption), class_="image")


def _rings(grid: VoxelGrid, *, facing: bool) -> Html:
    """Rings of 10 m and the vehicle, over a map; in metres from its upper left corner.

    Args:
        facing: X is where the vehicle looks; the axes of a LiDAR do not tell that.
    """
    width, height = (grid.max_m[axis] - grid.min_m[axis] for axis in (1, 0))
    x, y = grid.max_m[1], grid.max_m[0]
    farthest = max(map(abs, (*grid.min_m[:2], *grid.max_m[:2])))
    rings = [
        tag("circle", cx=x, cy=y, r=float(radius), class_="ring")
        for radius in np.arange(RING_STEP_M, farthest + 1, RING_STEP_M)
    ]
    ego = f"{x:g},{y - 3.2:g} {x - 1:g},{y + 1:g} {x + 1:g},{y + 1:g}"
    marker = tag("polygon", points=ego, class_="ego")
    if not facing:
        marker = tag("circle", cx=x, cy=y, r=1.2, class_="ego")
    return tag("svg", *rings, marker, viewBox=f"0 0 {width:g} {height:g}", aria_hidden="true")


def _heat_key() -> Html:
    colors = heat(np.linspace(0, 1, 9)).tolist()
    ramp = ",".join(f"rgb({r},{g},{b})" for r, g, b in colors)
    key = tag("i", style=f"background:linear-gradient(90deg,{ramp})")
    return tag("span", "confidence 0", key, "1", class_="heat")


def audit(content: Content) -> Section:
    """Faults by name, votes by class and distance, what was not tested."""
    record = content.audit
    if record is None:
        command = content.command("autolabel/audit.py", "--json", "audit.json")
        body = empty(
            "No audit given: run ",
            tag("code", command),
            " and give ",
            tag("code", "--audit audit.json"),
            ".",
        )
        return Section(id="audit", title="Audit", lead="", body=body)
    parts = [_faults(record)]
    for title, column, first in (
        ("Votes by class", record.by_class, "Class"),
        ("Votes by distance", record.by_range, "Distance"),
    ):
        if any(column.values()):
            parts += [tag("h3", title), _votes(column, first, title, content)]
    stored = {scene.scene_id for scene in content.numbers.scenes}
    if strangers := [scene.scene_id for scene in record.scenes if scene.scene_id not in stored]:
        text = f"It names {len(strangers)} scenes that the store does not have whole, such as "
        parts.append(tag("p", f"{text}{strangers[0]}.", class_="lead"))
    lines = [*record.notes, *(f"{s}: quarantined: {why}" for s, why in record.quarantined.items())]
    lines += [f"{s.scene_id}: left out: {p}" for s in record.scenes for p in s.problems]
    if lines:
        heading = tag("summary", tag("strong", "What was not tested or could not be read"))
        parts.append(tag("details", heading, tag("pre", "\n".join(lines))))
    return Section(
        id="audit",
        title="Audit",
        lead=f"Of {record.what}: LiDAR sweeps that the teacher did not read vote on the labels.",
        body=join(parts),
        alarms=len(record.faults) + len(record.quarantined),
    )


def _faults(found: AuditRecord) -> Html:
    if not found.faults:
        unknown = sum(note.startswith("not judged") for note in found.notes)
        text = "The audit names no fault"
        text += f" in what it could judge; {unknown} things it could not." if unknown else "."
        line = tag("li", text, class_="" if unknown else "good")
        return tag("ul", line, class_="notices")
    heads = [Column(name=name, text=True) for name in ("Fault", "Where", "Evidence")]
    rows = [
        [words(tag("strong", fault.name)), words(fault.scene_id), words(fault.evidence)]
        for fault in found.faults
    ]
    return table(heads, rows, "Faults that the audit names")


def _votes(by: dict[str, Votes], first: str, title: str, content: Content) -> Html:
    taxonomy = content.numbers.header.taxonomy
    names = list(dict.fromkeys(name for votes in by.values() for name in votes))
    columns = [Column(name=first, text=True)]
    for vote in by:
        columns.append(Column(name=vote.capitalize(), hint="share of the judged voxels"))
        columns.append(Column(name="of voxels", hint=f"judged for {vote}"))
    rows = []
    for name in names:
        shown: list[str] = [name.replace("_", " ")]
        if name in taxonomy.names:
            shown.insert(0, swatch(taxonomy.colors[taxonomy.id_of(name)]))
        row = [name_cell(*shown)]
        for votes in by.values():
            bad, judged = votes.get(name, (0, 0))
            value = share(bad, judged)
            row.append(bar(value, percent(value), style="risk"))
            row.append(number(f"{judged:,}" if judged else NOTHING))
        rows.append(row)
    return table(columns, rows, title)


def aside(content: Content) -> Section:
    """Scenes without labels, and scenes that could not be read now."""
    parts: list[Html] = []
    if bad := content.unreadable:
        heads = [Column(name="Scene", text=True), Column(name="What is wrong", text=True)]
        rows = [[words(scene), words(why)] for scene, why in sorted(bad.items())]
        command = shlex.join(["python", "scripts/store.py", "verify", content.where])
        parts += [tag("h3", "Could not be read whole"), table(heads, rows, "Unreadable scenes")]
        parts.append(
            tag("p", "What else is damaged tells ", tag("code", command), ".", class_="lead")
        )
    if content.set_aside:
        parts.append(tag("h3", "Quarantined by the labeling job"))
    for scene_id, note in content.set_aside.items():
        detail = note.detail[-MOST_DETAIL:].strip()
        cut = "... " if len(note.detail) > MOST_DETAIL else ""
        line = tag("summary", tag("strong", scene_id), note.reason)
        shown = tag("pre", cut + detail) if detail else empty("Nothing more is noted.")
        parts.append(tag("details", line, shown))
    if not parts:
        parts.append(empty("Every scene could be read, and none was quarantined."))
    return Section(
        id="aside",
        title="Quarantined",
        lead="Scenes that have no labels, or whose labels or ground truth cannot be read, and why.",
        body=join(parts),
        alarms=len(content.unreadable) + len(content.set_aside),
    )
