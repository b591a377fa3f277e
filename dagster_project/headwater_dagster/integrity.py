"""`headwater verify` as figures, and as the check ``is_whole``: what is wrong is said, and fails no run.

Dagster reads the annotations of configurations: no ``from __future__ import annotations`` here.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from headwater.log import Log
from headwater_dagster.figures import table

if TYPE_CHECKING:
    from headwater.log.verify import Report

CHECK = "is_whole"
Checked = Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]


class DeepConfig(dg.Config):
    """``max_seconds``: reading ends after so long, with a warning. What was found by then is in quarantine."""

    max_seconds: float = 14_400.0


def spec(asset: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        CHECK,
        asset=asset,
        description="The catalog agrees with itself and with the files. What is damaged is in quarantine, and leaves "
        "it when the bytes are right again.",
    )


def verify(log: Log, asset: dg.AssetKey, *, deep: bool, seconds: float | None = None) -> Checked:
    """Look once; the figures, and the check's verdict: an error with findings, a warning when it ran out of time."""
    from headwater.log.verify import verify as look

    began = time.monotonic()
    reading = _Reading(until=None if seconds is None else began + seconds)
    try:
        report = look(log, deep=deep, on_progress=reading)
    except _OutOfTimeError:
        took = {"seconds": round(time.monotonic() - began, 3), "bytes_read": reading.done, "bytes": reading.total}
        said = f"not through after {seconds:.0f} s: {reading.done:,} of {reading.total:,} bytes; raise max_seconds"
        yield dg.MaterializeResult(asset_key=asset, metadata={**took, "complete": 0})
        yield _verdict(asset, dg.AssetCheckSeverity.WARN, said, took)
        return
    figures = {**_figures(report), "seconds": round(time.monotonic() - began, 3)}
    yield dg.MaterializeResult(asset_key=asset, metadata={**figures, "complete": 1, **_findings(report)})
    yield _verdict(asset, dg.AssetCheckSeverity.ERROR, _sentence(report), {**figures, **_findings(report)}, report)


def chosen(context: dg.AssetExecutionContext, found: Checked) -> Checked:
    """Of what was found, what this run is asked for: the figures, the verdict, or both."""
    for each in found:
        wanted = context.selected_asset_keys if isinstance(each, dg.MaterializeResult) else _checked(context)
        if each.asset_key in wanted:
            yield each


def _checked(context: dg.AssetExecutionContext) -> set[dg.AssetKey]:
    return {each.asset_key for each in context.selected_asset_check_keys}


class _OutOfTimeError(Exception):
    """Ends the reading from within its progress."""


@dataclass(kw_only=True)
class _Reading:
    """How far the reading is; ends it when its time is over."""

    until: float | None
    done: int = field(default=0)
    total: int = field(default=0)

    def __call__(self, done: int, total: int) -> None:
        self.done, self.total = done, total
        if self.until is not None and time.monotonic() > self.until:
            raise _OutOfTimeError


def _verdict(
    asset: dg.AssetKey,
    severity: dg.AssetCheckSeverity,
    said: str,
    metadata: dict[str, Any],
    report: "Report | None" = None,
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=CHECK,
        asset_key=asset,
        passed=report is not None and not report.findings,
        severity=severity,
        description=said,
        metadata=metadata,
    )


def _figures(report: "Report") -> dict[str, Any]:
    return {
        "findings": len(report.findings),
        "commits": report.commits,
        "files": report.files,
        "records": report.records,
        "bytes": report.bytes,
        "released": report.released,
    }


def _findings(report: "Report") -> dict[str, Any]:
    return table("what_is_wrong", [{"where": each.where, "what": each.what} for each in report.findings])


def _sentence(report: "Report") -> str:
    if not report.findings:
        return f"{report.commits:,} commits, {report.records:,} records, {report.files:,} files: no findings"
    first = report.findings[0]
    more = len(report.findings) - 1
    return f"{first.where}: {first.what}" + (f"; and {more:,} more findings" if more else "")
