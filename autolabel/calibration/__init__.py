"""Calibrating a teacher on labelled scenes."""

from autolabel.calibration.fit import Calibrated, calibrate

__all__ = [
    "Calibrated",
    "calibrate",
]
