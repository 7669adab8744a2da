"""Voxel labels of frames and scenes with their confidence, mask and LiDAR evidence.

Legend: T frames of a scene; X, Y, Z axes of the voxel grid, which lies in each frame's own ego
frame (X forward, Y left, Z up), or along the axes of its key LiDAR (``GridFrame``).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.transforms import Transform
from datasets.labels.lidar_check import LidarEvidence
from datasets.names import check_scene_id

Voxels = NDArray[np.uint8]
VOXEL_ARRAYS = ("semantics", "confidence", "mask", "hits", "passes", "flow", "instances")
"""Names of the (T, X, Y, Z) arrays of a scene, ``flow`` with a further axis; from ``hits`` on they
are optional."""
_DTYPES: dict[str, type[np.generic]] = {"flow": np.float16, "instances": np.uint16}


def voxel_layout(name: str, grid: tuple[int, ...]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of one of ``VOXEL_ARRAYS`` on a grid (with leading axes, where there are)."""
    shape = (*grid, 2) if name == "flow" else grid
    return shape, np.dtype(_DTYPES.get(name, np.uint8))


GridFrame = Literal["ego", "lidar"]
"""Where a voxel grid lies: in the ego frame of the LiDAR key-frame, or in that of the key LiDAR
itself, with its origin and its own axes (nuScenes: X right, Y forward, Z up)."""


class MaskBit(enum.IntFlag):
    """Bits of a voxel's mask.

    TRUSTED: observed, and P(label is right) reaches the job's threshold: train on it.
    LIDAR_OBSERVED: a LiDAR ray ended in it or passed through it.
    CAMERA_VISIBLE: a camera sees it past the labeled occupancy.
    DYNAMIC: its class can move.
    """

    TRUSTED = 1
    LIDAR_OBSERVED = 2
    CAMERA_VISIBLE = 4
    DYNAMIC = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLabels:
    """Labels of one frame.

    Attributes:
        T_global_grid: pose of the frame that the grid lies in (``GridFrame``), metres.
        semantics: (X, Y, Z) uint8 class ids.
        confidence: (X, Y, Z) uint8 index into the header's levels.
        mask: (X, Y, Z) uint8 ``MaskBit``.
        hits, passes: (X, Y, Z) uint8 LiDAR rays that ended in, or went through, the voxel.
        flow: (X, Y, Z, 2) float16, velocity over ground of what is in the voxel, m/s along x and
            y of the grid; 0 where its class cannot move.
        instances: (X, Y, Z) uint16 number of the object, the same in every frame of the scene; 0:
            none. None: objects are not told apart.
        statistics: of what the sensors delivered and the teacher made of it; a scene keeps their
            means.
        lidar_check: what held-out sweeps say of the trusted voxels; why that could not be asked;
            None: this frame is not one of those that are checked.
    """

    token: str
    timestamp_us: int
    T_global_grid: Transform
    semantics: Voxels
    confidence: Voxels
    mask: Voxels
    hits: Voxels | None = None
    passes: Voxels | None = None
    flow: NDArray[np.float16] | None = None
    instances: NDArray[np.uint16] | None = None
    statistics: dict[str, float] = field(default_factory=dict)
    lidar_check: LidarEvidence | str | None = None

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.semantics.shape))
        return f"<FrameLabels {self.token}, {shape} voxels, at {self.timestamp_us} us>"


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneLabels:
    """Labels of a whole scene: what one writer commits.

    Attributes:
        timestamps_us: (T,) int64.
        T_global_grid: (T, 4, 4) float64, metres.
        semantics, confidence, mask, hits, passes: (T, X, Y, Z) uint8, see ``FrameLabels``.
        flow: (T, X, Y, Z, 2) float16.
        instances: (T, X, Y, Z) uint16.
        frame: that the grid lies in.
        inputs: the source's fingerprint of the scene they were made from.

    Raises:
        ValueError: a shape or dtype is wrong, the id cannot be a folder name, a frame token
            occurs twice, or only one of hits and passes is given.
    """

    scene_id: str
    frame_tokens: tuple[str, ...]
    timestamps_us: NDArray[np.int64]
    T_global_grid: NDArray[np.float64]
    semantics: Voxels
    confidence: Voxels
    mask: Voxels
    hits: Voxels | None = None
    passes: Voxels | None = None
    flow: NDArray[np.float16] | None = None
    instances: NDArray[np.uint16] | None = None
    frame: GridFrame = "ego"
    inputs: str = ""

    def __post_init__(self) -> None:
        check_scene_id(self.scene_id)
        T = len(self.frame_tokens)
        if T == 0 or len(set(self.frame_tokens)) != T:
            raise ValueError(f"scene {self.scene_id}: frame tokens must be unique and at least one")
        if (self.hits is None) != (self.passes is None):
            raise ValueError(f"scene {self.scene_id}: hits and passes come together")
        if self.semantics.ndim != 4:
            raise ValueError(f"scene {self.scene_id}: semantics has shape {self.semantics.shape}")
        voxels = (T, *self.semantics.shape[1:])
        want: dict[str, tuple[tuple[int, ...], Any]] = {
            "timestamp_us": ((T,), np.int64),
            pose_array(self.frame): ((T, 4, 4), np.float64),
        }
        for name, array in self.arrays().items():
            shape, dtype = want.get(name) or voxel_layout(name, voxels)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"scene {self.scene_id}: {name} is {array.dtype} {array.shape}, "
                    f"must be {np.dtype(dtype)} {shape}"
                )

    @classmethod
    def of_frames(
        cls,
        scene_id: str,
        frames: Sequence[FrameLabels],
        *,
        frame: GridFrame = "ego",
        inputs: str = "",
    ) -> SceneLabels:
        """Frames put together. Raises ``ValueError`` as the class does, or if there is none."""
        if not frames:
            raise ValueError(f"scene {scene_id}: there is no frame")
        voxels: dict[str, Any] = {
            name: np.stack([getattr(labels, name) for labels in frames])
            for name in VOXEL_ARRAYS
            if getattr(frames[0], name) is not None
        }
        return cls(
            scene_id=scene_id,
            frame_tokens=tuple(labels.token for labels in frames),
            timestamps_us=np.array([labels.timestamp_us for labels in frames], np.int64),
            T_global_grid=np.stack([np.asarray(f.T_global_grid, np.float64) for f in frames]),
            frame=frame,
            inputs=inputs,
            **voxels,
        )

    def __len__(self) -> int:
        return len(self.frame_tokens)

    def frames(self) -> Iterator[FrameLabels]:
        """One after the other, as views."""
        for k in range(len(self)):
            voxels: dict[str, Any] = {
                name: None if (array := getattr(self, name)) is None else array[k]
                for name in VOXEL_ARRAYS
            }
            yield FrameLabels(
                token=self.frame_tokens[k],
                timestamp_us=int(self.timestamps_us[k]),
                T_global_grid=self.T_global_grid[k],
                **voxels,
            )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by their names in the store, absent ones left out."""
        voxels = {name: getattr(self, name) for name in VOXEL_ARRAYS}
        return {
            "timestamp_us": self.timestamps_us,
            pose_array(self.frame): self.T_global_grid,
            **{name: array for name, array in voxels.items() if array is not None},
        }


def pose_array(frame: GridFrame) -> str:
    """Name of the array of a scene's ``T_global_grid`` in the store."""
    return f"T_global_{frame}"
