from __future__ import annotations

from collections.abc import Callable

import pytest

from ddfnet.bench.limits import Limit, Work
from ddfnet.bench.registry import Case
from ddfnet.bench.result import Result
from ddfnet.bench.timing import Timing


@pytest.fixture
def made_up() -> Callable[..., Result]:
    """Return a function that makes up results of the operator: ``made_up(case, "forward", ratio=0.8)``."""

    def result(case: Case, direction: str = "forward", *, ratio: float = 0.8, share: float = 0.5) -> Result:
        work = Work.for_case(case, direction)
        limit_milliseconds = max(work.bytes / 20e6, work.flops / 200e6)
        ours = limit_milliseconds / share

        def timing(name: str, milliseconds: float) -> Timing:
            ratios = (milliseconds / ours * ratio, milliseconds / ours)
            return Timing(name, "channels_last", *(milliseconds,) * 3, *ratios, 2 * milliseconds)

        limit = Limit(work.bytes, work.flops, 20.0, 200.0, limit_milliseconds, share, "memory")
        timings = (timing("ddf", ours), timing("depthwise", ours / ratio), timing("unfold", 16 * ours))
        return Result(case, direction, "ddf", "depthwise", timings, {}, 0.1, limit)

    return result
