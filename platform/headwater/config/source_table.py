"""A source's part of the file: every key of ``[source.NAME]``, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headwater.config import document
from headwater.config.settings import MIB
from headwater.config.source import (
    PARTITIONS_MAX,
    PREFIX_BYTES_MAX,
    OutboxConfig,
    SourceConfig,
    TableConfig,
    check_source_name,
)
from headwater.errors import ConfigError


def source(name: str, table: dict[str, Any], path: Path, environ: Mapping[str, str]) -> SourceConfig:
    """The source that this table declares; its connection strings may be in the environment. ConfigError."""
    check_source_name(name, str(path))
    section = f"source.{name}"
    document.known(table, [each.name for each in fields(SourceConfig) if each.name != "name"], path, section)
    tables = table.get("tables", ["public.*"])
    if not isinstance(tables, list) or not all(isinstance(each, str) for each in tables):
        raise ConfigError(
            f"tables of [{section}] is not a list of texts",
            where=str(path),
            todo='Write tables = ["public.*"].',
        )
    variable = f"HEADWATER_SOURCE_{name.upper()}_DSN"
    standby_dsn = environ.get(variable.replace("_DSN", "_STANDBY_DSN")) or document.typed(
        table.get("standby_dsn", ""), str, "standby_dsn", str(path)
    )
    copy_from = document.one_of(("primary", "standby"), table, "copy_from", section, path)
    if copy_from == "standby" and not standby_dsn:
        todo = "Write standby_dsn as well, or leave copy_from out."
        raise ConfigError(f"copy_from = 'standby' in [{section}] without a standby_dsn", where=str(path), todo=todo)
    return SourceConfig(
        name=name,
        kind=document.typed(table.get("kind", "postgres"), str, "kind", str(path)),
        dsn=environ.get(variable) or document.typed(table.get("dsn", ""), str, "dsn", str(path)),
        standby_dsn=standby_dsn,
        copy_from=copy_from,
        tables=tuple(tables),
        mode=document.one_of(("auto", "binary", "text"), table, "mode", section, path),
        origin=document.one_of(("any", "none"), table, "origin", section, path),
        ddl_capture=document.one_of(("auto", "trigger", "off"), table, "ddl_capture", section, path),
        on_gap=document.one_of(("stop", "repair"), table, "on_gap", section, path),
        failover=document.typed(table.get("failover", True), bool, "failover", str(path)),
        silence_s=document.number(table, "silence_s", 60.0, 1, section, path),
        wal_warn_bytes=int(document.number(table, "wal_warn_bytes", 4096 * MIB, 0, section, path)),
        wal_drop_bytes=int(document.number(table, "wal_drop_bytes", 0, 0, section, path)),
        table=MappingProxyType(
            {
                key: _table_config(key, value, path, section)
                for key, value in document.table(table, "table", path).items()
            }
        ),
        messages=MappingProxyType(_messages(document.table(table, "messages", path), path, section)),
        outbox=MappingProxyType(
            {key: _outbox(key, value, path, section) for key, value in document.table(table, "outbox", path).items()}
        ),
    )


def _messages(table: dict[str, Any], path: Path, section: str) -> dict[str, str]:
    for prefix in table:
        if prefix.startswith("headwater.") or not 0 < len(prefix.encode()) <= PREFIX_BYTES_MAX:
            raise ConfigError(
                f"messages with the prefix {prefix!r} cannot have a topic in [{section}.messages]",
                where=str(path),
                todo=f"Use 1 to {PREFIX_BYTES_MAX} bytes, and none that begins with headwater.",
            )
    return {
        prefix: document.typed(topic, str, f"the topic of {prefix!r}", str(path)) for prefix, topic in table.items()
    }


def _outbox(key: str, value: Any, path: Path, section: str) -> OutboxConfig:
    place = f'{section}.outbox."{key}"'
    if not isinstance(value, dict):
        raise ConfigError(f"[{place}] must be a table", where=str(path), todo=f"Write [{place}], with or without keys.")
    document.known(value, [each.name for each in fields(OutboxConfig)], path, place)
    given = {name: document.typed(text, str, f"{name} of [{place}]", str(path)) for name, text in value.items()}
    if given.get("topic", "{}").count("{}") > 1:
        todo = "Write {} once, for the value of the column that says which topic, or not at all."
        raise ConfigError(f"topic = {given['topic']!r} in [{place}]", where=str(path), todo=todo)
    return OutboxConfig(**given)


def _table_config(key: str, value: Any, path: Path, section: str) -> TableConfig:
    place = f'{section}.table."{key}"'
    if not isinstance(value, dict):
        raise ConfigError(f"[{place}] must be a table", where=str(path), todo=f"Write [{place}] and partitions = 4.")
    document.known(value, [each.name for each in fields(TableConfig)], path, place)
    partitions = document.typed(value.get("partitions", 1), int, f"partitions of [{place}]", str(path))
    if not 1 <= partitions <= PARTITIONS_MAX:
        todo = f"Use 1 to {PARTITIONS_MAX}."
        raise ConfigError(f"partitions = {partitions} in [{place}]", where=str(path), todo=todo)
    columns = value.get("columns", [])
    if not isinstance(columns, list) or not all(isinstance(each, str) for each in columns):
        raise ConfigError(
            f"columns of [{place}] is not a list of texts", where=str(path), todo='Write columns = ["id", "name"].'
        )
    where = document.typed(value.get("where", ""), str, f"where of [{place}]", str(path))
    return TableConfig(partitions=partitions, columns=tuple(columns), where=where)
