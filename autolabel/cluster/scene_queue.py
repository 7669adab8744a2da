"""Which scene to label next, and whether one that failed is tried again."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from autolabel.cluster.worker import SCENES_IN_FLIGHT, OutcomeKind

MAX_LOST_NODES = 20
"""Times that a scene's node may be lost before the scene is blamed."""


class SceneQueue:
    """Scenes to label: longest first, then by id.

    Args:
        lengths: frames of each scene.
        retries: further tries of a scene that failed.
    """

    def __init__(self, lengths: Mapping[str, int], *, retries: int) -> None:
        self.lengths, self.retries = lengths, retries
        self._heap = [(-length, scene_id) for scene_id, length in lengths.items()]
        heapq.heapify(self._heap)
        self._failed: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._self_only: set[str] = set()

    def __len__(self) -> int:
        return len(self._heap)

    def take(self, in_flight: Collection[str], workers: int) -> str | None:
        """The next scene for a worker; None if it should get no further one.

        Args:
            in_flight: scenes that the worker has.
            workers: how many share the queue. A second scene of a worker leaves one for each.
        """
        if not self._heap:
            return None
        scene_id = self._heap[0][1]
        if in_flight and (
            len(in_flight) >= SCENES_IN_FLIGHT
            or len(self._heap) < workers
            or self._self_only.intersection([scene_id, *in_flight])
        ):
            return None
        heapq.heappop(self._heap)
        return scene_id

    def isolate(self, scene_ids: Iterable[str]) -> None:
        """Label each of these without another beside it: one of them may have killed a worker."""
        self._self_only.update(scene_ids)

    def retry(self, scene_id: str, kind: OutcomeKind) -> bool:
        """Put a failed scene back; False if it is to be quarantined."""
        if kind == "lost":
            self._lost[scene_id] += 1
            retry = self._lost[scene_id] <= MAX_LOST_NODES
        else:
            self._failed[scene_id] += 1
            retry = kind == "failed" and self._failed[scene_id] <= self.retries
        if retry:
            heapq.heappush(self._heap, (-self.lengths[scene_id], scene_id))
        return retry
