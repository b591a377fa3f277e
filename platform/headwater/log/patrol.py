"""The rotating check: every live sealed file is read again within a stated time, some at each call.

Bytes rot where nobody looks; what is only read once a year must not be found broken then. A round begins at the
oldest file and is paced so that it ends within the interval. Hot batches need none of it: each read checks them,
and so does sealing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from headwater.catalog import tables
from headwater.catalog.records import Base, Segment
from headwater.config import MIB, Settings
from headwater.errors import CorruptFile
from headwater.log import incidents, parts, quarantine

if TYPE_CHECKING:
    from headwater.log.log import Log

BUDGET_BYTES = 256 * MIB
"""Read at one call at most, to the end of a file: about a second, for which sealing waits."""
INTERVAL_S = Settings.check_interval_s

_SETTING = "patrol"


@dataclass(frozen=True, kw_only=True)
class _Round:
    """Files up to ``file`` were read; ``done`` bytes of about ``total`` since ``began`` (microseconds)."""

    file: int = 0
    began: int = 0
    done: int = 0
    total: int = 0


def check_some(log: Log, budget_bytes: int = BUDGET_BYTES, interval_s: float = INTERVAL_S) -> int:
    """Read what is due; returns how many bytes that were. The caller owns ``maintenance``.

    A damaged file puts its partition in quarantine. Where the pace asks for more than ``budget_bytes`` a call,
    rounds take longer than ``interval_s``.
    """
    now = log.clock.now_us()
    stored = log.setting(_SETTING)
    round_ = _Round(**json.loads(stored)) if stored else _begin(log, now)
    read = 0
    while read < budget_bytes and _is_due(round_, now, interval_s):
        row = _next_file(log, round_.file)
        if row is None:
            if round_.began + int(interval_s * 1e6) > now:
                break  # a round that is ahead of its time waits for its end
            round_ = _begin(log, now)
            continue
        _check(log, row.id, row.path, row.bytes, row.digest)
        read += row.bytes
        round_ = _Round(file=row.id, began=round_.began, done=round_.done + row.bytes, total=round_.total)
    text = json.dumps(asdict(round_))
    if text != stored:
        log.set_setting(_SETTING, text)
    return read


def _begin(log: Log, now: int) -> _Round:
    file = tables.file
    query = select(func.coalesce(func.sum(file.c.bytes), 0)).where(file.c.removed.is_(None), file.c.digest.is_not(None))
    with log.catalog.read() as connection:
        return _Round(began=now, total=int(connection.execute(query).scalar_one()))


def _is_due(round_: _Round, now: int, interval_s: float) -> bool:
    """Whether the share of the round's bytes is smaller than that of its time."""
    elapsed = (now - round_.began) / 1e6
    return round_.done < round_.total * elapsed / interval_s or elapsed >= interval_s


def _next_file(log: Log, after: int) -> Any:
    file = tables.file
    query = select(file.c.id, file.c.path, file.c.bytes, file.c.digest).where(file.c.id > after)
    query = query.where(file.c.removed.is_(None), file.c.digest.is_not(None)).order_by(file.c.id).limit(1)
    with log.catalog.read() as connection:
        return connection.execute(query).one_or_none()


def _check(log: Log, file_id: int, path: str, size: int, digest: str) -> None:
    with log.catalog.read() as connection:
        part: Segment | Base | None = parts.sealed(connection, file_id)
    try:
        log.storage.check(path, size, digest)
    except CorruptFile as error:
        if part is not None:
            quarantine.report(log, part, error)
            return
        with log.catalog.write() as connection:  # commits that left the catalog: nothing is in quarantine by it
            incidents.append(connection, "damaged", path, error.what, log.clock.now_us())
