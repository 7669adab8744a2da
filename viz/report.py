"""One HTML page on a label store: ``viz/commands/write_report.py``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # This folder's inspect.py must not shadow the standard module.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))
    from datasets.cli.launch import launch

    sys.exit(launch("report"))
