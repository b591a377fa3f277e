"""The heartbeat file: many open it at once, and only a torn one is made anew."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from headwater.catalog.live import FILE, Live
from headwater.clock import SystemClock

OPENERS = 4


def together(folder: Path) -> dict[str, object]:
    """Everyone opens the new file and beats; what one who comes later reads."""
    folder.mkdir()
    gate = threading.Barrier(OPENERS)

    def beat(number: int) -> None:
        live = Live(folder, SystemClock())
        gate.wait()
        live.beat(f"component {number}", rows=number)

    with ThreadPoolExecutor(OPENERS) as pool:
        list(pool.map(beat, range(OPENERS)))
    return {name: row.stats["rows"] for name, row in Live(folder, SystemClock()).read().items()}


def test_who_opens_a_new_file_at_once_sees_the_others(tmp_path: Path) -> None:
    for round_ in range(100):
        assert together(tmp_path / str(round_)) == {f"component {number}": number for number in range(OPENERS)}


def test_a_torn_file_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"torn by a power cut" * 500)
    live = Live(tmp_path, SystemClock())
    live.beat("component", rows=1)
    assert live.read()["component"].stats == {"rows": 1}


def test_a_lease_renewed_beside_others_is_held(tmp_path: Path) -> None:
    """Who took its time earlier and wrote later must not take the other's lease for one of an earlier boot."""
    gate = threading.Barrier(OPENERS)
    names = {f"member {number}" for number in range(OPENERS)}
    lost: list[set[str]] = []

    def renew(number: int) -> None:
        live, name = Live(tmp_path, SystemClock()), f"member {number}"
        live.renew("group", name, 60.0)
        gate.wait()
        for _ in range(2_000):
            live.renew("group", name, 60.0)
            lost.append(names - live.leases("group").keys())

    with ThreadPoolExecutor(OPENERS) as pool:
        list(pool.map(renew, range(OPENERS)))
    assert set().union(*lost) == set()


def test_a_lease_of_any_length_is_held(tmp_path: Path) -> None:
    """Its end has coarser digits than now, the more so the longer it is: rounded up, it is none of an earlier boot."""
    live = Live(tmp_path, SystemClock())
    names = {f"{number}" for number in range(100)}  # up to a week
    for number, name in enumerate(sorted(names)):
        live.renew("group", name, 3.0 * 1.13**number)
    assert live.leases("group").keys() == names
