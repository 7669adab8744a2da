"""Objects in voxel labels: which voxels are one, and which are the same in the next frame."""

from autolabel.instances.segmentation import Segment, segments
from autolabel.instances.tracking import Tracker

__all__ = ["Segment", "Tracker", "segments"]
