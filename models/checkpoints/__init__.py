"""Weights files, ours and the published ones."""

from models.checkpoints.checkpoint import LoadedModel, load_checkpoint, save_checkpoint

__all__ = [
    "LoadedModel",
    "load_checkpoint",
    "save_checkpoint",
]
