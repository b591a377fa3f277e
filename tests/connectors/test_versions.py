"""The connectors' tests on every other PostgreSQL that this machine has: Debian's, below /usr/lib/postgresql.

The same tests again in a pytest of its own, the long ones that are about the server's behaviour included.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater_connectors.postgres.check import OLDEST_VERSION
from headwater_connectors.postgres.embedded import EmbeddedPostgres
from headwater_connectors.postgres.testing import SETTINGS, VARIABLE

HERE = Path(__file__).parent
FOUND = sorted(
    folder
    for folder in Path("/usr/lib/postgresql").glob("*/bin")
    if (folder / "postgres").exists() and int(folder.parent.name) * 10_000 >= OLDEST_VERSION
)
LONG = ("test_application.py", "test_pain_points.py", "test_initial_copy.py", "test_event_trigger.py")
NONE = pytest.param(None, marks=pytest.mark.skip("no other PostgreSQL is installed, such as Debian's postgresql-15"))


@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("programs", FOUND or [NONE], ids=lambda folder: folder.parent.name if folder else "none")
def test_the_connectors_tests_pass_on_another_version(programs: Path) -> None:
    with EmbeddedPostgres(fsync=False, settings=SETTINGS, programs=programs) as server:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
        for words in (["-m", "not long", str(HERE)], ["-m", "long", *(str(HERE / name) for name in LONG)]):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
                cwd=HERE.parents[1],
                env={**environment, VARIABLE: server.dsn()},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-6000:]
            print(done.stdout[-300:])
