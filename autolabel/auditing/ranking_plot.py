"""The ranking of an audit as a picture: what each scene's score is made of."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autolabel.auditing.report import WEIGHTS
from datasets.files.replacing import replacing
from datasets.labels.audit_record import AuditRecord

SHOWN = 40
COLORS = ("#00635d", "#57a6a1", "#e0a458", "#c8553d", "#7a3b69")


def draw_ranking(report: AuditRecord, path: Path) -> None:
    """Write a PNG: a bar per scene, most suspect first, at most ``SHOWN``."""
    scenes = report.scenes[:SHOWN]
    figure = Figure(figsize=(9, 1.6 + 0.24 * len(scenes)), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    left = [0.0] * len(scenes)
    names = [scene.scene_id for scene in scenes]
    for (part, weight), color in zip(WEIGHTS.items(), COLORS, strict=True):
        widths = [weight * (scene.shares.get(part) or 0.0) for scene in scenes]
        panel.barh(names, widths, left=left, color=color, label=part)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    faulty = {fault.scene_id for fault in report.faults}
    for label in panel.get_yticklabels():
        if label.get_text() in faulty:
            label.set_color("#c00000")
    panel.invert_yaxis()
    panel.set_xlabel("score (red names: scenes with a fault of their own)")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(ncols=len(WEIGHTS), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110)
