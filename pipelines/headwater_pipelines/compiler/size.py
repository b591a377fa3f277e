"""How much may be stored for a view: ``WITH (state_limit = '2 GB')``."""

from __future__ import annotations

import re
from collections.abc import Mapping

OPTION = "state_limit"
_UNITS = {"": 1, "K": 1_000, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]I?|)B?", re.IGNORECASE)


def parse(text: str) -> int | None:
    """Bytes; None when the text is no size, or none at all."""
    found = _SIZE.fullmatch(text.strip())
    return int(float(found[1]) * _UNITS[found[2].upper()]) or None if found else None


def of(options: Mapping[str, str]) -> int | None:
    """The view's own limit in bytes, if it has one."""
    return parse(options.get(OPTION, ""))


def shown(count: int) -> str:
    """Bytes as they are read: 1.2 GB."""
    for unit, word in ((10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if count >= unit:
            return f"{count / unit:.1f} {word}"
    return f"{count} B"
