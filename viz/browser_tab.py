"""One browser tab: which frame it shows, and what its reviewer does there.

Every tab has its own frame, layers, camera and reviewer's name; the verdicts are the store's. What
takes time is done by the tab's own worker, never by the thread that serves the browsers.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.reviews import Entry, Judgement, Stroke, Verdict
from viz.browser_facts import entry_in_words, frame_facts, lines, queue_facts, verdict_facts, voxel_facts
from viz.browser_panel import Offered, Panel
from viz.browser_pictures import camera_pictures
from viz.browser_scene import BrowserScene
from viz.browser_worker import Worker
from viz.layers import Drawn, Show, draw
from viz.picking import describe, voxel_at
from viz.review import ReviewFrame, ReviewSession
from viz.review_queue import QueueItem
from viz.scene3d import VERTICAL_FOV_DEG, default_camera

FRAME_S = 0.5
"""Time between frames while playing: nuScenes' key-frames are so far apart."""
_SETTLE_S = 0.4
_REFRESH_S = 3.0
_STILL_S = 0.25


class BrowserTab:
    """See above.

    Args:
        client: ``viser.ClientHandle`` of the tab.
        frame, show, reviewer: what it begins with.
    """

    def __init__(
        self,
        client: Any,
        session: ReviewSession,
        queue: Sequence[QueueItem],
        *,
        frame: ReviewFrame,
        show: Show,
        reviewer: str,
    ) -> None:
        self._client, self._session, self._queue = client, session, queue
        self._lock = threading.Lock()
        self._wanted = (frame.scene_id, frame.k)
        self._cell: tuple[int, int, int] | None = None
        self.frame = frame
        self._drawn: Drawn | None = None
        self._entries: tuple[Entry, ...] = ()
        here = [i for i, item in enumerate(queue) if _is_of(item, frame)]
        self._at = here[0] if here else -1
        self._numbers = itertools.count()
        self._worker = Worker(f"browser tab {client.client_id}", self._say)
        sets = {"labels", "none"}
        sets |= {"truth"} if session.truth is not None else set()
        sets |= {"second"} if session.second is not None else set()
        sets |= {"difference"} if len(sets) > 2 else set()
        offered = Offered(
            scenes=session.scene_ids(),
            sets=frozenset(sets),
            judged=session.reviews is not None,
            queued=bool(queue),
        )
        self.panel = Panel(client.gui, self, offered, frame=frame, show=show, reviewer=reviewer)
        self._scene = BrowserScene(client.scene)
        self.first_view()
        client.scene.on_click()(self._clicked)
        client.camera.on_update(self._camera_moved)
        self._worker.post("frame", self._load)
        self._refresh()

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
        eye, target = default_camera(self.frame.grid)
        camera = self._client.camera
        camera.up_direction = (0.0, 0.0, 1.0)
        camera.fov = np.deg2rad(VERTICAL_FOV_DEG)
        camera.position, camera.look_at = eye, target

    def judge(self, verdict: Verdict) -> None:
        """Write the verdict on the frame that the tab shows."""
        frame, note, reviewer = self.frame, self.panel.note, self.panel.reviewer
        self.panel.stop_playing()
        self._post_each("judge", lambda: self._judge(frame, verdict, note, reviewer))

    def undo(self) -> None:
        """Take back the last entry of the reviewer who is named in the panel."""
        reviewer = self.panel.reviewer
        self._post_each("undo", lambda: self._undo(reviewer))

    def queue_step(self, by: int) -> None:
        """To the next frame of the queue that nobody has judged, or to the one before."""
        self._post_each("queue", lambda: self._queue_step(by))

    def _post_each(self, name: str, job: Callable[[], None]) -> None:
        self._worker.post(f"{name} {next(self._numbers)}", job)

    def _load(self) -> None:
        with self._lock:
            scene_id, k = self._wanted
        frame = self._session.frame(scene_id, k)
        if (frame.scene_id, frame.k) != (self.frame.scene_id, self.frame.k):
            self._cell = None
            self.panel.picked.content = lines(["Click a voxel."])
        self.frame = frame
        self._draw()
        self._show_verdict()

    def _draw(self) -> None:
        frame = self.frame
        drawn = draw(frame, replace(self.panel.show(), cell=self._cell))
        self._drawn = drawn
        with self._client.atomic():
            self._scene.draw(drawn, self._client.camera.position)
            self.panel.fill(frame, drawn)
            self.panel.facts.content = frame_facts(frame, drawn)
        self._worker.post("clear", self._scene.clear_old, after_s=_SETTLE_S)
        self._worker.post("pictures", self._show_pictures)

    def _show_pictures(self) -> None:
        assert self._drawn is not None
        picked = None if self._cell is None else self.frame.grid.centers(np.array(self._cell))
        pictures = camera_pictures(self.frame, self._drawn, picked)
        for image, rgb in zip(self.panel.pictures, pictures, strict=False):
            if self._worker.waits("frame") or self._worker.waits("draw"):
                return
            image.image = rgb

    def _next_played(self) -> None:
        if not self.panel.playing:
            return
        began = time.monotonic()
        with self._lock:
            scene_id, k = self._wanted
            self._wanted = scene_id, (k + 1) % self._session.n_frames(scene_id)
        self._load()
        rest = max(FRAME_S - (time.monotonic() - began), 0.02)
        self._worker.post("play", self._next_played, after_s=rest)

    def _clicked(self, event: Any) -> None:
        eye, direction = np.array(event.ray_origin), np.array(event.ray_direction)
        self._worker.post("pick", lambda: self._pick(eye, direction))

    def _pick(self, eye: NDArray[np.float64], direction: NDArray[np.float64]) -> None:
        frame = self.frame
        if self._drawn is None:
            return
        self._cell = voxel_at(frame, self._drawn.shown, eye, direction)
        self.panel.picked.content = (
            lines(["No voxel there."])
            if self._cell is None
            else voxel_facts(describe(self._session, frame, self._cell))
        )
        self._draw()

    def _camera_moved(self, camera: Any) -> None:
        self._worker.post(
            "points", lambda: self._scene.lift_points(camera.position), after_s=_STILL_S
        )

    def _judge(self, frame: ReviewFrame, verdict: Verdict, note: str, reviewer: str) -> None:
        reviews = self._session.reviews
        assert reviews is not None
        if not reviewer:
            self._say("fill in the reviewer's name first")
            return
        item = self._queue[self._at] if self._at >= 0 else None
        in_queue = item is not None and _is_of(item, frame)
        try:
            judged = Judgement(
                scene_id=frame.scene_id,
                tokens=(frame.labels.token,),
                verdict=verdict,
                note=note,
                sampled=item is not None and in_queue and item.sampled,
            )
            reviews.add(judged, reviewer=reviewer)
        except ValueError as error:
            self._say(str(error))
            return
        self.panel.clear_note()
        self._tell(f"{verdict.value}: {frame.scene_id} frame {frame.k}, written")
        self._show_verdict()
        if in_queue and self.panel.queue_goes_on:
            self._queue_step(1)

    def _undo(self, reviewer: str) -> None:
        reviews = self._session.reviews
        assert reviews is not None
        entry = reviews.undo(reviewer)
        if entry is None:
            self._tell(f"{reviewer} has nothing to take back")
            return
        self._tell(f"taken back: {entry_in_words(entry)}")
        self._load()

    def _queue_step(self, by: int) -> None:
        at = self._at + by
        while by > 0 and at < len(self._queue) and self._judged(self._queue[at]):
            at += 1
        if not 0 <= at < len(self._queue):
            self._tell("the queue is done" if by > 0 else "this is where the queue begins")
            return
        self._at = at
        with self._lock:
            self._wanted = self._queue[at].scene_id, self._queue[at].k
        self._load()

    def _judged(self, item: QueueItem) -> bool:
        reviews = self._session.reviews
        return reviews is not None and item.token in reviews.verdicts(item.scene_id)

    def _refresh(self) -> None:
        """Look for what other reviewers wrote, and again in a while."""
        reviews = self._session.reviews
        if reviews is None:
            return
        self._worker.post("refresh", self._refresh, after_s=_REFRESH_S)
        reviews.refresh()
        entries = reviews.entries(self.frame.scene_id)
        if entries != self._entries:
            painted = [e.id for e in entries if isinstance(e.what, Stroke)]
            if painted != [e.id for e in self._entries if isinstance(e.what, Stroke)]:
                self._load()
            else:
                self._show_verdict()

    def _show_verdict(self) -> None:
        reviews = self._session.reviews
        if reviews is None:
            self.panel.verdict.content = lines(["These labels take no verdicts."])
            return
        frame = self.frame
        self._entries = reviews.entries(frame.scene_id)
        holds = reviews.verdicts(frame.scene_id).get(frame.labels.token)
        self.panel.verdict.content = verdict_facts(
            frame, holds, self._entries, now_s=time.time()
        )
        if self._queue:
            self.panel.queue.content = queue_facts(self._queue, self._at, self._judged)

    def _say(self, error: str) -> None:
        self._client.add_notification("Not done", error, color="red", auto_close_seconds=10.0)

    def _tell(self, text: str) -> None:
        self._client.add_notification("Review", text, auto_close_seconds=4.0)


def _is_of(item: QueueItem, frame: ReviewFrame) -> bool:
    return (item.scene_id, item.token) == (frame.scene_id, frame.labels.token)
