"""``python -m ddfnet`` is the command ``ddfnet``."""

import sys

from ddfnet.cli.main import main

sys.exit(main())
