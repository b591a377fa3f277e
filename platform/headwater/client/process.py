"""Handing batches to a function, with retries; what keeps failing goes to the dead letter topic.

batch ──▶ handler ──▶ commit
             │ raises max_attempts times, waiting longer each time
             ▼
          halves ──▶ ... ──▶ single records that fail by themselves ──▶ <topic>.dlq, with the offsets' commit
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from headwater import logs, record
from headwater.client.batch import Batch
from headwater.client.consumer import Consumer
from headwater.log import dead_letters
from headwater.storage import hot

Handler = Callable[[Batch], object]
CHECK_S = 0.5
"""A wait before a retry is cut into such pieces, so that the member counts as alive."""


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """A record that failed by itself. Times in microseconds since 1970."""

    batch: Batch
    attempts: int
    error: Exception
    first_us: int
    last_us: int


def process(
    consumer: Consumer, handler: Handler, max_attempts: int, backoff: tuple[float, float], seconds: float | None
) -> int:
    """See ``Consumer.process``."""
    deadline = None if seconds is None else time.monotonic() + seconds
    done = 0
    while deadline is None or time.monotonic() < deadline:
        wait_s = 1.0 if deadline is None else max(0.0, min(1.0, deadline - time.monotonic()))
        batch = consumer.poll(wait_s)
        if batch is not None:
            failures = list(_failures(consumer, handler, batch, max_attempts, backoff))
            if failures:
                _give_up(consumer, batch, failures)
            else:
                consumer.commit()
            done += len(batch)
        elif consumer.finished:
            break
    return done


def _failures(
    consumer: Consumer, handler: Handler, batch: Batch, max_attempts: int, backoff: tuple[float, float]
) -> Iterator[_Failure]:
    """Try the batch; when it keeps failing, the records that fail by themselves."""
    now_us = consumer.log.clock.now_us
    first_us, wait_s, attempt = now_us(), backoff[0], 1
    while (error := _try(handler, batch)) is not None:
        logs.logger().warning(
            "%s/%s, offsets %s to %s: attempt %s of %s failed: %s",
            *(batch.topic, batch.partition, batch.first, batch.last, attempt, max_attempts, error),
        )
        if attempt >= max_attempts:
            failed = _Failure(batch=batch, attempts=attempt, error=error, first_us=first_us, last_us=now_us())
            yield from _isolated(handler, failed, now_us)
            return
        _wait(consumer, wait_s)
        wait_s, attempt = min(backoff[1], 2 * wait_s), attempt + 1


def _isolated(handler: Handler, failed: _Failure, now_us: Callable[[], int]) -> Iterator[_Failure]:
    """The single records inside a failed batch that fail too; a batch of one is its own answer."""
    batch = failed.batch
    if len(batch) == 1:
        yield failed
        return
    middle = len(batch) // 2
    for part in (_part(batch, 0, middle), _part(batch, middle, len(batch))):
        error = _try(handler, part)
        if error is not None:
            again = replace(failed, batch=part, attempts=failed.attempts + 1, error=error, last_us=now_us())
            yield from _isolated(handler, again, now_us)


def _part(batch: Batch, start: int, stop: int) -> Batch:
    table = batch.table.slice(start, stop - start)
    offsets = table.column(record.OFFSET)
    return replace(batch, first=offsets[0].as_py(), last=offsets[-1].as_py(), table=table)


def _try(handler: Handler, batch: Batch) -> Exception | None:
    try:
        handler(batch)
    except Exception as error:  # noqa: BLE001 -- the user's code may raise anything; it is kept with the record
        return error
    return None


def _wait(consumer: Consumer, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        consumer.alive()
        time.sleep(min(CHECK_S, left))


def _give_up(consumer: Consumer, batch: Batch, failures: list[_Failure]) -> None:
    """The letters and the group's offsets in one commit."""
    with consumer.transaction() as tx:
        dead_letters.append(tx, batch.topic, _letters(consumer, failures))
    logs.logger().error(
        "%s/%s: %s records failed and are in %s now",
        *(batch.topic, batch.partition, len(failures), dead_letters.name_of(batch.topic)),
    )


def _letters(consumer: Consumer, failures: list[_Failure]) -> pa.Table:
    version = consumer.log.topic(failures[0].batch.topic).schema_version
    rows = [_letter(consumer.group, failure, version) for failure in failures]
    types = {field.name: field.type for field in dead_letters.SCHEMA.arrow()}
    columns = {name: pa.array([row[name] for row in rows], types[name]) for name in rows[0] if name != "headers"}
    headers = pa.array([row["headers"] for row in rows], record.EXPLICIT[record.HEADERS])
    return pa.table({**columns, "headers": headers})


def _letter(group: str | None, failure: _Failure, version: int) -> dict[str, Any]:
    """One row for the dead letter topic; the record keeps its exact values as an Arrow stream of one row."""
    batch = failure.batch
    own = [name for name in batch.table.column_names if name not in record.IMPLICIT]
    row = batch.table.select(own)
    headers = row.column(record.HEADERS)[0].as_py() if record.HEADERS in own else None
    return {
        "original": bytes(hot.encode(row)[0]),
        "format": "arrow",
        "topic": batch.topic,
        "partition": batch.partition,
        "offset": batch.first,
        "group": group,
        "delivery_count": failure.attempts,
        "error_class": type(failure.error).__qualname__,
        "error_message": str(failure.error),
        "schema_version": version,
        "first_failure_at": _time(failure.first_us),
        "last_failure_at": _time(failure.last_us),
        "headers": headers or [],
    }


def _time(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1e6, UTC)
