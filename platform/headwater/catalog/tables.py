"""The catalog's tables, as SQLAlchemy Core so that PostgreSQL can be a shared catalog later.

Times are microseconds since 1970 UTC. Columns that nothing fills yet (owner, principal, chain digests, …)
are there because adding them to history later would lose what they should have said.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

metadata = MetaData()

setting = Table("setting", metadata, Column("name", Text, primary_key=True), Column("value", Text, nullable=False))

topic = Table(
    "topic",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("source", Text),
    Column("partitions", Integer, nullable=False),
    Column("hidden", Integer, nullable=False, default=0),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("description", Text, nullable=False, default=""),
    Column("owner", Text),
    Column("criticality", Text),
    Column("classification", Text),
    Column("created", BigInteger, nullable=False),
    Column("dropped", BigInteger),
    Index("topic_name", "name"),
)

schema_version = Table(
    "schema_version",
    metadata,
    Column("topic", Integer, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("commit", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
)

partition = Table(
    "partition",
    metadata,
    Column("topic", Integer, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
)

commit = Table(
    "commit",
    metadata,
    Column("number", BigInteger, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("producer", Text, nullable=False),
    Column("position", Text),
    Column("rows", BigInteger, nullable=False),
    Column("principal", Text),
    Column("client", Text),
    Column("digest", Text),
    Index("commit_time", "time"),
    Index("commit_producer", "producer", "number"),
)

file = Table(
    "file",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("path", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("digest", Text),
    Column("created", BigInteger, nullable=False),
    Column("removed", BigInteger),
    Column("tier", Text),
    Column("store", Text),
    Column("key_id", Text),
)

batch = Table(
    "batch",
    metadata,
    Column("topic", Integer, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("first_offset", BigInteger, primary_key=True),
    Column("commit", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("file", Integer, nullable=False),
    Column("byte_offset", BigInteger, nullable=False),
    Column("byte_length", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Index("batch_commit", "topic", "commit"),
    Index("batch_file", "file"),
)

segment = Table(
    "segment",
    metadata,
    Column("file", Integer, primary_key=True),
    Column("topic", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("first_offset", BigInteger, nullable=False),
    Column("last_offset", BigInteger, nullable=False),
    Column("first_commit", BigInteger, nullable=False),
    Column("last_commit", BigInteger, nullable=False),
    Index("segment_topic", "topic", "last_commit"),
)

base = Table(
    "base",
    metadata,
    Column("file", Integer, primary_key=True),
    Column("topic", Integer, nullable=False),
    Column("commit", BigInteger, nullable=False),
    Column("schema_version", Integer, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Index("base_topic", "topic", "commit"),
)

producer = Table(
    "producer",
    metadata,
    Column("name", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("position", Text),
    Column("commit", BigInteger),
    Column("confirmed", Text),
)

view = Table(
    "view",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("sql", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, default=""),
    Column("topic", Integer),
    Column("created", BigInteger, nullable=False),
    Column("dropped", BigInteger),
    Column("description", Text, nullable=False, default=""),
    Column("owner", Text),
)

view_set = Table(
    "view_set",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("views", Text, nullable=False, unique=True),
)

step = Table(
    "step",
    metadata,
    Column("number", BigInteger, primary_key=True),
    Column("input_commit", BigInteger, nullable=False),
    Column("publish_commit", BigInteger, nullable=False),
    Column("instant", BigInteger, nullable=False),
    Column("view_set", Integer, nullable=False),
    Column("watermarks", Text),
    Index("step_publish", "publish_commit"),
)
