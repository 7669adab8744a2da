"""Look at the labels of one frame, drawn over the pictures of the log they are of.

    python viz/inspect.py STORE --scene ID --frame K --root LOG
    python viz/inspect.py --truth DIR --source folder --root LOG --screenshot FILE.png

Without ``--screenshot`` a window opens (arrow keys: next and previous frame). With it the same
scene is written to a picture, and no display is needed.
"""

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

    from viz.command import main

    sys.exit(main())
