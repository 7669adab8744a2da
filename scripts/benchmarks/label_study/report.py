"""The study's table, plot and JSON, from the parts that are there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import reporting
from label_study.parts import ARMS, ORACLES, WORTH, Part
from label_study.seeds import (
    CLEAR,
    Difference,
    Scores,
    between,
    mean,
    paired,
    rounded,
    spread,
)
from label_study.tasks import Workshop

from datasets.benchmarks.catalogue import benchmark
from datasets.files.json_files import in_words, write_json
from datasets.files.replacing import write_text

AIM = {10: 95.0, 20: 99.0}
"""Percent of the fully labelled student, by percent of labels."""

TITLES = {
    "full": "all labels",
    "labels": "labels alone",
    "pseudo": "+ pseudo-labels",
    "distilled": "+ distillation",
    "both": "+ both",
    "true-classes": "+ pseudo-labels with the true classes",
    "true-mask": "+ pseudo-labels in the true mask",
    "raw": "+ what the teacher says of every voxel",
    "refined": "+ pseudo-labels put together over the drive",
}
COMPARED = ARMS[1:]
"""Arms with few labels that are compared; what is altered for a question is not."""


class Study:
    """The results so far.

    Attributes:
        mask: voxels that the benchmark scores, by name.
        results: of every part that is there.
    """

    def __init__(self, shop: Workshop, parts: Sequence[Part]) -> None:
        self.profile, self.parts = shop.profile, parts
        scored = benchmark(shop.profile.benchmark)
        self.mask, self.taxonomy = scored.mask or "all", scored.taxonomy
        self.results = [result for part in parts if (result := shop.result(part))]

    def scores(self, kind: str, what: str, percent: int, key: str) -> Scores:
        """By seed; ``key`` of the score table, or ``class: NAME`` under the benchmark's mask."""
        by_seed = {}
        for result in self.results:
            if (result["kind"], result["what"], result["percent"]) == (kind, what, percent):
                scores = result["scores"]
                if key.startswith("class: "):
                    value = scores[f"IoU[{self.mask}]"][key.removeprefix("class: ")]
                else:
                    value = scores[key]
                if value is not None:
                    by_seed[int(result["seed"])] = float(value)
        return by_seed

    def main(self, arm: str, percent: int) -> Scores:
        return self.scores("student", arm, percent, f"mIoU[{self.mask}]")

    def full(self) -> Scores:
        return self.main("full", 100)

    def percents(self) -> list[int]:
        return sorted({part.percent for part in self.parts if part.kind == "teacher"})

    def rows(self) -> list[tuple[int, str]]:
        """(percent, arm) of every student planned."""
        arms = (*COMPARED, *ORACLES, *WORTH)
        low = [(percent, arm) for percent in self.percents() for arm in arms]
        return [*low, (100, "full")]

    def separation(self, percent: int) -> Difference | None:
        """All labels against a share of them, labels alone; None before both are there."""
        low = self.main("labels", percent)
        return between(self.full(), low) if self.full() and low else None

    def separated(self, percent: int) -> bool:
        """Whether all labels clearly beat this share: only then may its arms be compared."""
        difference = self.separation(percent)
        return percent == 100 or (difference is not None and difference.clear)

    def share(self, percent: int, arm: str) -> Scores:
        """Percent of the fully labelled student's mean, by seed."""
        full = mean(self.full())
        return {seed: 100 * value / full for seed, value in self.main(arm, percent).items()}

    def to_json(self) -> dict[str, Any]:
        separation = {percent: self.separation(percent) for percent in self.percents()}
        rows = []
        for percent, arm in self.rows():
            main = self.main(arm, percent)
            if not main:
                continue
            row: dict[str, Any] = {
                "percent": percent,
                "arm": arm,
                f"mIoU[{self.mask}]": _summary(main),
                "mIoU[all]": _summary(self.scores("student", arm, percent, "mIoU[all]")),
            }
            if self.separated(percent):
                row["share of fully labelled"] = _summary(self.share(percent, arm))
                gain = paired(main, self.main("labels", percent))
                if gain and arm not in ("full", "labels"):
                    row["gain over labels alone"] = gain.to_json()
            rows.append(row)
        return {
            "profile": asdict(self.profile),
            "separation": {
                str(p): difference.to_json() for p, difference in separation.items() if difference
            },
            "students": rows,
            "hours": round(_wall_hours(self.results), 2),
            "hours by kind of part": _hours(self.results),
            "results": self.results,
        }


def write_report(shop: Workshop, parts: Sequence[Part]) -> str:
    """Write ``study.json``, ``study.md`` and ``study.png``; gives the text."""
    study = Study(shop, parts)
    text = markdown(study)
    write_json(shop.out / "study.json", reporting.stamp() | study.to_json())
    write_text(shop.out / "study.md", text)
    draw(study, shop.out / "study.png")
    return text


def markdown(study: Study) -> str:
    """The study in words and tables."""
    p, done = study.profile, len(study.results)
    teaching = f"{p.teaching.steps} steps"
    if p.fusing is not None:
        teaching += f" of {p.teachers['lidar']} and {p.fusing.steps} more with the cameras"
    lines = [
        f"# Label efficiency, profile {p.name}",
        "",
        f"{done} parts done in {_wall_hours(study.results):.2f} hours. "
        f"Benchmark {p.benchmark}, {len(study.taxonomy.semantic_ids)} classes. Student "
        f"{p.student}, {p.schooling.steps} steps of {p.schooling.batch} frames in every arm; "
        f"teacher {p.teachers['fusion']}, {teaching}. Figures are means over seeds "
        "(draw of the labelled scenes and training) +- the standard deviation.",
        "",
        *_separation_in_words(study),
        *_student_table(study),
        *_class_table(study),
        *_teacher_table(study),
        *_store_tables(study),
        *_hours_table(study),
    ]
    return "\n".join(lines) + "\n"


def _separation_in_words(study: Study) -> list[str]:
    rule = f"(clear: above {CLEAR:g} standard errors)"
    lines = []
    for percent in study.percents():
        difference = study.separation(percent)
        comparison = f"all labels - {percent} % of the labels = {difference} mIoU[{study.mask}]"
        if difference is None:
            sentence = f"Whether all labels beat {percent} % is not known yet; so no gain is given."
        elif difference.clear:
            sentence = f"**Labels separate**: {comparison} {rule}."
        elif math.isnan(difference.error):
            unknown = "Whether labels separate is not known from one seed"
            sentence = f"{unknown}: {comparison}. No gain is given."
        else:
            sentence = f"**Labels do not separate**: {comparison} {rule}. No gain can be concluded."
        lines += [sentence, ""]
    return lines


def _student_table(study: Study) -> list[str]:
    clear = any(map(study.separated, study.percents()))
    head = ["labels", "student", "seeds", f"mIoU[{study.mask}]", "mIoU[all]"]
    if clear:
        head += ["share of all labels", "gain over labels alone"]
    rows = []
    for percent, arm in study.rows():
        main = study.main(arm, percent)
        if not main:
            continue
        row = [
            f"{percent} %",
            TITLES[arm],
            str(len(main)),
            _text(main),
            _text(study.scores("student", arm, percent, "mIoU[all]")),
        ]
        if study.separated(percent) and clear:
            gain = paired(main, study.main("labels", percent))
            gained = ""
            if gain and arm not in ("full", "labels"):
                gained = f"{gain}{'' if gain.clear else ' (not clear)'}"
            row += [_text(study.share(percent, arm), " %"), gained]
        elif clear:
            row += ["", ""]
        rows.append(row)
    lines = _table(head, rows)
    for percent, aim in AIM.items():
        reached = {arm: mean(study.share(percent, arm)) for arm in COMPARED}
        reached = {arm: share for arm, share in reached.items() if math.isfinite(share)}
        if study.separated(percent) and reached:
            arm, best = max(reached.items(), key=lambda item: item[1])
            verdict = "reached" if best >= aim else "missed"
            lines += [
                f"Aim with {percent} % of the labels: {aim:g} % of the fully labelled student; "
                f"{verdict}: {best:.1f} % ({TITLES[arm]}).",
                "",
            ]
    return lines


def _class_table(study: Study) -> list[str]:
    ids = study.taxonomy.semantic_ids
    names = [study.taxonomy.names[k] for k in ids]
    rows = []
    for percent, arm in study.rows():
        if study.main(arm, percent):
            by_class = [study.scores("student", arm, percent, f"class: {n}") for n in names]
            shown = (in_words(mean(s), ".1f", "-") for s in by_class)
            rows.append([f"{percent} %", TITLES[arm], *shown])
    title = f"## Students by class, IoU[{study.mask}], mean over seeds"
    return [title, "", *_table(["labels", "student", *names], rows)]


def _teacher_table(study: Study) -> list[str]:
    rows = []
    planned = {part.what for part in study.parts if part.kind == "teacher"}
    for percent in study.percents():
        for modality in (m for m in study.profile.teachers if m in planned):
            scores = study.scores("teacher", modality, percent, f"mIoU[{study.mask}]")
            if scores:
                all_voxels = study.scores("teacher", modality, percent, "mIoU[all]")
                name = study.profile.teachers[modality]
                rows.append([f"{percent} %", modality, name, _text(scores), _text(all_voxels)])
    head = ["labels", "teacher", "preset", f"mIoU[{study.mask}]", "mIoU[all]"]
    return ["## Teachers on the validation scenes", "", *_table(head, rows)]


def _store_tables(study: Study) -> list[str]:
    stores = [result for result in study.results if result["kind"] == "store"]
    if not stores:
        return []
    plain = [name for name in stores[0]["quality"] if name not in ("by class", "frames")]
    lines = ["## Pseudo-labels of the unlabelled training scenes", ""]
    rows = [
        [
            f"{r['percent']} %",
            str(r["seed"]),
            r["what"] or "frame by frame",
            *(in_words(r["quality"][name], ".2f", "-") for name in plain),
        ]
        for r in stores
    ]
    lines += _table(["labels", "seed", "made", *plain], rows)
    lines += [
        "By class, mean over the stores made frame by frame, percent. Mask keeps: of the scored "
        "voxels of the class; recall: of these with the right label; precision: of what is kept "
        "and labelled so.",
        "",
    ]
    columns = list(next(iter(stores[0]["quality"]["by class"].values())))
    rows = []
    for name in study.taxonomy.names:
        tables = [r["quality"]["by class"][name] for r in stores if not r["what"]]
        rows.append([name, *(_mean_of(f[column] for f in tables) for column in columns)])
    return [*lines, *_table(["class", *columns], rows)]


def _hours_table(study: Study) -> list[str]:
    hours = _hours(study.results)
    rows = [[kind, str(value)] for kind, value in hours.items()]
    title = "## Hours of the parts, which run side by side"
    return [title, "", *_table(["parts", "hours"], rows)]


def _wall_hours(results: Sequence[dict[str, Any]]) -> float:
    """In which at least one part was at work."""
    spans = sorted((r["ended"] - r["seconds"], r["ended"]) for r in results)
    seconds = covered_to = 0.0
    for began, ended in spans:
        seconds += max(0.0, ended - max(began, covered_to))
        covered_to = max(covered_to, ended)
    return seconds / 3600


def _hours(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    hours = dict.fromkeys(("teacher", "store", "features", "student"), 0.0)
    for result in results:
        hours[result["kind"]] += result["seconds"] / 3600
    return {k: round(v, 2) for k, v in (hours | {"all": sum(hours.values())}).items()}


def _summary(scores: Scores) -> dict[str, Any]:
    return {
        "mean": rounded(mean(scores)),
        "deviation": rounded(spread(scores)),
        "by seed": scores,
    }


def _text(scores: Scores, unit: str = "") -> str:
    if not scores:
        return ""
    deviation = spread(scores)
    return f"{mean(scores):.2f}" + (f" +- {deviation:.2f}" if deviation >= 0 else "") + unit


def _mean_of(values: Any) -> str:
    figures = [value for value in values if value is not None]
    return f"{sum(figures) / len(figures):.1f}" if figures else "-"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return ["(nothing yet)", ""]
    return [reporting.markdown_table(head, rows), ""]


def draw(study: Study, path: Path) -> None:
    """mIoU against the share of labels, one line per arm; bars are standard deviations."""
    figure = reporting.new_figure(7.5, 4.2)
    axes = figure.subplots()
    if full := study.full():
        low, high = mean(full), spread(full) if len(full) > 1 else 0.0
        axes.axhspan(low - high, low + high, color="0.9")
        axes.axhline(low, color="0.4", linestyle="--", label=TITLES["full"])
    for k, arm in enumerate(COMPARED):
        offset = 0.15 * (k - (len(COMPARED) - 1) / 2)  # bars side by side
        points = [(p, study.main(arm, p)) for p in study.percents() if study.main(arm, p)]
        if points:
            deviations = [spread(s) if len(s) > 1 else 0.0 for _, s in points]
            axes.errorbar(
                [p + offset for p, _ in points],
                [mean(s) for _, s in points],
                yerr=deviations,
                marker="o",
                capsize=3,
                label=TITLES[arm],
            )
    axes.set_xticks(study.percents())
    axes.set_xlabel("labelled training scenes, %")
    axes.set_ylabel(f"mIoU[{study.mask}], %")
    axes.set_title(f"{study.profile.student}, {study.profile.schooling.steps} steps in every arm")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize="small")
    reporting.save_figure(figure, path)
