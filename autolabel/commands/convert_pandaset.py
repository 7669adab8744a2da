"""Convert PandaSet sequences to a folder log."""

from __future__ import annotations

import argparse
import sys
from itertools import product

from tqdm import tqdm

from datasets.cli.next_step import print_next
from datasets.errors import SceneError, SetupError
from datasets.files.printable import printable
from datasets.sources.pandaset import PandasetSequence, write_log_file


def run(args: argparse.Namespace) -> int:
    """Convert; gives the exit code. Raises ``SetupError``."""
    if (args.out / "log.json").exists():
        raise SetupError(f"{args.out}: there is a log already")
    names = sorted(p.name.removesuffix("_compact") for p in args.source.glob("[0-9]*_compact"))
    if not names:
        raise SetupError(f"{args.source}: no folder NNN_compact with exported points")
    quarantined = damaged = 0
    for name, part in product(names, args.parts):
        try:
            sequence = PandasetSequence(args.source, name, part, args.key_frames)
        except SceneError as error:
            print(printable(f"quarantined: {name}: {error}"), file=sys.stderr)
            quarantined += 1
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
    if quarantined == len(names) * len(args.parts):
        raise SetupError(f"{args.source}: every sequence is quarantined")
    write_log_file(args.out)
    print(f"log: {args.out}")
    print_next("check-log", args.out)
    return 1 if quarantined or damaged else 0
