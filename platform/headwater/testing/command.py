"""The command line as processes whose start costs milliseconds: forked from one that has imported everything.

For tests that run commands by the dozen: ``with Forked(folder) as forked`` puts an executable ``headwater`` into
``forked.folder``, which a shell finds when the folder leads its PATH. Each run is a process of its own with the
caller's arguments, environment, directory and standard streams. SIGINT and SIGTERM reach it; when its caller is
gone, it is killed. Not for what must die by the signal itself: start those with ``python -m headwater.cli``.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import marshal
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from headwater import failpoint
from headwater.cli.main import BUILT_IN, load_target, main, plug_ins

PRELOADED = (
    "headwater.cli",
    "headwater.lake",
    "headwater.log",
    "headwater.service",
    "pandas",
    "rich.table",
    "sqlglot.dialects.duckdb",
)
"""Packages with all their modules; the commands are imported as well."""
CLIENT = """#!{python} -IS
import marshal, os, signal, socket, struct, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
wanted = marshal.dumps((sys.argv[1:], os.getcwd(), dict(os.environ)))
socket.send_fds(server, [struct.pack("i", len(wanted))], [0, 1, 2])
server.sendall(wanted)
(pid,) = struct.unpack("i", server.recv(4, socket.MSG_WAITALL))
forwarded = (signal.SIGINT, signal.SIGTERM)
for each in forwarded:
    signal.signal(each, lambda number, _: os.kill(pid, number))
(code,) = struct.unpack("i", server.recv(4, socket.MSG_WAITALL))
if code < 0:
    for each in forwarded:
        signal.signal(each, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


class Forked:
    """A server of command processes, and ``headwater`` for them in ``folder``. A context manager; Linux only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listening = socket.socket(socket.AF_UNIX)
        with listening:
            address = str(folder / "socket")
            listening.bind(address)
            listening.listen()
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listening.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
            )
        self.command = folder / "headwater"
        self.command.write_text(CLIENT.format(python=sys.executable, address=address))
        self.command.chmod(0o755)

    def close(self) -> None:
        self._process.kill()  # it has nothing to put in order, and once did not end by SIGTERM
        self._process.wait(30)

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve(listening: socket.socket) -> list[str]:
    """Answer callers for ever; returns in each command's process, with its arguments."""
    _import_everything()
    gc.collect()
    gc.freeze()  # or each child's first collection would copy every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for a keeper
    while True:
        caller, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _keep(caller)
        caller.close()


def _import_everything() -> None:
    """What commands import when they run; ``--help`` brings what parses arguments."""
    for name in PRELOADED:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(getattr(package, "__path__", ()), f"{name}."):
            if name.startswith("headwater.") and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in (*BUILT_IN, *plug_ins()):
        load_target(name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(["topic", "list", "--help"])


def _keep(caller: socket.socket) -> list[str]:
    """Fork the command and tell its caller how it ended; returns in the command's process."""
    size, streams, _, _ = socket.recv_fds(caller, 4, 3)
    with caller.makefile("rb") as sent:
        wanted = sent.read(int.from_bytes(size, sys.byteorder))
    arguments, folder, environment = marshal.loads(wanted)
    command = os.fork()
    if command == 0:
        caller.close()
        _become(streams, folder, environment)
        return list(arguments)
    for stream in streams:
        os.close(stream)
    caller.sendall(command.to_bytes(4, sys.byteorder))
    watched = os.pidfd_open(command)
    if caller.fileno() in select.select([caller.fileno(), watched], [], [])[0]:
        os.kill(command, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        caller.sendall(code.to_bytes(4, sys.byteorder, signed=True))
    os._exit(0)


def _become(streams: list[int], folder: str, environment: dict[str, str]) -> None:
    """Take the caller's streams, directory and environment."""
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(place, mode) for place, mode in enumerate(("r", "w", "w")))
    sys.excepthook = sys.__excepthook__  # the command for the imports' sake has set its own
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # or ignored by whoever started the server
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    failpoint.follow(environment.get("HEADWATER_FAILPOINTS", ""))


def _run(arguments: list[str]) -> NoReturn:
    """The command, and an end as ``multiprocessing`` gives its forks: what was frozen is not torn down."""
    code: object = 1
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001 -- as the interpreter does with what nobody caught
        sys.excepthook(*sys.exc_info())
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
