"""Label a split of a log with a teacher into a label store: ``autolabel/commands/label_log.py``."""

# ruff: noqa: E402
import importlib.util
import sys
from pathlib import Path

PACKAGE_ROOT: str | None = None
if __name__ == "__main__":
    # This folder must not shadow other modules. The package beside it, if it is there (a clone, a
    # job's working folder), wins over an installed one; 'ray submit' copies this file alone.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    if all((_here.parent / p / "__init__.py").is_file() for p in ("autolabel", "datasets")):
        PACKAGE_ROOT = str(_here.parent)
        sys.path.insert(0, PACKAGE_ROOT)
    elif importlib.util.find_spec("autolabel") is None:
        print("error: the package effocc-autolabel is not installed here", file=sys.stderr)
        sys.exit(2)
    from datasets.cli.supervisor import supervise  # before what is slow to import

    supervise(goes_on=True)

from autolabel.commands.label_log import main

if __name__ == "__main__":
    sys.exit(main(python_path=PACKAGE_ROOT))
