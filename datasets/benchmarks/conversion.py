"""Convert predictions to the voxels and classes of a benchmark."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from datasets.benchmarks.catalogue import Benchmark, voxels_in_words
from datasets.benchmarks.class_mapping import class_mapping, sources_of
from datasets.benchmarks.resampling import rotate_flow, sample_nearest, voxel_correspondence
from datasets.errors import SceneError, SetupError
from datasets.frames import Frame, Scene
from datasets.geometry.grid import VoxelGrid
from datasets.geometry.transforms import Transform, inverse
from datasets.taxonomy import IGNORE_ID, Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """What is said about frame k of a scene.

    Attributes:
        semantics: (X, Y, Z) uint8 class ids.
        flow: (X, Y, Z, 2) float32 m/s, where it is predicted.
        confidence, mask: (X, Y, Z) uint8 as in ``FrameLabels``, of a label store.
        instances: (X, Y, Z) uint16 as there; on the grid that they were predicted on.
        valid: (X, Y, Z) bool, where ``semantics`` is given; None: everywhere.
    """

    scene: Scene
    k: int
    semantics: NDArray[np.uint8]
    flow: NDArray[np.float32] | None = None
    confidence: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None
    instances: NDArray[np.uint16] | None = None
    valid: NDArray[np.bool_] | None = None

    @property
    def frame(self) -> Frame:
        return self.scene.frames[self.k]


class Conversion:
    """Converts predictions to the grid, classes and frame of a benchmark.

    A predicted class without a counterpart becomes ``unmapped_id``, which is wrong wherever the
    benchmark scores the voxel. Voxels outside the prediction's grid are not ``valid``.

    Attributes:
        nothing: the predictions are the benchmark's already.
        unmapped_id: the first id after the benchmark's classes; None where every class has a
            counterpart.
    """

    def __init__(
        self, benchmark: Benchmark, what: str, grid: VoxelGrid, taxonomy: Taxonomy, frame: str
    ) -> None:
        """Of what is named so, in that frame (``ego`` or ``lidar``).

        Raises:
            SetupError: there is no table from its classes to the benchmark's.
        """
        self.benchmark, self.grid, self.taxonomy, self.frame = benchmark, grid, taxonomy, frame
        self.mapping = class_mapping(taxonomy, benchmark.taxonomy)
        if self.mapping is None and taxonomy != benchmark.taxonomy:
            raise SetupError(
                f"{what} has {voxels_in_words(grid, taxonomy, frame)}; benchmark {benchmark.name} "
                f"has {benchmark.taxonomy.name} classes, to which no table leads from "
                f"{taxonomy.name}; known: {', '.join(sources_of(benchmark.taxonomy))}. Choose "
                "another --benchmark or weights of these classes"
            )
        self.same_voxels = (grid, frame) == (benchmark.grid, benchmark.frame)
        self.nothing = self.same_voxels and self.mapping is None
        self.unmapped_id: int | None = None
        if self.mapping is not None and None in self.mapping.names.values():
            self.unmapped_id = benchmark.taxonomy.n_classes
        self._latest: tuple[Transform, NDArray[np.int64]] | None = None

    def apply(self, prediction: Prediction) -> Prediction:
        """The prediction in the benchmark's voxels and classes; velocities turn with the frame.

        Raises:
            SceneError: the frames differ and there is no LiDAR.
        """
        semantics = prediction.semantics
        if self.mapping is not None:
            table = self.mapping.table()
            if self.unmapped_id is not None:
                classes = table[: self.taxonomy.n_classes]
                classes[classes == IGNORE_ID] = self.unmapped_id
            semantics = table[semantics]
        if self.same_voxels:
            return replace(prediction, semantics=semantics)
        T = self._to_benchmark(prediction.frame)
        correspondence = self._correspondence(T)
        flow, confidence, mask = (
            None if array is None else sample_nearest(array, correspondence)
            for array in (prediction.flow, prediction.confidence, prediction.mask)
        )
        return replace(
            prediction,
            semantics=sample_nearest(semantics, correspondence, outside=IGNORE_ID),
            flow=None if flow is None else rotate_flow(flow, T),
            confidence=confidence,
            mask=mask,
            valid=correspondence >= 0,
        )

    def _to_benchmark(self, frame: Frame) -> Transform:
        if self.frame == self.benchmark.frame:
            return np.eye(4)
        if frame.lidar is None:
            raise SceneError(
                where=f"scene {frame.scene_id}",
                frame=frame.token,
                rule=f"no LiDAR, whose frame {self.benchmark.name} or the prediction is in",
            )
        T_ego_lidar = frame.lidar.T_ego_lidar
        return T_ego_lidar if self.frame == "lidar" else inverse(T_ego_lidar)

    def _correspondence(self, T: Transform) -> NDArray[np.int64]:
        """Those of the latest frame again where the LiDAR is mounted the same, to a nanometre."""
        if self._latest is None or np.abs(self._latest[0] - T).max() > 1e-9:
            self._latest = T, voxel_correspondence(self.grid, self.benchmark.grid, T)
        return self._latest[1]

    def to_json(self) -> dict[str, str] | None:
        """What was done and what it loses, in words; None for nothing."""
        if self.nothing:
            return None
        classes, voxels = "the same", "the same"
        if self.mapping is not None:
            classes = f"table from {self.taxonomy.name}; lost: {self.mapping.lost}"
        if not self.same_voxels:
            voxels = (
                "each takes what is predicted at its centre; lost: what is finer than the coarser "
                "of both grids; left out, and free to rays: what the prediction does not reach"
            )
        return {
            "from": voxels_in_words(self.grid, self.taxonomy, self.frame),
            "classes": classes,
            "voxels": voxels,
        }
