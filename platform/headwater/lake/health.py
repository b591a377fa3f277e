"""How everything is: what the rules make of one moment's ``headwater status``, for people and for Dagster's checks.

status document ──▶ of_source, of_topic, of_view, of_job ──▶ verdicts ──▶ Health: a line for each, the worst first
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from headwater.config import Slo
from headwater.lake import rules
from headwater.lake.html import render
from headwater.lake.plain import plain_table
from headwater.lake.rules import Row, Verdict
from headwater.lake.status import status

if TYPE_CHECKING:
    from headwater.lake.lake import Lake

State = Literal["ok", "warning", "error"]
Kind = Literal["source", "topic", "view", "job"]
FINE_SHOWN: Final = 50
"""Lines that are shown of those where nothing is wrong; what is wrong is always shown."""
_COLUMNS: Final = ("what", "name", "state", "check", "now", "limit", "since", "what to do")
_WORST: Final = {"error": 0, "warning": 1, "ok": 2}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check of one thing. ``value``: what is so now; ``limit``: of ``[slo]``, empty where none applies; ``since``:
    from when on it is so, where that is known; ``todo``: empty where nothing is wrong."""

    kind: Kind
    name: str
    check: str
    state: State
    value: str
    limit: str
    since: datetime | None
    todo: str


class Health(Sequence[Finding]):
    """The findings of one moment, the worst first. Shown as a table, in a notebook and as text."""

    def __init__(self, findings: Sequence[Finding], position: int) -> None:
        self.position = position
        self._findings = sorted(findings, key=lambda each: _WORST[each.state])  # else as they come: sources first

    @property
    def ok(self) -> bool:
        """Whether nothing is an error or a warning."""
        return not self.wrong

    @property
    def wrong(self) -> list[Finding]:
        """Errors, then warnings."""
        return [each for each in self._findings if each.state != "ok"]

    def __len__(self) -> int:
        return len(self._findings)

    def __getitem__(self, place: Any) -> Any:
        return self._findings[place]

    def __str__(self) -> str:
        rows = self._rows()
        types = ["VARCHAR"] * len(_COLUMNS)
        return plain_table(_COLUMNS, types, rows, len(self), self.position, [self._summary()])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = self._rows()
        types = ["VARCHAR"] * len(_COLUMNS)
        return render(_COLUMNS, types, rows, len(self), len(rows), self.position, [self._summary()])

    def _summary(self) -> str:
        counts = {state: sum(each.state == state for each in self._findings) for state in ("error", "warning")}
        return ", ".join(f"{count:,} {state}{'s' * (count != 1)}" for state, count in counts.items())

    def _rows(self) -> list[tuple[str | None, ...]]:
        return [_line(each) for each in self._findings[: len(self.wrong) + FINE_SHOWN]]


def health(lake: Lake) -> Health:
    """What the checks say now. Reads the catalog and the heartbeats for some milliseconds; opens no data file."""
    project = lake.project
    now, at, zone = status(lake.log), time.time(), lake.log.timezone
    findings = [
        _finding(kind, name, each, slo, at)
        for kind, name, slo, verdicts in _judged(now, lake, at, zone, () if project is None else project.sources)
        for each in verdicts
    ]
    return Health(findings, now["position"])


# ---- which rules hold for what


def of_source(row: Row, slo: Slo) -> tuple[Verdict, ...]:
    return _given(rules.source_lag(row, slo), rules.source_slot(row))


def unseen(name: str) -> dict[str, Any]:
    """The row of a source that has never run."""
    return {"name": name, "state": "stopped", "error": None, "lag_ms": None, "rows": None}


def of_topic(now: Row, row: Row, slo: Slo, at: float) -> tuple[Verdict, ...]:
    """``at``: Unix seconds now."""
    source, _, table = row["name"].partition(".")
    compared = {each["name"]: each["compared"] for each in now["sources"]}
    damaged = [each for each in now["quarantine"] if each["topic"] == row["name"]]
    return _given(
        rules.topic_schema(row),
        rules.topic_whole(damaged),
        rules.dead_letters(row["dead_letters"], slo),
        rules.equals_source(compared.get(source, {}).get(table), slo, at),
    )


def of_view(now: Row, row: Row, reads: Collection[str], slo: Slo, at: float, zone: str) -> tuple[Verdict, ...]:
    """``reads``: full names of the topics that it reads, through other views as well; ``zone``: of times without."""
    topics = {each["name"]: each for each in now["topics"]}
    sources = {each["name"]: each for each in now["sources"]}
    feeding = [sources[each] for each in sorted({topic.split(".")[0] for topic in reads} & set(sources))]
    read = sum(topics[each]["records"] for each in reads if each in topics)
    own = topics.get(f"views.{row['name']}", {})
    return _given(
        rules.follows(row, slo),
        rules.fresh(row, feeding, slo),
        rules.watermark(row, slo, at, read, zone),
        rules.dead_letters(own.get("dead_letters", {"open": 0, "total": 0}), slo),
        rules.compared(row, slo, at),
    )


def of_job(row: Row, slo: Slo) -> tuple[Verdict, ...]:
    return _given(rules.follows(row, slo), rules.dead_letters(row["dead_letters"], slo))


def _given(*verdicts: Verdict | None) -> tuple[Verdict, ...]:
    return tuple(each for each in verdicts if each is not None)


# ---- a line for each


def _judged(
    now: Row, lake: Lake, at: float, zone: str, declared: Collection[str]
) -> Iterator[tuple[Kind, str, Slo, tuple[Verdict, ...]]]:
    def slo(name: str) -> Slo:
        return Slo() if lake.project is None else lake.project.slo(name)

    seen = {row["name"]: row for row in now["sources"]}
    for name in sorted({*seen, *declared}):
        yield "source", name, slo(name), of_source(seen.get(name) or unseen(name), slo(name))
    for row in now["topics"]:
        if row["kind"] not in ("changelog", "system"):
            yield "topic", row["name"], slo(row["name"]), of_topic(now, row, slo(row["name"]), at)
    reads = lake.lineage()
    for row in now["views"]:
        own = slo(f"views.{row['name']}")
        given = of_view(now, row, _topics(row["name"], reads), own, at, zone)
        yield "view", row["name"], own, tuple(each for each in given if not _never_has_letters(each))
    for row in now["jobs"]:
        own = slo(f"jobs.{row['name']}")
        yield "job", row["name"], own, of_job(row, own)


def _never_has_letters(verdict: Verdict) -> bool:
    """Only views WITH (on_error = ...) have any; where one has none yet there is nothing to say either."""
    return verdict.check == "dead_letters" and not verdict.figures["dead_letters_total"]


def _topics(view: str, reads: Mapping[str, Sequence[str]]) -> set[str]:
    """Full names of the topics that a view reads, through other views as well."""
    found, waiting, seen = set[str](), [view], {view}
    while waiting:
        for each in reads.get(waiting.pop(), ()):
            space, _, name = each.partition(".")
            if space != "views":
                found.add(each)
            elif name not in seen:
                seen.add(name)
                waiting.append(name)
    return found


def _finding(kind: Kind, name: str, verdict: Verdict, slo: Slo, at: float) -> Finding:
    state: State = "ok" if verdict.passed else "error" if verdict.severity == "ERROR" else "warning"
    since = _since(verdict, at)
    return Finding(
        kind=kind,
        name=name,
        check=verdict.check,
        state=state,
        value=verdict.text,
        limit=_limit(verdict.check, slo),
        since=None if since is None or state == "ok" else datetime.fromtimestamp(since, UTC),
        todo="" if verdict.passed else _todo(kind, name, verdict),
    )


def _since(verdict: Verdict, at: float) -> float | None:
    """From when on it is so: what is behind is so since the oldest change that waits, as far as figures tell."""
    figures = verdict.figures
    if verdict.check == "fresh" and "age_s" in figures:
        return at - float(figures["age_s"])
    if (
        verdict.check == "lag"
        and figures.get("lag_ms") is not None
        and figures.get("state") not in ("paused", "failed")
    ):
        return at - float(figures["lag_ms"]) / 1e3
    return verdict.times.get("compared_at")


def _limit(check: str, slo: Slo) -> str:
    pairs = {
        "lag": (slo.lag_warn_s, slo.lag_error_s, "{:,.0f} s"),
        "fresh": (slo.fresh_warn_s, slo.fresh_error_s, "{:,.0f} s"),
        "dead_letters": (slo.dead_letters_warn, slo.dead_letters_error, "{:,.0f}"),
        "watermark": (slo.late_warn_share * 100, 0.0, "{:,.0f}% late"),
        "equals_query": (slo.compared_within_s / 3_600, 0.0, "within {:,.0f} h"),
        "equals_source": (slo.source_compared_within_s / 3_600, 0.0, "within {:,.0f} h"),
    }
    warn, error, text = pairs.get(check, (0.0, 0.0, ""))
    return " / ".join(text.format(each) for each in (warn, error) if each)


def _todo(kind: Kind, name: str, verdict: Verdict) -> str:
    """The command that shows more, or mends it."""
    state = verdict.figures.get("state")
    if verdict.check == "lag" and kind in ("view", "job") and state == "paused":
        return f"headwater resume {name}" if kind == "view" else f"headwater job resume {name}"
    if verdict.check == "lag" and state == "stopped":
        return "headwater up"
    return {
        "lag": f"headwater source check {name}" if kind == "source" else "headwater status",
        "slot": f"headwater source check {name}",
        "schema": "headwater status",
        "whole": "headwater verify",
        "equals_source": f"headwater verify --source {name.split('.', maxsplit=1)[0]}",
        "dead_letters": "lake.dlq, or headwater dlq list",
        "fresh": "headwater status",
        "watermark": f"headwater view explain {name}",
        "equals_query": f'lake.replay("{name}"), or headwater replay {name}',
    }[verdict.check]


def _line(finding: Finding) -> tuple[str | None, ...]:
    since = None if finding.since is None else finding.since.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
    return (
        finding.kind,
        finding.name,
        finding.state,
        finding.check,
        finding.value,
        finding.limit,
        since or "",
        finding.todo,
    )
