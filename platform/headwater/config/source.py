"""A source as the project declares it: what is captured, and how."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from headwater.config.settings import MIB
from headwater.errors import ConfigError

REFUSED_SOURCE_NAMES = frozenset({"log", "history", "main", "temp", "system", "views", "jobs"})
PARTITIONS_MAX = 256
"""Of a topic: each is a segment file per seal; more would be many small files."""
PREFIX_BYTES_MAX = 1_000
"""Of a logical message's prefix that a topic is told for."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PASSWORD_IN_URL = re.compile(r"(?P<head>\w+://[^:/@\s]*:)[^@\s]*(?=@)")
_PASSWORD_IN_PAIRS = re.compile(r"(?P<head>\b(?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*'|[^\s&]+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class TableConfig:
    """What the project says about one captured table."""

    partitions: int = 1
    """Partitions of its topic; rows go to one by the hash of their key, so order per key is kept."""
    columns: tuple[str, ...] = ()
    """The columns that are captured, the key's among them; empty: all."""
    where: str = ""
    """An SQL condition on the row, which the server evaluates: only rows that fulfil it are captured; empty: all."""


@dataclass(frozen=True, kw_only=True)
class OutboxConfig:
    """A table whose inserted rows are events: their topics, and the columns that say what each is."""

    topic: str = ""
    """Where they go; ``{}`` stands for the value of the column ``by``. Empty: ``<source>.events.{}``."""
    by: str = "aggregatetype"
    key: str = "aggregateid"
    type: str = "type"
    payload: str = "payload"
    id: str = "id"


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One ``[source.NAME]``. ``dsn`` and ``standby_dsn`` are never shown."""

    name: str
    kind: str = "postgres"
    dsn: str = field(default="", repr=False)
    standby_dsn: str = field(default="", repr=False)
    """A standby of that server, which decodes its changes instead of it; empty: it does so itself."""
    copy_from: str = "primary"
    """primary or standby: where the rows of a copy are read, with a ``standby_dsn``."""
    tables: tuple[str, ...] = ("public.*",)
    mode: str = "auto"
    """auto, binary or text: how changes are sent. auto: binary when every type has a decoder."""
    silence_s: float = 60.0
    """A server that answers nothing for so long, asked again and again, is taken for gone: the session begins anew."""
    on_gap: str = "stop"
    """stop or repair: what becomes of a source whose slot was lost. repair: a new slot, and every table compared with
    the server; where that has another history than the one captured, only when it is asked for."""
    failover: bool = True
    """The slot is one that standbys keep copies of, on servers that know them (PostgreSQL 17)."""
    wal_warn_bytes: int = 4096 * MIB
    """WAL that the server keeps for the slot, beyond which status and log warn; 0: never. A disk fills in hours."""
    wal_drop_bytes: int = 0
    """... beyond which the slot is dropped, whatever the capture does, so that the server can go on; 0: never."""
    table: Mapping[str, TableConfig] = field(default_factory=lambda: MappingProxyType({}))
    """Settings by table, keyed by "namespace.table"."""
    origin: str = "any"
    """any, or none: leave out what the server itself received by replication (PostgreSQL 16 and later)."""
    ddl_capture: str = "auto"
    """auto, trigger or off: how DDL without rows after it is noticed. trigger: at its place in the stream, by an event
    trigger, which is made. auto: so where somebody has made one. off: there is none. Each time also by looking."""
    messages: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Topics of the logical messages that the application sends in its transactions, by prefix."""
    outbox: Mapping[str, OutboxConfig] = field(default_factory=lambda: MappingProxyType({}))
    """Outbox tables, keyed by "namespace.table"."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """Patterns of every table that is to be captured."""
        return (*self.tables, *self.outbox)

    @property
    def decoding_dsn(self) -> str:
        """Where the replication slot is."""
        return self.standby_dsn or self.dsn

    @property
    def dsn_shown(self) -> str:
        """The connection string without its password, for messages."""
        return mask(self.dsn)

    def table_config(self, full_name: str) -> TableConfig:
        """Settings of "namespace.table"; the defaults when the project says nothing."""
        return self.table.get(full_name, TableConfig())

    def __repr__(self) -> str:
        return f"SourceConfig(name={self.name!r}, kind={self.kind!r}, dsn={self.dsn_shown!r}, tables={self.tables!r})"


def mask(text: str) -> str:
    """``text`` with the passwords of connection strings in it replaced by ``***``."""
    return _PASSWORD_IN_PAIRS.sub(r"\g<head>***", _PASSWORD_IN_URL.sub(r"\g<head>***", text))


def check_source_name(name: str, where: str) -> None:
    """Raise ConfigError when a source cannot be called ``name``."""
    if name in REFUSED_SOURCE_NAMES:
        raise ConfigError(
            f"a source cannot be called {name!r}: queries use that name for something else",
            where=where,
            todo="Choose another name.",
        )
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no source name",
            where=where,
            todo="Use lower-case letters, digits and _, beginning with a letter.",
        )
