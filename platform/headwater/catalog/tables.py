"""The catalog's tables, as SQLAlchemy Core so that PostgreSQL can be a shared catalog later.

Times are microseconds since 1970 UTC. Columns that nothing fills yet (owner, principal, chain digests, …)
are there because adding them to history later would lose what they should have said.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

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
    Column("settings", Text, nullable=False, server_default="{}"),
    Column("first_partition", Integer, nullable=False, server_default="0"),
    Index("topic_name", "name"),
)
"""``first_partition``: where the newest generation of partitions begins; earlier ones take no more records."""

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
    Column("start_offset", BigInteger, nullable=False, server_default="0"),
    Column("created", BigInteger, nullable=False, server_default="0"),
    Column("closed", BigInteger),
    Column("quarantine", Text),
)
"""``start_offset``: what retention has left. ``closed``: the commit of the repartition that ended it."""

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
    Column("last_time", BigInteger),
    Column("compacted", BigInteger),
    Index("segment_topic", "topic", "last_commit"),
    Index("segment_place", "topic", "partition", "first_offset"),
)
"""``last_time``: time of its last commit. ``compacted``: the newest commit when offsets were left out, else NULL."""

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
    Column("sequence", BigInteger),
    Column("batch_rows", BigInteger),
    Column("batch_digest", Text),
    Column("seen", BigInteger),
)
"""``sequence`` and what the batch of that number held: how a repeated batch is told from a new one."""

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
    Column("replaces", Integer),
)
"""``replaces``: the view whose place this one takes. Until it does, ``created`` is no commit's number yet."""

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

entry = Table(
    "entry",
    metadata,
    Column("seq", BigInteger, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("producer", Text, nullable=False),
    Column("position", Text),
    Column("removed", LargeBinary, nullable=False),
    Column("added", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)
"""The hash chain, newest part: one entry for everything that ever changed which files are live (see ``log.chain``)."""

commit_segment = Table(
    "commit_segment",
    metadata,
    Column("file", Integer, primary_key=True),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("first_commit", BigInteger, nullable=False),
    Column("last_commit", BigInteger, nullable=False),
    Column("first_time", BigInteger, nullable=False),
    Column("last_time", BigInteger, nullable=False),
    Column("first_step", BigInteger),
    Column("last_step", BigInteger),
    Column("root", LargeBinary, nullable=False),
    Index("commit_segment_commit", "last_commit"),
)
"""Parquet files that hold commits, steps and chain entries that have left the catalog (see ``log.archive``)."""

expired = Table(
    "expired",
    metadata,
    Column("topic", Integer, primary_key=True),
    Column("first_commit", BigInteger, primary_key=True),
    Column("last_commit", BigInteger, nullable=False),
)
"""Ranges of commits of which retention has removed records: what needs them is refused, never answered short."""

tag = Table(
    "tag",
    metadata,
    Column("name", Text, primary_key=True),
    Column("commit", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger),
    Column("description", Text, nullable=False, server_default=""),
)

consumer_group = Table(
    "consumer_group",
    metadata,
    Column("name", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("active", BigInteger, nullable=False),
    Column("settings", Text, nullable=False, server_default="{}"),
)
"""``active``: when a member last committed or joined; a group idle for too long holds no records back."""

group_member = Table(
    "group_member",
    metadata,
    Column("group", Text, primary_key=True),
    Column("member", Text, primary_key=True),
    Column("topics", Text, nullable=False),
    Column("joined", BigInteger, nullable=False),
    Column("client", Text, nullable=False, server_default=""),
)

assignment = Table(
    "assignment",
    metadata,
    Column("group", Text, primary_key=True),
    Column("topic", Integer, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("owner", Text),
    Column("generation", BigInteger, nullable=False),
    Column("wanted", Text),
)
"""Who may read and commit a partition; ``wanted`` gets it when ``owner`` lets go or its lease ends."""

group_offset = Table(
    "group_offset",
    metadata,
    Column("group", Text, primary_key=True),
    Column("topic", Integer, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("offset", BigInteger, nullable=False),
    Column("metadata", Text, nullable=False, server_default=""),
    Column("time", BigInteger, nullable=False),
    Column("generation", BigInteger, nullable=False),
)
"""``offset``: the first record that the group has not finished."""

group_commit = Table(
    "group_commit",
    metadata,
    Column("group", Text, primary_key=True),
    Column("topic", Integer, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("time", BigInteger, primary_key=True),
    Column("offset", BigInteger, nullable=False),
    Column("lag", BigInteger, nullable=False),
)
"""The last commits of a group, as many as its evaluation needs (Burrow's window)."""

dead_letter = Table(
    "dead_letter",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("dlq", Integer, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("topic", Integer, nullable=False),
    Column("cause", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("time", BigInteger, nullable=False),
    Index("dead_letter_place", "dlq", "partition", "offset", unique=True),
    Index("dead_letter_topic", "topic", "state"),
    # Holds all that causes are counted by, and the order in which a cause's letters are paged.
    Index("dead_letter_cause", "topic", "cause", "state", "id", "time"),
)
"""One row a dead letter: where its newest record lies in ``<topic>.dlq``, the cause by which it is counted, and whether
it is open, redriven or discarded (``reason``: why it was discarded). ``time``: of its first failure."""

incident = Table(
    "incident",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("what", Text, nullable=False),
)
"""What ``status`` shows of what happened: quarantines, refused writes, expired pins. The newest are kept."""
