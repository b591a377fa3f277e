"""The replication slot ``headwater_<source>``: what the server keeps for us, and where it would begin to send."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from psycopg.pq.abc import PGconn

from headwater.config import SourceConfig
from headwater.errors import SlotInUse
from headwater_connectors.postgres.catalog import parse_lsn
from headwater_connectors.postgres.session import Connection, run_replication
from headwater_connectors.postgres.snapshot import Point

FAILOVER_VERSION = 170_000
"""Standbys keep copies of slots from this server version on."""
TAKE_OVER_SECONDS = 5.0
"""How long an ended session of the server may take to let go of the slot."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A row of pg_replication_slots. ``invalid`` is the reason why it can no longer be read, or empty."""

    name: str
    active_pid: int | None
    application: str
    confirmed: int
    restart: int
    wal_status: str
    invalid: str
    plugin: str


@dataclass(frozen=True, kw_only=True)
class System:
    """Which server this is: a restored copy or a promoted standby differs in one of these."""

    identifier: str
    timeline: int

    def __str__(self) -> str:
        return f"{self.identifier}/{self.timeline}"


def slot_name(source: str) -> str:
    return f"headwater_{source}"


# As JSON, because the columns differ by server version.
_READ = """
SELECT to_jsonb(s), coalesce(a.application_name, '') FROM pg_replication_slots s
LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = %s
"""


def read(connection: Connection, source: str) -> Slot | None:
    """The source's slot, or None when there is none."""
    row = connection.execute(_READ, [slot_name(source)]).fetchone()
    if row is None:
        return None
    found, application = row
    status = found.get("wal_status") or ""
    return Slot(
        name=found["slot_name"],
        active_pid=found.get("active_pid"),
        application=application,
        confirmed=parse_lsn(found.get("confirmed_flush_lsn") or "0/0"),
        restart=parse_lsn(found.get("restart_lsn") or "0/0"),
        wal_status=status,
        invalid=found.get("invalidation_reason") or ("wal_removed" if status == "lost" else ""),
        plugin=found.get("plugin") or "",
    )


def create(replication: PGconn, source: str, *, failover: bool) -> int:
    """Make the slot; returns its consistent point: what commits after it is sent, whole."""
    options = "(SNAPSHOT 'nothing', FAILOVER true)" if failover else "NOEXPORT_SNAPSHOT"
    command = f'CREATE_REPLICATION_SLOT "{slot_name(source)}" LOGICAL pgoutput {options}'
    point = run_replication(replication, command, source).get_value(0, 1)
    assert point is not None
    return parse_lsn(point.decode())


def temporary(replication: Connection) -> tuple[Point, str]:
    """What a new slot's snapshot sees, and its exported name; both end with the session, or its next command.

    Waits for the transactions that are open. The slot keeps WAL as long as it is there.
    """
    name = f"headwater_copy_{uuid.uuid4().hex}"
    command = f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')"
    row = replication.execute(command.encode()).fetchone()
    assert row is not None
    return Point(parse_lsn(row[1])), row[2]


def can_fail_over(connection: Connection, source: SourceConfig) -> bool:
    """Whether the slot is to be one that standbys keep copies of; on a standby none can be."""
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    return source.failover and connection.info.server_version >= FAILOVER_VERSION and row == (False,)


def set_failover(connection: Connection, replication: PGconn, source: SourceConfig) -> None:
    """Have a slot that was made otherwise be what the project says. The slot is not in use."""
    if connection.info.server_version < FAILOVER_VERSION:
        return
    query = "SELECT to_jsonb(s) -> 'failover', pg_is_in_recovery() FROM pg_replication_slots s WHERE slot_name = %s"
    row = connection.execute(query, [slot_name(source.name)]).fetchone()
    if row in ((True, False), (False, False)) and row[0] != source.failover:
        command = f'ALTER_REPLICATION_SLOT "{slot_name(source.name)}" (FAILOVER {str(source.failover).lower()})'
        run_replication(replication, command, source.name)


def written(connection: Connection) -> int:
    """The end of the server's WAL; of a standby, of what it has received."""
    row = connection.execute(
        "SELECT CASE WHEN pg_is_in_recovery()"
        " THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_insert_lsn() END::text"
    ).fetchone()
    assert row is not None
    return parse_lsn(row[0])


def drop(connection: Connection, source: str) -> bool:
    """Remove the slot; whether there was one. Raises SlotInUse with the process that reads it."""
    slot = read(connection, source)
    if slot is None:
        return False
    if slot.active_pid is not None:
        raise in_use(slot, source)
    connection.execute("SELECT pg_drop_replication_slot(%s)", [slot.name])
    return True


_HEALTH = """
SELECT s.wal_status, s.safe_wal_size, pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
        ELSE pg_current_wal_insert_lsn() END, s.restart_lsn)::int8,
    to_jsonb(s) ->> 'invalidation_reason', to_jsonb(s) ->> 'inactive_since', t.spill_bytes, t.stream_bytes
FROM pg_replication_slots s LEFT JOIN pg_stat_replication_slots t ON t.slot_name = s.slot_name WHERE s.slot_name = %s
"""
HEALTH = (
    "wal_status", "safe_wal_bytes", "retained_wal_bytes", "invalidation_reason", "inactive_since", "spill_bytes",
    "stream_bytes",
)  # fmt: skip
"""What the server says of the slot: how much WAL it keeps and may keep for it, what it spilled and streamed."""


Health = dict[str, int | str | None]
"""``HEALTH`` by name."""


def health(connection: Connection, source: str) -> Health:
    """``HEALTH`` by name; empty when there is no slot. What a server's version does not know is None."""
    row = connection.execute(_HEALTH, [slot_name(source)]).fetchone()
    return {} if row is None else dict(zip(HEALTH, row, strict=True))


def take_over(connection: Connection, source: str, application: str) -> None:
    """End a session of ours that the server still keeps the slot for: its peer is dead, because we own the source.

    The server would notice by itself within wal_sender_timeout. A slot that anybody else reads is left alone.
    """
    held = read(connection, source)
    if (
        held is None or held.active_pid is None or held.application != application[:63]
    ):  # as long as the server keeps it
        return
    connection.execute("SELECT pg_terminate_backend(%s, %s)", [held.active_pid, int(TAKE_OVER_SECONDS * 1000)])


def end_reader(connection: Connection, source: str) -> None:
    """End whatever session reads the slot."""
    held = read(connection, source)
    if held is not None and held.active_pid is not None:
        connection.execute("SELECT pg_terminate_backend(%s, %s)", [held.active_pid, int(TAKE_OVER_SECONDS * 1000)])


def in_use(slot: Slot, source: str) -> SlotInUse:
    application = f" ({slot.application})" if slot.application else ""
    return SlotInUse(
        f"the replication slot {slot.name} is in use by server process {slot.active_pid}{application}",
        where=f"source {source}",
        todo="Stop the process that reads it; of a dead one the server lets go within wal_sender_timeout.",
        pid=slot.active_pid,
        application=slot.application,
    )


def identify(replication: PGconn, source: str) -> System:
    result = run_replication(replication, "IDENTIFY_SYSTEM", source)
    identifier, timeline = result.get_value(0, 0), result.get_value(0, 1)
    assert identifier is not None
    assert timeline is not None
    return System(identifier=identifier.decode(), timeline=int(timeline))


def start_command(
    source: str,
    publications: tuple[str, str],
    position: str,
    *,
    version: int,
    binary: bool,
    origin: str = "any",
    streaming: bool = True,
) -> str:
    """START_REPLICATION from ``position``, the stored one: earlier than the slot's is checked before, never assumed.

    ``version``: the server's, as server_version_num. Two-phase decoding stays off in all protocols: what was sent at
    PREPARE is never sent again, so a prepared transaction comes with its COMMIT PREPARED.
    """
    listed = ",".join(f'"{name}"' for name in publications)
    protocol = 4 if version >= 160_000 else 3 if version >= 150_000 else 2
    options = [f"proto_version '{protocol}'", f"publication_names '{listed}'", "messages 'true'"]
    options += ["streaming 'on'"] * streaming + ["binary 'true'"] * binary + [f"origin '{origin}'"] * (origin != "any")
    return f'START_REPLICATION SLOT "{slot_name(source)}" LOGICAL {position} ({", ".join(options)})'
