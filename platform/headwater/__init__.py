"""headwater: PostgreSQL changes in, live SQL-defined analytics out, on one machine.

    import headwater as hw
    lake = hw.open("shop")
    lake.sql("SELECT country, revenue FROM sales_by_country ORDER BY revenue DESC").pl()

General layout: ``errors``, ``types``, ``schema``, ``record`` (words) ← ``storage`` ← ``catalog`` ← ``log`` ←
``client`` (producing, consuming) ← ``lake`` (reading) ← ``service`` and ``cli`` (running). Connectors, pipelines,
notebooks and Dagster are packages of their own that plug in through entry points.

Importing this is cheap: everything heavy is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headwater.errors import HeadwaterError

if TYPE_CHECKING:
    from headwater.client.batch import Batch
    from headwater.client.consumer import Consumer
    from headwater.client.delivery import Delivery, Receipt
    from headwater.client.producer import Producer
    from headwater.jobs import Job, JobContext, JobState, job
    from headwater.lake import Lake, Result, Watch
    from headwater.lake import open_lake as open  # noqa: A004  hw.open is what people type

__all__ = [
    "Batch",
    "Consumer",
    "Delivery",
    "HeadwaterError",
    "Job",
    "JobContext",
    "JobState",
    "Lake",
    "Producer",
    "Receipt",
    "Result",
    "Watch",
    "job",
    "load_ipython_extension",
    "open",
    "unload_ipython_extension",
]

_LAZY = {
    "open": ("headwater.lake", "open_lake"),
    "Batch": ("headwater.client.batch", "Batch"),
    "Consumer": ("headwater.client.consumer", "Consumer"),
    "Delivery": ("headwater.client.delivery", "Delivery"),
    "Job": ("headwater.jobs", "Job"),
    "JobContext": ("headwater.jobs", "JobContext"),
    "JobState": ("headwater.jobs", "JobState"),
    "Lake": ("headwater.lake", "Lake"),
    "Producer": ("headwater.client.producer", "Producer"),
    "Receipt": ("headwater.client.delivery", "Receipt"),
    "Result": ("headwater.lake", "Result"),
    "Watch": ("headwater.lake", "Watch"),
    "job": ("headwater.jobs", "job"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        module, attribute = _LAZY[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'headwater' has no attribute {name!r}")


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext headwater``: the magics and panels of the notebook package."""
    _notebook("load")(shell)


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext headwater``."""
    _notebook("unload")(shell)


def _notebook(name: str) -> Any:
    from importlib.metadata import entry_points

    for entry in entry_points(group="headwater.notebook", name=name):
        return entry.load()
    raise HeadwaterError("the notebook part is not installed", todo="Install headwater with its notebooks package.")
