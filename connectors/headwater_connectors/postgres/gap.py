"""Law 3's check at every start: does the server still have everything after our stored position?

START_REPLICATION before the slot's confirmed position skips rows without a word, so it is checked and never
assumed; so are another server behind the same address, and one restored to an earlier time. A promoted standby goes
on where it branched off: what we hold up to there is its history too, what came after is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.pq.abc import PGconn
from sqlalchemy import Connection as CatalogConnection

from headwater.catalog.catalog import put_setting
from headwater.errors import HeadwaterError, PublicationMissing, SourceGap
from headwater.log import Log
from headwater_connectors.postgres import publication, slot
from headwater_connectors.postgres.catalog import format_lsn, parse_lsn
from headwater_connectors.postgres.session import Connection, run_replication
from headwater_connectors.postgres.slot import System


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Why changes after the stored position may be missing.

    ``foreign``: the server has another history than the one that was captured.
    """

    what: str
    foreign: bool = False
    publication: bool = False

    def error(self, source: str) -> HeadwaterError:
        kind = PublicationMissing if self.publication else SourceGap
        return kind(
            f"changes may be missing, so capture stopped: {self.what}",
            where=f"source {source}",
            todo=f"What was captured stays readable. Run `headwater source repair {source}`: it makes a new slot,"
            " compares every table with the server and appends what differs. A capture that `headwater up` runs then"
            " goes on by itself; start any other one again.",
        )


def setting(source: str) -> str:
    """The catalog's setting that says which server the position belongs to."""
    return f"source:{source}:system"


def remember_system(log: Log, source: str, system: System) -> None:
    """Keep which server the position belongs to; called before the first position is stored."""
    log.set_setting(setting(source), str(system))


def forget_system(log: Log, source: str) -> None:
    log.set_setting(setting(source), None)


def _dropped(source: str) -> str:
    return f"source:{source}:dropped"


def remember_dropped(log: Log, source: str, reason: str) -> None:
    """Keep why we drop the slot; called before it is dropped."""
    log.set_setting(_dropped(source), reason)


def settle(connection: CatalogConnection, source: str, system: System) -> None:
    """What a repair has mended, in its transaction: the position belongs to this server, and no slot was dropped."""
    put_setting(connection, setting(source), str(system))
    put_setting(connection, _dropped(source), None)


def is_another(log: Log, source: str, system: System) -> bool:
    """Whether the position belongs to another server, not a copy or an earlier time of this one."""
    known = log.setting(setting(source)) or str(system)
    return known.split("/")[0] != system.identifier


def find(log: Log, source: str, connection: Connection, replication: PGconn, system: System) -> Gap | None:
    """The first reason why changes may be missing, or None. Raises SlotInUse."""
    if is_another(log, source, system):
        known = (log.setting(setting(source)) or "").split("/")[0]
        return Gap(
            what=f"this is another server: its system identifier is {system.identifier}, not {known}", foreign=True
        )
    state = log.producer(f"source:{source}")
    position = parse_lsn(state.position or "0/0")
    stored = max(position, parse_lsn(state.confirmed or "0/0"))
    timeline = int((log.setting(setting(source)) or str(system)).split("/")[1])
    if timeline != system.timeline:
        branch = _branch(replication, timeline, system.timeline, source)
        if branch is None:
            what = (
                f"the server is on timeline {system.timeline}, which does not descend from {timeline}, the stored one"
            )
            return Gap(what=what, foreign=True)
        if branch < position:
            what = f"the server's timeline {system.timeline} branched off at {format_lsn(branch)}, before the stored"
            return Gap(what=f"{what} {format_lsn(position)}: it lost commits that were captured", foreign=True)
        stored = min(stored, branch)
    return _missing(log, source, connection, stored)


def _missing(log: Log, source: str, connection: Connection, stored: int) -> Gap | None:
    end = slot.written(connection)
    if end < stored:
        what = f"the server ends at {format_lsn(end)}, before the stored position {format_lsn(stored)}"
        return Gap(what=what, foreign=True)
    held = slot.read(connection, source)
    if held is None:
        why = log.setting(_dropped(source))
        return Gap(
            what=f"the replication slot {slot.slot_name(source)} " + (f"was dropped: {why}" if why else "is gone")
        )
    if held.invalid:
        return Gap(what=f"the server invalidated the replication slot {held.name} ({held.invalid})")
    if held.confirmed > stored:
        what = f"the slot {held.name} stands at {format_lsn(held.confirmed)}, past the stored {format_lsn(stored)}"
        return Gap(what=what)
    if held.active_pid is not None:
        raise slot.in_use(held, source)
    missing = [each.name for each in publication.read(connection, source) if not each.exists]
    if missing:
        return Gap(what=f'publication "{missing[0]}" does not exist', publication=True)
    return None


def is_known(log: Log, source: str, system: System) -> bool:
    """Whether the server is on the timeline that the position belongs to."""
    return log.setting(setting(source)) == str(system)


def follow(log: Log, source: str, system: System) -> None:
    """Go on where there is no gap: on a new timeline nothing beyond the stored position counts as acknowledged.

    What was acknowledged on idle WAL may lie beyond the branch; told to the new server, it would skip changes there.
    """
    if not is_known(log, source, system):
        producer = f"source:{source}"
        log.set_confirmed(producer, log.producer(producer).position or "0/0")
        remember_system(log, source, system)


def _branch(replication: PGconn, before: int, now: int, source: str) -> int | None:
    """Where the history of timeline ``now`` left timeline ``before``; None when it was never on it."""
    if now < before:
        return None
    found = run_replication(replication, f"TIMELINE_HISTORY {now}", source).get_value(0, 1)
    for line in (found or b"").decode(errors="replace").splitlines():
        words = line.split()
        if words and words[0] == str(before):
            return parse_lsn(words[1])
    return None
