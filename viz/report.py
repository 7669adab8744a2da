"""One self-contained HTML page on a label store: what is in it, how sure, how right, what to mend.

    python viz/report.py STORE
    python viz/report.py STORE --root LOG --audit audit.json --truth DIR --out report.html

The page asks for nothing from anywhere and needs no script. Exit codes: 0 done, 1 done, and some
scene could not be read (the page names it), 2 cannot start.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    # This folder's inspect.py must not shadow the standard module.
    _here = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != _here]
    sys.path.insert(0, str(_here.parent))

    from viz.commands.write_report import main

    sys.exit(main())
