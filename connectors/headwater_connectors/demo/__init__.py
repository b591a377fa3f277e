"""The demo: a web shop in an embedded PostgreSQL, under load, with views over it; and the check that proves it."""
