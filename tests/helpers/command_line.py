"""A script's command line, run inside this process: all of it but the start of Python."""

from __future__ import annotations

import contextlib
import io
import runpy
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run_script(
    script: str, *arguments: object, folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """What ``python SCRIPT ARGUMENTS`` ends with and prints, started in ``folder``.

    Args:
        script: path below the repository.
    """
    path, threads = ROOT / script, torch.get_num_threads()
    command = [str(path), *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr(sys, "argv", command)
        patch.setattr(sys, "path", [str(path.parent), *sys.path])
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            _warnings_of_a_process(),
        ):
            code: object = None
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as end:
                code = end.code
            finally:
                torch.set_num_threads(threads)
    if isinstance(code, str):  # as Python does
        err.write(f"{code}\n")
        code = 1
    return subprocess.CompletedProcess(
        command,
        int(code or 0),
        out.getvalue(),
        err.getvalue(),  # type: ignore[call-overload]
    )


@contextlib.contextmanager
def _warnings_of_a_process() -> Iterator[None]:
    """Warnings are printed, and filtered as Python does it without pytest."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
            warnings.simplefilter("ignore", category)
        warnings.simplefilter("ignore", ResourceWarning)

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: object = None,
            line: str | None = None,
        ) -> None:
            sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))

        warnings.showwarning = show  # type: ignore[assignment]
        yield
