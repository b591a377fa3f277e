"""PostgreSQL as a source: logical replication and COPY into the log, column by column."""
