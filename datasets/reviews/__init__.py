"""The overlay of people's verdicts and edits beside a store."""

from datasets.reviews.entries import Judgement, Remark, Stroke, Verdict
from datasets.reviews.overlay import Reviews
from datasets.reviews.summary import ReviewCounts, count_reviews
from datasets.reviews.verdicts import FrameVerdict, frame_verdicts

__all__ = [
    "FrameVerdict",
    "Judgement",
    "Remark",
    "ReviewCounts",
    "Reviews",
    "Stroke",
    "Verdict",
    "count_reviews",
    "frame_verdicts",
]
