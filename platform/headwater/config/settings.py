"""Limits: what a project may change, each with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass, fields
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headwater.errors import ConfigError

MIB = 1 << 20
_MAY_BE_ZERO = frozenset({"http_port", "linger_ms", "file_grace_s", "base_rows_min", "disk_bytes_max"})


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
