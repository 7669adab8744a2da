"""How far do few labels go? Teacher, pseudo-labels and students for several shares of the labels.

    python scripts/benchmarks/label_efficiency.py --profile smoke --out runs/smoke  # minutes
    python scripts/benchmarks/label_efficiency.py --profile cpu --out runs/study  # hours
    python scripts/benchmarks/label_efficiency.py --profile cpu --percent 10 20 --seeds 3 \\
        --out runs/study --teachers fusion lidar camera

For every share and seed a teacher learns from the labelled scenes, is calibrated on some of them
and labels the others; students learn from the labels alone, with its pseudo-labels, with
distillation, with both, and from all labels; each in equally many steps. Scored on the validation
scenes. The first of ``--teachers`` makes the labels, the others are scored only.

``--arms`` makes some of the students only, or also ``true-classes`` and ``true-mask``, which
have pseudo-labels put right in one respect and so tell what limits them, ``raw`` (every voxel
counts, no mask, no confidence) and ``refined`` (labels put together over the drive), which tell
what these parts are worth.

In ``--out``: ``study.md``, ``study.json``, ``study.png``, renewed after every part, and the parts.
Started again it goes on; a part that is there with the same settings is not made again. The report
tells of every part of these shares and seeds that is there, whichever call made it. ``--known``
counts the parts of a study made elsewhere as there, unless another part needs their files.
"""

from __future__ import annotations

from datasets.cli.supervisor import supervise

if __name__ == "__main__":  # before what is slow to import
    supervise(goes_on=True)


import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

import reporting
import torch
from label_study.parts import ARMS, ORACLES, WORTH, Log, Part, in_order, plan, require_benchmark
from label_study.profiles import MODALITIES, PROFILES
from label_study.report import write_report
from label_study.running import run
from label_study.tasks import Workshop, read_known

from datasets.cli.exit_codes import exit_code
from datasets.errors import SetupError
from datasets.sources import SOURCES
from datasets.sources.synthetic.city import MARKER, ensure_city
from datasets.storage.remote_path import absolute


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = reporting.parser(__doc__)
    add = parser.add_argument
    add("--profile", choices=PROFILES, default="cpu")
    add("--percent", type=int, nargs="+", help="shares of labelled scenes (the profile's)")
    add("--seeds", type=int, help="draws and trainings of everything (the profile's)")
    add("--out", type=Path, required=True, help="folder of the study")
    add("--source", choices=SOURCES, default="city")
    add("--root", type=Path, help="folder of the log (a city: OUT/city, made on first use)")
    add(
        "--arms",
        nargs="*",
        choices=(*ARMS, *ORACLES, *WORTH),
        default=list(ARMS),
        help="only these students",
    )
    add("--teachers", nargs="+", choices=MODALITIES, default=["fusion"])
    add("--known", type=Path, nargs="+", default=[], metavar="FILE", help="study.json of others")
    add("--steps", type=int, help="of every training, instead of the profile's")
    add("--workers", type=int, help="parts at a time (cores on a CPU, else 1)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


def study(args: argparse.Namespace) -> int:
    """Run it; gives the exit code.

    Raises:
        SetupError: the study makes no sense, or there is no such log.
    """
    profile = PROFILES[args.profile]()
    if args.steps:
        profile = replace(
            profile,
            teaching=replace(profile.teaching, steps=args.steps),
            schooling=replace(profile.schooling, steps=args.steps),
        )
    seeds = profile.seeds if args.seeds is None else args.seeds
    percent = profile.percent if args.percent is None else args.percent
    if seeds < 1 or not all(0 < share < 100 for share in percent):
        raise SetupError("--seeds must be positive and --percent between 0 and 100")
    require_benchmark(profile)
    root = args.root or args.out / "city"
    if args.source == "city" and not (root / MARKER).exists():
        ensure_city(root, profile.city)
    shop = Workshop(
        profile=profile,
        log=Log(kind=args.source, root=absolute(root)),
        out=args.out.resolve(),
        device=args.device,
        known=read_known(args.known),
    )
    others = [teacher for teacher in profile.teachers if teacher not in args.teachers]
    parts = plan(
        profile,
        shop.log,
        percent=percent,
        seeds=seeds,
        teachers=[*args.teachers, *others],
        device=args.device,
    )
    wanted = [p for p in parts if p.what in (*args.teachers, *args.arms)]

    def report(_: Part) -> None:
        write_report(shop, parts)

    workers = args.workers or (_cores() if args.device == "cpu" else 1)
    failed = run(shop, in_order(wanted), workers=workers, on_done=report)
    print(write_report(shop, parts))
    reporting.print_files(*(shop.out / f"study.{ending}" for ending in ("json", "md", "png")))
    for name, reason in failed.items():
        print(f"{name} is missing: {reason}", file=sys.stderr)
    return 1 if failed else 0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: study(parse(argv)), goes_on=True)


if __name__ == "__main__":
    sys.exit(main())
