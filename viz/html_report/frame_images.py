"""Images of labelled frames, small and inside the page: cameras, 3D view, views from above."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.errors import SceneError
from datasets.geometry.grid import VoxelGrid
from viz.html_report.store_statistics import OBSERVED, SceneNumbers
from viz.render.bev_images import class_map, confidence_map, level_colors
from viz.render.camera_overlay import draw_overlay
from viz.render.layers import LayerSettings, RenderedLayers, draw
from viz.render.renderer import ViewPainter, scene_of
from viz.session.session import ReviewFrame, ReviewSession, shown_voxels

VIEW_PX = (880, 500)
CAMERA_PX = 480
QUALITY = 78


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """An image as a data URI, its size in pixels, and what it shows in words."""

    uri: str
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameImages:
    """Attributes:
    view: from behind and above.
    maps: from above, one pixel a column of voxels, ahead up.
    grid: of the maps.
    drawn_by: who drew the view.
    notes: what could not be shown, and why.
    """

    scene_id: str
    token: str
    k: int
    n_frames: int
    view: Embedded
    maps: tuple[Embedded, ...]
    cameras: tuple[Embedded, ...]
    grid: VoxelGrid
    drawn_by: str
    notes: tuple[str, ...]


def frame_images(
    session: ReviewSession,
    scenes: Sequence[SceneNumbers],
    painter: ViewPainter,
    *,
    on_scene: Callable[[], object] = lambda: None,
) -> tuple[tuple[FrameImages, ...], dict[str, str]]:
    """The worst frame of each scene; and scene id -> why it could not be drawn.

    Raises:
        SetupError: Open3D was asked for and cannot draw on this machine.
    """
    images, bad = [], {}
    for scene in scenes:
        try:
            images.append(_images(session.frame(scene.scene_id, scene.worst_frame), painter))
        except SceneError as error:
            bad[scene.scene_id] = str(error)
        on_scene()
    return tuple(images), bad


def _images(frame: ReviewFrame, painter: ViewPainter) -> FrameImages:
    drawn = draw(frame, LayerSettings(mask="trusted"))
    place = f"scene {frame.scene_id}, frame {frame.k}"
    width, height = VIEW_PX
    view = painter.draw(scene_of(frame, drawn), width=width, height=height)
    caption = f"trusted {drawn.caption}"
    return FrameImages(
        scene_id=frame.scene_id,
        token=frame.labels.token,
        k=frame.k,
        n_frames=frame.n_frames,
        view=embedded(view, f"{place}: trusted labels in 3D", caption),
        maps=tuple(_maps(frame, drawn, place)),
        cameras=tuple(_cameras(frame, drawn, place)),
        grid=frame.grid,
        drawn_by=painter.drawn_by,
        notes=frame.notes,
    )


def _maps(frame: ReviewFrame, drawn: RenderedLayers, where: str) -> list[Embedded]:
    labels = frame.labels
    observed = shown_voxels(labels, frame.taxonomy, "all") & ((labels.mask & OBSERVED) > 0)
    sure = confidence_map(labels.confidence, observed, level_colors(frame.levels))
    maps = [
        _map(_from_above(drawn), where, "trusted classes"),
        _map(sure, where, "confidence of all observed"),
    ]
    if frame.truth is not None:
        truth = draw(frame, LayerSettings(voxels="truth", mask="all", points="off"))
        difference = draw(frame, LayerSettings(voxels="difference", mask="trusted", points="off"))
        caption = "trusted against truth: yellow other class, red truly free, blue truly occupied"
        maps += [
            _map(_from_above(truth), where, "ground truth"),
            _map(_from_above(difference), where, caption),
        ]
    return maps


def _from_above(drawn: RenderedLayers) -> NDArray[np.uint8]:
    return class_map(drawn.ids, drawn.shown, drawn.color_table)


def _cameras(frame: ReviewFrame, drawn: RenderedLayers, where: str) -> list[Embedded]:
    cameras = []
    for image in frame.images:
        view = image.view
        width = min(CAMERA_PX, view.width)
        height = max(1, round(view.height * width / view.width))
        overlay = draw_overlay(image, drawn.surface, drawn.color_table, width=width, height=height)
        alt = f"{where}: {view.name} with the trusted labels drawn over it"
        cameras.append(embedded(overlay, alt, view.name))
    return cameras


def _map(pixels: NDArray[np.uint8], where: str, what: str) -> Embedded:
    return embedded(Image.fromarray(pixels), f"{where} from above: {what}", what, lossless=True)


def embedded(image: Image.Image, alt: str, caption: str, *, lossless: bool = False) -> Embedded:
    """An image as WebP inside the page."""
    file = io.BytesIO()
    image.save(file, "WEBP", lossless=lossless, quality=QUALITY, method=4)
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return Embedded(
        uri=f"data:image/webp;base64,{text}",
        width=image.width,
        height=image.height,
        alt=alt,
        caption=caption,
    )
