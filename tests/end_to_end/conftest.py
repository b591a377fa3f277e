"""One server for all end-to-end tests, and projects over databases of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tests.end_to_end.site import Site, make_site

from headwater_connectors.postgres.embedded import EmbeddedPostgres


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(fsync=False) as postgres:
        yield postgres


@pytest.fixture
def site(server: EmbeddedPostgres, command: Path, tmp_path: Path, seed: int) -> Callable[..., Site]:
    """``site(prepare, views)``: ``prepare(dsn)`` fills the new database before the project is written."""
    numbers = itertools.count()

    def make(prepare: Callable[[str], None], views: Mapping[str, str] | None = None) -> Site:
        name = f"s{seed % 1_000_000}_{next(numbers)}"
        dsn = server.create_database(name)
        prepare(dsn)
        return make_site(tmp_path / name, name, dsn, server.bin, views or {}, command)

    return make
