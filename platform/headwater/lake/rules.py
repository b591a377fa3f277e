"""What the figures of ``headwater status --json`` mean: one rule for each check, over plain rows.

Limits are those of ``[slo]`` in headwater.toml. A limit of 0 is not judged. A rule gives None where there is nothing
to say yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from headwater.config import Slo

Row = Mapping[str, Any]
Severity = Literal["WARN", "ERROR"]
RUNNING = ("copying", "streaming")
LOST = ("lost", "unreserved")
"""What PostgreSQL calls a slot whose WAL is gone, or may go with the next checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check makes of it. ``severity`` counts where it has not passed; ``times`` are Unix seconds."""

    check: str
    passed: bool
    severity: Severity
    text: str
    figures: Mapping[str, Any] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)

    @property
    def mark(self) -> tuple[str, bool, str]:
        """What makes a verdict another one; its figures do not."""
        return self.check, self.passed, "" if self.passed else self.severity


def source_lag(row: Row, slo: Slo) -> Verdict:
    """Streaming, and not too far behind the server."""
    names = ("state", "lag_ms", "lag_bytes", "rows_per_s", "confirmed_lsn", "received_lsn", "server_lsn")
    figures = _known(row, names)
    if row["state"] not in RUNNING:
        why = row["error"] or "nothing captures it now"
        return _bad("lag", "ERROR", f"{row['state']}: {why}", figures)
    if row["lag_ms"] is None:
        return _good("lag", f"{row['state']}, no change seen yet", figures)
    return _limited(
        "lag", row["lag_ms"] / 1e3, slo.lag_warn_s, slo.lag_error_s, f"{row['state']}, {{}} behind", figures
    )


def source_slot(row: Row) -> Verdict | None:
    """The replication slot keeps what the lake has not got yet. None while nothing is known of it."""
    names = ("wal_status", "retained_wal_bytes", "safe_wal_bytes", "inactive_since", "invalidation_reason")
    figures = _known(row, names)
    if not figures and not row.get("gap"):
        return None
    if row.get("gap"):
        gap = row["gap"]
        figures |= {"gap_at": gap["at"], "gap_from_lsn": gap["from_lsn"], "gap_to_lsn": gap["to_lsn"]}
    if row.get("invalidation_reason") or row.get("wal_status") in LOST:
        said = row.get("invalidation_reason") or f"its WAL is {row['wal_status']}"
        return _bad("slot", "ERROR", f"{said}: see `headwater source check`", figures)
    if row.get("slot_warning"):
        return _bad("slot", "WARN", str(row["slot_warning"]), figures)
    kept = row.get("retained_wal_bytes")
    return _good(
        "slot", "holds" + (f", {kept / 2**20:,.0f} MiB of WAL kept for it" if kept is not None else ""), figures
    )


def topic_schema(row: Row) -> Verdict:
    """The topic is written by a schema that its records and readers can live with."""
    figures = {"schema_version": row["schema_version"], "state": row["state"]}
    if row["state"] != "live":
        return _bad("schema", "ERROR", f"{row['state']}: {row['reason'] or 'no reason is known'}", figures)
    return _good("schema", f"version {row['schema_version']}", figures)


def equals_source(found: Row | None, slo: Slo, now: float) -> Verdict | None:
    """The table's rows are those that its source has. None while it was never compared."""
    if not found:
        return None
    figures = {name: found[name] for name in ("rows", "differences", "changing")}
    times = {"compared_at": found["at"]}
    if found["differences"]:
        text = f"{found['differences']:,} rows differ: `headwater verify --source` shows some"
        return _bad("equals_source", "ERROR", text, figures, times)
    if found["skipped"]:
        return _bad("equals_source", "WARN", f"not compared: {found['skipped']}", figures, times)
    if _beyond(now - found["at"], slo.source_compared_within_s):
        text = f"not compared within {slo.source_compared_within_s:,.0f} s"
        return _bad("equals_source", "WARN", text, figures, times)
    changing = f", {found['changing']:,} changed meanwhile" if found["changing"] else ""
    return _good("equals_source", f"{found['rows']:,} rows are the source's{changing}", figures, times)


def topic_whole(damaged: Sequence[Row]) -> Verdict:
    """None of its records is known to be damaged."""
    figures = {"damaged_parts": len(damaged)}
    if not damaged:
        return _good("whole", "no damaged part is known", figures)
    first = damaged[0]
    where = f"partition {first['partition']}, offsets {first['first_offset']} to {first['last_offset']}"
    return _bad("whole", "ERROR", f"{len(damaged)} damaged parts, the first in {where}: {first['what']}", figures)


def dead_letters(letters: Row, slo: Slo) -> Verdict:
    """Not too many rows are set aside and wait for somebody to look."""
    count = letters["open"]
    figures = {"dead_letters_open": count, "dead_letters_total": letters["total"]}
    text = f"{count:,} open" if count else "none open"
    if _beyond(count + 1, slo.dead_letters_error):  # at the limit, too
        return _bad("dead_letters", "ERROR", f"{text}: `headwater dlq`", figures)
    if _beyond(count + 1, slo.dead_letters_warn):
        return _bad("dead_letters", "WARN", f"{text}: `headwater dlq`", figures)
    return _good("dead_letters", text, figures)


def follows(row: Row, slo: Slo) -> Verdict:
    """A view or job runs, and is not too far behind what it reads; one with a pace of its own, by that much more."""
    figures = _known(row, ("state", "input_commit", "lag_commits", "lag_rows", "lag_ms", "rows_per_s", "step_ms_p95"))
    if row["state"] in ("paused", "failed", "stopped"):
        return _bad("lag", "ERROR", f"{row['state']}: {row['reason'] or 'nothing runs it now'}", figures)
    if row["state"] != "live" or row["lag_ms"] is None:
        return _good("lag", f"{row['state']}, nothing is published yet", figures)
    if row.get("refresh") == "manual":
        return _good("lag", "refreshed by hand", figures)
    warn_s, error_s = (each and each + (row.get("refresh_s") or 0) for each in (slo.lag_warn_s, slo.lag_error_s))
    return _limited("lag", row["lag_ms"] / 1e3, warn_s, error_s, "{} behind", figures)


def fresh(row: Row, sources: Sequence[Row], slo: Slo) -> Verdict | None:
    """How old what a reader sees may be: what is not taken in, and since when its sources were not heard of.

    A source that says nothing new is fresh as long as it is heard. None for what is refreshed at a time of its own.
    """
    if row.get("refresh", "continuous") != "continuous" or row["lag_ms"] is None:
        return None
    unheard = [each["name"] for each in sources if each["age_s"] is None]
    if unheard:
        return _bad("fresh", "ERROR", f"nothing was ever heard of source {', '.join(unheard)}", {})
    behind = max((each["age_s"] + (each["lag_ms"] or 0) / 1e3 for each in sources), default=0.0)
    age = behind + row["lag_ms"] / 1e3
    return _limited("fresh", age, slo.fresh_warn_s, slo.fresh_error_s, "at most {} old", {"age_s": round(age, 3)})


def watermark(row: Row, slo: Slo, now: float, records: int, zone: str) -> Verdict | None:
    """Event time does not run ahead of the clock, and few of the ``records`` it reads come behind it.

    ``zone``: of times without one. None while there is no watermark.
    """
    if row["watermark"] is None:
        return None
    mark = datetime.fromisoformat(row["watermark"])
    at = (mark if mark.tzinfo else mark.replace(tzinfo=ZoneInfo(zone))).timestamp()
    late = row["late_rows"] or 0
    share = round(late / max(records, late), 6) if late else 0.0
    figures = {
        "watermark": row["watermark"],
        "behind_clock_s": round(now - at, 1),
        "late_rows": late,
        "late_share": share,
    }
    if _beyond(at - now, slo.watermark_ahead_s):
        text = f"{at - now:,.0f} s ahead of the clock: a record with a wrong time makes all others late"
        return _bad("watermark", "ERROR", text, figures)
    if _beyond(share, slo.late_warn_share):
        return _bad("watermark", "WARN", f"{late:,} rows came too late ({share:.1%})", figures)
    return _good("watermark", f"at {row['watermark']}, {late:,} rows came too late", figures)


def compared(row: Row, slo: Slo, now: float) -> Verdict | None:
    """Readers see what the view's query gives. None while nothing of it was compared."""
    found = row["compared"]
    if not found or not found["at"]:
        return None
    figures: dict[str, Any] = {name: found[name] for name in ("parts", "commit", "rows", "seconds")}
    figures["coverage"] = 1.0 if found["whole_since"] else found["part"] / found["parts"]
    times = {"compared_at": found["at"]} | ({"all_since": found["whole_since"]} if found["whole_since"] else {})
    if found["differing"]:
        figures |= _differing(found["differing"])
        text = (
            f"{figures['missing']:,} rows are missing, {figures['extra']:,} should not be there:"
            f" replay/{row['name']} makes it anew"
        )
        return _bad("equals_query", "ERROR", text, figures, times)
    if found["trouble"]:
        return _bad("equals_query", "WARN", f"not compared: {found['trouble']}", figures, times)
    since = found["whole_since"] or found["began"]
    if _beyond(now - since, slo.compared_within_s):
        text = f"not all rows were compared within {slo.compared_within_s:,.0f} s"
        return _bad("equals_query", "WARN", text, figures, times)
    return _good("equals_query", "all rows compared" if found["whole_since"] else "equal so far", figures, times)


def _differing(parts: Mapping[str, Row]) -> dict[str, Any]:
    counts = {name: sum(each[name] for each in parts.values()) for name in ("missing", "extra")}
    return {**counts, "differing_parts": len(parts), "sample": next(iter(parts.values()))["sample"]}


def _limited(check: str, value_s: float, warn_s: float, error_s: float, text: str, figures: Row) -> Verdict:
    said = text.format(f"{value_s * 1e3:,.0f} ms" if value_s < 10 else f"{value_s:,.0f} s")
    if _beyond(value_s, error_s):
        return _bad(check, "ERROR", said, figures)
    return _bad(check, "WARN", said, figures) if _beyond(value_s, warn_s) else _good(check, said, figures)


def _beyond(value: float, limit: float) -> bool:
    return bool(limit) and value > limit


def _known(row: Row, names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if row.get(name) is not None}


def _good(check: str, text: str, figures: Row, times: Mapping[str, float] | None = None) -> Verdict:
    return Verdict(check=check, passed=True, severity="WARN", text=text, figures=figures, times=times or {})


def _bad(check: str, severity: Severity, text: str, figures: Row, times: Mapping[str, float] | None = None) -> Verdict:
    return Verdict(check=check, passed=False, severity=severity, text=text, figures=figures, times=times or {})
