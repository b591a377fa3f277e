"""DuckDB connections under the lake's pinned settings.

No other module calls ``duckdb.connect``, but ``Result.texts``, which needs rows in their order, and the demo's proofs,
which are to owe the lake nothing.

Pinned because they change answers: the time zone (``timestamptz::date`` differs by it) and NULL order.
Extensions are never installed or loaded on demand: nothing is fetched at run time.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from headwater import types


def connect(
    database: str | Path = ":memory:",
    *,
    timezone: str = "UTC",
    memory_limit: str = "",
    threads: int = 0,
    temp_directory: str | Path = "",
    for_files: bool = False,
) -> duckdb.DuckDBPyConnection:
    """A connection whose answers do not depend on the process it runs in.

    ``memory_limit`` as DuckDB writes it ("1GB"); empty and 0 leave DuckDB's own default. ``for_files``: Arrow
    that leaves the connection has the types that files hold (a UUID as arrow.uuid, not as text).
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "preserve_insertion_order": False,
    }
    if memory_limit:
        config["memory_limit"] = memory_limit
    if threads:
        config["threads"] = threads
    if for_files:
        config["arrow_lossless_conversion"] = True
    if temp_directory:
        config["temp_directory"] = str(temp_directory)
    connection = duckdb.connect(str(database), config=config)
    # A cursor finds what memory holds; a file is not written to for what each connection can hold itself.
    kind = "" if str(database) == ":memory:" else "TEMP "
    for macro in types.MACROS:
        connection.execute(f"CREATE OR REPLACE {kind}{macro}")
    pin(connection, timezone)
    return connection


def pin(connection: duckdb.DuckDBPyConnection, timezone: str = "UTC") -> None:
    """Give a cursor the settings that its parent connection has but a new cursor does not inherit."""
    # Where Python has no script (python -c, a spawned process) DuckDB would write on stdout, which is ours.
    connection.execute("SET enable_progress_bar = false")
    if timezone:
        connection.execute("SET TimeZone = $zone", {"zone": timezone})
