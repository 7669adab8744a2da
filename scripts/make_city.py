"""Generate the simulated city: ``autolabel/commands/make_city.py``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # the packages beside this folder, if they are there, before installed ones
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from datasets.cli.launch import launch

    sys.exit(launch("make-city"))
