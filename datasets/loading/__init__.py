"""Frames with targets, as trainings take them."""

from datasets.loading.batch import Sample, Target
from datasets.loading.frame_dataset import FrameDataset
from datasets.loading.targets import GroundTruth, PseudoLabels, Unlabelled

__all__ = [
    "FrameDataset",
    "GroundTruth",
    "PseudoLabels",
    "Sample",
    "Target",
    "Unlabelled",
]
