"""Generate the built-in city: a simulated nuScenes root with Occ3D and OpenOcc (flow) labels.

    python scripts/make_city.py --root data/city --scenes 30
    python scripts/make_city.py --root data/city-full --scenes 10 --seed 3 --profile full
    python scripts/make_city.py --root data/city-tiny --labeled 1 --unlabeled 1 --val 1 --frames 2
    python scripts/make_city.py --statistics data/city --sheet city.png

``--scenes N``: N training scenes, a fifth of them (at least one) labelled and the others not, and
as many validation scenes as labelled ones. ``--labeled``, ``--unlabeled`` and ``--val`` name the
three numbers instead. The ``tiny`` profile has pictures of 96x256 and 8 key-frames a scene, the
``full`` one the sizes of nuScenes: 900x1600 and 40. Both have 32 beams, 20 sweeps a second.

A folder that already holds the same city is kept as it is; one that holds anything else is refused.
"""

from __future__ import annotations

from datasets.cli.supervisor import supervise

if __name__ == "__main__":  # before what is slow to import
    supervise()


import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

from datasets.cli.exit_codes import exit_code
from datasets.errors import SceneError, SetupError
from datasets.files.replacing import replacing
from datasets.sources.synthetic.city import (
    PROFILES,
    CityConfig,
    city_config,
    city_splits,
    ensure_city,
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--root", type=Path, help="folder to create")
    what.add_argument("--statistics", type=Path, metavar="ROOT", help="count classes and end")
    parser.add_argument("--sheet", type=Path, help="write a picture of the city to this file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--profile", choices=PROFILES, default="tiny")
    parser.add_argument("--scenes", type=int, help="training scenes, a fifth of them labelled")
    parser.add_argument("--labeled", type=int, default=0, help="training scenes with labels")
    parser.add_argument("--unlabeled", type=int, default=0, help="training scenes without")
    parser.add_argument("--val", type=int, default=0, help="validation scenes")
    parser.add_argument("--frames", type=int, help="key-frames of a scene")
    parser.add_argument("--image", metavar="HxW", help="pixels of a picture")
    parser.add_argument("--pose-noise-m", type=float, default=0.0, help="error of ego poses")
    parser.add_argument("--pose-noise-deg", type=float, default=0.0, help="error of headings")
    parser.add_argument("--flat-poses", action="store_true", help="ego poses at z = 0")
    parser.add_argument("--workers", type=int, help="processes; one per core by default")
    return parser.parse_args()


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
        height, width = (int(v) for v in args.image.lower().split("x"))
        config = replace(config, image_height=height, image_width=width)
    return replace(
        config,
        seed=args.seed,
        pose_noise_m=args.pose_noise_m,
        pose_noise_deg=args.pose_noise_deg,
        flat_poses=args.flat_poses,
    )


def main() -> int:
    args = _arguments()
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
    except (SetupError, SceneError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
