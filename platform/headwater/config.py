"""The project file: ``headwater.toml`` and the environment, read once into frozen values.

Nothing below the command line reads the environment or the file again; a ``Project`` is passed on.
A key nobody knows is refused with the nearest known one: a misspelt limit must not become the default.
Secrets never show in ``repr``, in messages or in logs; they come from the environment or libpq's own files.

    [project]                             name, lake (the log's folder, default: lake)
    [source.NAME]                         every field of ``SourceConfig``
    [source.NAME.table."public.orders"]   partitions, columns, where
    [source.NAME.messages]                topics of logical messages, by their prefix
    [source.NAME.outbox."public.outbox"]  topic, by, key, type, payload, id
    [settings]                            every field of ``Settings``
    [slo]                                 every field of ``Slo``
    [slo."shop.public.orders"]            the same, of one source, topic, view (views.NAME) or job (jobs.NAME)

Environment: ``HEADWATER_SOURCE_<NAME>_DSN`` replaces a source's dsn, ``..._STANDBY_DSN`` its standby_dsn,
``HEADWATER_<SETTING>`` a setting.
This module imports the standard library only: it is on the path of ``headwater --help``.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headwater.errors import ConfigError

FILE = "headwater.toml"
REFUSED_SOURCE_NAMES = frozenset({"log", "history", "main", "temp", "system", "views", "jobs"})
MIB = 1 << 20
PARTITIONS_MAX = 256
"""Of a topic: each is a segment file per seal; more would be many small files."""
PREFIX_BYTES_MAX = 1_000
"""Of a logical message's prefix that a topic is told for."""
_MAY_BE_ZERO = frozenset({"http_port", "linger_ms", "file_grace_s", "base_rows_min", "disk_bytes_max"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_PASSWORD_IN_URL = re.compile(r"(?P<head>\w+://[^:/@\s]*:)[^@\s]*(?=@)")
_PASSWORD_IN_PAIRS = re.compile(r"(?P<head>\b(?:ssl)?password\s*=\s*)(?:'(?:\\.|[^'\\])*'|[^\s&]+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every limit, its unit in its name and its reason beside it. The defaults are meant to be kept."""

    timezone: str = "UTC"
    """The lake's one zone: naive timestamps are in it, and every DuckDB connection is set to it."""

    # -- commits: the unit of visibility --
    linger_ms: int = 10
    """How long a quiet source waits for more before it commits: the order of an fsync, unseen by an eye."""
    commit_rows_max: int = 100_000
    """A busy source commits after this many rows: larger commits gain nothing more and delay readers."""
    commit_bytes_max: int = 32 * MIB
    """... or after this many bytes in memory; one larger source transaction is spooled to files instead."""

    # -- sealing: hot batches into Parquet segments --
    seal_commits: int = 256
    """Seal after this many commits: one topic out of 300 hot files reads in 33 ms, out of 1,500 in 118 ms."""
    seal_bytes: int = 32 * MIB
    """... or this many hot bytes: a few row groups of a segment."""
    seal_age_s: float = 60.0
    """... or when the oldest hot batch is this old, so that a quiet lake is sealed too."""
    segment_rows_max: int = 5_000_000
    """A segment's rows: bounds what sealing one topic holds in memory."""
    row_group_rows: int = 250_000
    """Parquet row group: large enough to scan at full speed, small enough for its statistics to skip some."""

    # -- bases: compacted rows of a table --
    base_changed_fraction: float = 0.1
    """A new base once this share of a table's rows changed since the last: reading folds the rest."""
    base_age_s: float = 3600.0
    """... or after this time, if anything changed at all."""
    base_rows_min: int = 100_000
    """No base below this many changes: folding them costs less than the file."""

    # -- files and history --
    file_grace_s: float = 900.0
    """A file that left the catalog is unlinked this much later: readers must finish within it."""

    time_travel_s: float = 86_400.0
    """Every position of this time can be read; an older one where a tag or a base still allows it."""
    history_s: float = 604_800.0
    """A table's changes stay this long, so that `history.` and replays reach back so far; rows stay for ever."""
    reader_expiry_s: float = 604_800.0
    """A pipeline, group or reader that has not moved for so long holds nothing back any more, and must begin anew."""
    disk_bytes_max: int = 0
    """Data files beyond this and writes are refused, reading goes on; 0: only the file system's low water counts."""
    chain_witness: str = ""
    """Where the chain's newest root is exported: a file on another medium, or "|" and a command that reads a line."""
    housekeeping_s: float = 60.0
    """Retention, compaction and archiving look for work this often: their limits are hours and days."""
    merge_passes_max: int = 8
    """Runs of small segments merged in one round of maintenance: bounds how long sealing waits for it."""
    compact_rows_max: int = 50_000_000
    """Records that one pass of compaction looks at, from a partition's beginning: bounds its time and its spill."""
    compact_dirty_fraction: float = 0.5
    """A partition is compacted once this share of its sealed records came since the last time."""
    maintenance_memory_bytes_max: int = 512 * MIB
    """DuckDB's memory limit while compacting and writing bases; beyond it, it spills."""

    # -- integrity --
    check_interval_s: float = 604_800.0
    """Every live file is read again and compared with its check sum within this time: bytes rot where nobody looks."""

    # -- reading --
    query_memory_bytes_max: int = 1024 * MIB
    """DuckDB's memory limit of one reading connection; beyond it, it spills."""
    stale_after_s: float = 60.0
    """A component without a beat for this long makes /healthz say 503."""

    # -- the pipeline --
    step_rows_target: int = 500_000
    """A step takes whole commits of up to this many rows; a larger one is a step of its own, done in slices."""
    fill_beside_rows_min: int = 100_000
    """A new view over so many records is filled beside the steps; a smaller one between two, which is quicker."""
    open_rows_max: int = 200_000
    """Rows of a stored relation that are scanned by each look-up; more are frozen in files that are searched."""
    view_state_bytes_max: int = 65_536 * MIB
    """What may be stored for one view, all that it reads included; beyond, it is paused before it fills the disk."""
    pipeline_memory_bytes_max: int = 1024 * MIB
    """What the pipeline's worker keeps of its state in memory, most of it DuckDB's; beyond it, it spills to state/."""

    job_memory_bytes_max: int = 512 * MIB
    """DuckDB's memory limit for the state of one job; beyond it, it spills to state/."""

    # -- running --
    http_port: int = 8642
    """/healthz and /metrics on 127.0.0.1; 0 picks a free port."""
    restart_limit: int = 5
    """A component that failed this often within ``restart_window_s`` is given up, loudly."""
    restart_window_s: float = 120.0
    restart_backoff_ms: int = 200
    """The first restart waits this long, each further one twice as long up to ``restart_backoff_max_ms``."""
    restart_backoff_max_ms: int = 10_000
    stop_timeout_s: float = 20.0
    """What a component gets between SIGTERM and SIGKILL: a commit and its fsyncs end well within it."""
    log_bytes_max: int = 16 * MIB
    """A component's log file is rotated at this size; one older file is kept."""
    run_history_s: float = 604_800.0
    """Dagster's runs stay this long after they ended, with their event logs: 20 MB a day of leases alone."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            least = "0 or more" if each.name in _MAY_BE_ZERO else "more than 0"
            if isinstance(value, (int, float)) and (value < 0 or (value == 0 and each.name not in _MAY_BE_ZERO)):
                raise ConfigError(
                    f"{each.name} = {value} is out of range",
                    where="[settings]",
                    todo=f"Use {least}; the default is {each.default}.",
                )
        if self.http_port > 65_535:
            raise ConfigError(f"http_port = {self.http_port} is no port", where="[settings]", todo="Use 0 to 65535.")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ConfigError(
                f"timezone = {self.timezone!r} is not known",
                where="[settings]",
                todo="Use a name of the IANA database such as 'UTC' or 'Europe/Zurich'.",
            ) from error


@dataclass(frozen=True, kw_only=True)
class Slo:
    """What is promised of sources, topics, views and jobs: what is worse is a warning, or an error. 0: not judged."""

    lag_warn_s: float = 10.0
    """Far above the 0.4 s of a healthy stream on a busy machine: seconds of lag mean that something is wrong."""
    lag_error_s: float = 60.0
    fresh_warn_s: float = 60.0
    """How old what a reader sees may be: time since the source was last heard of, and what is not taken in yet."""
    fresh_error_s: float = 600.0
    dead_letters_warn: int = 1
    """Open dead letters of a topic: somebody has to look at each."""
    dead_letters_error: int = 1_000
    watermark_ahead_s: float = 3_600.0
    """A watermark that lies further ahead of the clock is an error: one wrong event time makes all others late."""
    late_warn_share: float = 0.01
    """Of a view's records, the share that came behind its watermark."""
    compared_within_s: float = 86_400.0
    """Every row of every view is compared with its query again within this time."""
    moved_within_s: float = 0.0
    """A view that has not moved for so long is called stale by Dagster's freshness policy: only for one whose source
    is never quiet, as ``fresh_error_s`` judges the others rightly."""
    source_compared_within_s: float = 604_800.0
    """Every captured table is compared with its source again within this time, row for row; 0: only when asked to."""
    report_every_s: float = 300.0
    """Between two reports to Dagster of what has moved and is as healthy as before: its event log has no retention."""

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 0:
                raise ConfigError(
                    f"{each.name} = {getattr(self, each.name)} is out of range",
                    where="[slo]",
                    todo=f"Use 0 (not judged) or more; the default is {each.default}.",
                )


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


@dataclass(frozen=True, kw_only=True)
class Project:
    """A project folder: where it is, what it captures, its limits."""

    root: Path
    name: str
    lake_dir: Path
    sources: Mapping[str, SourceConfig]
    settings: Settings = field(default_factory=Settings)
    slos: Mapping[str, Slo] = field(default_factory=lambda: MappingProxyType({"": Slo()}))
    """By the name of what they hold for; "" for everything else."""

    def slo(self, name: str) -> Slo:
        """What is promised of a source, a topic, ``views.NAME`` or ``jobs.NAME``."""
        return self.slos.get(name) or self.slos[""]

    @property
    def file(self) -> Path:
        return self.root / FILE

    @property
    def views_dir(self) -> Path:
        return self.root / "views"

    @property
    def jobs_dir(self) -> Path:
        return self.root / "jobs"

    def job_files(self) -> list[Path]:
        """The files that may declare jobs; what begins with _ is there for the others to import."""
        return sorted(path for path in self.jobs_dir.glob("*.py") if not path.name.startswith("_"))

    def source(self, name: str) -> SourceConfig:
        """The source of that name. Raises ConfigError with the nearest declared name."""
        if name in self.sources:
            return self.sources[name]
        raise ConfigError(
            f"no source named {name!r} is declared",
            where=str(self.file),
            todo=_nearest(name, self.sources) or f"Declared sources: {', '.join(self.sources) or 'none'}.",
        )


def mask(text: str) -> str:
    """``text`` with the passwords of connection strings in it replaced by ``***``."""
    return _PASSWORD_IN_PAIRS.sub(r"\g<head>***", _PASSWORD_IN_URL.sub(r"\g<head>***", text))


def find(start: Path | None = None) -> Path:
    """The nearest folder from ``start`` (the working directory) upwards that holds a headwater.toml."""
    origin = (start or Path.cwd()).resolve()
    for folder in (origin, *origin.parents):
        if (folder / FILE).is_file():
            return folder
    raise ConfigError(
        f"no {FILE} here or in any folder above",
        where=str(origin),
        todo="Make a project with `headwater init DIR`, or name one with --project DIR.",
    )


def load(project_dir: Path | str | None = None, environ: Mapping[str, str] | None = None) -> Project:
    """Read a project. ``None`` takes the nearest headwater.toml upwards; a folder must hold one itself.

    Raises ConfigError naming the file, the key and the nearest known key.
    """
    environ = os.environ if environ is None else environ
    if project_dir is None:
        root = find()
    else:
        root = Path(project_dir).expanduser().resolve()
        if not (root / FILE).is_file():
            raise ConfigError(
                f"no {FILE} in this folder",
                where=str(root),
                todo=f"Make a project with `headwater init {root}`.",
            )
    path = root / FILE
    document = _parse(path)
    _known(document, ("project", "source", "settings", "slo"), path, "")
    project = _table(document, "project", path)
    _known(project, ("name", "lake"), path, "project")
    sources = _table(document, "source", path)
    return Project(
        root=root,
        name=str(project.get("name", root.name)),
        lake_dir=(root / Path(str(project.get("lake", "lake"))).expanduser()).resolve(),
        sources=MappingProxyType({name: _source(name, _table(sources, name, path), path, environ) for name in sources}),
        settings=_settings(_table(document, "settings", path), path, environ),
        slos=MappingProxyType(_slos(_table(document, "slo", path), path)),
    )


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file is not valid TOML: {error}", where=str(path), todo="Mend that place.") from error
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=str(path)) from error


def _table(document: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(f"{key} must be a table", where=str(path), todo=f"Write it as [{key}].")
    return value


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _known(table: Mapping[str, Any], keys: Iterable[str], path: Path, section: str) -> None:
    keys = tuple(keys)
    for key in table:
        if key not in keys:
            raise ConfigError(
                f"unknown key {key!r}" + (f" in [{section}]" if section else ""),
                where=str(path),
                todo=_nearest(key, keys) or f"Known keys: {', '.join(keys)}.",
            )


def _typed(value: Any, kind: type, key: str, path: str) -> Any:
    """``value`` as ``kind``. Text is parsed (the environment holds text); a bool is never an int."""
    try:
        if isinstance(value, str) and kind in (int, float):
            return kind(value.replace("_", ""))
        if kind is float and type(value) in (int, float):
            return float(value)
        if type(value) is kind:
            return value
    except ValueError:
        pass
    raise ConfigError(f"{key} = {value!r} is not {_KINDS[kind]}", where=path, todo="Mend the value.")


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _settings(table: dict[str, Any], path: Path, environ: Mapping[str, str]) -> Settings:
    kinds = get_type_hints(Settings)
    _known(table, kinds, path, "settings")
    values = {key: _typed(value, kinds[key], key, str(path)) for key, value in table.items()}
    for key, kind in kinds.items():
        variable = f"HEADWATER_{key.upper()}"
        if variable in environ:
            values[key] = _typed(environ[variable], kind, variable, "environment")
    return Settings(**values)


def _slos(table: dict[str, Any], path: Path) -> dict[str, Slo]:
    """Those for everything, and by name what differs from them."""
    named = {name: value for name, value in table.items() if isinstance(value, dict)}
    common = _slo({key: value for key, value in table.items() if key not in named}, path, "slo")
    return {"": Slo(**common)} | {
        name: Slo(**{**common, **_slo(value, path, f'slo."{name}"')}) for name, value in named.items()
    }


def _slo(table: dict[str, Any], path: Path, section: str) -> dict[str, Any]:
    kinds = get_type_hints(Slo)
    _known(table, kinds, path, section)
    return {key: _typed(value, kinds[key], key, str(path)) for key, value in table.items()}


def _source(name: str, table: dict[str, Any], path: Path, environ: Mapping[str, str]) -> SourceConfig:
    check_source_name(name, str(path))
    section = f"source.{name}"
    _known(table, [each.name for each in fields(SourceConfig) if each.name != "name"], path, section)
    tables = table.get("tables", ["public.*"])
    if not isinstance(tables, list) or not all(isinstance(each, str) for each in tables):
        raise ConfigError(
            f"tables of [{section}] is not a list of texts",
            where=str(path),
            todo='Write tables = ["public.*"].',
        )
    variable = f"HEADWATER_SOURCE_{name.upper()}_DSN"
    standby_dsn = environ.get(variable.replace("_DSN", "_STANDBY_DSN")) or _typed(
        table.get("standby_dsn", ""), str, "standby_dsn", str(path)
    )
    copy_from = _one_of(("primary", "standby"), table, "copy_from", section, path)
    if copy_from == "standby" and not standby_dsn:
        todo = "Write standby_dsn as well, or leave copy_from out."
        raise ConfigError(f"copy_from = 'standby' in [{section}] without a standby_dsn", where=str(path), todo=todo)
    return SourceConfig(
        name=name,
        kind=_typed(table.get("kind", "postgres"), str, "kind", str(path)),
        dsn=environ.get(variable) or _typed(table.get("dsn", ""), str, "dsn", str(path)),
        standby_dsn=standby_dsn,
        copy_from=copy_from,
        tables=tuple(tables),
        mode=_one_of(("auto", "binary", "text"), table, "mode", section, path),
        origin=_one_of(("any", "none"), table, "origin", section, path),
        ddl_capture=_one_of(("auto", "trigger", "off"), table, "ddl_capture", section, path),
        on_gap=_one_of(("stop", "repair"), table, "on_gap", section, path),
        failover=_typed(table.get("failover", True), bool, "failover", str(path)),
        silence_s=_number(table, "silence_s", 60.0, 1, section, path),
        wal_warn_bytes=int(_number(table, "wal_warn_bytes", 4096 * MIB, 0, section, path)),
        wal_drop_bytes=int(_number(table, "wal_drop_bytes", 0, 0, section, path)),
        table=MappingProxyType(
            {key: _table_config(key, value, path, section) for key, value in _table(table, "table", path).items()}
        ),
        messages=MappingProxyType(_messages(_table(table, "messages", path), path, section)),
        outbox=MappingProxyType(
            {key: _outbox(key, value, path, section) for key, value in _table(table, "outbox", path).items()}
        ),
    )


def _one_of(words: Sequence[str], table: Mapping[str, Any], key: str, section: str, path: Path) -> str:
    """The value of a key that takes one of these words, the first by default."""
    value = table.get(key, words[0])
    if value not in words:
        todo = f"Use {', '.join(words[:-1])} or {words[-1]}."
        raise ConfigError(f"{key} = {value!r} in [{section}]", where=str(path), todo=todo)
    return str(value)


def _number(table: Mapping[str, Any], key: str, default: float, least: int, section: str, path: Path) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
        unit = "seconds" if key.endswith("_s") else "bytes"
        raise ConfigError(f"{key} = {value!r} in [{section}]", where=str(path), todo=f"Use {unit}, {least} or more.")
    return float(value)


def _messages(table: dict[str, Any], path: Path, section: str) -> dict[str, str]:
    for prefix in table:
        if prefix.startswith("headwater.") or not 0 < len(prefix.encode()) <= PREFIX_BYTES_MAX:
            raise ConfigError(
                f"messages with the prefix {prefix!r} cannot have a topic in [{section}.messages]",
                where=str(path),
                todo=f"Use 1 to {PREFIX_BYTES_MAX} bytes, and none that begins with headwater.",
            )
    return {prefix: _typed(topic, str, f"the topic of {prefix!r}", str(path)) for prefix, topic in table.items()}


def _outbox(key: str, value: Any, path: Path, section: str) -> OutboxConfig:
    place = f'{section}.outbox."{key}"'
    if not isinstance(value, dict):
        raise ConfigError(f"[{place}] must be a table", where=str(path), todo=f"Write [{place}], with or without keys.")
    _known(value, [each.name for each in fields(OutboxConfig)], path, place)
    given = {name: _typed(text, str, f"{name} of [{place}]", str(path)) for name, text in value.items()}
    if given.get("topic", "{}").count("{}") > 1:
        todo = "Write {} once, for the value of the column that says which topic, or not at all."
        raise ConfigError(f"topic = {given['topic']!r} in [{place}]", where=str(path), todo=todo)
    return OutboxConfig(**given)


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


def _table_config(key: str, value: Any, path: Path, section: str) -> TableConfig:
    place = f'{section}.table."{key}"'
    if not isinstance(value, dict):
        raise ConfigError(f"[{place}] must be a table", where=str(path), todo=f"Write [{place}] and partitions = 4.")
    _known(value, [each.name for each in fields(TableConfig)], path, place)
    partitions = _typed(value.get("partitions", 1), int, f"partitions of [{place}]", str(path))
    if not 1 <= partitions <= PARTITIONS_MAX:
        todo = f"Use 1 to {PARTITIONS_MAX}."
        raise ConfigError(f"partitions = {partitions} in [{place}]", where=str(path), todo=todo)
    columns = value.get("columns", [])
    if not isinstance(columns, list) or not all(isinstance(each, str) for each in columns):
        raise ConfigError(
            f"columns of [{place}] is not a list of texts", where=str(path), todo='Write columns = ["id", "name"].'
        )
    where = _typed(value.get("where", ""), str, f"where of [{place}]", str(path))
    return TableConfig(partitions=partitions, columns=tuple(columns), where=where)
