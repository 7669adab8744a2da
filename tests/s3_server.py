"""An S3 server on this machine, for tests."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from datasets import places
from datasets.places import as_place


@contextmanager
def s3_bucket() -> Iterator[str]:
    """URL of an empty bucket; the environment says how to reach it, while it is there."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    variables = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": endpoint,
        "AWS_ALLOW_HTTP": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                request = urllib.request.Request(f"{endpoint}/labels", method="PUT")
                urllib.request.urlopen(request, timeout=5)
                break
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.1)
        places.bucket_at.cache_clear()
        yield "s3://labels"
        places.bucket_at.cache_clear()
    server.kill()
    server.wait()


def remote_tree(url: str) -> dict[str, bytes]:
    at = as_place(url)
    return {key: at.read(key) for key, _ in at.files("")}


def upload(folder: Path, url: str) -> None:
    """Every file below a folder, under the same name below the URL."""
    at = as_place(url)
    for path in folder.rglob("*"):
        if path.is_file():
            at.write(path.relative_to(folder).as_posix(), path.read_bytes())
