"""The overlay of people's verdicts and edits beside a store."""

from datasets.reviews.entries import EditEntry, NoteEntry, Verdict, VerdictEntry
from datasets.reviews.overlay import Reviews
from datasets.reviews.summary import ReviewCounts, count_reviews
from datasets.reviews.verdicts import FrameVerdict, frame_verdicts

__all__ = [
    "EditEntry",
    "FrameVerdict",
    "NoteEntry",
    "ReviewCounts",
    "Reviews",
    "Verdict",
    "VerdictEntry",
    "count_reviews",
    "frame_verdicts",
]
