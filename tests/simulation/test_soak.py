"""Hours of everything: a nemesis that changes every round over the plugged-in workloads, and the same oracle.

Long runs only; ``HEADWATER_SOAK_SECONDS`` says how long (default 60).
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from headwater.testing import power
from headwater.testing.recording import Recorded
from headwater.testing.shim import Server
from headwater.testing.workloads import WORKLOADS

SECONDS = float(os.environ.get("HEADWATER_SOAK_SECONDS") or 60)
Nemesis = Callable[[Recorded, random.Random], int]


def nothing(run: Recorded, _chance: random.Random) -> int:
    return run.run()


def kill(run: Recorded, chance: random.Random) -> int:
    return run.run(f"kill:{chance.randint(1, 300)}")


def failing(call: str, action: str) -> Nemesis:
    """A call that fails, once or from then on."""

    def nemesis(run: Recorded, chance: random.Random) -> int:
        rule = f"{call}:{run.disk}/lake/*:{action}:{chance.randint(1, 60)}:{chance.choice([0, 1, 1, 3])}"
        return run.run(rules=(rule,))

    return nemesis


def killed_twice(run: Recorded, chance: random.Random) -> int:
    kill(run, chance)
    return run.run(f"kill:{chance.randint(1, 200)}", again=True)


NEMESES: dict[str, Nemesis] = {
    "nothing": nothing,
    "kill": kill,
    "killed twice": killed_twice,
    "fsync fails": failing("fsync", "EIO"),
    "fsync of a folder fails": failing("fsync_folder", "EIO"),
    "disk full": failing("write", "ENOSPC"),
    "short writes": failing("write", "short"),
    "close fails": failing("close", "EIO"),
    "no descriptors": failing("open", "EMFILE"),
    "read fails": failing("read", "EIO"),
}


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 600)
def test_soak(shimmed: Server, arena: Path, seed: int) -> None:
    chance, met = random.Random(seed), Counter[str]()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        number = met.total()
        workload, nemesis = chance.choice(sorted(WORKLOADS)), chance.choice(sorted(NEMESES))
        met[nemesis] += 1
        print(f"round {number}: {workload}, {nemesis}")
        run = Recorded(shimmed, arena / str(number), workload, chance.getrandbits(32))
        exit_code = NEMESES[nemesis](run, chance)
        assert exit_code in (0, 1, -signal.SIGKILL)
        run.check(complete=exit_code == 0)
        points = power.turning_points(run.events())
        run.cut(chance.sample(points, k=min(3, len(points))), [chance.choice(power.MODES)])
        assert run.run(again=True) == 0
        run.check(complete=True)
    print(met)
