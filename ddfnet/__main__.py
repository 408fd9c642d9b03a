"""Command ``ddfnet`` as ``python -m ddfnet``."""

import sys

from ddfnet.cli.main import main

sys.exit(main())
