"""TLS, SCRAM, service and password files: a real server that lets nobody in without them."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.connectors.conftest import Captured
from tests.waiting import until

from headwater.errors import HeadwaterError, SourceNotReady
from headwater_connectors.postgres import session, slot
from headwater_connectors.postgres.embedded import EmbeddedPostgres
from headwater_connectors.postgres.stream import LibpqStream, start
from headwater_connectors.postgres.verification import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOUND = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
pytestmark = pytest.mark.skipif(
    not _FOUND or shutil.which("openssl") is None,
    reason="the wheel's PostgreSQL has no TLS; install Debian's packages: sudo apt-get install postgresql openssl",
)
ACCESS = """
local   all all trust
host    postgres postgres 127.0.0.1/32 trust
hostssl all app 127.0.0.1/32 scram-sha-256
"""
PASSWORD = "no'such word"


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def certificates(folder: Path) -> None:
    """A certificate authority of our own, and its certificate for ``localhost``, which 127.0.0.1 is not."""
    folder.mkdir()
    new = ("req", "-new", "-x509", "-days", "2", "-nodes", "-newkey", "rsa:2048")
    openssl(folder, *new, "-subj", "/CN=our authority", "-keyout", "ca.key", "-out", "ca.crt")
    openssl(folder, *new, "-subj", "/CN=another one", "-keyout", "other.key", "-out", "other.crt")
    wanted = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    openssl(folder, *new, *wanted, "-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", "server.key", "-out", "server.crt")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedPostgres, Path]]:
    folder = tmp_path_factory.mktemp("secured") / "files"
    certificates(folder)
    (folder / "access.conf").write_text(ACCESS)
    home = Path("/tmp") / f"headwater-tls-{os.getpid()}"
    files = {"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "hba_file": "access.conf"}
    settings = {name: str(home / file) for name, file in files.items()} | {"ssl": "on"}
    server = EmbeddedPostgres(home, fsync=False, settings=settings, programs=_FOUND[-1].parent)
    home.mkdir()
    for file in files.values():
        shutil.copy(folder / file, home)
        (home / file).chmod(0o600)
        if os.geteuid() == 0:
            server._own_files()  # makes the server's user
            shutil.chown(home / file, "pgserver", "pgserver")
    try:
        with server:
            with psycopg.connect(server.dsn(), autocommit=True) as connection:
                quoted = psycopg.sql.Literal(PASSWORD)
                connection.execute(psycopg.sql.SQL("CREATE ROLE app LOGIN SUPERUSER PASSWORD {}").format(quoted))
            yield server, folder
    finally:
        shutil.rmtree(home)


def dsn(secured: tuple[EmbeddedPostgres, Path], database: str = "postgres", **more: str) -> str:
    server, folder = secured
    known = {"host": "localhost", "port": str(server.port), "user": "app", "dbname": database, "password": PASSWORD}
    verified = {"sslmode": "verify-full", "sslrootcert": str(folder / "ca.crt")}
    return psycopg.conninfo.make_conninfo("", **{**known, **verified, **more})


@pytest.fixture
def shop(secured: tuple[EmbeddedPostgres, Path], tmp_path: Path) -> Iterator[Captured]:
    server, _ = secured
    server.create_database("shop")
    captured = Captured(dsn(secured, "shop"), tmp_path / "lake")
    yield captured
    active = "SELECT 1 FROM pg_replication_slots WHERE active"
    until(lambda: not captured.source_rows(active), "the server to notice that nobody reads a slot any more")
    captured.connection.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    captured.close()
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("DROP DATABASE shop WITH (FORCE)")


def test_a_source_over_tls_is_copied_followed_and_compared(
    shop: Captured, secured: tuple[EmbeddedPostgres, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever says where the server is and how to get in, the replication connection heeds it too."""
    shop.run("CREATE TABLE orders (id int PRIMARY KEY, note text)")
    shop.run("INSERT INTO orders SELECT i, repeat('n', i % 500) FROM generate_series(1, 20000) i")
    shop.catch_up()
    shop.run("UPDATE orders SET note = repeat('m', 3000000) WHERE id = 7", "DELETE FROM orders WHERE id % 5 = 0")
    (tmp_path / "service.conf").write_text(
        f"[shop]\nhost=localhost\nport={secured[0].port}\nuser=app\ndbname=shop\nsslmode=verify-full\n"
        f"sslrootcert={secured[1] / 'ca.crt'}\n"
    )
    password = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    (tmp_path / "passwords").write_text(f"localhost:*:*:app:{password}\n")
    (tmp_path / "passwords").chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "service.conf"))
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "passwords"))
    shop.dsn = "service=shop"
    with shop.running():
        assert [(each.rows, each.differences, each.skipped) for each in verify(shop.source, shop.log)] == [
            (16000, 0, "")
        ]
        query = "SELECT count(*) FILTER (WHERE ssl), count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"
        assert shop.source_rows(query) == [(1, 1)]
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "nowhere"))
    with pytest.raises(HeadwaterError, match="service shop"):
        session.connect(shop.dsn, "shop")


def test_nothing_waits_in_the_tls_layer(shop: Captured) -> None:
    """Messages that libpq holds, or the end of a record, make no socket readable: ``more`` has to say so."""
    shop.run("CREATE TABLE docs (id int PRIMARY KEY, body text)")
    shop.catch_up()
    shop.run("INSERT INTO docs VALUES (0, repeat('x', 3000000))")
    shop.run("INSERT INTO docs SELECT i, repeat('y', 300000 + 977 * i) FROM generate_series(1, 40) i")
    shop.run("INSERT INTO docs SELECT i, repeat('z', i % 3000) FROM generate_series(100, 3000) i")
    position = shop.log.producer("source:shop").position or ""
    names = ("headwater_shop", "headwater_shop_inserts")
    command = slot.start_command("shop", names, position, version=130_000, binary=False)
    opened = start(session.connect_replication(shop.dsn, "shop"), command, "shop")
    assert isinstance(opened, LibpqStream)
    commits, poll = 0, select.poll()
    poll.register(opened, select.POLLIN)
    try:
        while commits < 3:
            assert opened.more or poll.poll(5000), f"the server has sent it, and after {commits} commits nothing comes"
            block, at = opened.read(), 0
            for length in block.lengths.tolist():
                body, at = block.data[at + 5 : at + length], at + length
                commits += body[:1] == b"w" and body[25:26] == b"C"
    finally:
        opened.close()


def test_who_is_not_let_in_is_told_why_in_one_line(secured: tuple[EmbeddedPostgres, Path]) -> None:
    cases: list[tuple[dict[str, str], type[HeadwaterError], str]] = [
        (
            {"host": "127.0.0.1"},
            SourceNotReady,
            'server certificate for "localhost".* does not match host name "127.0.0.1"',
        ),
        ({"sslrootcert": str(secured[1] / "other.crt")}, SourceNotReady, "certificate verify failed"),
        ({"sslmode": "disable", "sslrootcert": ""}, SourceNotReady, "no pg_hba.conf entry"),
        ({"password": "wrong"}, SourceNotReady, "password authentication failed"),
        ({"password": ""}, SourceNotReady, "no password supplied"),
    ]
    for more, kind, says in cases:
        for connect in (session.connect, session.connect_replication):
            with pytest.raises(kind, match=says) as caught:
                connect(dsn(secured, **more), "shop")
            assert "\n" not in str(caught.value)
            assert PASSWORD not in str(caught.value)
