"""When a view is brought up to date: ``WITH (refresh = 'continuous' | 'manual' | 'every 5 minutes')``."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECONDS = {"second": 1, "sec": 1, "s": 1, "minute": 60, "min": 60, "hour": 3600, "h": 3600, "day": 86_400, "d": 86_400}
_EVERY = re.compile(r"every (?:(\d+) ?)?([a-z]+?)s?", re.IGNORECASE)


def canonical(text: str) -> str | None:
    """``continuous``, ``manual`` or ``every N second|minute|hour|day(s)``; None when the text is none of them."""
    plain = " ".join(text.lower().split())
    if plain in ("continuous", "manual"):
        return plain
    found = _EVERY.fullmatch(plain)
    unit = _SECONDS.get(found[2] or "s") if found else None
    if not found or unit is None or (count := int(found[1] or 1)) == 0:
        return None
    word = next(name for name, seconds in _SECONDS.items() if seconds == unit)
    return f"every {count} {word}{'' if count == 1 else 's'}"


def is_continuous(options: Mapping[str, str]) -> bool:
    """Whether every step brings the view up to date."""
    return options.get("refresh", "continuous") == "continuous"


def every_s(options: Mapping[str, str]) -> int | None:
    """Seconds from one refresh to the next; None for a view that is refreshed all the time, or by hand."""
    found = _EVERY.fullmatch(options.get("refresh", ""))
    return int(found[1] or 1) * _SECONDS[found[2] or "s"] if found else None
