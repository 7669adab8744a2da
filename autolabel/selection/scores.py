"""What the labels of frames say of the need to label them: doubt, contradictions, classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datasets.errors import SceneError
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, apply, inverse
from datasets.labels.log_identity import require_same_frame
from datasets.labels.store import StoredScene, StoreHeader
from datasets.labels.voxel_labels import FrameLabels, MaskBit
from datasets.store_ops.compare import RINGS

OBSERVED = np.uint8(MaskBit.LIDAR_OBSERVED | MaskBit.CAMERA_VISIBLE)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelCounts:
    """What the labels of some frames hold.

    Attributes:
        frames: how many.
        voxels: (R, K) observed voxels by ring and class.
        bits: (K,) sum of their uncertainties by class, see ``uncertainty``.
        disputed: (K,) voxels that two labels differ on, counted half for either's class.
    """

    frames: int
    voxels: Floats
    bits: Floats
    disputed: Floats

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(
            frames=self.frames + other.frames,
            voxels=self.voxels + other.voxels,
            bits=self.bits + other.bits,
            disputed=self.disputed + other.disputed,
        )


def uncertainty(levels: Sequence[float]) -> Floats:
    """Bits of each confidence level: the binary entropy of P(label is right); 1 from one half down,
    where the label is more likely wrong than right."""
    p = np.clip(np.asarray(levels, np.float64), 0.5, 1.0)
    q = 1 - p
    logs = np.log2(q, out=np.zeros_like(q), where=q > 0)
    return np.asarray(-p * np.log2(p) - q * logs, np.float64)


def count_scene(
    scene: StoredScene, header: StoreHeader, second: StoredScene | None = None
) -> list[LabelCounts]:
    """Read a scene and count frame by frame.

    Disputed are the observed voxels that the second store's labels of the same frame contradict;
    without one, those that the frame before contradicts (``frame_disagreement``).

    Raises:
        SceneError: it cannot be read, or the second store lacks one of its frames.
        SetupError: the second store is of another log.
    """
    rings, bits = RINGS.of(header.grid), uncertainty(header.levels)
    K, R = header.taxonomy.n_classes, len(RINGS.names)
    out: list[LabelCounts] = []
    before: FrameLabels | None = None
    for k, token in enumerate(scene.frame_tokens):
        labels = scene.frame(k)
        observed = ((labels.mask & OBSERVED) > 0) & (labels.semantics < K)
        classes = labels.semantics[observed].astype(np.int64)
        if second is not None:
            if token not in second.frame_tokens:
                rule = "the second store has no labels of this frame"
                raise SceneError(where=f"scene {scene.scene_id}", frame=token, rule=rule)
            other = second.frame(second.index_of(token))
            require_same_frame("the second store", other, labels, header.frame)
            disputed = store_disagreement(labels, other, K)
        elif before is not None:
            disputed = frame_disagreement(before, labels, header.grid, K)
        else:
            disputed = np.zeros(K)
        counts = np.bincount(rings[observed] * K + classes, minlength=R * K)
        out.append(
            LabelCounts(
                frames=1,
                voxels=counts.reshape(R, K).astype(np.float64),
                bits=np.bincount(classes, bits[labels.confidence[observed]], K).astype(np.float64),
                disputed=disputed,
            )
        )
        before = labels
    return out


def store_disagreement(labels: FrameLabels, other: FrameLabels, n_classes: int) -> Floats:
    """(K,) voxels that either calls observed and the two label differently."""
    labeled = (labels.semantics < n_classes) & (other.semantics < n_classes)
    differ = labeled & (((labels.mask | other.mask) & OBSERVED) > 0)
    differ &= labels.semantics != other.semantics
    return _halves(labels.semantics[differ], other.semantics[differ], n_classes)


def frame_disagreement(
    before: FrameLabels, now: FrameLabels, grid: VoxelGrid, n_classes: int
) -> Floats:
    """(K,) observed voxels of things that do not move whose class the frame before does not know.

    A voxel's centre lies between eight voxels of the frame before; it is disputed if all eight were
    observed, none is of a class that can move, and none has its label. So the edges of things do
    not flicker because the vehicle moved by half a voxel.
    """
    is_static = _still(now, n_classes)
    cells = np.argwhere(is_static)
    T_before_now = _between(before.T_global_grid, now.T_global_grid)
    corner = np.floor(grid.cells(apply(T_before_now, grid.centers(cells))) - 0.5).astype(np.int64)
    inside = ((corner >= 0) & (corner < np.asarray(grid.shape) - 1)).all(axis=1)
    cells, corner = cells[inside], corner[inside]
    label = now.semantics[tuple(cells.T)]
    was_static = _still(before, n_classes)
    comparable, repeated = np.ones(len(cells), bool), np.zeros(len(cells), bool)
    for offset in np.ndindex(2, 2, 2):
        corners = tuple((corner + offset).T)
        comparable &= was_static[corners]
        repeated |= before.semantics[corners] == label
    disputed = comparable & ~repeated
    nearest = before.semantics[tuple((corner[disputed] + 1).T)]
    return _halves(label[disputed], nearest, n_classes)


def _still(labels: FrameLabels, n_classes: int) -> NDArray[np.bool_]:
    moving = (labels.mask & np.uint8(MaskBit.DYNAMIC)) > 0
    return ((labels.mask & OBSERVED) > 0) & ~moving & (labels.semantics < n_classes)


def _between(T_global_dst: Transform, T_global_src: Transform) -> Transform:
    return np.asarray(inverse(T_global_dst) @ T_global_src, np.float64)


def _halves(a: NDArray[np.uint8], b: NDArray[np.uint8], n_classes: int) -> Floats:
    counts = np.bincount(a, minlength=n_classes) + np.bincount(b, minlength=n_classes)
    return np.asarray(counts / 2, np.float64)
