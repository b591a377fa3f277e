"""Rows for the tables of the corpus: keys that meet, words that repeat, and as many as are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from benchmarks.changes import as_changes
from headwater.types import quote
from headwater_pipelines.runtime.bases import Store


def records(store: Store, name: str, count: int, rows: int, salt: int) -> pa.Table:
    """Change records with values from the row's number: keys that meet, words that repeat, a NULL now and then."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        listed = [f"{_value(name, f.name, f.type, rows, salt)} AS {quote(f.name)}" for f in store.schema.fields]
        key = "i * 7" if salt else "i"  # what changes is spread over the table
        table = connection.sql(
            f"SELECT {', '.join(listed)} FROM (SELECT {key} AS i FROM range({count}) r(i))"
        ).to_arrow_table()
    op = "u" if salt and store.base.kind == "table" else "c"
    return as_changes(table, op).select(store.reads)


WORDS: dict[str, Sequence[str]] = {
    "status": ("new", "paid", "shipped", "cancelled"), "channel": ("web", "store", "app"),
    "method": ("card", "paypal", "invoice"), "kind": ("view", "click", "purchase", "signup"),
    "page": ("/", "/cart", "/shoes", "/checkout"), "segment": ("vip", "new", "regular"),
    "category": ("shoes", "hats", "books"), "warehouse": ("A", "B"), "department": ("it", "sales", "hr"),
    "currency": ("EUR", "USD", "PLN"), "region": ("EU", "NA", "APAC"),
}  # fmt: skip


def _value(table: str, name: str, text: str, rows: int, salt: int) -> str:  # noqa: PLR0911 -- one per kind of column
    """SQL over the row's number ``i`` for a column."""
    mixed = f"(hash(i, '{name}', {salt}) % {{}})::BIGINT"
    references = {"customer_id": rows // 10, "product_id": rows // 50, "order_id": rows, "manager_id": rows // 1000}
    if (table, name) in (("items", "order_id"), ("stock", "product_id"), ("prices", "product_id")):
        return f"(i // 2)::{text}"
    if name == "line":
        return "(i % 2)::INTEGER"
    if name == "warehouse":
        return "CASE i % 2 WHEN 0 THEN 'A' ELSE 'B' END"
    if name == "valid_from":
        return "TIMESTAMP '2026-01-01' + INTERVAL 30 DAY * (i % 2)"
    if name == "id":
        return f"i::{text}"
    if table == "employees" and name == "manager_id":
        return "CASE WHEN i > 0 THEN (i // 8)::INTEGER END"
    if name in references:
        return f"({mixed.format(max(references[name], 1))})::{text}"
    if name in WORDS:
        return f"{list(WORDS[name])!r}[1 + {mixed.format(len(WORDS[name]))}]"
    if name == "country":
        return f"'C' || {'i' if table == 'regions' else mixed.format(max(rows // 5000, 5))}"
    if name == "visitor":
        return f"'v' || {mixed.format(max(rows // 20, 1))}"
    return _typed(name, text, mixed)


def _typed(name: str, text: str, mixed: str) -> str:
    if text.startswith("STRUCT"):
        geo = f"{{'lat': {mixed.format(90)}::DOUBLE, 'lon': {mixed.format(180)}::DOUBLE}}"
        return f"{{'street': 'street ' || {mixed.format(500)}, 'zip': '1' || {mixed.format(9000)}, 'geo': {geo}}}"
    amount = f"'amount', {mixed.format(50)}, 'tags', ['a', 'b']"
    later = f"INTERVAL 1 SECOND * {mixed.format(10_000_000)}"
    makers = {
        "VARCHAR[]": f"['a', 'b', 'c', 'sale'][1:{mixed.format(4)}]",
        "JSON": f"json_object('color', 'red', 'size', {mixed.format(9)}, {amount})",
        "BOOLEAN": f"{mixed.format(3)} > 0",
        "DATE": f"DATE '2026-01-01' + {mixed.format(120)}::INTEGER",
        "TIMESTAMP": f"TIMESTAMP '2026-01-01' + {later}",
        "TIMESTAMP WITH TIME ZONE": f"TIMESTAMPTZ '2026-01-01 00:00:00+00' + {later}",
        "DOUBLE": f"{mixed.format(400)} / 4.0",
        "DECIMAL(4,3)": f"({mixed.format(400)} / 1000.0)::DECIMAL(4,3)",
        "VARCHAR": f"'{name} ' || {mixed.format(1000)}",
    }
    return makers.get(text, f"{mixed.format(500)}::{text}")
