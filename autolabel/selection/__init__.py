"""What to label next."""

from autolabel.selection.active_learning import choose
from autolabel.selection.voxels import choose_voxels

__all__ = [
    "choose",
    "choose_voxels",
]
