"""One browser tab: which frame it shows, and what its reviewer does there.

Every tab has its own frame, layers, camera and reviewer's name; the verdicts are the store's. What
takes time is done by the tab's own worker, never by the thread that serves the browsers.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import AutolabelError
from datasets.reviews.overlay import Verdict
from viz.browser.camera_images import camera_pictures
from viz.browser.html_fragments import PICK, frame_facts, lines, voxel_facts
from viz.browser.local_storage import Memory, Place
from viz.browser.panel import Offered, Panel
from viz.browser.scene import BrowserScene
from viz.browser.shared_session import SharedReview
from viz.browser.verdicts import VerdictController
from viz.browser.worker import Worker
from viz.render.layers import LayerSettings, RenderedLayers, draw
from viz.render.scene3d import VERTICAL_FOV_DEG, default_camera
from viz.session.picking import Cell, describe, voxel_at
from viz.session.session import ReviewFrame

FRAME_S = 0.5
"""Time between frames while playing: nuScenes' key-frames are so far apart."""
_SETTLE_S, _STILL_S, _REFRESH_S, _ESTIMATE_S = 0.4, 0.25, 3.0, 0.3


class BrowserTab:
    """See above; the public methods are called by viser's threads and return at once.

    Args:
        client: ``viser.ClientHandle`` of the tab.
        frame, show, reviewer: what it begins with.
    """

    def __init__(
        self,
        client: Any,
        desk: SharedReview,
        *,
        frame: ReviewFrame,
        show: LayerSettings,
        reviewer: str,
    ) -> None:
        self._client, self._desk = client, desk
        self._memory = Memory(client, desk.run)
        before = self._memory.recall()
        self._renamed = before is not None and before.reviewer != ""
        if before is not None:
            reviewer = before.reviewer or reviewer
            frame = _frame_again(desk, before) or frame
        self._frame = frame
        self._lock = threading.Lock()
        self._wanted = (frame.scene_id, frame.k)
        self._cell: Cell | None = None
        self._drawn: RenderedLayers | None = None
        self._numbers = itertools.count()
        offered = Offered(
            scenes=desk.session.scene_ids(),
            sets=_voxel_sets(desk),
            judged=desk.takes_verdicts,
            queued=bool(desk.queue),
        )
        self.panel = Panel(client.gui, self, offered, frame=frame, show=show, reviewer=reviewer)
        self._scene = BrowserScene(client.scene)
        self._judging = VerdictController(desk, self.panel, client, self._show_frame, frame)
        self._worker = Worker(f"browser tab {client.client_id}", self._judging.warn)
        self.first_view()
        if self._renamed and desk.takes_verdicts:
            self._judging.tell(f"Verdicts given here are {reviewer}'s, as before.")
        client.scene.on_click()(self._clicked)
        client.camera.on_update(self._camera_moved)
        self._worker.post("frame", self._load)
        if desk.takes_verdicts:
            self._worker.post("refresh", self._refresh, after_s=_REFRESH_S)

    def close(self) -> None:
        """The tab is gone."""
        self._worker.stop()

    def go(self, scene_id: str, k: int) -> None:
        with self._lock:
            self._wanted = (scene_id, k)
        self._worker.post("frame", self._load)

    def step(self, by: int) -> None:
        with self._lock:
            scene_id, k = self._wanted
        self.go(scene_id, min(max(k + by, 0), self._desk.session.n_frames(scene_id) - 1))

    def play(self) -> None:
        self._worker.post("play", self._next_played)

    def redraw(self) -> None:
        self._worker.post("draw", self._draw)

    def first_view(self) -> None:
        """Back behind and above the ego, looking forward."""
        eye, target = default_camera(self._frame.grid)
        camera = self._client.camera
        camera.up_direction = (0.0, 0.0, 1.0)
        camera.fov = np.deg2rad(VERTICAL_FOV_DEG)
        camera.position, camera.look_at = eye, target

    def renamed(self) -> None:
        """The reviewer's name was typed."""
        self._renamed = True
        self._worker.post("keep", self._keep)

    def judge(self, verdict: Verdict) -> None:
        """Write the verdict on the frame that the tab shows."""
        frame, note, reviewer = self._frame, self.panel.note, self.panel.reviewer
        self.panel.stop_playing()
        self._in_turn(lambda: self._judging.judge(frame, verdict, note=note, reviewer=reviewer))

    def undo(self) -> None:
        """Take back the last entry of the reviewer who is named in the panel."""
        reviewer = self.panel.reviewer
        self._in_turn(lambda: self._judging.undo(reviewer))

    def queue_step(self, by: int) -> None:
        self.panel.stop_playing()
        self._in_turn(lambda: self._judging.step_in_queue(by))

    def _in_turn(self, job: Callable[[], None]) -> None:
        """Post a job that no other replaces."""
        self._worker.post(f"job {next(self._numbers)}", job)
        if self._desk.takes_verdicts:
            self._worker.post("estimate", self._judging.show_estimate, after_s=_ESTIMATE_S)

    def _keep(self) -> None:
        name = self.panel.reviewer if self._renamed else ""
        self._memory.keep(Place(reviewer=name, scene_id=self._frame.scene_id, k=self._frame.k))

    def _show_frame(self, scene_id: str, k: int) -> None:
        with self._lock:
            self._wanted = (scene_id, k)
        self._load()

    def _load(self) -> None:
        before = self._frame
        with self._lock:
            scene_id, k = self._wanted
        try:
            frame = self._desk.session.frame(scene_id, k)
        except AutolabelError:
            with self._lock:
                self._wanted = (before.scene_id, before.k)
            self.panel.stop_playing()
            self.panel.point_at(before)
            raise
        if (frame.scene_id, frame.k) != (before.scene_id, before.k):
            self._cell = None
            self.panel.picked.content = lines([PICK])
        self._frame = frame
        self._keep()
        self._draw()
        self._judging.show(frame)
        if self._desk.queue and not self.panel.estimate.content:
            self._worker.post("estimate", self._judging.show_estimate, after_s=_ESTIMATE_S)

    def _draw(self) -> None:
        frame = self._frame
        self._drawn = drawn = draw(frame, replace(self.panel.show(), cell=self._cell))
        with self._client.atomic():
            self._scene.draw(drawn, self._client.camera.position, floor_m=frame.grid.min_m[2])
            if not self._worker.waits("frame"):
                self.panel.point_at(frame)
            self.panel.fill(frame, drawn)
            self.panel.facts.content = frame_facts(frame, drawn)
        self._worker.post("clear", self._scene.clear_old, after_s=_SETTLE_S)
        self._worker.post("pictures", self._show_pictures)

    def _show_pictures(self) -> None:
        """The cameras; given up for a newer frame."""
        if self._drawn is None:
            return
        pictures = camera_pictures(self._frame, self._drawn, self._cell)
        for image, rgb in zip(self.panel.pictures, pictures, strict=False):
            image.image = rgb
            if self._worker.waits("frame") or self._worker.waits("draw"):
                return

    def _next_played(self) -> None:
        if not self.panel.playing:
            return
        began = time.monotonic()
        with self._lock:
            scene_id, k = self._wanted
        self._show_frame(scene_id, (k + 1) % self._desk.session.n_frames(scene_id))
        rest_s = max(FRAME_S - (time.monotonic() - began), 0.02)
        self._worker.post("play", self._next_played, after_s=rest_s)

    def _clicked(self, event: Any) -> None:
        eye, direction = np.array(event.ray_origin), np.array(event.ray_direction)
        self._worker.post("pick", lambda: self._pick(eye, direction))

    def _pick(self, eye_m: NDArray[np.float64], direction: NDArray[np.float64]) -> None:
        if self._drawn is None:
            return
        frame = self._frame
        self._cell = voxel_at(frame, self._drawn.shown, eye_m, direction)
        self.panel.picked.content = (
            lines(["No voxel there."])
            if self._cell is None
            else voxel_facts(describe(self._desk.session, frame, self._cell), frame.taxonomy)
        )
        self._draw()

    def _camera_moved(self, camera: Any) -> None:
        self._worker.post(
            "points", lambda: self._scene.lift_points(camera.position), after_s=_STILL_S
        )

    def _refresh(self) -> None:
        """Look for what other reviewers wrote, and again in a while."""
        self._worker.post("refresh", self._refresh, after_s=_REFRESH_S)
        if self._judging.refresh(self._frame):
            self._load()


def _frame_again(desk: SharedReview, place: Place) -> ReviewFrame | None:
    """The frame that was looked at, if there still is one."""
    try:
        return desk.session.frame(place.scene_id, place.k) if place.scene_id else None
    except AutolabelError:
        return None


def _voxel_sets(desk: SharedReview) -> frozenset[str]:
    """Which voxels there are to show."""
    sets = {"labels", "none"}
    if desk.session.truth is not None:
        sets |= {"truth", "difference"}
    if desk.session.second is not None:
        sets |= {"second", "difference"}
    return frozenset(sets)
