"""Generate the simulated city."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from datasets.cli.next_step import print_next_job
from datasets.errors import SetupError
from datasets.files.replacing import replacing
from datasets.sources.synthetic.city import (
    CityConfig,
    city_config,
    city_splits,
    ensure_city,
)


def _config(args: argparse.Namespace) -> CityConfig:
    split = (args.labeled, args.unlabeled, args.val)
    if args.scenes is not None and any(split):
        raise ValueError("--scenes shares out the scenes itself; give it, or the three numbers")
    config = city_config(args.profile, scenes=2 if args.scenes is None else args.scenes)
    if args.scenes is None:
        config = replace(
            config, labeled_scenes=split[0], unlabeled_scenes=split[1], val_scenes=split[2]
        )
    if args.frames is not None:
        config = replace(config, frames_per_scene=args.frames)
    if args.image is not None:
        height, width = args.image
        config = replace(config, image_height=height, image_width=width)
    return replace(
        config,
        seed=args.seed,
        pose_noise_m=args.pose_noise_m,
        pose_noise_deg=args.pose_noise_deg,
        flat_poses=args.flat_poses,
    )


def run(args: argparse.Namespace) -> int:
    """Generate it; gives the exit code. Raises ``SetupError``."""
    try:
        if args.root is not None:
            config, begin = _config(args), time.monotonic()
            new = not args.root.exists()
            root = ensure_city(args.root, config, workers=args.workers)
            splits = city_splits(root)
            counts = {name: len(scenes) for name, scenes in splits.items()}
            print(f"city at {root}: scenes {counts}, {config.frames_per_scene} key-frames each")
            if new:
                seconds = (time.monotonic() - begin) / counts["all"] / config.frames_per_scene
                print(f"{seconds:.2f} s a key-frame")
        else:
            root = args.statistics
        if args.statistics is not None or args.sheet is not None:
            from datasets.sources.synthetic.export.class_statistics import (
                city_statistics,
                contact_sheet,
            )

            if args.statistics is not None:
                print(city_statistics(root).table())
            if args.sheet is not None:
                with replacing(args.sheet) as partial:
                    contact_sheet(root).save(partial)
    except ValueError as error:
        raise SetupError(str(error)) from error
    if args.root is not None:
        print_next_job("--root", root, "--split", "unlabeled")
    return 0
