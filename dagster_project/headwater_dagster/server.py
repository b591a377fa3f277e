"""A code server for webserver and daemon that follows its project: what is created, replaced or dropped, they show.

    [HEADWATER_DEFINITIONS=your.module] python -m headwater_dagster.server [--host 10.0.0.5] --port 4000

Dagster's own code server, and in a thread beside it a watcher that has it reload when the project has become another
one, from a notebook, the command line or a source; and when the process that holds the definitions has died, which
Dagster would leave at that. Webserver and daemon look at the server every second. Runs that an earlier process began
end there. If each had a server of its own, a reload of the webserver's would be none of the daemon's, which launches
backfills.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from contextlib import ExitStack
from types import FrameType
from typing import Protocol

from headwater.config import Project, load
from headwater.errors import HeadwaterError
from headwater.log import Log, open_log
from headwater_dagster import changes
from headwater_dagster.instance import HOST, LOCATION, MODULE
from headwater_dagster.inventory import lake_exists, project_from_environment

POLL_S = 0.5
SETTLED_S = 1.0
"""Without another change for so long, what changed is loaded: views of a project are created one after the other."""
WAIT_S = 10.0
"""... but no longer than this after the first of them."""
RETRY_S = 15.0
"""Between two tries to bring back a process that is gone: definitions that cannot be loaded take a second each time."""
MODULE_VARIABLE = "HEADWATER_DEFINITIONS"
"""A module with definitions of your own that has the project's merged into them."""
EVERYWHERE = ("0.0.0.0", "::")
ASK_S = 5
RELOAD_S = 120
LOGGER = logging.getLogger("headwater.dagster")


class Server(Protocol):
    """What is asked of a code server."""

    def lives(self) -> bool:
        """Whether the process answers that holds the definitions."""

    def reload(self) -> None: ...


class Follower:
    """Decides when to reload; ``look`` is called again and again."""

    def __init__(self, project: Project, server: Server) -> None:
        self._root = project.root
        self._server = server
        self._stack = ExitStack()
        self._log: Log | None = None
        self._loaded = self._seen = self._stamp()
        self._first = self._last = 0.0
        self._tried = -RETRY_S
        self._has_lived = self._was_gone = False

    def look(self, now: float) -> bool:
        """Look once, at monotonic time ``now``; whether the server was told to reload."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._first = now if self._seen == self._loaded else self._first
            self._seen, self._last = stamp, now
        is_due = self._seen != self._loaded and (now - self._last >= SETTLED_S or now - self._first >= WAIT_S)
        if not is_due and not self._is_gone(now):
            return False
        self._tried = now
        self._server.reload()
        self._loaded = stamp
        return True

    def close(self) -> None:
        self._stack.close()

    def _is_gone(self, now: float) -> bool:
        """It has answered, and twice in a row does not any more; asked only when trying again makes sense."""
        if now - self._tried < RETRY_S:
            return False
        lives, was_gone = self._server.lives(), self._was_gone
        self._has_lived = self._has_lived or lives
        self._was_gone = not lives
        return self._has_lived and was_gone and not lives

    def _stamp(self) -> str:
        """The last one while headwater.toml cannot be read: what is loaded is better than an error."""
        try:
            project = load(self._root)
            if self._log is None and lake_exists(project.lake_dir):
                self._log = self._stack.enter_context(open_log(project.lake_dir))
            return changes.stamp(project, self._log)
        except HeadwaterError as error:
            LOGGER.warning("the project is not looked at: %s", error)
            return getattr(self, "_seen", "")


class GrpcServer:
    """The code server of this process, over its port."""

    def __init__(self, host: str, port: int) -> None:
        from dagster._grpc.client import DagsterGrpcClient

        self._client = DagsterGrpcClient(host=HOST if host in EVERYWHERE else host, port=port)

    def lives(self) -> bool:
        from dagster._core.errors import DagsterUserCodeUnreachableError

        try:
            self._client.get_server_id(timeout=ASK_S)
        except DagsterUserCodeUnreachableError:
            return False
        return True

    def reload(self) -> None:
        LOGGER.info("the project has changed, or its code server is gone: definitions are loaded anew")
        self._client.reload_code(timeout=RELOAD_S)


def follow(follower: Follower, stop: threading.Event) -> None:
    """Look until ``stop``; what fails is said and tried again."""
    from dagster._core.errors import DagsterUserCodeUnreachableError

    while not stop.wait(POLL_S):
        try:
            follower.look(time.monotonic())
        except DagsterUserCodeUnreachableError as error:
            LOGGER.warning("the code server could not be asked to reload: %s", error)
    follower.close()


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m headwater_dagster.server", description=__doc__)
    parser.add_argument("--host", default=HOST, help="where it listens; it does whatever it is asked to, by anybody")
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    stop = threading.Event()

    def interrupted(signum: int, frame: FrameType | None) -> None:
        """A server that ends is not to be brought back. Dagster gives SIGTERM the handler that SIGINT has."""
        stop.set()
        signal.default_int_handler(signum, frame)

    signal.signal(signal.SIGINT, interrupted)
    follower = Follower(project_from_environment(), GrpcServer(given.host, given.port))
    thread = threading.Thread(target=follow, args=[follower, stop], name="follow", daemon=True)
    thread.start()
    from dagster._cli.code_server import start_command

    module = os.environ.get(MODULE_VARIABLE) or MODULE
    options = ["--host", given.host, "--port", str(given.port), "--module-name", module, "--location-name", LOCATION]
    sys.argv[:] = sys.argv[:1]  # what Dagster starts inherits no option of ours
    start_command.main([*options, "--use-python-environment-entry-point"], standalone_mode=False)


if __name__ == "__main__":
    main()
