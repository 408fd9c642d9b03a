"""Results as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from ddfnet.bench.limits import Limit
from ddfnet.bench.result import LARGE, Result, Summary, costs
from ddfnet.table import table


def result_text(result: Result) -> str:
    """Return the times and ratios of one result, its limit and its memory."""
    headers = ["", "format", "ms", "p20", "p80", f"x {result.baseline}", "other format"]
    rows = [
        [
            t.competitor,
            t.memory_format,
            *(f"{v:.3f}" for v in (t.median, t.p20, t.p80)),
            f"{t.ratio:.2f}",
            f"{t.other_median:.3f}",
        ]
        for t in result.timings
    ]
    lines = [_head(result), table(headers, rows, left=2), *_skipped(result)]
    if result.backward_ratio is not None:
        lines.append(f"backward: {result.ours} takes {result.backward_ratio:.2f} times its forward pass")
    if result.limit is not None:
        lines.append(_limit(result.ours, result.limit))
    return "\n".join([*lines, *_memory(result)])


def depth_text(result: Result) -> str:
    """Return the times and costs of one result of `ddfnet.bench.depth`."""
    headers = ["", "s", "p20", "p80", f"x {result.baseline}", "s / megapixel", "MiB added", "MiB / megapixel"]
    rows = [
        [
            cost.method,
            *(f"{v / 1e3:.3f}" for v in (t.median, t.p20, t.p80)),
            f"{t.ratio:.2f}",
            f"{cost.seconds_per_megapixel:.3f}",
            *("-" if v is None else f"{v:.1f}" for v in (cost.mib, cost.mib_per_megapixel)),
        ]
        for t, cost in zip(result.timings, costs(result), strict=True)
    ]
    return "\n".join([_head(result), table(headers, rows), *_skipped(result)])


def summary_text(summaries: Sequence[Summary], ours: str) -> str:
    """Return a table with one row per direction."""
    others = list(dict.fromkeys(name for summary in summaries for name in summary.others))
    headers = ["geometric means", "cases", "ours / baseline", "worst", *(f"{name} / {ours}" for name in others)]
    rows = [
        [
            summary.direction,
            str(summary.cases),
            f"{summary.ratio:.2f}",
            f"{summary.worst:.2f} ({summary.worst_case})",
            *(f"{summary.others[name]:.2f}" if name in summary.others else "-" for name in others),
        ]
        for summary in summaries
    ]
    shares = [
        f"{summary.direction}: at least {summary.least_share:.0%} of the machine's limit in cases above "
        f"{LARGE / 1e6:.0f} MB ({summary.least_share_case})"
        for summary in summaries
        if summary.least_share is not None
    ]
    return "\n".join([table(headers, rows), *shares])


def _head(result: Result) -> str:
    return f"{result.case} {result.direction} (checked: error {result.error:.2g} of what rounding explains)"


def _skipped(result: Result) -> list[str]:
    return [f"{name}: left out, {reason}" for name, reason in result.skipped.items()]


def _limit(ours: str, limit: Limit) -> str:
    return (
        f"limit: {limit.milliseconds:.3f} ms by {limit.bound} ({limit.bytes / 1e6:.2f} MB at "
        f"{limit.gigabytes_per_second:.1f} GB/s into allocated buffers, {limit.flops / 1e6:.1f} MFLOP at "
        f"{limit.gigaflops_per_second:.0f} GFLOP/s); {ours} reaches {limit.share:.0%} of it"
    )


def _memory(result: Result) -> list[str]:
    lines = []
    for memory in result.memory:
        returned = f" to its inputs and {memory.returned:.1f} MiB of results" if memory.returned else ""
        lines.append(f"memory: {memory.competitor} ({memory.memory_format}) adds {memory.added:.1f} MiB{returned}")
    return lines
