"""Does choosing what to label help? Teachers after some more scenes, chosen by each strategy.

    python scripts/benchmarks/active_learning.py --out runs/study
    python scripts/benchmarks/active_learning.py --profile smoke --percent 50 --budget 1 \\
        --steps 4 --out runs/smoke --report runs/smoke/selection        # minutes, no meaning

The teachers of a small share of the labels are those of ``label_efficiency.py``, taken from the
study's folder where they are there. Each labels all training scenes; every strategy chooses scenes
from these labels; the teacher goes on from its weights on the old scenes and the chosen ones, in
equally many steps. Scored on the validation scenes. ``random`` is drawn several times; ``none``
trains on with the old scenes alone.

Started again it goes on: a teacher that is there with the same scenes and settings is not trained
again, and strategies that choose the same scenes share it.
"""

from __future__ import annotations

from datasets.cli.supervisor import supervise

if __name__ == "__main__":  # before what is slow to import
    supervise(goes_on=True)


import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import reporting
import torch
from label_study.parts import Log, Part, plan, require_benchmark
from label_study.profiles import PROFILES, Schooling
from label_study.running import run
from label_study.seeds import Difference, Scores, mean, paired, rounded, spread
from label_study.tasks import Workshop

from autolabel.selection.active_learning import (
    Candidate,
    Strategy,
    candidates,
    score,
    select_candidates,
)
from autolabel.selection.scores import count_scene
from datasets.benchmarks.catalogue import benchmark
from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.files.json_files import in_words, write_json
from datasets.files.replacing import write_text
from datasets.labels.store import LabelStore
from datasets.sources.synthetic.city import MARKER, ensure_city
from datasets.storage.remote_path import absolute

ROOT = Path(__file__).resolve().parents[2]
ENDINGS = ("json", "md", "png")
"""Of the report's files."""
ARMS: dict[str, tuple[Strategy, bool]] = {
    "mix": ("mix", True),
    "entropy": ("entropy", False),
    "disagreement": ("disagreement", True),
    "flicker": ("disagreement", False),
    "diversity": ("diversity", False),
}
"""Strategy by arm, and whether the LiDAR teacher's labels are the second store."""
TITLES = {
    "none": "no scene more",
    "random": "random",
    "mix": "mix",
    "entropy": "entropy",
    "disagreement": "disagreement, fusion and LiDAR teacher",
    "flicker": "disagreement of consecutive frames",
    "diversity": "diversity",
}


@dataclass(frozen=True, kw_only=True)
class Tuned(Part):
    """A teacher trained on with more scenes. Named by these, not by who chose them."""

    @property
    def name(self) -> str:
        return f"tuned-{self.percent}-seed{self.seed}-{self.key[:6]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What one strategy chose from one teacher's labels.

    Attributes:
        draw: of ``random``; 0 for the others.
        chosen: scenes in the order of the choice.
        seconds: of a scene, to read it and to choose.
    """

    name: str
    seed: int
    draw: int
    chosen: tuple[str, ...]
    seconds: float
    part: Tuned


def label_all(shop: Workshop, teacher: Part) -> LabelStore:
    """The teacher's labels of every training scene."""
    place = shop.out / "selection" / f"{teacher.name}-{teacher.key[:10]}.zarr"
    store, _ = shop.label_with(teacher, place, lambda log: log.scene_ids("train"), flips=False)
    return store


def count(
    store: LabelStore, second: LabelStore | None, labelled: Sequence[str]
) -> tuple[list[Candidate], float]:
    """The store's scenes as candidates, and the seconds that took."""
    began = time.perf_counter()
    counted = {}
    for scene_id in store.scene_ids():
        scene = store.scene(scene_id)
        other = None if second is None else second.scene(scene_id)
        counts = count_scene(scene, store.header, other)
        counted[scene_id] = list(zip(scene.frame_tokens, counts, strict=True))
    scenes = candidates(counted, by_frame=False, labelled=labelled)
    return scenes, time.perf_counter() - began


def arms_of(shop: Workshop, teacher: Part, args: argparse.Namespace) -> list[Arm]:
    """What every strategy chooses from the labels of one teacher."""
    store = label_all(shop, teacher)
    second = label_all(shop, teacher.needs[0])
    counted = {
        with_second: count(store, second if with_second else None, teacher.labelled)
        for with_second in (True, False)
    }

    def arm(name: str, strategy: Strategy, with_second: bool, draw: int = 0) -> Arm:
        scenes, reading = counted[with_second]
        began = time.perf_counter()
        choices = select_candidates(
            scenes,
            score(scenes),
            budget=args.budget,
            strategy=strategy,
            seed=1000 * teacher.seed + draw,
        )
        chosen = tuple(scenes[choice.index].scene_id for choice in choices)
        seconds = time.perf_counter() - began + (0.0 if strategy == "random" else reading)
        part = tuned(teacher, chosen, args.steps, args.learning_rate)
        return Arm(
            name=name,
            seed=teacher.seed,
            draw=draw,
            chosen=chosen,
            seconds=seconds / len(scenes),
            part=part,
        )

    drawn = [arm("random", "random", False, draw) for draw in range(args.draws)]
    by_strategy = [arm(name, *strategy) for name, strategy in ARMS.items()]
    part = tuned(teacher, (), args.steps, args.learning_rate)
    baseline = replace(drawn[0], name="none", chosen=(), seconds=0.0, part=part)
    return [drawn[0], *by_strategy, *drawn[1:], baseline]


def tuned(teacher: Part, chosen: Sequence[str], steps: int, learning_rate: float) -> Tuned:
    """The teacher, trained on with these scenes; what calibrated it is not trained on."""
    *old, held_out = teacher.labelled
    return Tuned(
        kind="teacher",
        what=teacher.what,
        percent=teacher.percent,
        seed=teacher.seed,
        labelled=(*old, *sorted(chosen), held_out),
        settings={"selection": 1, "steps": steps, "learning_rate": learning_rate},
        needs=(teacher,),
        cost=1.5 * steps,
    )


def measure(args: argparse.Namespace) -> int:
    """Run it; gives the exit code.

    Raises:
        SetupError: the options make no sense.
    """
    if min(args.seeds, args.draws, args.budget, args.steps) < 1:
        raise SetupError("--seeds, --draws, --budget and --steps must be positive")
    profile = PROFILES[args.profile]()
    require_benchmark(profile)
    root = args.root or args.out / "city"
    if not (root / MARKER).exists():
        ensure_city(root, profile.city)
    log, out = Log(kind="city", root=absolute(root)), args.out.resolve()
    shop = Workshop(profile=profile, log=log, out=out, device=args.device)
    parts = plan(
        profile,
        log,
        percent=[args.percent],
        seeds=args.seeds,
        teachers=["fusion"],
        device=args.device,
    )
    teachers = [part for part in parts if part.kind == "teacher"]
    failed = run(shop, teachers, workers=1, on_done=lambda _: None)
    fine_tuning = Schooling(
        steps=args.steps,
        batch=profile.teaching.batch,
        learning_rate=args.learning_rate,
        rarity=profile.teaching.rarity,
    )
    # one scene calibrates, whatever was chosen
    tuning = replace(shop, profile=replace(profile, fusing=fine_tuning, held_out=0.0, flips=False))
    arms: list[Arm] = []

    def on_done(_: Part) -> None:
        report(tuning, args, teachers, arms)

    for teacher in teachers:  # a seed after the other, so that an early end shows most
        if teacher.what != "fusion" or teacher.name in failed:
            continue
        seed_arms = arms_of(shop, teacher, args)
        for arm in seed_arms:
            choice = f"seed {arm.seed}, {arm.name} {arm.draw + 1}: {', '.join(arm.chosen)}"
            print(f"{choice}: {arm.part.name}", file=sys.stderr, flush=True)
        arms.extend(seed_arms)
        parts = list({arm.part.key: arm.part for arm in seed_arms}.values())
        failed |= run(tuning, parts, workers=1, on_done=on_done)
    report(tuning, args, teachers, arms)
    print(args.report.with_suffix(".md").read_text())
    reporting.print_files(*(args.report.with_suffix(f".{ending}") for ending in ENDINGS))
    for name, reason in failed.items():
        print(f"{name} is missing: {reason}", file=sys.stderr)
    return 1 if failed else 0


class Results:
    """The scores of the arms so far."""

    def __init__(self, shop: Workshop, teachers: Sequence[Part], arms: Sequence[Arm]) -> None:
        self.mask = benchmark(shop.profile.benchmark).mask or "all"
        self.arms = [(arm, result) for arm in arms if (result := shop.result(arm.part))]
        fusion = [shop.result(part) for part in teachers if part.what == "fusion"]
        key = f"mIoU[{self.mask}]"
        scored = [r for r in fusion if r and r["scores"][key] is not None]
        self.before = {r["seed"]: float(r["scores"][key]) for r in scored}

    def scores(self, name: str, key: str | None = None) -> Scores:
        """By seed; of several draws the mean."""
        key = key or f"mIoU[{self.mask}]"
        of_seed: dict[int, list[float]] = {}
        for arm, result in self.arms:
            if arm.name == name and result["scores"][key] is not None:
                of_seed.setdefault(arm.seed, []).append(float(result["scores"][key]))
        return {seed: sum(values) / len(values) for seed, values in of_seed.items()}

    def draws(self) -> dict[int, list[float]]:
        """Of ``random``, by seed."""
        of_seed: dict[int, list[float]] = {}
        for arm, result in self.arms:
            value = result["scores"][f"mIoU[{self.mask}]"]
            if arm.name == "random" and value is not None:
                of_seed.setdefault(arm.seed, []).append(value)
        return of_seed

    def between_draws(self) -> float:
        """Standard deviation of equally many scenes drawn at random, seeds pooled."""
        groups = [values for values in self.draws().values() if len(values) > 1]
        squares = sum(sum((v - sum(g) / len(g)) ** 2 for v in g) for g in groups)
        freedom = sum(len(g) - 1 for g in groups)
        return float((squares / freedom) ** 0.5) if freedom else float("nan")

    def gain(self, name: str) -> Difference | None:
        """Over random, by pairs of a seed. The error is at least what two trainings on equally
        many other scenes would give: few pairs can agree by chance."""
        difference = paired(self.scores(name), self.scores("random"))
        if difference is None or name == "random":
            return None
        seeds, draws = len(self.scores(name)), max(len(v) for v in self.draws().values())
        draw_error = self.between_draws() * math.sqrt((1 + 1 / draws) / seeds)
        return replace(difference, error=max(difference.error, draw_error))

    def rows(self) -> list[str]:
        scored = {arm.name for arm, _ in self.arms}
        return [name for name in TITLES if name in scored]

    def to_json(self) -> dict[str, Any]:
        rows = {}
        for name in self.rows():
            seconds = [arm.seconds for arm, _ in self.arms if arm.name == name]
            gain = self.gain(name)
            rows[name] = {
                "mean": rounded(mean(self.scores(name))),
                "deviation": rounded(spread(self.scores(name))),
                "by seed": {seed: round(v, 2) for seed, v in self.scores(name).items()},
                "mIoU[all]": rounded(mean(self.scores(name, "mIoU[all]"))),
                "gain over random": gain.to_json() if gain else None,
                "seconds a scene": round(sum(seconds) / len(seconds), 4),
            }
        return {
            "before": self.before,
            f"mIoU[{self.mask}]": rows,
            "deviation between random draws": rounded(self.between_draws()),
            "random draws": self.draws(),
            "choices": [
                {key: value for key, value in asdict(arm).items() if key != "part"}
                | {"scores": result["scores"], "seconds of training": result["seconds"]}
                for arm, result in self.arms
            ],
        }


def report(
    shop: Workshop, args: argparse.Namespace, teachers: Sequence[Part], arms: Sequence[Arm]
) -> None:
    """Write JSON, table and image of what is there."""
    results = Results(shop, teachers, arms)
    settings = {
        name: getattr(args, name)
        for name in ("profile", "percent", "budget", "steps", "learning_rate", "draws", "device")
    }
    figures = {"settings": settings} | results.to_json()
    write_json(args.report.with_suffix(".json"), reporting.stamp() | figures)
    write_text(args.report.with_suffix(".md"), markdown(results, args))
    draw(results, args, args.report.with_suffix(".png"))


def markdown(results: Results, args: argparse.Namespace) -> str:
    table = results.to_json()[f"mIoU[{results.mask}]"]
    lines = [
        "# What to label next",
        "",
        f"Teachers of {args.percent} % of the labels, fine-tuned in {args.steps} steps on their "
        f"scenes and {args.budget} more, chosen from their own labels of the other training "
        f"scenes. mIoU[{results.mask}] on the validation scenes, mean over seeds +- standard "
        "deviation. Gain: over the mean of the random draws of the same seed, +- standard error, "
        "which is at least what the spread between random draws gives; clear from two on.",
        "",
        f"Before: {_text(results.before)}. {args.draws} random draws of one seed differ by a "
        "standard deviation of "
        f"{in_words(results.between_draws(), '.2f', 'unknown size: one draw a seed')}.",
        "",
    ]
    rows = []
    for name in results.rows():
        scores, row = results.scores(name), table[name]
        gain = results.gain(name)
        clear = gain is None or gain.clear or replace(gain, value=-gain.value).clear
        gained = "" if gain is None else f"{gain}{'' if clear else ' (not clear)'}"
        cells = [TITLES[name], len(scores), _text(scores), gained]
        cells += [in_words(row["mIoU[all]"], ".2f", "-"), f"{row['seconds a scene']:.3f}"]
        rows.append(cells)
    columns = ["chosen by", "seeds", f"mIoU[{results.mask}]", "gain over random"]
    lines += [
        reporting.markdown_table([*columns, "mIoU[all]", "s a scene"], rows),
        "",
        f"{sum(name in ARMS for name in results.rows())} strategies are compared without a "
        "correction for that: one of them may look clear by chance.",
        "",
        "Chosen scenes:",
        "",
    ]
    for arm, result in results.arms:
        if arm.chosen:
            value = result["scores"][f"mIoU[{results.mask}]"]
            title = f"{arm.name} {arm.draw + 1}" if arm.name == "random" else arm.name
            score = in_words(value, ".2f", "nothing to score")
            lines.append(f"- seed {arm.seed}, {title}: {', '.join(arm.chosen)}: {score}")
    return "\n".join(lines) + "\n"


def _text(scores: Scores) -> str:
    deviation = spread(scores)
    middle = in_words(mean(scores), ".2f", "nothing to score")
    return middle + (f" +- {deviation:.2f}" if deviation >= 0 else "")


def draw(results: Results, args: argparse.Namespace, path: Path) -> None:
    """mIoU by strategy: one color a seed, every random draw, and the means."""
    figure = reporting.new_figure(7.5, 4.0)
    axes = figure.subplots()
    rows = results.rows()
    for x, name in enumerate(rows):
        points = (
            [(s, v) for s, values in results.draws().items() for v in values]
            if name == "random"
            else list(results.scores(name).items())
        )
        colors = [f"C{seed}" for seed, _ in points]
        axes.scatter([x] * len(points), [v for _, v in points], c=colors, alpha=0.7, zorder=3)
        middle = mean(results.scores(name))
        axes.hlines(middle, x - 0.3, x + 0.3, color="black", zorder=4)
        if name == "random":
            axes.axhline(middle, color="0.6", linestyle="--", zorder=1)
    short = {"disagreement": "two teachers\ndisagree", "flicker": "frames\ndisagree"}
    labels = [short.get(name, TITLES[name].replace(" ", "\n")) for name in rows]
    axes.set_xticks(range(len(rows)), labels)
    axes.set_ylabel(f"mIoU[{results.mask}], %")
    axes.set_title(
        f"Teacher after {args.budget} more scenes, {args.steps} steps; a color a seed, line: mean"
    )
    axes.grid(axis="y", alpha=0.3)
    reporting.save_figure(figure, path)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = reporting.parser(__doc__)
    add = parser.add_argument
    add("--profile", choices=PROFILES, default="cpu", help="of the study whose teachers go on")
    add("--out", type=Path, required=True, help="folder of the study")
    add("--root", type=Path, help="the city (OUT/city, made on first use)")
    add("--percent", type=int, default=10, help="labelled scenes of the first teachers")
    add("--budget", type=int, default=4, help="scenes to choose")
    add("--steps", type=int, default=150, help="of every fine-tuning")
    add("--learning-rate", type=float, default=1e-3)
    add("--seeds", type=int, default=3)
    add("--draws", type=int, default=3, help="of random, for each seed")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--report", type=Path, help="files to write, without suffix (scripts/benchmarks/...)")
    args = parser.parse_args(argv)
    kind = torch.device(args.device).type
    args.report = args.report or ROOT / "scripts" / "benchmarks" / f"selection-{kind}"
    return args


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: measure(parse(argv)), goes_on=True)


if __name__ == "__main__":
    sys.exit(main())
