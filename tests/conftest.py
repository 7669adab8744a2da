"""For all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import s3_bucket
from small_city import write_small_city

from datasets.cli import supervisor as stopping


@pytest.fixture(autouse=True)
def _no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that run inside of pytest must not divide its process in two."""
    monkeypatch.setattr(stopping, "supervise", lambda **_: None)


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated scenes, one of them labeled, of three small frames. Only read it: a test that
    writes copies it first."""
    root = tmp_path_factory.mktemp("log") / "city"
    return write_small_city(root, labeled=1, unlabeled=1, frames=3, sweeps=2)


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URL of a bucket on an S3 server of this machine, which all tests share."""
    with s3_bucket() as url:
        yield url
