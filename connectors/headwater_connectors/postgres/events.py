"""The transactional outbox: events that an application commits with its changes, on their way into their topics.

    logical message of a prefix with a topic ──┐
                                               ├─▶ Arrived ─▶ door ─▶ topic      in the same commit as the
    row inserted into an outbox table ─────────┘               └───▶ <topic>.dlq  transaction's other changes

A topic with a column ``payload`` of type JSON takes each event as ``key``, ``type`` and ``payload``, as far as it has
these columns. Any other takes the payload's members as its columns. A topic that does not exist comes to be as one of
the first kind. What may not enter becomes a dead letter with its reason, LSN and bytes; nothing stops the stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headwater import logs, record
from headwater.catalog.records import Topic
from headwater.client import door, files
from headwater.client.columns import NONE, Rows
from headwater.client.frames import Frame, Original
from headwater.client.text import Text
from headwater.config import SourceConfig
from headwater.errors import UsageError
from headwater.log import Log, dead_letters
from headwater.log.administration import EVENT_PARTITIONS, check_name
from headwater.log.transaction import Transaction
from headwater.schema import Schema

TOPICS_MAX = 1_000
"""Topics that values of one outbox table may bring about: a column that is another for each row is a mistake."""
_ENVELOPE = ("key", "type", "payload")
_PLAIN = Schema.of({"type": "VARCHAR", "payload": "JSON"})
_KEYED = Schema.of({"key": "VARCHAR", "type": "VARCHAR", "payload": "JSON"}, key=["key"])
_log = logs.logger("capture")


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """Events of one batch in stream order, a column each: texts, ``payload`` bytes, and the log's metadata columns.

    ``topic`` is NULL where the event names none; ``home`` is the topic that has its dead letter then. ``prefix``:
    how the topics of an outbox table begin that may come to be.
    """

    topic: pa.Array
    key: pa.Array
    type: pa.Array
    id: pa.Array
    payload: pa.Array
    metadata: Mapping[str, pa.Array]
    keyed: bool
    home: str
    prefix: str

    def of(self, rows: pa.Array) -> Arrived:
        """Those of a mask."""
        taken = {name: getattr(self, name).filter(rows) for name in ("topic", "key", "type", "id", "payload")}
        return replace(self, **taken, metadata={name: each.filter(rows) for name, each in self.metadata.items()})

    def __len__(self) -> int:
        return len(self.payload)


class Events:
    """Writes events of one source into transactions of the log.

    ``written`` and ``refused`` count those of transactions that ``committed`` was told of, since the start.
    """

    def __init__(self, log: Log, source: str) -> None:
        self.log = log
        self.source = source
        self.written = 0
        self.refused = 0
        self._written = self._refused = 0

    def begin(self) -> None:
        """Another transaction of the log: what was written into one that did not commit never was."""
        self._written = self._refused = 0

    def committed(self) -> None:
        self.written += self._written
        self.refused += self._refused

    def write(self, transaction: Transaction, arrived: Arrived) -> None:
        """Append every event to its topic, or to the topic's dead letters."""
        for name in pc.unique(arrived.topic).to_pylist():
            mask = pc.is_null(arrived.topic) if name is None else pc.fill_null(pc.equal(arrived.topic, name), False)
            mine = arrived.of(mask)
            topic = "it names no topic" if name is None else self._topic(transaction, name, mine)
            if isinstance(topic, Topic):
                self._enter(transaction, topic, mine)
            else:
                self._refuse_all(transaction, mine, topic)

    # ---- topics

    def _topic(self, transaction: Transaction, name: str, arrived: Arrived) -> Topic | str:
        """The event topic of this name, which may come to be with the transaction; or why there can be none."""
        found = transaction.topic_like(name)
        try:
            if found is None:
                return self._create(transaction, name, arrived)
            door.require_producible(found)
        except UsageError as error:
            return error.what
        return found if found.kind == "event" else f"topic {found.name} is a table, and takes no events"

    def _create(self, transaction: Transaction, name: str, arrived: Arrived) -> Topic | str:
        check_name(name)
        if arrived.prefix and transaction.count_topics(arrived.prefix) >= TOPICS_MAX:
            return f"there are {TOPICS_MAX:,} topics that begin with {arrived.prefix} already"
        schema, count = (_KEYED, EVENT_PARTITIONS) if arrived.keyed else (_PLAIN, 1)
        about = f"Events of source {self.source}"
        transaction.create_topic(name, "event", schema, partitions=count, description=about)
        _log.info("topic %s is created for events", name, extra={"topic": name})
        made = transaction.topic(name)
        assert made is not None
        return made

    # ---- the door

    def _enter(self, transaction: Transaction, topic: Topic, arrived: Arrived) -> None:
        checked = door.check(_frame(topic, arrived), topic, self.log.timezone)
        table = checked.table
        for name, values in arrived.metadata.items():
            table = table.append_column(name, values)
        good = replace(checked, table=table).good()
        transaction.append(topic.name, good)
        self._written += good.num_rows
        if len(checked.bad):
            letters = checked.letters()
            # Which row of which batch it was says nothing to whoever reads the letter.
            said = [text.partition(", ")[2] for text in letters["error_message"].to_pylist()]
            place = letters.column_names.index("error_message")
            letters = letters.set_column(place, "error_message", pa.array(said, pa.string()))
            bad = arrived.of(pa.array(np.isin(np.arange(len(arrived)), checked.bad)))
            self._letters(transaction, topic.name, letters, bad)

    def _refuse_all(self, transaction: Transaction, arrived: Arrived, why: str) -> None:
        """Events without a topic: their letters are those of ``home``, which exists for nothing else."""
        home = arrived.home or f"{self.source}.messages"
        create_home(transaction, home, self.source)
        count = len(arrived)
        letters = pa.table(
            {
                "original": pc.fill_null(arrived.payload, b""),
                "format": pa.repeat("json", count),
                "error_class": pa.repeat("InvalidRecords", count),
                "error_message": pa.repeat(why, count),
            }
        )
        self._letters(transaction, home, letters, arrived)

    def _letters(self, transaction: Transaction, topic: str, letters: pa.Table, arrived: Arrived) -> None:
        facts = {"lsn": record.LSN, "xid": record.XID, "seq": record.SEQ}
        texts = {name: arrived.metadata[column].cast(pa.string()) for name, column in facts.items()}
        headers = _maps({"key": arrived.key, "type": arrived.type, **texts})
        if "headers" in letters.column_names:
            letters = letters.drop_columns(["headers"])
        dead_letters.append(transaction, topic, letters.append_column("headers", headers))
        self._refused += len(arrived)
        message = letters["error_message"][0].as_py()
        _log.error("%d events are in %s.dlq: %s", len(arrived), topic, message, extra={"topic": topic})


def create_home(transaction: Transaction, name: str, source: str) -> None:
    """A topic for the dead letters of events that have none, unless it is there."""
    about = "Events that have no topic are in its dead letters"
    transaction.create_topic(name, "event", _PLAIN, source=source, if_absent=True, description=about)


def _frame(topic: Topic, arrived: Arrived) -> Frame:
    """The events as rows of the topic, with their id and headers."""
    names = topic.schema.names
    enveloped = "payload" in names and topic.schema.field("payload").type == "JSON"
    frame = _enveloped(names, arrived) if enveloped else _members(topic, arrived)
    more: dict[str, Text | pa.ChunkedArray] = {
        record.HEADERS: pa.chunked_array([_maps({"key": arrived.key, "type": arrived.type})])
    }
    if arrived.id.null_count < len(arrived):
        more[record.EVENT_ID] = Text(pa.chunked_array([arrived.id]))
    return frame.with_columns(more)


def _enveloped(names: tuple[str, ...], arrived: Arrived) -> Frame:
    texts = {"key": arrived.key, "type": arrived.type}
    columns: dict[str, Text | pa.ChunkedArray] = {
        name: Text(pa.chunked_array([texts[name]])) for name in texts if name in names
    }
    columns["payload"] = pa.chunked_array([arrived.payload])
    chosen = [name for name in _ENVELOPE if name in names]

    def originals(rows: Rows) -> list[Original]:
        return [_envelope(arrived, chosen, int(row)) for row in rows]

    return Frame(rows=len(arrived), columns=columns, holding=lambda _: np.arange(len(arrived)), originals=originals)


def _envelope(arrived: Arrived, chosen: list[str], row: int) -> Original:
    """One event as JSON; the bytes alone when its payload is none."""
    payload = arrived.payload[row].as_py()
    texts = {name: getattr(arrived, name)[row].as_py() for name in chosen if name != "payload"}
    try:
        json.loads(payload or b"null")
    except ValueError:
        return payload, "text"
    head = json.dumps(texts, ensure_ascii=False)[:-1]
    return (head + (", " if texts else "") + '"payload": ').encode() + (payload or b"null") + b"}", "json"


def _members(topic: Topic, arrived: Arrived) -> Frame:
    frame = files.of_json(pc.fill_null(arrived.payload, b"null"), topic)
    if not len(frame.skipped):
        return frame
    # A blank line of a file is none; a blank event is one.
    blank = ("the payload", frame.skipped, "is not a JSON object")
    return replace(frame, skipped=NONE, broken=[*frame.broken, blank])


def _maps(columns: Mapping[str, pa.Array]) -> pa.Array:
    """A map of texts for each row, without what is NULL."""
    rows = len(next(iter(columns.values())))
    valid = np.stack([each.is_valid().to_numpy(zero_copy_only=False) for each in columns.values()], axis=1)
    places = np.flatnonzero(valid.ravel())
    names = pa.array(list(columns)).take(pa.array(places % len(columns)))
    by_row = pa.array((places % len(columns)) * rows + places // len(columns))
    values = pa.concat_arrays(list(columns.values())).take(by_row)
    ends = np.concatenate(([0], np.cumsum(valid.sum(axis=1)))).astype(np.int32)
    return pa.MapArray.from_arrays(pa.array(ends), names, values)


def check_topics(config: SourceConfig) -> Iterator[str]:
    """What is wrong with the topics that the project file names for events."""
    named = {f"messages {prefix!r}": topic for prefix, topic in config.messages.items()}
    named |= {f"outbox {table}": each.topic.replace("{}", "x") for table, each in config.outbox.items() if each.topic}
    for whose, topic in named.items():
        try:
            check_name(topic)
        except UsageError as error:
            yield f"the topic of {whose}: {error.what}"
