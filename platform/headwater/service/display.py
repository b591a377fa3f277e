"""The live status of ``headwater up`` in a terminal: a table that stays, log lines above it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headwater import logs

SHOW_S = 0.5
"""The table is read anew this often: the catalog is asked, and eyes are slow."""
PIPE_COLUMNS = 200
_STYLE = {"error": "bold red", "fatal": "bold red", "warn": "yellow"}
_GOOD = ("running", "copying", "streaming", "live", "idle", "stepping", "filling", "large step")


class LiveDisplay:
    """A context manager; shows log lines as they come and the status table below them."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._shown = 0.0

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def line(self, line: Mapping[str, Any]) -> None:
        text = Text(logs.render(line, "text"), style=_STYLE.get(str(line.get("level")), ""))
        self._live.console.print(text, soft_wrap=True)

    def show(self, document: Callable[[], Mapping[str, Any]], health: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now >= self._shown + SHOW_S:
            self._shown = now
            self._live.update(render(document(), health), refresh=True)


def console() -> Console:
    """For stdout: as wide as the terminal; wide enough for every column where a file or a pipe reads."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)


def render(document: Mapping[str, Any], health: Mapping[str, Any] | None = None) -> RenderableType:
    """The status document as tables: sources, views and, where given, the components' health."""
    head = Text.assemble((str(document["project"]), "bold"), "  position ", (f"{document['position']:,}", "bold"))
    if document.get("http"):
        head.append(f"  {document['http']}", style="dim")
    parts: list[RenderableType] = [head, _sources(document["sources"])]
    if document["views"]:
        parts.append(_views(document["views"]))
    if document.get("jobs"):
        parts.append(_jobs(document["jobs"]))
    if document.get("quarantine"):
        parts.append(_quarantine(document["quarantine"]))
    troubled = [each for each in (health or {}).get("components", []) if not each["ok"] or each["restarts"]]
    if troubled:
        parts.append(_components(troubled))
    return Group(*parts)


def _quarantine(found: list[dict[str, Any]]) -> Table:
    table = _table("in quarantine", "partition", "offsets", "file", "why")
    for each in found:
        offsets = f"{each['first_offset']} to {each['last_offset']}"
        table.add_row(
            Text(each["topic"], style="bold red"), str(each["partition"]), offsets, each["path"], each["what"]
        )
    return table


def _sources(found: list[dict[str, Any]]) -> Table:
    table = _table("source", "state", "position", "rows/s", "lag bytes", "lag ms", "note")
    for each in found:
        table.add_row(
            each["name"],
            _state(each["state"]),
            each["confirmed_lsn"] or "-",
            number(each["rows_per_s"]),
            number(each["lag_bytes"]),
            number(each["lag_ms"]),
            each["error"] or each.get("slot_warning") or each.get("copy") or "",
        )
    return table


def _views(found: list[dict[str, Any]]) -> Table:
    table = _table("view", "state", "position", "rows/s", "lag commits", "lag ms", "step ms", "note")
    for each in found:
        table.add_row(
            each["name"],
            _state(each["state"]),
            number(each["input_commit"]),
            number(each["rows_per_s"]),
            number(each["lag_commits"]),
            number(each["lag_ms"]),
            number(each["step_ms_last"]),
            each["reason"] or (f"{each['late_rows']:,} rows came late" if each.get("late_rows") else ""),
        )
    return table


def _jobs(found: list[dict[str, Any]]) -> Table:
    table = _table("job", "state", "position", "rows/s", "lag rows", "lag ms", "step ms", "state rows", "note")
    for each in found:
        figures = ("input_commit", "rows_per_s", "lag_rows", "lag_ms", "step_ms_last", "state_rows")
        table.add_row(each["name"], _state(each["state"]), *(number(each[key]) for key in figures), job_note(each))
    return table


def job_note(each: Mapping[str, Any]) -> str:
    """What a person should know of a job: why it is not live, or what it went on without."""
    failing = each["dead_letters"]["open"]
    return str(each["reason"] or (f"{failing:,} open dead letters" if failing else ""))


def _components(found: list[dict[str, Any]]) -> Table:
    table = _table("component", "state", "restarts", "errors", "note")
    for each in found:
        table.add_row(
            each["name"],
            _state(each["state"]),
            number(each["restarts"]),
            number(each["errors"]),
            each["last_error"] or "",
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in columns:
        left = name in ("source", "view", "job", "component", "state", "note")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "note")
    return table


def _state(state: str) -> Text:
    if state in _GOOD:
        return Text(state, style="green")
    return Text(state, style="red" if state in ("error", "failed", "given up", "stale") else "yellow")


def number(value: float | None) -> str:
    """A figure for a person: grouped digits, no decimals where they say nothing; '-' where nobody knows."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) and abs(value) < 10 else f"{value:,.0f}"
