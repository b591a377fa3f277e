"""Rows as a table in an event's metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

ROWS_SHOWN = 100
"""Of a table: an event of the log is read whole, wherever it is shown."""


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metadata with the first hundred rows under ``name``; without rows, none. What has no JSON form is its text."""
    if not rows:
        return {}
    records = [dg.TableRecord({column: _plain(value) for column, value in row.items()}) for row in rows[:ROWS_SHOWN]]
    return {name: dg.MetadataValue.table(records)}


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else str(value)
