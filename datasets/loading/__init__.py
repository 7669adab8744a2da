"""Data loading for training: frames with targets."""

from datasets.loading.batch import Batch, Target
from datasets.loading.frame_dataset import FrameDataset
from datasets.loading.targets import GroundTruthTargets, PseudoLabels, Unlabelled

__all__ = [
    "Batch",
    "FrameDataset",
    "GroundTruthTargets",
    "PseudoLabels",
    "Target",
    "Unlabelled",
]
