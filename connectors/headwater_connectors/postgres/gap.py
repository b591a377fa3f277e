"""Law 3's check at every start: does the server still have everything after our stored position?

START_REPLICATION before the slot's confirmed position skips rows without a word, so it is checked and never
assumed; so are another server behind the same address, and one restored to an earlier time.
"""

from __future__ import annotations

from headwater.errors import SourceGap
from headwater.log import Log
from headwater_connectors.postgres import publication, slot
from headwater_connectors.postgres.catalog import format_lsn, parse_lsn
from headwater_connectors.postgres.session import Connection, refused
from headwater_connectors.postgres.slot import System


def _setting(source: str) -> str:
    return f"source:{source}:system"


def remember_system(log: Log, source: str, system: System) -> None:
    """Keep which server the position belongs to; called before the first position is stored."""
    log.set_setting(_setting(source), f"{system.identifier}/{system.timeline}")


def forget_system(log: Log, source: str) -> None:
    log.set_setting(_setting(source), None)


def check_gap(log: Log, source: str, connection: Connection, system: System) -> None:
    """Raises SourceGap when changes are missing or may be, PublicationMissing, SlotInUse."""
    state = log.producer(f"source:{source}")
    stored = max(parse_lsn(state.position or "0/0"), parse_lsn(state.confirmed or "0/0"))
    known = log.setting(_setting(source)) or ""
    found = f"{system.identifier}/{system.timeline}"
    if known and known.split("/")[0] != system.identifier:
        raise _gap(
            source, f"this is another server: its system identifier is {system.identifier}, not {known.split('/')[0]}"
        )
    if known and known != found:
        raise _gap(source, f"the server is on timeline {system.timeline}, the stored position on {known.split('/')[1]}")
    row = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    assert row is not None
    if parse_lsn(row[0]) < stored:
        raise _gap(source, f"the server ends at {row[0]}, before the stored position {format_lsn(stored)}")
    held = slot.read(connection, source)
    if held is None:
        raise _gap(source, f"the replication slot {slot.slot_name(source)} is gone")
    if held.invalid:
        raise _gap(source, f"the server invalidated the replication slot {held.name} ({held.invalid})")
    if held.confirmed > stored:
        raise _gap(
            source,
            f"the slot {held.name} stands at {format_lsn(held.confirmed)}, past the stored {format_lsn(stored)}",
        )
    if held.active_pid is not None:
        raise slot.in_use(held, source)
    missing = [each.name for each in publication.read(connection, source) if not each.exists]
    if missing:
        raise refused("42704", f'publication "{missing[0]}" does not exist', source)


def _gap(source: str, what: str) -> SourceGap:
    return SourceGap(
        f"changes may be missing, so capture stopped: {what}",
        where=f"source {source}",
        todo=f"What was captured stays readable. Begin anew with `headwater source drop {source}` and then"
        f" `headwater capture {source}`, which copies the tables again.",
    )
