"""Turn PandaSet sequences into a folder log that every command reads.

    python scripts/convert_pandaset.py PANDASET runs/pandaset
    python scripts/convert_pandaset.py PANDASET runs/parts --parts 30-49 50-79   # two scenes each
    python scripts/check_log.py runs/pandaset --picture runs/pandaset.png
    python autolabel/run.py --source folder --root runs/pandaset --split all --store OUT.zarr

PANDASET holds NNN/ (pictures, poses, cuboids as CSV) and NNN_compact/ (exported points). The
published .pkl.gz files are pickles, which are never opened: datasets/sources/pandaset.py says what
to export. Every 10 Hz sweep is kept; the key-frames are those with pictures. One whose cuboids are
damaged is named and written as not annotated; the exit code is then 1.
"""

from __future__ import annotations

from datasets.cli.supervisor import supervise

if __name__ == "__main__":  # before what is slow to import
    supervise()


import argparse
import sys
from itertools import product
from pathlib import Path

from tqdm import tqdm

from datasets.cli.exit_codes import exit_code
from datasets.errors import SceneError, SetupError
from datasets.files.printable import printable
from datasets.sources.pandaset import PandasetSequence, write_log_file


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="PANDASET")
    parser.add_argument("out", type=Path, help="folder to make; must not hold a log yet")
    parser.add_argument(
        "--parts",
        nargs="+",
        type=part_of,
        default=[None],
        metavar="FIRST-LAST",
        help="scenes of these frames only, such as 30-49 50-79, instead of whole sequences",
    )
    args = parser.parse_args()
    if (args.out / "log.json").exists():
        raise SetupError(f"{args.out}: there is a log already")
    names = sorted(p.name.removesuffix("_compact") for p in args.source.glob("[0-9]*_compact"))
    if not names:
        raise SetupError(f"{args.source}: no folder NNN_compact with exported points")
    aside = damaged = 0
    for name, part in product(names, args.parts):
        try:
            sequence = PandasetSequence(args.source, name, part)
        except SceneError as error:
            print(printable(f"set aside: {name}: {error}"), file=sys.stderr)
            aside += 1
            continue
        scene = args.out / "scenes" / sequence.scene_id
        scene.mkdir(parents=True, exist_ok=True)
        for frame in tqdm(sequence.frames, desc=f"scene {sequence.scene_id}", unit="sweep"):
            sequence.write_sweep(frame, scene)
        for token, why in sequence.write_scene(scene).items():
            damaged += 1
            print(printable(f"not annotated: {sequence.scene_id} {token}: {why}"), file=sys.stderr)
        print(
            f"{sequence.scene_id}: {len(sequence.frames)} sweeps, {len(sequence.key_frames)} "
            f"key-frames; road {-sequence.ground_z_m:.2f} m below PandaSet's origin"
        )
    if aside == len(names) * len(args.parts):
        raise SetupError(f"{args.source}: every sequence was set aside")
    write_log_file(args.out)
    print(f"log: {args.out}")
    return 1 if aside or damaged else 0


def part_of(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    if not (first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST-LAST")
    return int(first), int(last)


if __name__ == "__main__":
    sys.exit(exit_code(main))
