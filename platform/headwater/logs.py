"""Log lines: one format for people, one JSON object per line for machines, the same fields in both.

A line has a time, a level, the component it comes from, a message, and whatever of commit, lsn, topic, view
... (``metrics.LOG_FIELDS``) the caller gave as ``extra``. Passwords of connection strings never reach a line.

A component under a supervisor always writes JSON to its file; the supervisor shows it in the form asked for.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from headwater.config import mask
from headwater.metrics import COMPONENT, LOG_FIELDS

FORMAT_VARIABLE = "HEADWATER_LOG_FORMAT"
COMPONENT_VARIABLE = "HEADWATER_COMPONENT"
"""Set by the supervisor: the component's name. Its presence means: you are supervised, write JSON lines."""
ROOT = "headwater"
_LEVELS = {"WARNING": "warn", "CRITICAL": "fatal"}


def logger(name: str = "") -> logging.Logger:
    """The logger of a room: ``logger('capture')``. Fields go in ``extra={'commit': 12, 'topic': ...}``."""
    return logging.getLogger(f"{ROOT}.{name}" if name else ROOT)


def supervised() -> bool:
    """Whether a supervisor started this process."""
    return COMPONENT_VARIABLE in os.environ


def configure_from_environment() -> None:
    """Set up the log of this process: JSON when supervised or asked for, else text; to stderr."""
    as_json = supervised() or os.environ.get(FORMAT_VARIABLE) == "json"
    configure("json" if as_json else "text", component=os.environ.get(COMPONENT_VARIABLE, ""))


def configure(form: str, *, component: str = "", stream: TextIO | None = None) -> None:
    """Send headwater's log to ``stream`` (stderr) as ``form`` 'text' or 'json', replacing an earlier set-up."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(form, component))
    root = logging.getLogger(ROOT)
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    root.propagate = False


class LineFormatter(logging.Formatter):
    """A record as one line of text or JSON."""

    def __init__(self, form: str, component: str = "") -> None:
        super().__init__()
        self._form = form
        self._component = component

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": _LEVELS.get(record.levelname, record.levelname.lower()),
            COMPONENT: getattr(record, COMPONENT, self._component) or record.name,
            "message": mask(record.getMessage()),
        }
        line.update({name: _plain(record.__dict__[name]) for name in LOG_FIELDS if name in record.__dict__})
        if record.exc_info:
            line["traceback"] = mask(self.formatException(record.exc_info))
        return render(line, self._form)


def render(line: Mapping[str, Any], form: str) -> str:
    """A line's fields as one JSON object, or as text: time, level, component, message, then key=value."""
    if form == "json":
        return json.dumps(line, ensure_ascii=False, default=str)
    head = ("time", "level", COMPONENT, "message", "traceback")
    rest = " ".join(f"{key}={value}" for key, value in line.items() if key not in head)
    clock = str(line.get("time", ""))[:23].replace("T", " ")
    text = f"{clock} {line.get('level', ''):<5} {line.get(COMPONENT, ''):<16} {line.get('message', '')}"
    return "\n".join(filter(None, (f"{text}  {rest}".rstrip(), str(line.get("traceback", "")))))


def parse(text: str, component: str) -> dict[str, Any]:
    """A line of a component's file; what is no JSON object (a crash's own words) becomes the message of one."""
    if text.startswith("{"):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if isinstance(line, dict) and "message" in line:
            return line
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"time": now, "level": "info", COMPONENT: component, "message": mask(text)}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool, type(None), list)) else str(value)
