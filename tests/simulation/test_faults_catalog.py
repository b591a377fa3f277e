"""The catalog under fire: others at every statement, a torn or flipped log of SQLite, a COMMIT that fails half way."""

from __future__ import annotations

import random
import shutil
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from headwater.catalog.catalog import FILE, Catalog
from headwater.errors import HeadwaterError
from headwater.log import open_log
from headwater.log.verify import verify
from headwater.testing import power, workload
from headwater.testing.recording import Recorded
from headwater.testing.shim import Server
from headwater.testing.workload import CAPTURE, check_folder


def at_every_statement(engine: Engine, call: Callable[[str], None]) -> None:
    """Have ``call(text)`` run as each statement of any connection begins."""
    engine.dispose()  # those that are there already

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_trace_callback(call)


class Intruder:
    """A connection of someone else's that tries to write at every statement of everybody's."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.written = 0
        self.surprises: list[Exception] = []

    def attach(self, engine: Engine, path: Path) -> None:
        def before(statement: str) -> None:
            if statement in ("BEGIN IMMEDIATE", "ROLLBACK"):
                return
            other = sqlite3.connect(path, timeout=0, isolation_level=None)
            try:
                other.execute("BEGIN IMMEDIATE")
                other.execute("INSERT OR REPLACE INTO setting VALUES ('intruder', ?)", (str(self.written),))
                other.execute("COMMIT")
                self.written += 1
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    self.surprises.append(error)  # SQLite lets nothing out of its callback
                self.refused[statement.split(None, 1)[0]] += 1
            finally:
                other.close()

        at_every_statement(engine, before)


def test_others_try_to_write_at_every_statement(arena: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody comes between the statements of a writer, and who comes between those of a reader changes nothing."""
    intruder = Intruder()
    init = Catalog.__init__

    def opened(self: Catalog, folder: Path, *, create: bool = False) -> None:
        init(self, folder, create=create)
        intruder.attach(self._engine, folder / FILE)

    monkeypatch.setattr(Catalog, "__init__", opened)
    workload.run(arena / "lake", arena / "told", seed)
    monkeypatch.undo()
    assert not intruder.surprises
    assert intruder.written > 20
    assert {"INSERT", "UPDATE", "DELETE", "SELECT", "COMMIT"} <= set(intruder.refused)
    check_folder(CAPTURE, arena / "lake", seed, (arena / "told").read_text().split(), complete=True)


def test_a_writer_waits_for_one_who_does_not_queue(arena: Path) -> None:
    """Another program holds SQLite's lock when ours begins: ours goes on when that one ends."""
    with open_log(arena / "lake", create=True) as log:
        other = sqlite3.connect(arena / "lake" / FILE, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO setting VALUES ('other', 'first')")
        begun = threading.Event()

        at_every_statement(log.catalog._engine, lambda text: begun.set() if text == "BEGIN IMMEDIATE" else None)

        def let_go() -> None:
            begun.wait(30)
            other.execute("COMMIT")

        thread = threading.Thread(target=let_go)
        thread.start()
        with log.catalog.write() as connection:
            found = connection.exec_driver_sql("SELECT value FROM setting WHERE name = 'other'").scalar_one()
        thread.join()
        other.close()
    assert found == "first"


# ---- SQLite's log


@pytest.fixture(scope="module")
def killed(shimmed: Server, module_arena: Path, module_seed: int) -> Recorded:
    """A run that was killed between two acknowledged commits: its newest commits are in SQLite's log only."""
    run = Recorded(shimmed, module_arena / "killed", "capture", module_seed)
    assert run.run("kill:acknowledge:after:2") == -signal.SIGKILL
    assert run.told() == ["1", "2"]
    return run


def newest(folder: Path) -> int:
    """The newest commit, as SQLite alone sees it."""
    connection = sqlite3.connect(folder / FILE)
    try:
        return int(connection.execute('SELECT max(number) FROM "commit"').fetchone()[0] or 0)
    finally:
        connection.close()


def frames(wal: bytes) -> list[tuple[int, int]]:
    """(start, end) of each transaction in SQLite's log: up to its commit frame (format: sqlite.org/fileformat)."""
    found, start, size = [], 32, 24 + int.from_bytes(wal[8:12], "big")
    for place in range(32, len(wal) - size + 1, size):
        if int.from_bytes(wal[place + 4 : place + 8], "big"):
            found.append((start, place + size))
            start = place + size
    return found


def alone(recorded: Recorded, folder: Path) -> tuple[Path, bytes]:
    """A copy of the catalog and of nothing else, and its log's bytes."""
    folder.mkdir()
    lake = recorded.disk / "lake"
    shutil.copyfile(lake / FILE, folder / FILE)
    return folder, (lake / f"{FILE}-wal").read_bytes()


def cut_log(folder: Path, whole: bytes, wal: bytes) -> int:
    for name in (f"{FILE}-wal", f"{FILE}-shm"):
        (folder / name).unlink(missing_ok=True)
    (folder / FILE).write_bytes(whole)
    (folder / f"{FILE}-wal").write_bytes(wal)
    return newest(folder)


def torn_tails(recorded: Recorded, folder: Path, step: int) -> None:
    """The last transaction of SQLite's log, cut short at every ``step``-th byte: it is gone, those before are not."""
    folder, wal = alone(recorded, folder)
    whole = (folder / FILE).read_bytes()
    start, end = frames(wal)[-1]
    before = cut_log(folder, whole, wal[:start])
    assert cut_log(folder, whole, wal[:end]) == before + 1
    for kept in range(end - 1, start - 1, -step):
        assert cut_log(folder, whole, wal[:kept]) == before, f"cut at byte {kept} of {start} to {end}"


def test_a_torn_tail_of_the_catalogs_log(killed: Recorded, arena: Path) -> None:
    torn_tails(killed, arena / "catalog", 509)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_tail_of_the_catalogs_log_torn_at_every_byte(killed: Recorded, arena: Path) -> None:
    torn_tails(killed, arena / "catalog", 1)


def test_a_tail_that_was_never_acknowledged_is_cut_and_the_writer_goes_on(
    killed: Recorded, arena: Path, seed: int
) -> None:
    lake = arena / "lake"
    shutil.copytree(killed.disk / "lake", lake)
    wal = (lake / f"{FILE}-wal").read_bytes()
    start, end = frames(wal)[-1]
    (lake / f"{FILE}-wal").write_bytes(wal[: random.Random(seed).randrange(start, end)])
    (lake / f"{FILE}-shm").unlink()
    check_folder(CAPTURE, lake, killed.seed, ["1"], complete=False)
    (arena / "told").write_text("1\n")
    workload.run(lake, arena / "told", killed.seed, True)
    check_folder(CAPTURE, lake, killed.seed, (arena / "told").read_text().split(), complete=True)


def test_a_flip_in_the_catalogs_log_never_shows_half_a_commit(killed: Recorded, arena: Path, seed: int) -> None:
    """SQLite's check sums end its log there: the lake is a whole earlier one, or it is refused."""
    chance = random.Random(seed)
    for number in range(2):
        lake = arena / str(number)
        shutil.copytree(killed.disk / "lake", lake)
        wal = bytearray((lake / f"{FILE}-wal").read_bytes())
        wal[chance.randrange(frames(bytes(wal))[0][1], len(wal))] ^= 1 << chance.randrange(8)
        (lake / f"{FILE}-wal").write_bytes(wal)
        (lake / f"{FILE}-shm").unlink()
        whole_or_refused(lake, killed.seed)


def test_without_its_log_the_catalog_is_an_earlier_one_or_refused(killed: Recorded, arena: Path) -> None:
    lake = arena / "lake"
    shutil.copytree(killed.disk / "lake", lake)
    for name in (f"{FILE}-wal", f"{FILE}-shm"):
        (lake / name).unlink()
    whole_or_refused(lake, killed.seed)


def whole_or_refused(lake: Path, seed: int) -> None:
    try:
        check_folder(CAPTURE, lake, seed, [], complete=False)
    except HeadwaterError as error:
        if "older than this folder" not in str(error):
            raise


# ---- a COMMIT of unknown outcome


def test_a_commit_that_failed_may_have_happened_and_its_files_are_there(
    shimmed: Server, arena: Path, seed: int
) -> None:
    """fsync of SQLite's log fails: the writer hears an error, and after a crash the commit may be there."""
    run = Recorded(shimmed, arena / "run", "capture", seed)
    assert run.run(rules=("fsync:*/catalog.sqlite-wal:EIO:6:1",)) == 1
    events = run.events()
    failed = next(number for number, each in enumerate(events) if each.op == "E")
    points = [failed, failed + 1, *(point for point in power.turning_points(events) if point > failed + 1)]
    assert run.cut(points, ["nothing", "everything"]) > 1
    assert run.run(again=True) == 0
    run.check(complete=True)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_commit_that_failed_is_not_built_upon(shimmed: Server, arena: Path, seed: int, nth: int) -> None:
    """The process ends without closing SQLite, so the next one finds the failed transaction in its log."""
    run = Recorded(shimmed, arena / "run", "capture", seed)
    assert run.run(rules=(f"fsync:*/catalog.sqlite-wal:EIO:{nth}:1",)) == 1
    assert run.run(again=True) == 0
    run.check(complete=True)
    run.cut([len(run.events())], ["nothing"])


def test_a_flipped_byte_of_the_catalog_is_found_or_harms_nothing(arena: Path, seed: int) -> None:
    """In structure SQLite sees it, in what belongs together ``verify`` does; what nobody sees must change no answer."""
    flips(arena, seed, 3)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_flipped_bytes_of_the_catalog(arena: Path, seed: int) -> None:
    seen = flips(arena, seed, 500)
    print(seen)
    assert seen["refused"] + seen["found"] > 50


def flips(arena: Path, seed: int, many: int) -> Counter[str]:
    """Each flip's outcome: refused on opening or reading, found by ``verify --deep``, or without effect."""
    workload.run(arena / "lake", arena / "told", seed)
    chance, seen = random.Random(seed), Counter[str]()
    whole = (arena / "lake" / FILE).read_bytes()
    used = [place for place, byte in enumerate(whole) if byte]  # most of a small catalog's pages is empty
    for _ in range(many):
        lake = arena / "flipped"
        shutil.copytree(arena / "lake", lake)
        place, bit = chance.choice(used), chance.randrange(8)
        data = bytearray(whole)
        data[place] ^= 1 << bit
        (lake / FILE).write_bytes(data)
        seen[outcome(lake, seed, f"bit {bit} of byte {place}, page {place // 4096 + 1}")] += 1
        shutil.rmtree(lake)
    return seen


def outcome(lake: Path, seed: int, place: str) -> str:
    try:
        with open_log(lake) as log:
            if verify(log, deep=True).findings:
                return "found"
            workload.stands(log, [], True)
            workload.check(log, seed)
    except (HeadwaterError, TypeError, KeyError, ValueError):  # a stored schema that is no schema any more
        return "refused"
    except AssertionError as error:
        error.add_note(f"{place} of the catalog flipped: {sqlite_says(lake)}")
        raise
    return "harmless"


def sqlite_says(lake: Path) -> object:
    connection = sqlite3.connect(lake / FILE)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall()
    finally:
        connection.close()
