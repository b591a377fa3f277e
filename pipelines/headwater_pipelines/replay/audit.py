"""Whether a view is its query, found out bit by bit: the rows of one part of its keys at a time, all parts in turn.

    keys ── hash ──▶ parts of about two million records ──▶ are the query's rows the view's, at one commit?

A rotation is through once each part was compared, so that every row was looked at since it began. A part that differs
is compared first the next time, until it is right. What is known is kept by the view's id: one that was promoted, or
has another definition, begins anew. A view in which time decides cannot be asked for by parts: it is made anew from
the log as a whole, if it is small enough for that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import duckdb
from sqlalchemy import select

from headwater.catalog import tables
from headwater.config import Project, Settings
from headwater.errors import HeadwaterError, NotYet, PipelineError
from headwater.lake import Lake
from headwater.lake.status import AUDIT
from headwater.log import Log
from headwater_pipelines.compiler.syntax import message
from headwater_pipelines.replay import replay
from headwater_pipelines.replay.comparison import Comparison, compare, parted
from headwater_pipelines.replay.rows import Rows, is_timeless
from headwater_pipelines.runtime import registry

PART_ROWS = 2_000_000
"""Records that are read for a part, about: a second of one core."""
PARTS_MAX = 256
BUILD_ROWS_MAX = 5_000_000
"""Records of a view in which time decides, beyond which only a replay that somebody asks for compares it."""
ROUND_S = 3.0
"""What a round of housekeeping compares at most, to the end of a part: sealing waits for it."""
SHARE = 0.01
"""Of one core: a part that took a second is due again after a hundred, or when its promise says so."""
AGAIN_S = 30.0
"""... but no sooner."""
PROMISE_S = 86_400.0
"""Where nothing is promised (``compared_within_s`` 0)."""
TEXT_MAX = 200
"""Of a value in a sample."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What is known. Times are Unix seconds, 0 for never."""

    parts: int = 1
    part: int = 0
    """The one that comes next; as many as there are parts: the rotation is through."""
    began: float = 0.0
    whole_since: float = 0.0
    """Every row has been compared since then: the beginning of the newest rotation that is through."""
    at: float = 0.0
    commit: int = 0
    rows: int = 0
    """Of the newest part; ``seconds`` are what it took."""
    seconds: float = 0.0
    differing: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By part: ``commit``, ``missing``, ``extra``, ``sample``."""
    trouble: str = ""
    """Why it could not be compared the last time."""


def known(log: Log, view_id: int) -> Audited:
    """What is known of a view; ``at`` is 0 while it was never compared."""
    text = log.setting(f"{AUDIT}{view_id}")
    return Audited() if text is None else Audited(**json.loads(text))


def audit(log: Log, settings: Settings, name: str) -> Comparison:
    """Compare all rows of a view with its query, now, and keep what came of it.

    The errors of ``replay.plan``, and of the query itself.
    """
    wanted = replay.plan(log, name, None, log.newest_commit())
    began = time.time()
    found = _compared(log, settings, wanted, 1, 0)
    keep(log, wanted, found, began)
    return found


def keep(log: Log, wanted: replay.Plan, found: Comparison, began: float) -> None:
    """Keep a comparison of all rows that somebody has made, which began at this Unix time."""
    whole = Audited(part=1, began=began, whole_since=began)
    _store(log, wanted.view.id, _with(whole, wanted, found, 0, began))


def housekeep(project: Project, log: Log) -> dict[str, int]:
    """One round: what is due, what differs first, until the round's time is over. ``compared``: parts of views."""
    began, done = time.monotonic(), 0
    _forget_gone(log)
    for wanted, found in _due(log, project):
        _next(log, project.settings, wanted, found)
        done += 1
        if time.monotonic() - began > ROUND_S:
            break
    return {"compared": done}


def _forget_gone(log: Log) -> None:
    """Remove what is kept of views that were dropped or replaced: each has an id of its own, for ever."""
    living = {f"{AUDIT}{view.id}" for view in log.views()}
    with log.catalog.read() as connection:
        kept = connection.execute(
            select(tables.setting.c.name).where(tables.setting.c.name.startswith(AUDIT))
        ).scalars()
        gone = [name for name in kept if name not in living]
    for name in gone:
        log.set_setting(name, None)


def _due(log: Log, project: Project) -> Iterator[tuple[replay.Plan, Audited]]:
    now = time.time()
    live = [(view, known(log, view.id)) for view in log.views() if view.state == "live" and view.topic]
    due = [(view, found) for view, found in live if now >= found.at + _pause(project, view.name, found)]
    if not due:
        return
    stop = log.newest_commit()
    compiled = registry.compile_all(log, log.views(stop))
    for view, found in sorted(due, key=lambda each: (not each[1].differing, each[1].at)):
        try:
            yield replay.plan(log, view.name, None, stop, compiled), found
        except NotYet:
            continue
        except HeadwaterError as error:  # kept and shown: what cannot be compared may be anything
            _store(log, view.id, replace(found, at=now, trouble=str(error)))


def _pause(project: Project, name: str, found: Audited) -> float:
    """Seconds between two parts: a hundredth of a core, and at least twice as fast as is promised."""
    promised = project.slo(f"views.{name}").compared_within_s or PROMISE_S
    return min(max(AGAIN_S, found.seconds / SHARE), promised / (2 * found.parts))


def _next(log: Log, settings: Settings, wanted: replay.Plan, found: Audited) -> None:
    """Compare the next part, and one that differed; keep what came of it."""
    if found.part in (0, found.parts):
        found = replace(found, part=0, began=time.time(), parts=found.parts if found.differing else _parts(log, wanted))
    turn, wrong = found.part, min(map(int, found.differing), default=found.part)
    for part in sorted({turn, wrong}):
        began = time.time()
        try:
            found = _with(found, wanted, _compared(log, settings, wanted, found.parts, part), part, began)
        except HeadwaterError as error:
            found = replace(found, at=time.time(), trouble=str(error), seconds=time.time() - began)
            break
    else:
        whole = found.began if turn + 1 == found.parts else found.whole_since
        found = replace(found, part=turn + 1, whole_since=whole)
    _store(log, wanted.view.id, found)


def _parts(log: Log, wanted: replay.Plan) -> int:
    return min(PARTS_MAX, 1 + wanted.rows // PART_ROWS) if is_timeless(log, wanted.compiled) else 1


def _compared(log: Log, settings: Settings, wanted: replay.Plan, parts: int, part: int) -> Comparison:
    """The rows of one part as the query has them, and as a reader sees them, at the view's newest step."""
    where = parted(wanted.compiled, parts, part)
    by_query = is_timeless(log, wanted.compiled)
    if not by_query and wanted.rows > BUILD_ROWS_MAX:
        what = f"time decides in it, and to make {wanted.rows:,} records anew takes too long beside everything else"
        raise PipelineError(what, todo=f"`headwater replay {wanted.view.name}` compares it.")
    with replay.workplace(log) as folder, Lake(log) as lake:
        rows = Rows(log, lake, wanted.view, wanted.compiled, folder, settings, lambda _: None, by_query=by_query)
        try:
            made = rows.make(wanted.start, wanted.step, where)
            return compare(lake, wanted.compiled, made, wanted.step.publish_commit, where)
        except duckdb.Error as error:  # memory above all: maintenance goes on, and the view's check says it
            raise PipelineError(f"view {wanted.view.name} could not be compared: {message(error)}") from error
        finally:
            rows.close()


def _with(found: Audited, wanted: replay.Plan, compared: Comparison, part: int, began: float) -> Audited:
    differing = {key: value for key, value in found.differing.items() if key != str(part)}
    if not compared.is_same:
        sample = [{name: str(value)[:TEXT_MAX] for name, value in row.items()} for row in compared.sample]
        counts = {"commit": wanted.stop, "missing": compared.missing, "extra": compared.extra}
        differing[str(part)] = {**counts, "sample": sample}
    return replace(
        found,
        at=time.time(),
        commit=wanted.stop,
        rows=compared.replayed.rows,
        seconds=time.time() - began,
        differing=differing,
        trouble="",
    )


def _store(log: Log, view_id: int, found: Audited) -> None:
    log.set_setting(f"{AUDIT}{view_id}", json.dumps(asdict(found)))
