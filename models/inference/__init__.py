"""Inference: predictors, ONNX export and profiling."""

from models.inference.predictor import OccupancyPredictor

__all__ = [
    "OccupancyPredictor",
]
