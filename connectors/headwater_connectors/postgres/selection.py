"""A condition over a table's columns, as a person gives it in PostgreSQL's SQL: for the server and for the lake.

The two may judge a row differently (collations, functions); whoever compares by it looks every such row up by its key.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlglot
from sqlglot import exp

from headwater.errors import UsageError
from headwater_connectors.postgres.catalog import log_names
from headwater_connectors.postgres.known import Known


@dataclass(frozen=True)
class Selection:
    """``server`` in PostgreSQL's dialect, ``lake`` in DuckDB's and with the log's names."""

    server: str
    lake: str


def of(known: Known, condition: str) -> Selection:
    """Raises UsageError unless it is one condition over columns of the table, without subqueries."""
    try:
        found = sqlglot.parse(f"SELECT 1 WHERE ({condition}\n)", read="postgres")
    except sqlglot.errors.SqlglotError as error:
        raise UsageError(f"the condition cannot be read: {str(error).splitlines()[0]}") from error
    select = found[0] if len(found) == 1 else None
    if not isinstance(select, exp.Select) or {key for key, value in select.args.items() if value} - {
        "expressions", "where", "kind"
    }:  # fmt: skip
        raise UsageError("this is more than a condition", todo="""Write for example "id BETWEEN 1 AND 1000".""")
    where = select.args["where"].this
    if where.find(exp.Query) is not None:
        raise UsageError("the condition has a subquery: only columns of the table can be compared")
    columns = [column.name for column in known.columns]
    names = dict(zip(columns, log_names(columns), strict=True))
    here = where.copy()
    for column in list(here.find_all(exp.Column)):
        name = column.name if column.this.quoted else column.name.lower()
        if name not in names or column.table:
            raise UsageError(f"{known.full_name} has no column {column.sql()}")
        column.set("this", exp.to_identifier(names[name], quoted=True))
    return Selection(where.sql(dialect="postgres"), here.sql(dialect="duckdb"))
