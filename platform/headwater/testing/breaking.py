"""Breaking the code to see a test fail: named mutations, and a run of tests with one of them.

A variable of the environment holds one name; the test processes and their children apply it when they start. Each
mutation wraps or replaces one function of the real code and raises AttributeError when that function is gone: a
mutation that changes nothing would prove nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


class Mutations(dict[str, Callable[[], None]]):
    """By name; decorate a function with it to add one, ``no_fsync`` as ``no-fsync``."""

    def __init__(self, variable: str) -> None:
        super().__init__()
        self.variable = variable

    def __call__(self, function: Callable[[], None]) -> Callable[[], None]:
        self[function.__name__.replace("_", "-")] = function
        return function

    def apply_from_environment(self) -> None:
        """Break what the environment asks for; nothing when it asks for nothing."""
        name = os.environ.get(self.variable)
        if name:
            self[name]()

    def run(self, name: str | None, tests: Sequence[Path | str], seconds: int) -> tuple[int, str]:
        """pytest's exit code for these tests under a mutation (0 passed, 1 failed), and what it said."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
        words = ["-q", "-x", "-p", "no:cacheprovider", "-o", f"timeout={seconds}", *map(str, tests)]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            env={**environment, **({self.variable: name} if name else {})},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout


def wrap(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace an attribute by what ``make`` makes of it."""
    setattr(owner, name, make(getattr(owner, name)))
