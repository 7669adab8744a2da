"""Networks that predict."""

from models.inference.predictor import OccupancyPredictor

__all__ = [
    "OccupancyPredictor",
]
