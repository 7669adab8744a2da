"""From a scene of a log to its labels."""

from autolabel.labeling.config import LabelingConfig
from autolabel.labeling.pipeline import label_frames, label_scene, write_labels
from autolabel.labeling.store_header import store_header
from autolabel.labeling.stored_calibration import calibration_of

__all__ = [
    "LabelingConfig",
    "calibration_of",
    "label_frames",
    "label_scene",
    "store_header",
    "write_labels",
]
