"""A log with pseudo-labels, and the student's training on it by the real command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from command_line import run_script
from folder_log import write_log

from datasets.labels.store import LabelStore, MaskBit, SceneLabels, StoreHeader
from datasets.sources.folder import FolderSource
from models.presets import COARSE_GRID, OCC3D_COARSE

ROOT = Path(__file__).resolve().parents[2]


def write_labelled_log(root: Path, labelled: Sequence[str], *, lidar: bool = False) -> Path:
    """Scenes a and b of three frames, a store with labels of some, and no point file left."""
    write_log(root, ("a", "b"))
    header = StoreHeader(
        grid=COARSE_GRID,
        taxonomy=OCC3D_COARSE,
        levels=(0.5, 0.9),
        licence="none",
        provenance={},
        run_id="made up",
    )
    store = LabelStore.create(root / "labels.zarr", header)
    rng = np.random.default_rng(0)
    for scene_id in labelled:
        frames = FolderSource(root, past_sweeps=0).scene(scene_id).frames
        shape = (len(frames), *COARSE_GRID.shape)
        store.write_scene(
            SceneLabels(
                scene_id=scene_id,
                frame_tokens=tuple(frame.token for frame in frames),
                timestamps_us=np.array([frame.timestamp_us for frame in frames]),
                T_global_grid=np.stack([frame.T_global_ego for frame in frames]),
                semantics=rng.integers(0, 8, shape, np.uint8),
                confidence=rng.integers(0, 2, shape, np.uint8),
                mask=np.full(shape, MaskBit.TRUSTED | MaskBit.CAMERA_VISIBLE, np.uint8),
            )
        )
    for path in [] if lidar else list(root.rglob("lidar/*")):
        path.unlink()
    return root


def options(log: Path, out: Path, *more: str) -> list[str]:
    data = ["--source", "folder", "--root", str(log), "--labels", str(log / "labels.zarr")]
    training = ["--preset", "camera_coarse", "--device", "cpu", "--log-every", "1"]
    return [*data, "--out", str(out), *training, *more]


def start(log: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "scripts/train_student.py", *options(log, out, *more)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=pipe, stderr=pipe)


def run(log: Path, out: Path, *more: str) -> tuple[int, str]:
    """Exit code, and all that was printed, of the command inside this process."""
    done = run_script("scripts/train_student.py", *options(log, out, *more))
    return done.returncode, done.stdout + done.stderr
