"""How often the classes occur in a city, beside Occ3D-nuScenes; and a picture to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.benchmarks.occ3d_nuscenes import GRID, TAXONOMY, read_labels
from datasets.errors import SetupError
from datasets.sources.synthetic.sensors.cameras import CAMERAS

# voxels by class inside mask_camera over the 28,130 training frames of Occ3D-nuScenes, as the
# published training code of FlashOcc has them for its class weights
NUSCENES_FRAMES = 28_130
NUSCENES_VOXELS = np.array(
    [
        *(944004, 1897170, 152386, 2391677, 16957802, 724139, 189027, 2074468, 413451),
        *(2384460, 5916653, 175883646, 4275424, 51393615, 61411620, 105975596, 116424404),
        1892500630,
    ],
    np.int64,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CityStatistics:
    """Counts over the labels of a city.

    Attributes:
        frames: labeled frames.
        voxels: (18,) int64 by class, inside ``mask_camera``.
        lidar_voxels: inside ``mask_lidar``.
    """

    frames: int
    voxels: NDArray[np.int64]
    lidar_voxels: int

    @property
    def shares(self) -> NDArray[np.float64]:
        """(18,) share of every class in what the cameras see."""
        return np.asarray(self.voxels / self.voxels.sum())

    def table(self) -> str:
        """One line per class: share here, share in nuScenes, their ratio."""
        published = NUSCENES_VOXELS / NUSCENES_VOXELS.sum()
        lines = [f"{'class in mask_camera':22s} {'here %':>9s} {'nuScenes %':>11s} {'ratio':>6s}"]
        for name, a, b in zip(TAXONOMY.names, self.shares, published, strict=True):
            lines.append(f"{name:22s} {100 * a:9.4f} {100 * b:11.4f} {a / b:6.2f}")
        camera_voxels, lidar_voxels = (
            self.voxels.sum() / self.frames,
            self.lidar_voxels / self.frames,
        )
        usual = NUSCENES_VOXELS.sum() / NUSCENES_FRAMES
        lines.append(
            f"voxels per frame, {self.frames} frames: mask_camera {camera_voxels:.0f} "
            f"({100 * camera_voxels / GRID.n_voxels:.1f} % of the grid; nuScenes {usual:.0f}), "
            f"mask_lidar {lidar_voxels:.0f} ({100 * lidar_voxels / GRID.n_voxels:.1f} %)"
        )
        return "\n".join(lines)


def city_statistics(root: Path) -> CityStatistics:
    """Count the Occ3D labels under ``root``; a real Occ3D root does as well.

    Raises:
        SetupError: there are none.
        SceneError: a file is damaged.
    """
    paths = sorted((root / "gts").glob("*/*/labels.npz"))
    if not paths:
        raise SetupError(f"no labels under {root / 'gts'}")
    voxels, n_lidar = np.zeros(TAXONOMY.n_classes, np.int64), 0
    for path in paths:
        truth = read_labels(path)
        assert truth.mask_camera is not None and truth.mask_lidar is not None
        visible = truth.semantics[truth.mask_camera]
        voxels += np.bincount(visible, minlength=TAXONOMY.n_classes)
        n_lidar += int(truth.mask_lidar.sum())
    return CityStatistics(frames=len(paths), voxels=voxels, lidar_voxels=n_lidar)


def contact_sheet(root: Path, *, scenes: int = 6) -> Image.Image:
    """The six pictures of the middle key-frame of the first scenes, one row each.

    Raises:
        SetupError: there are no pictures under ``root``.
    """
    columns = []
    for channel in sorted(CAMERAS, key=_from_left):
        by_scene: dict[str, list[Path]] = {}
        for path in sorted((root / "samples" / channel).glob("*.jpg")):
            by_scene.setdefault(path.name.split("__")[0], []).append(path)
        columns.append([paths[len(paths) // 2] for paths in by_scene.values()][:scenes])
    if not columns[0]:
        raise SetupError(f"no pictures under {root / 'samples'}")
    width = 320
    sheet = Image.new("RGB", (0, 0))
    for i, column in enumerate(columns):
        for j, path in enumerate(column):
            with Image.open(path) as picture:
                small = picture.resize((width, width * picture.height // picture.width))
            if i == j == 0:
                sheet = Image.new("RGB", (width * len(columns), small.height * len(column)))
            sheet.paste(small, (i * width, j * small.height))
    return sheet


def _from_left(channel: str) -> int:
    order = ("BACK_LEFT", "FRONT_LEFT", "FRONT", "FRONT_RIGHT", "BACK_RIGHT", "BACK")
    return order.index(channel.removeprefix("CAM_"))
