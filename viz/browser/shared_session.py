"""What all browser tabs share: the labels, the order of review, the store's verdicts."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence

from datasets.reviews.overlay import Entry, Reviews, Verdict, VerdictEntry
from viz.review.error_rate import Estimator
from viz.review.priority import ReviewPriority
from viz.review.review_queue import QueueItem, judged
from viz.session.session import ReviewFrame, ReviewSession


class SharedReview:
    """See above; threads may share it. ``run`` tells this server from earlier ones.

    Args:
        queue: order of review, may be empty.
        suspicion: that it was made with.
    """

    def __init__(
        self, session: ReviewSession, queue: Sequence[QueueItem], suspicion: ReviewPriority
    ) -> None:
        self.session, self.queue = session, tuple(queue)
        self.run = secrets.token_hex(8)
        self._suspicion = suspicion
        self._places = {(item.scene_id, item.token): i for i, item in enumerate(self.queue)}
        self._estimator: Estimator | None = None
        self._lock = threading.Lock()

    @property
    def takes_verdicts(self) -> bool:
        """Ground truth does not."""
        return self.session.reviews is not None

    @property
    def reviews(self) -> Reviews:
        """Raises ``ValueError`` where no verdicts are taken."""
        if self.session.reviews is None:
            raise ValueError("these labels take no verdicts")
        return self.session.reviews

    def place_of(self, frame: ReviewFrame) -> int:
        """Index of a frame in the queue; -1 if it is not in it."""
        return self.index_of(frame.scene_id, frame.labels.token, otherwise=-1)

    def index_of(self, scene_id: str, token: str, *, otherwise: int) -> int:
        """Index of a frame in the queue, ``otherwise`` if it is not in it."""
        return self._places.get((scene_id, token), otherwise)

    def judged(self) -> set[tuple[str, str]]:
        """Scene and token of every frame that anybody has given a verdict on."""
        return judged(self.reviews) if self.takes_verdicts else set()

    def judge(self, frame: ReviewFrame, verdict: Verdict, *, note: str, reviewer: str) -> Entry:
        """Write a verdict. Raises ``ValueError`` and ``SetupError`` as ``Reviews.add``."""
        at = self.place_of(frame)
        what = VerdictEntry(
            scene_id=frame.scene_id,
            tokens=(frame.labels.token,),
            verdict=verdict,
            note=note,
            sampled=0 <= at < len(self.queue) and self.queue[at].sampled,
        )
        return self.reviews.add(what, reviewer=reviewer)

    def wrong_share(self) -> str:
        """What the verdicts say of the whole store, in words."""
        reviews = self.reviews
        with self._lock:
            if self._estimator is None:
                self._estimator = Estimator.of_store(reviews.store, self._suspicion)
        return str(self._estimator.of_reviews(reviews))
