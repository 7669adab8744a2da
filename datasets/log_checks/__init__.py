"""Checks of a log before labeling: files, times, poses, calibration, annotations."""

from datasets.log_checks.motion import Finding
from datasets.log_checks.scene import SceneCheck, check_scene

__all__ = [
    "Finding",
    "SceneCheck",
    "check_scene",
]
