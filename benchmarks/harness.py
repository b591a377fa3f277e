"""What every benchmark shares: its command line, its figures and goals, and what a process cost.

A benchmark is a module with ``main``, run as ``python -m benchmarks.NAME [--quick] [--json]``:

    options = parse("latency", "what it measures")
    report = Report("latency", quick=options.quick)
    report.figure("rows_per_s", 131_000)                       # the unit is the end of the name
    report.goal("p95_ms", 212.0, at_most=400)
    sys.exit(report.finish(as_json=options.json))

``--json`` prints one object on stdout and nothing else: {"benchmark", "quick", "machine",
"figures": {name: value}, "goals": [{"name", "value", "goal", "holds"}], "notes": [text]}. Progress goes to stderr.
The exit code is 0 when every goal holds and 1 otherwise; ``--quick`` measures less of the same, never something
else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.processes import Meter

Value = float | int | str | None


def parse(
    name: str,
    description: str,
    more: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: Sequence[str] | None = None,
) -> argparse.Namespace:
    """The options that every benchmark has, and those that ``more`` adds."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--quick", action="store_true", help="measure less of the same, in at most a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    if more is not None:
        more(parser)
    return parser.parse_args(argv)


def say(text: str) -> None:
    """A line of progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """One figure with what was promised of it, as text ("<= 400"), and whether it holds."""

    name: str
    value: Value
    goal: str
    holds: bool


@dataclass
class Report:
    """What a run measured, in the order it was measured."""

    benchmark: str
    quick: bool = False
    figures: dict[str, Value] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figure(self, name: str, value: Value) -> None:
        """Record a figure. ``name`` ends in its unit (_rows_per_s, _ms, _mb) unless it is a ratio or a count."""
        self.figures[name] = _finite(value)

    def goal(self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """Record a figure and the goal it is held against; a value that is not a number holds no goal."""
        self.figure(name, value)
        holds = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
        parts = [f">= {at_least:g}"] if at_least is not None else []
        parts += [f"<= {at_most:g}"] if at_most is not None else []
        self.goals.append(Goal(name=name, value=_finite(value), goal=" and ".join(parts), holds=holds))

    def note(self, text: str) -> None:
        """A sentence that belongs to the figures: what was left out and why."""
        self.notes.append(text)

    @property
    def holds(self) -> bool:
        return all(goal.holds for goal in self.goals)

    def to_dict(self) -> dict[str, object]:
        return {
            "benchmark": self.benchmark,
            "quick": self.quick,
            "machine": machine(),
            "figures": self.figures,
            "goals": [asdict(goal) for goal in self.goals],
            "notes": self.notes,
        }

    def finish(self, *, as_json: bool = False) -> int:
        """Print everything; returns the exit code."""
        if as_json:
            print(json.dumps(self.to_dict(), indent=2))
        else:
            self._print_tables()
        return 0 if self.holds else 1

    def _print_tables(self) -> None:
        console = Console()
        held = {goal.name: goal for goal in self.goals}
        title = f"benchmarks.{self.benchmark}" + (" --quick" if self.quick else "")
        table = Table(title=title, title_justify="left")
        table.add_column("figure")
        table.add_column("value", justify="right")
        table.add_column("goal")
        for name, value in self.figures.items():
            goal = held.get(name)
            verdict = "" if goal is None else f"{goal.goal}  {'holds' if goal.holds else 'MISSED'}"
            table.add_row(name, _shown(value), verdict)
        console.print(table)
        for note in self.notes:
            console.print(f"- {note}", markup=False, highlight=False)
        console.print(", ".join(f"{key} {value}" for key, value in machine().items()), highlight=False)


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as pages have it."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def write_block(page: Path, name: str, text: str) -> None:
    """Put what a benchmark measured into a page, between the comments that bear its name: nobody types figures."""
    before, after = require_block(page, name)
    page.write_text(f"{before}\n{text}\n\n{after}")


def require_block(page: Path, name: str) -> tuple[str, str]:
    """What is before and after a page's place of that name, both with its comments; ValueError where there is none."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no place for it: write {begin.strip()} and {end.strip()} where it belongs")
    return before + begin, end + after


def _finite(value: Value) -> Value:
    """JSON has no NaN: what could not be measured is null."""
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def _shown(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3g}" if abs(value) < 1 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> dict[str, Value]:
    """What the figures depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
        "arch": platform.machine(),
        "python": platform.python_version(),
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` (0..1) of them do not exceed; NaN for none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one run of a command took. ``stdout`` is empty unless it was asked for."""

    exit_code: int
    wall_s: float
    cpu_s: float
    peak_mb: float
    stdout: str = ""


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    stdout: IO[bytes] | int | None = subprocess.PIPE,
) -> Cost:
    """Run a command to its end and measure it: wall, CPU (its descendants included), peak memory.

    CPU is the kernel's own account of ended children, so measure one command at a time; stderr is passed through.
    Raises TimeoutExpired after ``timeout`` seconds, with the process killed.
    """
    began = time.monotonic()
    before = os.times()
    process = subprocess.Popen(list(argv), stdout=stdout, env=None if env is None else {**os.environ, **env})
    with Meter(process.pid) as meter:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        wall = time.monotonic() - began
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(
        exit_code=process.returncode,
        wall_s=wall,
        cpu_s=cpu,
        peak_mb=meter.peak_mb,
        stdout=(output or b"").decode("utf-8", "replace"),
    )
