"""``python -m autolabel NAME ...`` is ``autolabel NAME ...``."""

import sys

from autolabel.console import main

sys.exit(main())
