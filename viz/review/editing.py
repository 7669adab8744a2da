"""Which voxels a selection paints, and the entry that does it.

Legend: X, Y, Z voxels of the grid as shown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.geometry.grid import VoxelGrid
from datasets.reviews.overlay import EditEntry
from viz.render.scene3d import ColoredMesh
from viz.render.voxel_mesh import surface_meshes
from viz.review.state import ReviewState, Tool
from viz.session.grid_rotation import stored_voxels
from viz.session.picking import Cell, box_cells, component
from viz.session.session import ReviewFrame

SELECTED = (255, 60, 200)
_LIFT_M = 0.03


def selected_voxels(
    frame: ReviewFrame,
    shown: NDArray[np.bool_],
    *,
    tool: Tool,
    corners: tuple[Cell, ...],
    box: tuple[Cell, Cell] | None,
    free_too: bool,
) -> NDArray[np.int64]:
    """Sorted flat indices of what would be painted: of the shown voxels those in the box, or those
    connected with the corner; with ``free_too`` all voxels of the box."""
    if tool == "component" and corners:
        return component(frame, corners[0], within=shown)
    if tool == "box" and box is not None:
        inside = box_cells(frame, *box)
        return inside if free_too else inside[shown.ravel()[inside]]
    return np.zeros(0, np.int64)


def edit_entry(state: ReviewState, frame: ReviewFrame, voxels: NDArray[np.int64]) -> EditEntry:
    """The entry that paints voxels (flat, grid as shown) to the class at hand."""
    return EditEntry(
        scene_id=frame.scene_id,
        token=frame.labels.token,
        voxels=stored_voxels(voxels, frame.grid.shape, frame.turns),
        class_id=state.class_id,
        note=state.note,
    )


def selection_mesh(voxels: NDArray[np.int64], grid: VoxelGrid) -> ColoredMesh:
    """The surface of voxels in one color, a little before their own."""
    inside = np.zeros(grid.shape, bool)
    inside.ravel()[voxels] = True
    meshes = surface_meshes(np.zeros(grid.shape, np.uint8), inside, grid)
    if not meshes:
        corners, colors = np.zeros((0, 4, 3), np.float32), np.zeros((0, 3), np.uint8)
        return ColoredMesh(name="selection", corners_m=corners, colors=colors)
    (mesh,) = meshes
    normal = np.cross(
        mesh.corners_m[:, 1] - mesh.corners_m[:, 0], mesh.corners_m[:, 3] - mesh.corners_m[:, 0]
    )
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return ColoredMesh(
        name="selection",
        corners_m=mesh.corners_m + _LIFT_M * normal[:, None, :],
        colors=mesh.face_colors(SELECTED),
    )
