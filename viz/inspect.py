"""Review labels in a window or a browser: ``viz/commands/inspect_labels.py``."""

# This file bears the name of a standard module, and Python puts a script's own folder first on
# the path: unless the first statements undo that, whatever imports `inspect` gets this file.
import os
import sys

_HERE = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120

if __name__ == "inspect":
    import importlib.util

    _spec = importlib.util.spec_from_file_location(
        "inspect",
        os.path.join(os.path.dirname(os.__file__), "inspect.py"),  # noqa: PTH118, PTH120
    )
    assert _spec is not None and _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["inspect"] = _module
    _spec.loader.exec_module(_module)
elif __name__ == "__main__":
    sys.path[:] = [p for p in sys.path if os.path.realpath(p or os.curdir) != _HERE]
    sys.path.insert(0, os.path.dirname(_HERE))  # noqa: PTH120

    from datasets.cli.launch import launch

    sys.exit(launch("inspect"))
