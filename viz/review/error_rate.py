"""The share of a store's frames that are wrong, from those that were reviewed.

A frame is wrong if its verdict is reject. The interval is exact and holds for a finite population:

- *Known* is the top of the order of priority, as far as it has been reviewed (``_reviewed_top``).
  Its verdicts are counted, not estimated.
- *The rest* is estimated from the frames drawn by chance. The drawn order is one permutation of all
  frames, seeded and fixed beforehand; without the top it is a permutation of the rest, and its
  first m frames are a simple random sample without replacement of the rest. m is how far that order
  has been judged without a gap. The interval inverts the hypergeometric test (Clopper and Pearson's
  for a finite population; Wendell and Schmee, JASA 1996, survey these).
- A frame of the rest that was judged out of that order is no sample, but bounds what can be: no
  fewer are wrong than are known to be, and no more than are not known to be right.

So it does not matter who judged a frame and why, in which order, in how many sittings, or that a
reviewer who finds a bad frame judges its neighbours as well: they become sample when the drawn
order comes to them. Two reviewers at once leave gaps where one is still looking; what lies behind a
gap counts once it is closed. ``VerdictEntry.sampled`` is a note for the reader: the permutation
alone decides.

What it assumes: that reviewers stop for reasons other than the last verdicts. Whoever stops as soon
as the interval looks good gets one that holds a little less often (``scripts/benchmarks/review.py``
measures by how much). UNSURE counts as right at the lower end and as wrong at the upper one.

Legend: N frames of the store, M of the rest, m of these drawn and judged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom

from datasets.labels.store import LabelStore
from datasets.reviews.overlay import Reviews, Verdict
from viz.review.priority import ReviewPriority
from viz.review.review_queue import SEED, Frames, frames_of, priority_order, sampled_order

CONFIDENCE = 0.95
GAPS = 50
"""In the known top of the order of priority, for one frame that is not judged at least so many
are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledFrames:
    """The frames of which a sample was drawn.

    Attributes:
        frames: M.
        drawn: m.
        wrong, unsure: of those drawn.
        known_wrong, known_right: of all that are judged, drawn or not.
    """

    frames: int
    drawn: int
    wrong: int
    unsure: int
    known_wrong: int
    known_right: int

    def bounds(self) -> tuple[int, int]:
        """Of the number of wrong frames. Where sample and knowledge exclude each other, those that
        are known."""
        low = fewest_wrong(self.frames, self.drawn, self.wrong)
        high = most_wrong(self.frames, self.drawn, self.wrong + self.unsure)
        sure, able = self.known_wrong, self.frames - self.known_right
        return (sure, able) if high < sure or low > able else (max(low, sure), min(high, able))

    def with_more(self, n: int) -> SampledFrames:
        """As if n more were drawn and as many of them wrong as of those before."""
        m = self.drawn + n
        share = (self.wrong + 0.5) / (self.drawn + 1)
        wrong = min(max(self.wrong, round(share * m)), self.wrong + n)
        right = m - wrong - self.unsure
        return SampledFrames(
            frames=self.frames,
            drawn=m,
            wrong=wrong,
            unsure=self.unsure,
            known_wrong=max(self.known_wrong, wrong),
            known_right=max(self.known_right, right),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The share of wrong frames of a store.

    Attributes:
        wrong_share: 0..1; not a number as long as no frame of the rest was drawn and judged.
        low, high: 95 % interval of the share, 0..1.
        n_frames: N.
        n_reviewed: with a verdict.
        n_sampled: frames outside of the known top that were drawn by chance and judged.
        known, known_wrong: frames of the known top, and those of them that are wrong; ``gaps`` of
            them could be wrong or right.
        rest: the others.
    """

    wrong_share: float
    low: float
    high: float
    n_frames: int
    n_reviewed: int
    n_sampled: int
    known: int
    known_wrong: int
    gaps: int
    rest: SampledFrames

    def more_for(self, half_width: float = 0.02) -> int:
        """How many more frames of the drawn order until half of the interval is this wide, if
        they turn out as those before; 0 if it is narrower already.

        In a queue of which a share is drawn by chance, so many more frames as that share says.

        Raises:
            ValueError: the half width is not positive.
        """
        if not half_width > 0:
            raise ValueError(f"the half width {half_width} is not positive")
        left = self.rest.frames - self.rest.drawn

        def wide(n: int) -> bool:
            low, high = self.rest.with_more(n).bounds()
            return (high - low + self.gaps) / 2 > half_width * self.n_frames

        if not wide(0):
            return 0
        narrow, step = left, max(1, left)
        while step := step // 2:  # widths fall with n but for rounding
            while narrow - step >= 0 and not wide(narrow - step):
                narrow -= step
        return narrow

    def __str__(self) -> str:
        reviewed = f"{self.n_reviewed} of {self.n_frames} frames reviewed"
        if math.isnan(self.wrong_share):
            return f"{reviewed}, none of them drawn by chance: how many are wrong is not known"
        more, width = self.more_for(), 100 * (self.high - self.low) / 2
        return (
            f"{reviewed}, {self.n_sampled} of them drawn by chance for those outside of the known "
            f"{self.known}: {100 * self.wrong_share:.1f} % of all frames are wrong "
            f"(95 %: {100 * self.low:.1f} to {100 * self.high:.1f} %); "
            + (f"{more} more drawn by chance for +-2 points" if more else f"+-{width:.1f} points")
        )


class Estimator:
    """The orders of a store's frames, to estimate again after every verdict.

    Args:
        scenes: tokens of all frames of the store.
        priority: that the queue was made with. With another one estimates hold as well, but less
            is known.
        seed: of the queue.

    Raises:
        ValueError: there is no frame.
    """

    def __init__(self, scenes: Frames, priority: ReviewPriority, *, seed: int = SEED) -> None:
        self.suspect, self.drawn = (
            [(scene_id, scenes[scene_id][k]) for scene_id, k in order]
            for order in (priority_order(scenes, priority), sampled_order(scenes, seed))
        )
        if not self.drawn:
            raise ValueError("a store without frames has no share of wrong ones")
        self.frames = frozenset(self.drawn)

    @classmethod
    def of_store(
        cls, store: LabelStore, priority: ReviewPriority, *, seed: int = SEED
    ) -> Estimator:
        return cls(frames_of(store), priority, seed=seed)

    def of_reviews(self, reviews: Reviews) -> Estimate:
        return self.of_verdicts(
            {
                (scene_id, token): frame.verdict
                for scene_id in reviews.scene_ids()
                for token, frame in reviews.verdicts(scene_id).items()
            }
        )

    def of_verdicts(self, verdicts: Mapping[tuple[str, str], Verdict]) -> Estimate:
        """From the verdicts on frames, by scene and token."""
        said = {frame: verdict for frame, verdict in verdicts.items() if frame in self.frames}
        top = _reviewed_top(self.suspect, said)
        top_frames = frozenset(top)
        beginning = itertools.takewhile(lambda one: one in said or one in top_frames, self.drawn)
        sample = [frame for frame in beginning if frame not in top_frames]
        others = [frame for frame in said if frame not in top_frames]

        def count(frames: Sequence[tuple[str, str]], verdict: Verdict) -> int:
            return sum(said.get(frame) is verdict for frame in frames)

        n, m = len(self.frames), len(sample)
        sampled = SampledFrames(
            frames=n - len(top),
            drawn=m,
            wrong=count(sample, Verdict.REJECT),
            unsure=count(sample, Verdict.UNSURE),
            known_wrong=count(others, Verdict.REJECT),
            known_right=count(others, Verdict.ACCEPT),
        )
        low, high = sampled.bounds()
        wrong = count(top, Verdict.REJECT)
        gaps = len(top) - wrong - count(top, Verdict.ACCEPT)
        likely = sampled.wrong / m * sampled.frames if m else math.nan if sampled.frames else 0.0
        return Estimate(
            wrong_share=float(wrong + np.clip(likely, low, high)) / n,
            low=(wrong + low) / n,
            high=(wrong + gaps + high) / n,
            n_frames=n,
            n_reviewed=len(said),
            n_sampled=m,
            known=len(top),
            known_wrong=wrong,
            gaps=gaps,
            rest=sampled,
        )


def estimate(
    scenes: Frames,
    priority: ReviewPriority,
    verdicts: Mapping[tuple[str, str], Verdict],
    *,
    seed: int = SEED,
) -> Estimate:
    """An estimate made once; see ``Estimator``."""
    return Estimator(scenes, priority, seed=seed).of_verdicts(verdicts)


def most_wrong(M: int, m: int, x: int, *, confidence: float = CONFIDENCE) -> int:
    """The most of M frames that can be wrong where x of m drawn were: the largest number with
    which so few are not too rare."""
    if m == M:
        return x
    return _last(x, M - (m - x), lambda W: hypergeom.cdf(x, M, W, m) > (1 - confidence) / 2)


def fewest_wrong(M: int, m: int, x: int, *, confidence: float = CONFIDENCE) -> int:
    """The fewest of M frames that can be wrong where x of m drawn were."""
    return M - most_wrong(M, m, m - x, confidence=confidence)


def _last(first: int, last: int, holds: Callable[[int], bool]) -> int:
    """The last number of a range for which something holds that holds for the first, and for all
    up to a certain one."""
    while first < last:
        middle = (first + last + 1) // 2
        first, last = (middle, last) if holds(middle) else (first, middle - 1)
    return first


def _reviewed_top(
    order: Sequence[tuple[str, str]], said: Mapping[tuple[str, str], Verdict]
) -> Sequence[tuple[str, str]]:
    """The beginning of the order of priority that counts as reviewed: a frame in it that is not
    judged must be made good by ``GAPS`` that are. A few that a reviewer passed over do not end it,
    and frames picked from far behind do not move it: how far it reaches must not depend on what
    the sample showed."""
    reached = balance = best = 0
    for i, frame in enumerate(order, 1):
        balance += 1 if frame in said else -GAPS
        if balance > best:
            reached, best = i, balance
    return order[:reached]
