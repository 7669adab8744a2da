"""Train a LiDAR-camera teacher: ``autolabel/commands/train_teacher.py``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # the packages beside this folder, if they are there, before installed ones
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from datasets.cli.launch import launch

    sys.exit(launch("train-teacher"))
