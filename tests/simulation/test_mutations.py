"""The tests see what they are for: each way to break headwater makes the test that guards it fail.

``headwater.testing.mutations`` holds the ways, ``CAUGHT`` which test must notice. The five that durability hangs on
are tried in every run, on a recorded workload; all of them by ``make test-long``, each in a pytest of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.errors import HeadwaterError
from headwater.testing import power
from headwater.testing.mutations import MUTATIONS
from headwater.testing.recording import Recorded
from headwater.testing.shim import Server

HERE = Path(__file__).parent
ON_THE_DISK = "test_power_loss.py::test_what_is_acknowledged_is_on_the_disk[capture]"
CAUGHT = {
    "no-fsync-of-files": ON_THE_DISK,
    "no-fsync-of-folders": ON_THE_DISK,
    "catalog-before-files": ON_THE_DISK,
    "synchronous-normal": ON_THE_DISK,
    "synchronous-off": ON_THE_DISK,
    "fsync-tried-again": "test_faults_disk.py::test_an_fsync_that_failed_is_not_believed_later",
    "folder-that-exists-is-not-synced": "test_power_loss.py::test_kill_then_power_cut",
    "manifest-not-synced": "test_power_loss.py::test_a_file_put_under_a_name_is_whole[capture]",
    "unlink-before-the-catalog": ON_THE_DISK,
    "batches-not-checked": "test_faults_files.py::test_a_flipped_bit_anywhere_in_a_hot_file_is_refused",
    "segments-not-checked": "test_faults_files.py::test_a_flipped_bit_in_any_part_of_a_parquet_file_is_found",
    "damage-not-named": "test_faults_files.py::test_an_ordinary_read_names_the_file_it_cannot_read",
    "short-write-believed": "test_faults_disk.py::test_writes_and_reads_that_return_short",
    "short-read-believed": "test_faults_disk.py::test_writes_and_reads_that_return_short",
    "file-reused": "test_faults_files.py::test_a_name_is_used_once",
    "epoch-not-checked": "test_faults_writers.py::test_a_writer_that_slept_through_its_succession_is_fenced",
    "position-not-checked": "test_faults_writers.py::test_an_older_owner_and_an_older_position_are_refused",
    "offsets-outside-the-transaction": "test_faults_writers.py::test_writers_in_processes",
    "no-writers-queue": "test_faults_writers.py::test_writers_in_threads",
    "begin-deferred": "test_faults_catalog.py::test_others_try_to_write_at_every_statement",
    "clock-believed": "test_faults_writers.py::test_a_clock_that_jumps",
    "unknown-outcome-taken-as-failure": (
        "test_faults_catalog.py::test_a_commit_that_failed_may_have_happened_and_its_files_are_there"
    ),
    "left-log-trusted": "test_faults_catalog.py::test_a_commit_that_failed_is_not_built_upon",
    "orphans-without-grace": "test_faults_writers.py::test_nobody_cleans_up_beside_an_open_transaction",
    "files-of-a-commit-not-looked-for": (
        "test_faults_writers.py::test_a_clock_that_jumps_does_not_take_a_file_that_is_being_written"
    ),
}
NAMED = (
    "no-fsync-of-files",
    "no-fsync-of-folders",
    "catalog-before-files",
    "synchronous-normal",
    "synchronous-off",
)


def test_every_mutation_has_a_test_that_must_see_it() -> None:
    assert set(CAUGHT) == set(MUTATIONS)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMED)
def test_a_power_cut_shows_what_durability_hangs_on(shimmed: Server, arena: Path, seed: int, name: str) -> None:
    run = Recorded(shimmed, arena / "run", "capture", seed)
    assert run.run(mutation=name) == 0, "the broken program runs as if nothing were wrong"
    with pytest.raises((AssertionError, HeadwaterError)) as caught:
        run.cut(power.turning_points(run.events()), ["nothing"])
    print(f"{name}: {caught.value.__notes__[-1]}")


def outcome(tests: list[str], mutation: str | None) -> tuple[int, str]:
    return MUTATIONS.run(mutation, [HERE / test for test in tests], 900)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_without_a_mutation_they_pass() -> None:
    code, said = outcome(sorted(set(CAUGHT.values())), None)
    assert code == 0, said


@pytest.mark.long
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("name", CAUGHT)
def test_a_mutation_is_caught(name: str) -> None:
    code, said = outcome([CAUGHT[name]], name)
    assert code == 1, f"{name} was not caught by {CAUGHT[name]}:\n{said}"
    assert "Timeout" not in said, said
    assert "TypeError" not in said, f"{name} does not fit the code any more, and proves nothing:\n{said}"
    failed = next((line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
    print(f"{name} -> {failed}")
