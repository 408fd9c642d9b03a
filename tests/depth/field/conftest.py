from __future__ import annotations

from tests.cli.conftest import calls, run

__all__ = ["calls", "run"]
