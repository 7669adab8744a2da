"""From a scene of a log to its labels."""

from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import label_frames, label_scene, store_header, write_labels

__all__ = [
    "LabelingConfig",
    "label_frames",
    "label_scene",
    "store_header",
    "write_labels",
]
