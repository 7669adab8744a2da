"""The 3D view as an image: Open3D draws it where it can, our plain rasteriser elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Literal

from PIL import Image

from datasets.errors import SetupError
from viz.render.layers import RenderedLayers
from viz.render.offscreen import Open3DProcess
from viz.render.scene3d import Scene3D, default_camera, draw_plain
from viz.session.session import ReviewFrame

Renderer = Literal["auto", "open3d", "plain"]


class ViewPainter:
    """Draws any number of views; whether Open3D works is found out once, in a process of its own.

    Use as a context manager.

    Attributes:
        drawn_by: the name of what drew the last view.
        note: why that is not Open3D; empty where it is, or was not asked for.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._open3d = Open3DProcess()
        self.drawn_by, self.note = "plain rasteriser", ""

    def __enter__(self) -> ViewPainter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open3d.__exit__(kind, error, trace)

    def draw(self, scene: Scene3D, *, width: int, height: int) -> Image.Image:
        """The view. Raises ``SetupError`` where Open3D was asked for and cannot draw here."""
        if self._renderer != "plain" and not self.note:
            drawn = self._open3d.draw(scene, width=width, height=height)
            if isinstance(drawn, Image.Image):
                self.drawn_by = "Open3D"
                return drawn
            if self._renderer == "open3d":
                raise SetupError(f"--renderer open3d: Open3D cannot draw here: {drawn}")
            self.note = f"Open3D cannot draw here ({drawn}); the 3D view is drawn plainly"
        self.drawn_by = "plain rasteriser"
        return draw_plain(scene, width=width, height=height)


def scene_of(frame: ReviewFrame, drawn: RenderedLayers) -> Scene3D:
    """What is drawn of a frame, seen from behind and above the ego."""
    eye, target = default_camera(frame.grid)
    return Scene3D(
        meshes=drawn.meshes, points=drawn.points, lines=drawn.lines, eye_m=eye, target_m=target
    )
