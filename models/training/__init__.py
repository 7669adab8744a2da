"""Training: objectives, losses, the loop, its state and its report."""

from models.training.loop import TrainingConfig, fit
from models.training.recipes import recipe

__all__ = [
    "TrainingConfig",
    "fit",
    "recipe",
]
