"""P(a label is right), what it is worth, and how far it may be trusted."""

from autolabel.confidence.calibration import Calibration
from autolabel.confidence.risk_control import CalibrationCounts, control_risk

__all__ = [
    "Calibration",
    "CalibrationCounts",
    "control_risk",
]
