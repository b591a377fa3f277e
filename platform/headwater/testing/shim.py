"""Processes whose file calls are written down, or made to fail: ``shim.c`` preloaded, and a server that forks them.

A start of Python with everything imported costs a second; the server pays it once and forks for each job. A job is
a function named ``module:function`` (or ``file.py:function``), its arguments, the folder to record, and rules for
calls that fail. Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from headwater import failpoint
from headwater.testing import mutations

SOURCE = Path(__file__).with_name("shim.c")
PRELOADED = ("headwater.testing.workloads", "headwater.lake")


def build(folder: Path, compiler: str) -> Path:
    """The library, compiled into ``folder``."""
    target = folder / "shim.so"
    flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", str(target), str(SOURCE), "-ldl", "-lpthread"], check=True)
    return target


def trace(root: Path | None, file: Path | None) -> None:
    """Record what this process changes below ``root`` from now on; without a file, only apply rules there."""
    _library().hw_shim_trace(os.fsencode(root or ""), os.fsencode(file or ""))


def rules(*texts: str) -> None:
    """Make calls fail from now on: ``call:glob:action:first:count``, see ``shim.c``. None: all calls work again.

    Calls: create, open, read, write, truncate, fsync, fsync_folder, close, rename, unlink, mkdir. Actions: EIO,
    ENOSPC, EMFILE, EACCES, ``skip`` (says yes, does nothing) and ``short`` (half of the bytes).
    """
    _library().hw_shim_rules(";".join(texts).encode())


def seen(rule: int) -> int:
    """How many calls have met a rule, by its place in the list."""
    _library().hw_shim_seen.restype = ctypes.c_long
    return int(_library().hw_shim_seen(rule))


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None)  # the symbols of everything loaded, the preloaded library among them


class Server:
    """Forks one process a job. A context manager."""

    def __init__(self, library: Path) -> None:
        environment = {**os.environ, "LD_PRELOAD": str(library)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "headwater.testing.shim"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self,
        target: str,
        arguments: Mapping[str, Any],
        *,
        root: Path | None = None,
        trace_file: Path | None = None,
        rules: tuple[str, ...] = (),
        plan: str = "",
        mutation: str | None = None,
    ) -> tuple[int, Any]:
        """Run ``target`` in a process of its own; its exit code (negative: the signal) and what it returned.

        Arguments and the result travel as JSON. ``plan`` is what HEADWATER_FAILPOINTS would hold,
        ``mutation`` what the process breaks first (see ``mutations``).
        """
        job = {
            "target": target,
            "arguments": {name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()},
            "root": str(root) if root else None,
            "trace": str(trace_file) if trace_file else None,
            "rules": rules,
            "plan": plan,
            "mutation": mutation,
        }
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the server was started without pipes")
        print(json.dumps(job), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server has ended with {self._process.wait()}")
        answer = json.loads(line)
        return answer["exit"], answer["result"]

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        if self._process.stdout:
            self._process.stdout.close()
        self._process.wait(30)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve() -> None:
    """Read jobs from standard input until it ends; nothing here starts a thread, so a fork is whole."""
    for name in PRELOADED:
        importlib.import_module(name)
    mutations.MUTATIONS.apply_from_environment()
    gc.collect()
    gc.freeze()  # or each child's first collection would copy every page
    for line in sys.stdin:
        job = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _work(job, writer)
        os.close(writer)
        with os.fdopen(reader) as answers:
            text = answers.read()
        _, status = os.waitpid(child, 0)
        answer = {"exit": os.waitstatus_to_exitcode(status), "result": json.loads(text) if text else None}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _work(job: dict[str, Any], writer: int) -> None:
    """The forked process, from its first to its last instruction."""
    code = 1
    try:
        module, _, name = job["target"].rpartition(":")
        trace(job["root"], job["trace"])
        rules(*job["rules"])
        failpoint.follow(job["plan"])
        if job["mutation"]:
            mutations.MUTATIONS[job["mutation"]]()
        result = _function(module, name)(**job["arguments"])
        os.write(writer, json.dumps(result).encode())
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it was, the parent must hear of it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _function(module: str, name: str) -> Any:
    """By the module's name, or by its file: tests are no packages."""
    if not module.endswith(".py"):
        return getattr(importlib.import_module(module), name)
    return runpy.run_path(module)[name]


if __name__ == "__main__":
    _serve()
