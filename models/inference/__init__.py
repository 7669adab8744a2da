"""Networks that predict."""

from models.inference.predictor import Teacher

__all__ = [
    "Teacher",
]
