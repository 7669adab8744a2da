"""Joining and starting Ray: who can reach it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autolabel.cluster import CHECKED_RAY, authentication_warning, connect
from datasets.errors import SetupError

ROOT = Path(__file__).resolve().parents[1]
STARTS = """
import glob, json, os, ray
from autolabel.cluster import connect
from datasets.stopping import descendants

connect("local")
pids = [os.getpid(), *descendants(os.getpid())]
sockets = set()
for pid in pids:
    for fd in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            sockets.add(os.readlink(fd))
        except OSError:
            pass
addresses = []
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(table).read().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:  # listens
            addresses.append(fields[1].split(":")[0])
ray.shutdown()
print(json.dumps(addresses))
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_local_ray_listens_on_loopback_only() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", STARTS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    addresses = json.loads(done.stdout.splitlines()[-1])
    assert len(addresses) >= 5
    assert set(addresses) <= LOOPBACK


@pytest.mark.parametrize(
    ("version", "says"),
    [("2.40.0", "no authentication"), ("2.53.1", "was checked with"), ("2.60.0", ""), ("3.0", "")],
)
def test_cluster_of_unchecked_authentication_is_warned_of(version: str, says: str) -> None:
    warning = authentication_warning(version)
    assert says in warning and bool(says) == bool(warning)
    assert not says or ".".join(map(str, CHECKED_RAY)) in warning


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nMore.")

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(SetupError, match=r"cannot be started on this machine: .*startup\.$"):
        connect("local")
