"""Audit labels without ground truth: ``autolabel/commands/audit_labels.py``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # This folder must not shadow other modules.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))
    from datasets.cli.launch import launch

    sys.exit(launch("audit"))
