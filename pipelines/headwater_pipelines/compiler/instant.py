"""The statements that keep a Clock: its value in the step before, in this one, and the difference."""

from __future__ import annotations

from headwater.types import quote
from headwater_pipelines.compiler.clock import VALUE
from headwater_pipelines.compiler.plan import WEIGHT, Clock
from headwater_pipelines.compiler.render import bound, delta_table


def at(instant_us: int) -> str:
    """An instant as SQL."""
    return f"make_timestamptz({instant_us})"


def fill_sql(clock: Clock, value: str) -> str:
    """A SELECT of its row at an instant, or where the watermark is ``value``."""
    return f"SELECT {VALUE}, 1::BIGINT AS {WEIGHT} FROM ({_value_sql(clock, value)})"


def delta_sql(clock: Clock, value: str) -> str:
    """Its value before and there; nothing where they are the same."""
    old = f"(SELECT {VALUE} FROM {quote(clock.table)} GROUP BY {VALUE} HAVING sum({WEIGHT}) > 0)"
    moved = f"FROM {old} AS s, ({_value_sql(clock, value)}) AS n WHERE s.{VALUE} IS DISTINCT FROM n.{VALUE}"
    return f"SELECT s.{VALUE}, -1::BIGINT AS {WEIGHT} {moved} UNION ALL SELECT n.{VALUE}, 1::BIGINT {moved}"


def bounds_sql(clock: Clock) -> tuple[str, ...]:
    """Statements that note the least and the greatest value of the delta, for ``render``."""
    delta = quote(delta_table(clock))
    return tuple(
        f"SET VARIABLE {bound(clock, word)} = (SELECT {word}({VALUE}) FROM {delta})" for word in ("min", "max")
    )


def _value_sql(clock: Clock, value: str) -> str:
    name = "watermark" if clock.event_time else "now"
    return f"SELECT {clock.expression} AS {VALUE} FROM (SELECT {value} AS {name}) AS clock"
