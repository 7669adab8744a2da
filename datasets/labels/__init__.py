"""What a label store holds, and how it is read and written."""

from datasets.labels.header import StoreHeader
from datasets.labels.store import LabelStore, StoredScene
from datasets.labels.validity import ConfidenceValidity, validity_of
from datasets.labels.voxel_labels import FrameLabels, MaskBit, SceneLabels

__all__ = [
    "ConfidenceValidity",
    "FrameLabels",
    "LabelStore",
    "MaskBit",
    "SceneLabels",
    "StoreHeader",
    "StoredScene",
    "validity_of",
]
