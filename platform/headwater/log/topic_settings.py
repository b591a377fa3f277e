"""Topic settings as people write them: ``retention="7 days"``, ``seal_bytes="64MB"``, ``cleanup="compact"``.

A setting that is a time may be a number of seconds or a text with a unit; one that is a size a number of bytes or a
text with a unit of 1024s; ``none`` takes a limit away. A name nobody knows is refused with the nearest known one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import timedelta
from types import NoneType
from typing import Any, Final, get_args, get_type_hints

from headwater.catalog.records import Kind, TopicSettings
from headwater.errors import UsageError
from headwater.schema import Schema

Value = str | int | float | timedelta | None
"""What a setting can be given as."""

UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
UNITS_BYTES: Final = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}

_WORDS_S = {"millisecond": "ms", "second": "s", "sec": "s", "minute": "m", "hour": "h", "day": "d", "week": "w"}
_WITH_UNIT = re.compile(r"(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?) *(?P<unit>[a-z]*)")
_HINTS = get_type_hints(TopicSettings)

NAMES: Final = {f.name.removesuffix("_s"): f.name for f in fields(TopicSettings)}
"""As people write them, and the field that each is."""

ABOUT: Final = ("description", "owner", "criticality", "classification")
"""What can be said about a topic beside its settings; nothing depends on it."""


def parse(given: Mapping[str, Value], now: TopicSettings | None = None) -> TopicSettings:
    """``now`` (the defaults) with these changed; UsageError says which setting is unknown or makes no sense."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        field = NAMES.get(name.removesuffix("_s"))
        if field is None:
            known = [*NAMES, *ABOUT]
            near = difflib.get_close_matches(name, known, n=1)
            todo = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            raise UsageError(f"a topic has no setting {name!r}", todo=todo)
        values[field] = _value(field, value)
    return replace(now or TopicSettings(), **values)


def check(settings: TopicSettings, kind: Kind, schema: Schema, where: str) -> None:
    """UsageError for settings that a topic of this kind and schema cannot have."""
    compacted = settings.cleanup != "delete"
    if compacted and not (schema.key and kind in ("event", "table")):
        why = "it has no key" if kind in ("event", "table") else f"it is a {kind} topic"
        raise UsageError(
            f"cleanup = {settings.cleanup} needs a key to keep the newest record of: {why}",
            where=where,
            todo="Give it a key, or use cleanup = delete.",
        )
    if settings.dedupe_s is not None and kind != "event":
        raise UsageError(f"dedupe is for event topics, this is a {kind} topic", where=where, todo="Leave it out.")


def shown(settings: TopicSettings) -> dict[str, str | int]:
    """The settings that differ from the defaults, as people write them; ``parse`` reads them back."""
    chosen = {name: getattr(settings, field) for name, field in NAMES.items()}
    default = TopicSettings()
    return {
        name: duration(value) if NAMES[name].endswith("_s") else value
        for name, value in chosen.items()
        if value != getattr(default, NAMES[name])
    }


def duration(seconds: float | None) -> str:
    """Seconds in the largest unit that tells them exactly: 7d, 90m, 1.5s."""
    if seconds is None:
        return "none"
    for unit in ("d", "h", "m"):
        if seconds and seconds % UNITS_S[unit] == 0:
            return f"{seconds / UNITS_S[unit]:g}{unit}"
    return f"{seconds:g}s"


def _value(field: str, value: Value) -> Any:
    hint = _HINTS[field]
    words = get_args(hint) if isinstance(next(iter(get_args(hint)), None), str) else ()
    name = field.removesuffix("_s")
    if words:
        return _word(name, value, words)
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        if NoneType not in get_args(hint):
            raise UsageError(f"{name} cannot be none", todo="Give it a value.")
        return None
    number = seconds(name, value) if field.endswith("_s") else _size(name, value)
    if number < 0 or (number == 0 and field not in ("delete_retention_s", "compaction_lag_s")):
        raise UsageError(f"{name} = {value} is out of range", todo="Use more than 0, or none for no limit.")
    return number


def _word(name: str, value: Value, words: tuple[str, ...]) -> str:
    found = {word.lower(): word for word in words}.get(str(value).strip().lower())
    if found is None:
        near = difflib.get_close_matches(str(value).lower(), [word.lower() for word in words], n=1)
        told = f" Did you mean {next(w for w in words if w.lower() == near[0])}?" if near else ""
        raise UsageError(f"{name} = {value!r} is not known", todo=f"Use one of {', '.join(words)}.{told}")
    return found


def seconds(name: str, value: str | float | timedelta) -> float:
    """A length of time as people write it: "7d", "24 hours", "90s", a number of seconds. UsageError names it."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    number, unit = _split(name, value, "a time", 'Write it like "7d", "24 hours", "90s", or as seconds.')
    word = unit if unit in UNITS_S else _WORDS_S.get(unit.removesuffix("s"), unit)
    if word not in UNITS_S and word:
        raise UsageError(f"{name} = {value!r} has no unit of time", todo=f"Units: {', '.join(UNITS_S)}.")
    return number * UNITS_S[word or "s"]


def _size(name: str, value: str | float | timedelta) -> int:
    todo = 'Write it like "64MB", "1 GB", or as bytes.'
    number, unit = _split(name, value, "a size", todo)
    word = unit.replace("ib", "b")
    if word not in UNITS_BYTES and word:
        raise UsageError(f"{name} = {value!r} has no unit of size", todo=f"Units: {', '.join(UNITS_BYTES)}.")
    return int(number * UNITS_BYTES[word or "b"])


def _split(name: str, value: object, what: str, todo: str) -> tuple[float, str]:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{name} = {value!r} is not {what}", todo=todo)
    if not isinstance(value, str):
        return float(value), ""
    found = _WITH_UNIT.fullmatch(value.strip().lower())
    if found is None:
        raise UsageError(f"{name} = {value!r} is not {what}", todo=todo)
    return float(found["number"].replace("_", "")), found["unit"]
