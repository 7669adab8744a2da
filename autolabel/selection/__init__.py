"""What to label next."""

from autolabel.selection.active_learning import select_candidates
from autolabel.selection.voxels import select_voxels

__all__ = [
    "select_candidates",
    "select_voxels",
]
