"""Is a log fit to be labelled?"""

from datasets.log_checks.motion import Finding
from datasets.log_checks.scene import SceneCheck, check_scene

__all__ = [
    "Finding",
    "SceneCheck",
    "check_scene",
]
