"""For all tests."""

from __future__ import annotations

import pytest

from datasets.cli import supervisor as stopping


@pytest.fixture(autouse=True)
def _no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that run inside of pytest must not divide its process in two."""
    monkeypatch.setattr(stopping, "supervise", lambda **_: None)
