"""For all tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import s3_bucket

from datasets.cli import supervisor as stopping
from datasets.sources.synthetic.city import CityConfig, generate_city


@pytest.fixture(autouse=True)
def _no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that run inside of pytest must not divide its process in two."""
    monkeypatch.setattr(stopping, "supervise", lambda **_: None)


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated scenes, one of them labeled, of three small frames. Only read it: a test that
    writes copies it first."""
    root = tmp_path_factory.mktemp("log") / "city"
    config = CityConfig(
        labeled_scenes=1,
        unlabeled_scenes=1,
        val_scenes=0,
        frames_per_scene=3,
        image_height=48,
        image_width=128,
        sweeps=2,
    )
    generate_city(root, config, workers=1, progress=False)
    return root


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """URL of a bucket on an S3 server of this machine, which all tests share."""
    with s3_bucket() as url:
        yield url
