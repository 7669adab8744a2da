"""What the window's worker makes: the view of a frame, its images, facts of a voxel, a
selection. Each job says all that its result depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from viz.render.camera_mosaic import SheetLayout, draw_sheet, sheet_layout
from viz.render.layers import LayerSettings, RenderedLayers, draw
from viz.render.scene3d import ColoredMesh
from viz.review.editing import selected_voxels, selection_mesh
from viz.review.shared_review import SharedReview
from viz.review.state import ReviewState, Tool
from viz.session.picking import Cell, InCamera, VoxelFacts, describe, in_cameras
from viz.session.session import ReviewFrame, ReviewSession
from viz.window.scene_view import Geometry, open3d_geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewJob:
    """A frame with its layers; ``edits``: ids of those that its labels have."""

    scene_id: str
    k: int
    show: LayerSettings
    edits: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesJob:
    """The images of a view, laid out for a width in pixels."""

    view: ViewJob
    width: int
    large: int | None
    overlay: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsJob:
    """What is known of a voxel."""

    view: ViewJob
    cell: Cell


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionJob:
    """Voxels that a tool has hold of."""

    view: ViewJob
    tool: Tool
    corners: tuple[Cell, ...]
    box: tuple[Cell, Cell] | None
    free_too: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeView:
    frame: ReviewFrame
    drawn: RenderedLayers
    geometry: Geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeImages:
    layout: SheetLayout
    sheet: Image.Image


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeSelection:
    """Flat voxels of the grid as shown, and their surface."""

    voxels: NDArray[np.int64]
    mesh: ColoredMesh


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFacts:
    """Of a voxel, and where the cameras have it."""

    facts: VoxelFacts
    places: tuple[InCamera, ...]


Job = ViewJob | ImagesJob | FactsJob | SelectionJob
Made = MadeView | MadeImages | MadeFacts | MadeSelection


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedJobs:
    """What a state asks for; ``ahead`` will be asked for next."""

    view: ViewJob
    images: ImagesJob
    facts: FactsJob | None
    selection: SelectionJob | None
    ahead: tuple[Job, ...]

    def now(self) -> tuple[Job, ...]:
        """What is asked for, most urgent first."""
        jobs = (self.view, self.selection, self.images, self.facts)
        return tuple(job for job in jobs if job is not None)


def wanted_jobs(state: ReviewState, shared: SharedReview, width: int) -> WantedJobs:
    """What the window needs now, with images laid out for a width in pixels."""

    def view_of(scene_id: str, k: int) -> ViewJob:
        edits = shared.edits(scene_id, state.tokens[scene_id][k])
        return ViewJob(scene_id=scene_id, k=k, show=replace(state.show, cell=None), edits=edits)

    def images_of(view: ViewJob) -> ImagesJob:
        return ImagesJob(view=view, width=width, large=state.large, overlay=state.overlay)

    view, cell = view_of(state.scene_id, state.k), state.show.cell
    selection = None
    if (state.tool == "component" and state.corners) or state.box() is not None:
        selection = SelectionJob(
            view=view,
            tool=state.tool,
            corners=state.corners,
            box=state.box(),
            free_too=state.free_too,
        )
    ahead = [view_of(scene_id, k) for scene_id, k in state.ahead()]
    return WantedJobs(
        view=view,
        images=images_of(view),
        facts=None if cell is None else FactsJob(view=view, cell=cell),
        selection=selection,
        ahead=tuple(job for later in ahead for job in (later, images_of(later))),
    )


def make(session: ReviewSession, job: Job, made: Callable[[Job], Made | None]) -> Made:
    """Do a job; ``made`` gives results that are still at hand. Raises as ``session.frame``."""
    if isinstance(job, ViewJob):
        frame = session.frame(job.scene_id, job.k)
        drawn = draw(frame, job.show)
        return MadeView(frame=frame, drawn=drawn, geometry=open3d_geometry(drawn, frame.grid))
    view = made(job.view)
    if not isinstance(view, MadeView):
        view = make(session, job.view, made)
        assert isinstance(view, MadeView)
    frame, drawn = view.frame, view.drawn
    if isinstance(job, ImagesJob):
        views = [image.view for image in frame.images]
        layout = sheet_layout(views, job.width, large=job.large)
        boxes = job.view.show.boxes
        sheet = draw_sheet(frame, drawn, layout, overlay=job.overlay, boxes=boxes)
        return MadeImages(layout=layout, sheet=sheet)
    if isinstance(job, FactsJob):
        return MadeFacts(
            facts=describe(session, frame, job.cell),
            places=in_cameras(frame, drawn.shown, job.cell),
        )
    voxels = selected_voxels(
        frame,
        drawn.shown,
        tool=job.tool,
        corners=job.corners,
        box=job.box,
        free_too=job.free_too,
    )
    return MadeSelection(voxels=voxels, mesh=selection_mesh(voxels, frame.grid))
