"""Reading a lake: SQL over tables, views and history, at one consistent position.

General layout: ``lake`` (the handle), ``resolve`` (names in a query), ``rows`` (a topic's current rows, kept
and advanced), ``history`` (every version), ``result``, ``html``, ``watch``, ``status``.
"""

from __future__ import annotations

from headwater.lake.lake import Lake, open_lake
from headwater.lake.result import Result
from headwater.lake.watch import Watch

__all__ = ["Lake", "Result", "Watch", "open_lake"]
