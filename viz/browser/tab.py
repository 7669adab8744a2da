"""One browser tab: which frame it shows, and what its reviewer does there.

Every tab has its own frame, layers, camera and reviewer's name; the verdicts are the store's. What
takes time is done by the tab's own worker, never by the thread that serves the browsers. The
worker alone changes the state of the review, whose frame is the one that is shown.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.errors import AutolabelError
from datasets.reviews.overlay import EditEntry, Entry, Verdict
from viz.browser.camera_images import camera_images
from viz.browser.html_fragments import (
    PICK,
    frame_facts,
    lines,
    table,
    verdict_facts,
    voxel_facts,
)
from viz.browser.local_storage import Memory, Place
from viz.browser.panel import Offered, Panel
from viz.browser.scene import BrowserScene
from viz.browser.worker import Worker
from viz.render.layers import LayerSettings, RenderedLayers, draw
from viz.render.scene3d import VERTICAL_FOV_DEG, default_camera
from viz.review.controller import ReviewController
from viz.review.keys import Action
from viz.review.shared_review import SharedReview
from viz.review.state import ReviewState
from viz.review.writer import ReviewWriter
from viz.session.picking import describe, voxel_at
from viz.session.session import ReviewFrame, ReviewSession

FRAME_S = 0.5
"""Time between frames while playing: nuScenes' key-frames are so far apart."""
_SETTLE_S, _STILL_S, _REFRESH_S, _ESTIMATE_S = 0.4, 0.25, 3.0, 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class TabStart:
    """What every tab of a server begins with.

    Attributes:
        run: tells this server from earlier ones.
    """

    session: ReviewSession
    shared: SharedReview
    frame: ReviewFrame
    show: LayerSettings
    reviewer: str
    run: str


class BrowserTab:
    """See above; the public methods are called by viser's threads and return at once.

    Args:
        client: ``viser.ClientHandle`` of the tab.
    """

    def __init__(self, client: Any, start: TabStart) -> None:
        self._client, self._session, self._shared = client, start.session, start.shared
        self._memory = Memory(client, start.run)
        frame, reviewer = start.frame, start.reviewer
        before = self._memory.recall()
        self._renamed = before is not None and before.reviewer != ""
        if before is not None:
            reviewer = before.reviewer or reviewer
            frame = _frame_again(start.session, before) or frame
        self._frame = frame
        self._lock = threading.Lock()
        self._wanted = (frame.scene_id, frame.k)
        self._drawn: RenderedLayers | None = None
        self._entries: tuple[Entry, ...] = ()
        self._numbers = itertools.count()
        self._writer = ReviewWriter(start.shared, reviewer)
        tokens, queue = start.session.tokens_by_scene(), start.shared.queue
        self._state = ReviewState.of_frame(frame, tokens, show=start.show, queue=queue)
        self._controller = ReviewController(self._state, self._writer)
        self._judged = start.shared.overlay is not None
        offered = Offered(
            scenes=start.session.scene_ids(),
            sets=_voxel_sets(start.session),
            judged=self._judged,
            queued=bool(queue),
        )
        self.panel = Panel(
            client.gui, self, offered, frame=frame, show=start.show, reviewer=reviewer
        )
        self._scene = BrowserScene(client.scene)
        self._worker = Worker(f"browser tab {client.client_id}", self._warn)
        self.first_view()
        if self._renamed and self._judged:
            self._tell(f"Verdicts given here are {reviewer}'s, as before.")
        client.scene.on_click()(self._clicked)
        client.camera.on_update(self._camera_moved)
        self._worker.post("frame", self._load)
        if self._judged:
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
        self.go(scene_id, min(max(k + by, 0), self._session.n_frames(scene_id) - 1))

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
        self._in_turn(lambda: self._judge(frame, verdict, note, reviewer))

    def undo(self) -> None:
        """Take back the last entry of the reviewer who is named in the panel, show its frame."""
        reviewer = self.panel.reviewer
        self._in_turn(lambda: self._undo(reviewer))

    def queue_step(self, by: int) -> None:
        """To the queue's next frame that nobody has judged (1), or to the one before (-1)."""
        self.panel.stop_playing()
        self._in_turn(lambda: self._step_in_queue(by))

    def _in_turn(self, job: Callable[[], None]) -> None:
        """Post a job that no other replaces."""
        self._worker.post(f"job {next(self._numbers)}", job)
        if self._judged:
            self._worker.post("estimate", self._show_estimate, after_s=_ESTIMATE_S)

    def _judge(self, frame: ReviewFrame, verdict: Verdict, note: str, reviewer: str) -> None:
        if not reviewer:
            self._warn("Fill in the reviewer's name first.")
            return
        self._state.go(frame.scene_id, frame.k)
        self._state.note, self._writer.reviewer = note, reviewer
        in_queue = self.panel.queue_goes_on
        self._controller.judge(verdict, in_queue=in_queue, in_scene=False)
        if (self._state.scene_id, self._state.k) == (frame.scene_id, frame.k):
            self._state.go(self._frame.scene_id, self._frame.k)  # it may have been left since
        self.panel.clear_note()
        self._tell(self._writer.message)
        self._follow()

    def _undo(self, reviewer: str) -> None:
        self._writer.reviewer = reviewer
        self._controller.act(Action.UNDO)
        self._tell(self._writer.message)
        if self._writer.undone is not None:
            self._state.go_to_entry(self._writer.undone.what)
            self._follow()

    def _step_in_queue(self, by: int) -> None:
        self._controller.update_judged()
        self._controller.act(Action.NEXT_IN_QUEUE if by > 0 else Action.PREVIOUS_IN_QUEUE)
        self._follow()

    def _follow(self) -> None:
        """Show the frame that the state went to, and what it says."""
        if self._state.message:
            self._tell(self._state.message)
            self._state.message = ""
        scene_id, k = self._state.scene_id, self._state.k
        if (scene_id, k) == (self._frame.scene_id, self._frame.k):
            self._show_verdict()
        else:
            self._show_frame(scene_id, k)

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
            frame = self._session.frame(scene_id, k)
        except AutolabelError:
            with self._lock:
                self._wanted = (before.scene_id, before.k)
            self._state.go(before.scene_id, before.k)
            self.panel.stop_playing()
            self.panel.point_at(before)
            raise
        if (frame.scene_id, frame.k) != (before.scene_id, before.k):
            self.panel.picked.content = lines([PICK])
        self._state.go(scene_id, k)
        self._frame = frame
        self._keep()
        self._draw()
        self._show_verdict()
        if self._state.queue and not self.panel.estimate.content:
            self._worker.post("estimate", self._show_estimate, after_s=_ESTIMATE_S)

    def _draw(self) -> None:
        frame = self._frame
        self._drawn = drawn = draw(frame, replace(self.panel.show(), cell=self._state.show.cell))
        with self._client.atomic():
            self._scene.draw(drawn, self._client.camera.position, floor_m=frame.grid.min_m[2])
            if not self._worker.waits("frame"):
                self.panel.point_at(frame)
            self.panel.fill(frame, drawn)
            self.panel.facts.content = frame_facts(frame, drawn)
        self._worker.post("clear", self._scene.clear_old, after_s=_SETTLE_S)
        self._worker.post("images", self._show_images)

    def _show_images(self) -> None:
        """The cameras; given up for a newer frame."""
        if self._drawn is None:
            return
        images = camera_images(self._frame, self._drawn, self._state.show.cell)
        for image, rgb in zip(self.panel.images, images, strict=False):
            image.image = rgb
            if self._worker.waits("frame") or self._worker.waits("draw"):
                return

    def _next_played(self) -> None:
        if not self.panel.playing:
            return
        began = time.monotonic()
        with self._lock:
            scene_id, k = self._wanted
        self._show_frame(scene_id, (k + 1) % self._session.n_frames(scene_id))
        rest_s = max(FRAME_S - (time.monotonic() - began), 0.02)
        self._worker.post("play", self._next_played, after_s=rest_s)

    def _clicked(self, event: Any) -> None:
        eye, direction = np.array(event.ray_origin), np.array(event.ray_direction)
        self._worker.post("pick", lambda: self._pick(eye, direction))

    def _pick(self, eye_m: NDArray[np.float64], direction: NDArray[np.float64]) -> None:
        if self._drawn is None:
            return
        frame = self._frame
        cell = voxel_at(frame, self._drawn.shown, eye_m, direction)
        self._state.pick(cell)
        self.panel.picked.content = (
            lines(["No voxel there."])
            if cell is None
            else voxel_facts(describe(self._session, frame, cell), frame.taxonomy)
        )
        self._draw()

    def _camera_moved(self, camera: Any) -> None:
        self._worker.post(
            "points", lambda: self._scene.lift_points(camera.position), after_s=_STILL_S
        )

    def _refresh(self) -> None:
        """Look for what other reviewers wrote, and again in a while."""
        self._worker.post("refresh", self._refresh, after_s=_REFRESH_S)
        self._shared.refresh()
        before, now = self._entries, self._shared.entries(self._frame.scene_id)
        if _edits(now) != _edits(before):
            self._load()
        elif now != before:
            self._show_verdict()

    def _show_verdict(self) -> None:
        """Say what holds for the frame and where the queue is."""
        if not self._judged:
            self.panel.verdict.content = lines(["Ground truth takes no verdicts."])
            return
        frame = self._frame
        self._entries = self._shared.entries(frame.scene_id)
        holds = self._shared.verdicts(frame.scene_id).get(frame.labels.token)
        now_s = time.time()
        self.panel.verdict.content = verdict_facts(frame, holds, self._entries, now_s=now_s)
        self._controller.update_judged()
        self.panel.queue.content = table(self._controller.queue_rows())

    def _show_estimate(self) -> None:
        """Say what share of the store's frames is wrong, as far as is known."""
        self.panel.estimate.content = lines([str(self._shared.estimate())])

    def _warn(self, text: str) -> None:
        self._client.add_notification("Not done", text, color="red", auto_close_seconds=10.0)

    def _tell(self, text: str) -> None:
        self._client.add_notification("Review", text, auto_close_seconds=4.0)


def _edits(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.id for entry in entries if isinstance(entry.what, EditEntry)]


def _frame_again(session: ReviewSession, place: Place) -> ReviewFrame | None:
    """The frame that was looked at, if there still is one."""
    try:
        return session.frame(place.scene_id, place.k) if place.scene_id else None
    except AutolabelError:
        return None


def _voxel_sets(session: ReviewSession) -> frozenset[str]:
    """Which voxels there are to show."""
    sets = {"labels", "none"}
    if session.truth is not None:
        sets |= {"truth", "difference"}
    if session.second is not None:
        sets |= {"second", "difference"}
    return frozenset(sets)
