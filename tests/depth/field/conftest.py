from __future__ import annotations

from tests.cli.conftest import calls, network, run

__all__ = ["calls", "network", "run"]
