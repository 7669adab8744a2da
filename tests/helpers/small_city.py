"""A simulated city with small images, for tests that need a log and not its looks."""

from __future__ import annotations

from pathlib import Path

from datasets.sources.synthetic.city import CityConfig, generate_city


def write_small_city(
    root: Path, *, labeled: int = 0, unlabeled: int = 0, frames: int = 2, sweeps: int = 1
) -> Path:
    """So many scenes of so many frames, with ``sweeps`` LiDAR sweeps before the first frame."""
    config = CityConfig(
        labeled_scenes=labeled,
        unlabeled_scenes=unlabeled,
        val_scenes=0,
        frames_per_scene=frames,
        image_height=48,
        image_width=128,
        sweeps=sweeps,
    )
    generate_city(root, config, workers=1, progress=False)
    return root
