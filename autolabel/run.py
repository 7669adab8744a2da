"""Label a split of a log with a teacher into a label store: ``autolabel/commands/label_log.py``."""

import importlib.util
import sys
from pathlib import Path

if __name__ == "__main__":
    # This folder must not shadow other modules. The package beside it, if it is there (a clone, a
    # job's working folder), wins over an installed one; 'ray submit' copies this file alone.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    _package_root = None
    if all((_here.parent / p / "__init__.py").is_file() for p in ("autolabel", "datasets")):
        _package_root = str(_here.parent)
        sys.path.insert(0, _package_root)
    elif importlib.util.find_spec("autolabel") is None:
        print("error: the package effocc-autolabel is not installed here", file=sys.stderr)
        sys.exit(2)
    from datasets.cli.launch import launch

    sys.exit(launch("label", python_path=_package_root))
