"""A result as a text table, for terminals and logs."""

from __future__ import annotations

from collections.abc import Sequence

CELL_WIDTH_MAX = 40
_NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UBIGINT", "DECIMAL", "FLOAT", "DOUBLE")


def plain_table(
    columns: Sequence[str],
    types: Sequence[str],
    rows: Sequence[Sequence[str | None]],
    total: int,
    position: int,
    notices: Sequence[str] = (),
) -> str:
    """Names, types, rows, how many of how many and at which commit, notices."""
    shown = f"{total:,} rows" if total == len(rows) else f"showing {len(rows):,} of {total:,} rows"
    extent = f"({shown}, at commit {position})" if total != 1 else f"(1 row, at commit {position})"
    return "\n".join([*lines(columns, types, rows), extent, *notices])


def lines(
    columns: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[str | None]], *, typed: bool = True
) -> list[str]:
    """Names, types (if ``typed``) and rows; numbers to the right, NULL as such."""
    cells = [[_cell(value) for value in row] for row in rows]
    right = [name.startswith(_NUMERIC) for name in types]
    widths = [
        max([len(name), len(kind) if typed else 0, *(len(row[place]) for row in cells)])
        for place, (name, kind) in enumerate(zip(columns, types, strict=True))
    ]
    head = [_line(columns, widths, right), *([_line([t.lower() for t in types], widths, right)] if typed else [])]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    return [*head, rule, *(_line(row, widths, right) for row in cells)]


def _cell(value: str | None) -> str:
    if value is None:
        return "NULL"
    text = value.replace("\n", "⏎")
    return text if len(text) <= CELL_WIDTH_MAX else text[: CELL_WIDTH_MAX - 1] + "…"


def _line(values: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        value.rjust(width) if to_right else value.ljust(width)
        for value, width, to_right in zip(values, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()
