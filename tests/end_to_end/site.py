"""A whole project with real processes: a database of its own, and headwater as a user starts it."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headwater import config

HEADWATER = (sys.executable, "-m", "headwater.cli")
END_S = 60.0
"""What a process gets to end; far beyond what it needs, so that only a hang fails."""


@dataclass(kw_only=True)
class Site:
    """A project over one database. Slots belong to the whole server, so sources have unique names."""

    project: config.Project
    source: str
    dsn: str
    bin: Path
    command: Path
    _logs: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def root(self) -> Path:
        return self.project.root

    @property
    def up(self) -> tuple[str, ...]:
        """The command line of ``headwater up``."""
        return (*HEADWATER, "up", "--log-format", "text", "--project", str(self.root))

    def topic(self, table: str) -> str:
        return f"{self.source}.public.{table}"

    def headwater(self, *arguments: str) -> str:
        """Run a command to its end; it must succeed. Returns what it printed."""
        argv = [str(self.command), *arguments, "--project", str(self.root)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=2 * END_S)
        assert done.returncode == 0, f"headwater {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self, *argv: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process for the block, ended by SIGTERM; that must end it cleanly."""
        path = self.root / f"process-{next(self._logs)}.log"
        with path.open("wb") as output:
            process = subprocess.Popen(argv, cwd=self.root, stdout=output, stderr=output, start_new_session=True)
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(END_S) == 0, path.read_text()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(END_S)
            sys.stderr.write(path.read_text()[-4000:])  # pytest shows it when the test fails


def make_site(root: Path, source: str, dsn: str, bin_folder: Path, views: Mapping[str, str], command: Path) -> Site:
    """Write the project's files. ``command`` is what runs commands that end."""
    (root / "views").mkdir(parents=True)
    for view, query in views.items():
        (root / "views" / f"{view}.sql").write_text(f"CREATE MATERIALIZED VIEW {view} AS\n{query};\n")
    (root / config.FILE).write_text(
        f'[project]\nname = "{source}"\n[source.{source}]\ndsn = "{dsn}"\n[settings]\nhttp_port = 0\n'
    )
    return Site(project=config.load(root, environ={}), source=source, dsn=dsn, bin=bin_folder, command=command)
