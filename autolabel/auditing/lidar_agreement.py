"""What a frame's own LiDAR says about its labels; needs no ground truth.

A return says that its voxel is occupied, a ray that the voxels before its return are free. The
teacher read the same sweep, so agreement shows that labels and log fit together (frames, poses,
shape), not how good the labels are where no ray went.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.geometry.raycast import lidar_evidence

COLUMNS = ("returns", "in occ. %", "near occ. %", "crossed %", "missed %", "observed %")
LEGEND = """returns: LiDAR returns inside the grid, those from the vehicle itself left out
in occ., near occ.: of the returns, end in an occupied voxel, in or next to one
crossed, missed, observed: of the occupied voxels, rays pass through, pass and never hit, hit or
pass"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LidarAgreement:
    """Counts of one frame.

    Attributes:
        on_vehicle: returns inside the grid from the vehicle itself; they do not count below.
        returns: the other returns inside the grid.
        returns_occupied: those that end in occupied voxels.
        returns_near: those that end in or next to (26 neighbours) an occupied voxel.
        occupied: occupied voxels; observed: those that a ray hits or passes.
        crossed: those that some ray passes through; crossed_only: that rays pass but none hits.
    """

    on_vehicle: int
    returns: int
    returns_occupied: int
    returns_near: int
    occupied: int
    observed: int
    crossed: int
    crossed_only: int

    def __add__(self, other: LidarAgreement) -> LidarAgreement:
        """Counts of both together."""
        counts, added = asdict(self), asdict(other)
        return LidarAgreement(**{name: counts[name] + added[name] for name in counts})

    def row(self) -> tuple[str, ...]:
        """Cells of ``COLUMNS``."""
        shares = (
            (self.returns_occupied, self.returns),
            (self.returns_near, self.returns),
            (self.crossed, self.occupied),
            (self.crossed_only, self.occupied),
            (self.observed, self.occupied),
        )
        percent = (f"{100 * part / max(whole, 1):.1f}" for part, whole in shares)
        return (f"{self.returns}", *percent)


def lidar_agreement(
    occupied: NDArray[np.bool_],  # (X, Y, Z)
    points_m: NDArray[np.float32],  # (P, 3) ego frame
    origins_m: NDArray[np.float64],  # (P, 3) or (3,) the LiDAR that measured each, ego frame
    on_vehicle: NDArray[np.bool_],  # (P,)
    grid: VoxelGrid,
) -> LidarAgreement:
    """Compare one frame's labels with the sweeps of its moment."""
    vehicle_returns = int(grid.contains(points_m[on_vehicle]).sum())
    if origins_m.ndim == 2:
        origins_m = origins_m[~on_vehicle]
    points_m = points_m[~on_vehicle]
    hits, passes = lidar_evidence(origins_m, points_m, grid)
    inside = points_m[grid.contains(points_m)]
    i, j, k = grid.indices(inside).T
    near = np.zeros(tuple(n + 2 for n in grid.shape), bool)
    for dx in range(3):
        for dy in range(3):
            for dz in range(3):
                x, y, z = grid.shape
                near[dx : dx + x, dy : dy + y, dz : dz + z] |= occupied
    return LidarAgreement(
        on_vehicle=vehicle_returns,
        returns=len(inside),
        returns_occupied=int(occupied[i, j, k].sum()),
        returns_near=int(near[i + 1, j + 1, k + 1].sum()),
        occupied=int(occupied.sum()),
        observed=int((occupied & ((hits > 0) | (passes > 0))).sum()),
        crossed=int((occupied & (passes > 0)).sum()),
        crossed_only=int((occupied & (passes > 0) & (hits == 0)).sum()),
    )
