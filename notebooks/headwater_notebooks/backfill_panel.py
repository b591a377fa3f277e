"""A replay as a panel: what it would read, start, how far it is, what the checks found, promote or leave.

The kernel holds nothing: what is shown is read off the journal of the view's newest run. A request to start names the
run that the person saw, and one to cancel the run that it means: so a request that comes twice does nothing twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import traitlets
import xxhash

from headwater.errors import HeadwaterError, UsageError
from headwater.lake.backfill import Backfill, Plan, progress_of
from headwater.lake.backfill_run import Run
from headwater_notebooks.panel import Panel

TEXT_MAX: Final = 200
"""Of a value in the sample of rows that differ."""
COLUMNS_MAX: Final = 50


class BackfillPanel(Panel):
    """Follows the replays of one view. ``phase`` (read only): of the newest run, empty before the first."""

    module = "backfill_panel"

    phase = traitlets.Unicode("").tag(sync=True)
    _name = traitlets.Unicode("").tag(sync=True)
    _promotes = traitlets.Bool(False).tag(sync=True)
    _interval_ms = traitlets.Int(500).tag(sync=True)

    def __init__(self, backfill: Backfill, *, interval: float = 0.5) -> None:
        self.backfill = backfill
        self._planned: tuple[int, dict[str, Any]] = (-1, {})
        super().__init__(
            _name=backfill.view, _promotes=backfill.promotes, _interval_ms=max(100, round(interval * 1000))
        )

    def answer(self, op: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """``state``; ``start`` (``seen``, ``promote``, ``keep``) and ``cancel`` (``run``), answered with the state."""
        if op == "start":
            seen = request.get("seen")
            if not isinstance(seen, str):
                raise UsageError("start needs the id of the run that was seen, or an empty text")
            self.backfill.begin(promote=_flag(request, "promote"), keep=_flag(request, "keep"), seen=seen)
        elif op == "cancel":
            run = request.get("run")
            if not isinstance(run, str) or not run:
                raise UsageError("cancel needs the id of the run that it means")
            self.backfill.cancel(run)
        elif op != "state":
            return super().answer(op, request)
        return self._state(request.get("since_version") if op == "state" else None)

    def static_html(self) -> str:
        return self.backfill.static_html()

    def __repr__(self) -> str:
        return str(self.backfill)

    def _state(self, since: object) -> dict[str, Any]:
        run, position = self.backfill.state, self.backfill.lake.log.newest_commit()
        shown = {
            "asked": list(self.backfill.asked),
            "plan": self._plan(position) if run is None or run.ended else None,
            "run": None if run is None else _document(run),
        }
        version = xxhash.xxh3_64_hexdigest(json.dumps([shown, position]).encode())
        head = {"version": version, "position": str(position)}
        return {**head, "unchanged": True} if version == since else {**head, **shown}

    def _plan(self, position: int) -> dict[str, Any]:
        """Made anew only when something was committed: it takes the compiler."""
        known_at, known = self._planned
        if known_at != position:
            known = _planned(self.backfill)
            self._planned = (position, known)
        return known


def _planned(backfill: Backfill) -> dict[str, Any]:
    try:
        return _plan_document(backfill.plan())
    except HeadwaterError as error:  # a beginning that has left meanwhile
        return {"refused": str(error)}


def _plan_document(plan: Plan) -> dict[str, Any]:
    figures = {name: str(getattr(plan, name)) for name in ("after", "upto", "rows", "files", "bytes")}
    return {**figures, "seconds": plan.seconds, "text": str(plan)}


def _document(run: Run) -> dict[str, Any]:
    progress = progress_of(run)
    return {
        "id": run.id,
        "phase": run.phase,
        "ended": run.ended,
        "asked": list(run.asked),
        "after": str(run.after),
        "upto": str(run.upto),
        "rows": str(run.rows),
        "done": str(progress.done),
        "fraction": progress.fraction,
        "rows_per_s": progress.rows_per_s,
        "left_s": progress.left_s,
        "seconds": round(progress.seconds, 1),
        "finished": datetime.fromtimestamp(run.told, UTC).isoformat() if run.ended else None,
        "promote": run.promote,
        "keep": run.keep,
        "commit": str(run.commit) if run.commit else "",
        "error": run.error,
        "same": run.is_same,
        "checks": _checks(run.found) if run.found else [],
        "sample": _sample(run.found) if run.found else None,
    }


def _checks(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was compared: replayed, live, and whether they are the same. Floats are left out of the checksum."""
    replayed, live = found["replayed"], found["live"]
    pairs = [("rows", "rows"), ("different rows", "distinct"), ("checksum", "checksum")]
    checks = [
        {"name": title, "replayed": str(replayed[name]), "live": str(live[name]), "same": replayed[name] == live[name]}
        for title, name in pairs
    ]
    missing, extra = found["missing"], found["extra"]
    return [
        *checks,
        {"name": "only here", "replayed": str(missing), "live": str(extra), "same": not missing and not extra},
    ]


def _sample(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Some rows that differ, and how often each stands on both sides."""
    if not found["sample"]:
        return None
    columns = list(found["sample"][0])[:COLUMNS_MAX]
    rows = [[None if row[name] is None else str(row[name])[:TEXT_MAX] for name in columns] for row in found["sample"]]
    return {"columns": columns, "rows": rows}


def _flag(request: Mapping[str, Any], name: str) -> bool:
    value = request.get(name, False)
    if not isinstance(value, bool):
        raise UsageError(f"{name} is true or false, not {json.dumps(value, default=str)[:40]}")
    return value
