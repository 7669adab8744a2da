"""The training loop and what it keeps."""

from models.training.loop import TrainingConfig, fit
from models.training.recipes import recipe

__all__ = [
    "TrainingConfig",
    "fit",
    "recipe",
]
