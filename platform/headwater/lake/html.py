"""A query's answer as static HTML: readable without JavaScript, in a light or a dark page, on paper.

Only inline styles (notebook hosts strip style elements and scripts from what they do not trust), colours from
the host where it has any and otherwise relative to the text's own, so that both light and dark pages work.
Everything that came from data is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

CELL_CHARACTERS_MAX: Final = 300
"""A longer cell is cut and marked with an ellipsis: the table is for reading, the Result holds everything."""

_NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
            "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL")  # fmt: skip
_LINE: Final = "1px solid var(--jp-border-color2, var(--vscode-panel-border, rgba(128, 128, 128, 0.3)))"
_DIM: Final = "color: var(--jp-ui-font-color2, var(--vscode-descriptionForeground, inherit)); opacity: 0.8"
_TABLE: Final = (
    "border-collapse: collapse; border: 0; margin: 0; font-size: 13px; width: auto; table-layout: auto;"
    " overflow-wrap: break-word; font-variant-numeric: tabular-nums"
)
_ROW: Final = f"background: transparent; border-bottom: {_LINE}"
_HEAD: Final = (
    f"padding: 4px 12px; border: 0; border-bottom: {_LINE}; vertical-align: bottom; font-weight: 600;"
    " white-space: nowrap; background: transparent"
)
_CELL: Final = "padding: 3px 12px; border: 0; white-space: pre-wrap; max-width: 32em; vertical-align: top"
"""Only what hosts set on cells themselves: it stands in every one, and a saved notebook keeps them all."""


def render(
    columns: Sequence[str],
    types: Sequence[str],
    rows: Sequence[Sequence[str | None]],
    total: int,
    shown: int,
    position: int,
    notices: Sequence[str] = (),
) -> str:
    """An HTML table of ``rows`` with column names, types, how much of the answer this is, and what is to know of it.

    Args:
        columns: names, in order.
        types: DuckDB types of the columns; numbers are set to the right.
        rows: exact texts, None for NULL.
        total: rows of the whole answer.
        shown: how many of them are in ``rows``.
        position: the commit at which the answer is true.
        notices: sentences below it.
    """
    return render_table(columns, types, rows, f"{_extent(total, shown)} · position {position:,}", notices)


def render_table(
    columns: Sequence[str],
    types: Sequence[str],
    rows: Sequence[Sequence[str | None]],
    extent: str,
    notices: Sequence[str] = (),
    *,
    typed: bool = True,
) -> str:
    """The same of any rows; ``extent`` says how many there are of what. ``typed``: types stand below the names."""
    sides = ["right" if kind.split("(")[0] in _NUMERIC else "left" for kind in types]
    head = "".join(
        _title(name, kind if typed else "", side) for name, kind, side in zip(columns, types, sides, strict=True)
    )
    body = "".join(f'<tr style="{_ROW}">{_line(row, sides)}</tr>' for row in rows)
    return (
        '<div class="headwater-result" style="overflow-x: auto">'
        f'<table style="{_TABLE}"><thead><tr style="background: transparent">{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
        f'<div style="padding: 5px 12px; font-size: 12px; {_DIM}">{escape(extent)}</div>'
        + "".join(f'<div style="padding: 0 12px 5px; font-size: 12px">{escape(text)}</div>' for text in notices)
        + "</div>"
    )


def _title(name: str, kind: str, side: str) -> str:
    below = f'<br><span style="font-size: 10.5px; font-weight: 400; {_DIM}">{escape(kind.lower())}</span>'
    return f'<th scope="col" style="{_HEAD}; text-align: {side}">{escape(name)}{below if kind else ""}</th>'


def _line(row: Sequence[str | None], sides: Sequence[str]) -> str:
    return "".join(_cell(value, side) for value, side in zip(row, sides, strict=True))


def _cell(value: str | None, side: str) -> str:
    if value is None:
        return f'<td style="{_CELL}; text-align: {side}"><i style="font-size: 11px; opacity: 0.8">NULL</i></td>'
    text = value if len(value) <= CELL_CHARACTERS_MAX else value[:CELL_CHARACTERS_MAX] + "…"
    return f'<td style="{_CELL}; text-align: {side}">{escape(text)}</td>'


def _extent(total: int, shown: int) -> str:
    if shown < total:
        return f"showing {shown:,} of {total:,} rows"
    return f"{total:,} {'row' if total == 1 else 'rows'}"
