"""Label the simulated city, train a student on the labels, score both and draw an image."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from datasets.cli.commands import COMMANDS
from datasets.cli.next_step import by_console, command_line, print_next
from datasets.errors import SetupError


def run(args: argparse.Namespace) -> int:
    """Run the steps; gives the exit code. Raises ``SetupError`` where a step fails."""
    out = args.out
    store, student = out / "labels.zarr", out / "student" / "camera_tiny_student.safetensors"
    steps = (
        (
            "Label the city's unlabeled scenes with the shipped teacher",
            ("label", "--split", "unlabeled", "--store", store),
        ),
        (
            "Train a camera-only student on these labels and the labeled scenes",
            (
                *("train-student", "--labels", store, "--labeled-split", "labeled"),
                *("--steps", args.steps, "--out", student.parent),
            ),
        ),
        (
            "Score the labels against the city's ground truth",
            ("evaluate", "--store", store, "--out", out / "labels.json"),
        ),
        (
            "Score the student",
            ("evaluate", "--weights", student, "--out", out / "student.json"),
        ),
        (
            "Draw a frame",
            ("inspect", store, "--screenshot", out / "labels.png"),
        ),
    )
    for k, (title, (name, *words)) in enumerate(steps, 1):
        print(f"\n== {k}/{len(steps)} {title}", flush=True)
        print(f"$ {command_line(str(name), *words)}", flush=True)
        start = ["-m", "autolabel", str(name)]
        if not by_console():
            start = [str(Path(__file__).resolve().parents[2] / COMMANDS[str(name)].file)]
        command = [sys.executable, *start, *map(str, words)]
        if (code := subprocess.run(command).returncode) != 0:
            raise SetupError(f"step {k} failed with exit code {code}")
    print(f"\nlabels   {store}")
    print(f"image    {out / 'labels.png'}")
    print(f"scores   {out / 'labels.json'}, {out / 'student.json'}")
    print(f"student  {student}: trained for seconds, so weak by design")
    print_next("inspect", store)
    return 0
