"""One transaction of five million rows: on disk until it ends, whole in one commit, and nobody waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from tests.connectors.test_capture_process import Project
from tests.waiting import until

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured

ROWS = 5_000_000
MEMORY_MB_MAX = 700


def _memory_mb(pid: int) -> float:
    """The most that a running process ever held."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


@pytest.mark.long
@pytest.mark.timeout(600)
def test_five_million_rows_in_one_transaction(shop: Captured, command: Path) -> None:
    shop.run(
        "CREATE TABLE big (id int PRIMARY KEY, who text, amount numeric(12,2), at timestamptz DEFAULT now())",
        "CREATE TABLE small (id int PRIMARY KEY)",
    )
    project = Project(shop.folder.parent, shop.dsn, command)
    process = project.start_script("capture", "shop")
    until(lambda: {topic.name for topic in shop.log.topics()} >= {"shop.public.big", "shop.public.small"})
    with psycopg.connect(shop.dsn) as writer:
        for part in range(10):
            low, high = part * ROWS // 10, (part + 1) * ROWS // 10 - 1
            writer.execute(
                "INSERT INTO big SELECT i, 'who ' || i %% 1000, (i %% 100000) / 100.0 FROM generate_series(%s, %s) i",
                [low, high],
            )
            shop.run(f"INSERT INTO small VALUES ({part})")
            until(lambda part=part: shop.lake("SELECT max(id) FROM small") == [(part,)])  # type: ignore[misc]
            assert shop.lake("SELECT count(*) FROM big") == [(0,)], "nothing of it is seen before its commit"
        until(lambda: _spooled(shop.folder) > 100e6, seconds=120)
        writer.commit()
    until(lambda: shop.lake("SELECT count(*) FROM big") == [(ROWS,)], seconds=300)
    memory = _memory_mb(process.pid)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 0
    print(f"peak memory of capture {memory:.0f} MB")
    assert memory < MEMORY_MB_MAX
    commits = shop.lake('SELECT count(DISTINCT _commit), count(*) FROM log."shop.public.big"')
    assert commits == [(1, ROWS)]
    sums = "SELECT count(*), sum(id), sum(amount), min(who), max(who) FROM big"
    assert shop.lake(sums) == shop.source_rows(sums)


def _spooled(lake: Path) -> int:
    """Bytes that capture holds in files without a name: what it received of the transaction."""
    found = 0
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            name = str(descriptor.readlink())
            if name.startswith(str(lake / "state")) and name.endswith("(deleted)"):
                found = max(found, descriptor.stat().st_size)
        except OSError:  # of a process that ended meanwhile
            continue
    return found
