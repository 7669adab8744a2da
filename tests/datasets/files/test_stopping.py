"""Stopping a command: 130, one line, and none of its processes left, whatever it was doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.cli.supervisor import descendants

ROOT = Path(__file__).resolve().parents[3]
HEAD = (
    "import os, signal, subprocess, sys, time\n"
    "from datasets.cli import supervisor\n"
    "supervisor.supervise()\n"
)
SLEEPER = "subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
READY = "print('ready', os.getpid(), flush=True)\n"


def start(body: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + body],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "body",
    [
        SLEEPER + READY + "time.sleep(1000)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER + READY + "time.sleep(1000)",
        SLEEPER
        + "from datasets.cli.exit_codes import exit_code\n"
        + READY
        + "sys.exit(exit_code(lambda: time.sleep(1000)))",
    ],
)
def test_stopped_command_ends_with_a_line_and_leaves_no_process(
    body: str, sent: signal.Signals
) -> None:
    process = start(body)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("ready")
    below = descendants(process.pid)
    assert len(below) == 2
    for _ in range(2):
        os.killpg(process.pid, sent)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "stopped\n")
    assert not [p for p in below if Path(f"/proc/{p}").exists()]


def test_command_that_looks_whether_it_was_asked_leaves_by_itself() -> None:
    process = start(
        "with supervisor.leaving('asked'):\n"
        "    print('ready', flush=True)\n"
        "    while not supervisor.asked_to_stop(): time.sleep(0.01)\n"
        "    print('left', flush=True)\n"
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "left\n", "stopped\n")


@pytest.mark.parametrize(
    ("body", "code"),
    [("", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 137)],
)
def test_supervised_command_ends_with_its_own_code(body: str, code: int) -> None:
    process = start(body)
    process.communicate(timeout=60)
    assert process.returncode == code


def test_command_dies_with_a_killed_supervisor() -> None:
    process = start(READY + "time.sleep(1000)")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    out, _ = process.communicate(timeout=60)  # the command's end closes the pipe
    assert out == ""
