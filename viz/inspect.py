"""Review the labels of a store: see a frame's voxels in 3D and over its images, judge, mend.

    python viz/inspect.py STORE --root LOG
    python viz/inspect.py STORE --queue --audit audit.json
    python viz/inspect.py STORE --scene ID --frame K --screenshot FILE.png
    python viz/inspect.py STORE --scene ID --frames 0:20 --video FILE.mp4
    python viz/inspect.py STORE --serve
    python viz/inspect.py STORE --second OTHER --voxels difference
    python viz/inspect.py --truth DIR --source folder --root LOG

A window opens, unless an image, a video or a page for the browser is asked for: these need no
display.
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

    from datasets.cli.launch import launch

    sys.exit(launch("inspect"))
