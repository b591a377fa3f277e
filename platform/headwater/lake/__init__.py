"""Reading a lake: SQL over tables, views and history, at one consistent position.

General layout: ``lake`` (the handle), ``resolve`` (names in a query), ``rows`` (a topic's current rows, kept
and advanced), ``history`` (every version), ``result``, ``html``, ``watch``, ``status``.

What queries needs the engine and the SQL toolkit, half a second of imports; ``status`` and ``health`` do without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.lake.lake import Lake, open_lake
    from headwater.lake.result import Result
    from headwater.lake.watch import Watch

__all__ = ["Lake", "Result", "Watch", "open_lake"]

_LAZY = {"Lake": "lake", "open_lake": "lake", "Result": "result", "Watch": "watch"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"headwater.lake.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'headwater.lake' has no attribute {name!r}")
