"""What is to know of a call of TUMBLE, HOP or SESSION to say when its windows are closed.

Lengths are months, days and microseconds, by what they are of the call: size, slide, offset, gap.
"""

from __future__ import annotations

from collections.abc import Mapping

from headwater_pipelines.compiler.syntax import Tree, is_column

Length = tuple[int, int, int]


def topic(table: Tree, time: str) -> list[str] | None:
    """The name of the table whose column ``time`` is, as it stands there or in a plain query over it."""
    inner = table
    if inner.get("type") == "SUBQUERY":
        query = inner["subquery"]["node"]
        plain = query["type"] == "SELECT_NODE" and not query.get("group_expressions")
        shown = [each for each in query.get("select_list") or () if _shows(each, time)]
        inner = query["from_table"] if plain and shown else {}
    path: list[str] | None = (inner.get("qualified_name") or {}).get("path")
    return path if inner.get("type") == "BASE_TABLE" else None


def longest_us(lengths: Mapping[str, Length]) -> int:
    """No window is longer, and none ends so many microseconds after the one before; 0 where there is no limit."""
    longest = 0
    for name in ("size", "slide") if "size" in lengths else ():
        months, days, micros = lengths.get(name, (0, 0, 0))
        slack = 1 if months or days else 0  # where clocks are changed some days are longer
        longest = max(longest, ((months * 31) + days + slack) * 86_400_000_000 + micros)
    return longest


def ends(lengths: Mapping[str, Length], kind: str) -> tuple[str, str]:
    """The type of window ends, and SQL of the last one at or before ``{at}``; '' where they are on no grid."""
    zone = "TIMESTAMP WITH TIME ZONE" if kind.endswith("ZONE") else "TIMESTAMP"
    if "size" not in lengths or any(months or days for months, days, _ in lengths.values()):
        return zone, ""
    slide = lengths.get("slide", lengths["size"])
    steps = " + ".join(f"INTERVAL '{words(lengths[name])}'" for name in ("size", "offset") if name in lengths)
    return zone, f"time_bucket(INTERVAL '{words(slide)}', {{at}}, CAST('1970-01-01' AS {zone}) + {steps})"


def words(length: tuple[int, int, int]) -> str:
    """Months, days and microseconds as an interval is written."""
    months, days, micros = length
    parts = [(months, "months"), (days, "days"), (micros // 1_000_000, "seconds"), (micros % 1_000_000, "microseconds")]
    return " ".join(f"{count} {word}" for count, word in parts if count) or "0 seconds"


def _shows(expression: Tree, column: str) -> bool:
    """Whether an entry of a select list is a column under its own name."""
    name = column.rpartition(".")[2].strip('"').lower()
    if expression.get("class") == "STAR":
        replaced = {entry["key"].lower() for entry in expression.get("replace_list") or ()}
        return not expression.get("columns") and not expression.get("rename_list") and name not in replaced
    own = is_column(expression) and str(expression["column_names"][-1]).lower() == name
    return own and str(expression.get("alias") or name).lower() == name
