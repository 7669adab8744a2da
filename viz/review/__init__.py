"""Judging frames and editing voxels, without a window."""

from viz.review.review_queue import QueueItem, queue_of, review_priority, review_queue

__all__ = [
    "QueueItem",
    "queue_of",
    "review_priority",
    "review_queue",
]
