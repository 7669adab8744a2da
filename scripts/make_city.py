"""Generate the built-in city: a simulated nuScenes root with Occ3D ground truth.

    python scripts/make_city.py --root data/city --labeled 24 --unlabeled 10 --val 6
    python scripts/make_city.py --root data/city-tiny --labeled 1 --unlabeled 1 --val 1 --frames 2
    python scripts/make_city.py --root data/city-big --labeled 6 --val 2 --image 256x704 --workers 8

A folder that already holds the same city is kept as it is; one that holds anything else is refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from datasets.errors import SetupError
from datasets.sources.synthetic.city import CityConfig, city_splits, ensure_city


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, required=True, help="folder to create")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--labeled", type=int, default=0, help="training scenes with labels")
    parser.add_argument("--unlabeled", type=int, default=0, help="training scenes without")
    parser.add_argument("--val", type=int, default=0, help="validation scenes")
    parser.add_argument("--frames", type=int, default=8, help="key-frames of a scene")
    parser.add_argument("--image", default="96x256", metavar="HxW", help="pixels of a picture")
    parser.add_argument("--workers", type=int, help="processes; one per core by default")
    args = parser.parse_args()
    try:
        height, width = (int(v) for v in args.image.lower().split("x"))
        config = CityConfig(
            seed=args.seed,
            labeled_scenes=args.labeled,
            unlabeled_scenes=args.unlabeled,
            val_scenes=args.val,
            frames_per_scene=args.frames,
            image_height=height,
            image_width=width,
        )
        root = ensure_city(args.root, config, workers=args.workers)
    except (SetupError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = {name: len(scenes) for name, scenes in city_splits(root).items()}
    print(f"city at {root}: scenes {counts}, {config.frames_per_scene} key-frames each")
    return 0


if __name__ == "__main__":
    sys.exit(main())
