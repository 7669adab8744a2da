"""mIoU of Occ3D-Waymo: inside the cameras' view and visible to them, 15 classes and free space."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.occ3d_waymo import FREE_ON_DISK
from datasets.metrics.confusion import ConfusionMatrix
from datasets.taxonomy import OCC3D_WAYMO


class WaymoScore(ConfusionMatrix):
    """Voxels that are in some camera's field of view and observed. Streaming and mergeable."""

    def __init__(self) -> None:
        super().__init__(OCC3D_WAYMO.n_classes)

    def update_masked(
        self,
        truth: NDArray[np.uint8],
        prediction: NDArray[np.uint8],
        *masks: NDArray[np.bool_],
    ) -> None:
        """Add one frame: voxels in all of the masks.

        Args:
            truth, prediction: class ids; free space is 15, or 23 as in the files.
            masks: the published score takes ``infov`` and ``final_voxel_state`` (cameras).

        Raises:
            ValueError: as ``ConfusionMatrix.update``.
        """
        free = np.uint8(OCC3D_WAYMO.free_id)
        t, p = (np.where(v == FREE_ON_DISK, free, v) for v in (truth, prediction))
        self.update(t, p, np.logical_and.reduce(masks) if masks else None)
