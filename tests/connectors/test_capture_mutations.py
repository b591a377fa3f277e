"""The tests of capture see what they are for: without its mechanism, each of them fails.

``capture_mutations`` holds what is taken away, ``CAUGHT`` which test must notice. Each runs in a pytest of its own, by
``make test-long``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.connectors.capture_mutations import MUTATIONS

HERE = Path(__file__).parent
COPY, PAIN = "test_initial_copy.py::test_", "test_pain_points.py::test_pain_"
TRIGGER = "test_event_trigger.py::test_"
STANDBY = "test_standby.py::test_"
GAP, FAILOVER = "test_gap.py::test_", "test_failover.py::test_"
APPLICATION = "test_application.py::test_no_statement_of_the_application_fails_or_waits_for_us"
IDENTITIES = "test_old_rows.py::test_every_replica_identity_with_every_kind_of_change[binary]"
RANGE = "test_isolation.py::test_a_range_is_copied_again"
CAUGHT = {
    "never-acknowledged": f"{PAIN}01_the_slot_moves_while_the_source_is_written_to",
    "idle-not-acknowledged": f"{PAIN}02_the_slot_moves_when_only_other_tables_change",
    "silence-is-borne": f"{PAIN}03_a_connection_that_says_nothing_is_given_up",
    "absent-servers-given-up": f"{PAIN}03_a_server_that_stays_away_is_waited_for",
    "unchanged-values-not-marked": "test_capture.py::test_unchanged_toast_is_never_a_made_up_null",
    "acknowledged-when-received": f"{PAIN}05_sessions_that_break_anywhere_lose_and_double_nothing",
    "chunks-read-again-after-a-crash": f"{COPY}a_copy_goes_on_after_a_crash_from_the_chunks_that_are_kept",
    "survey-locks-tables": f"{PAIN}07_a_table_that_is_locked_stops_nothing",
    "one-bad-table-stops-the-source": (
        "test_isolation.py::test_a_table_of_which_nothing_can_be_read_is_left_and_the_others_go_on"
    ),
    "one-bad-row-stops-the-stream": "test_isolation.py::test_a_row_that_cannot_be_read_becomes_a_letter",
    "one-bad-row-stops-the-copy": ("test_isolation.py::test_rows_that_cannot_be_read_in_the_first_copy_become_letters"),
    "no-streaming-of-transactions-in-progress": (
        "test_streams.py::test_other_tables_go_on_beside_a_streamed_transaction"
    ),
    "rolled-back-parts-kept": "test_streams.py::test_rolled_back_parts_of_a_streamed_transaction",
    "messages-of-rolled-back-parts-believed": "test_streams.py::test_messages_of_a_streamed_transaction",
    "origins-in-segments-kept": "test_streams.py::test_origins_in_segments_are_dropped",
    "each-transaction-committed-by-itself": f"{PAIN}16_many_small_transactions_are_few_commits_and_files",
    "old-keys-forgotten": IDENTITIES,
    "unsent-values-not-taken-from-old-rows": IDENTITIES,
    "tables-without-identity-believed-complete": IDENTITIES,
    "outbox-rows-ignored": "test_events.py::test_rows_inserted_into_an_outbox_table_are_events[binary]",
    "letters-of-the-copy-forgotten": (
        "test_isolation.py::test_rows_that_cannot_be_read_in_the_first_copy_become_letters"
    ),
    "chunks-on-record-before-they-are-read": (
        "test_capture_process.py::test_kill_9_at_every_step_of_a_copy_with_changes_pending"
    ),
    "conditions-on-copies-ignored": RANGE,
    "rows-that-only-the-lake-has-not-selected": RANGE,
    "changes-beside-a-range-forgotten": RANGE,
    "rows-larger-than-the-buffer-refused": f"{PAIN}09_a_row_of_a_hundred_megabytes",
    "rewritten-rows-not-copied": "test_shapes.py::test_the_table_is_the_servers_after_every_kind_of_ddl[alone]",
    "exact-texts-dropped": f"{PAIN}11_numbers_that_no_decimal_holds_keep_their_text",
    "settings-not-pinned": f"{PAIN}12_times_are_read_alike_whatever_the_servers_settings[text]",
    "status-only-with-commits": f"{PAIN}13_a_slow_commit_does_not_cost_the_session",
    "messages-in-libpq-not-looked-for": "test_secured.py::test_nothing_waits_in_the_tls_layer",
    "invalidated-slots-believed": f"{GAP}a_slot_that_the_server_invalidated_is_repaired_where_that_is_allowed",
    "every-row-read-again-after-a-gap": f"{GAP}pain_15_a_slot_that_was_dropped_costs_a_comparison_not_a_copy",
    "values-that-the-lake-cannot-hold-compared-as-null": (
        f"{GAP}pain_15_a_slot_that_was_dropped_costs_a_comparison_not_a_copy"
    ),
    "another-history-repaired-unasked": f"{GAP}another_history_is_repaired_only_when_asked",
    "nobody-ends-the-session-of-a-capture-that-stands-still": (
        f"{GAP}pain_01_a_capture_that_stands_still_does_not_fill_the_servers_disk"
    ),
    "slots-stay-behind-at-a-failover": f"{FAILOVER}pain_14_a_promoted_standby_is_followed_without_loss",
    "branches-of-history-not-compared": f"{FAILOVER}commits_that_a_failover_lost_are_taken_back",
    "idle-positions-carried-over-to-another-server": (
        f"{FAILOVER}idle_wal_that_a_failover_lost_is_not_acknowledged_to_the_new_server"
    ),
    "marks-not-read": f"{FAILOVER}a_backup_that_was_restored_is_never_read_on_blindly",
    "no-text-for-unknown-types": f"{PAIN}17_a_type_that_nobody_knows_is_text[auto]",
    "altered-composites-not-looked-for": "test_composites.py::test_no_commit_takes_one_field_for_another",
    "altered-composites-not-copied": (
        "test_composites.py::test_the_table_is_the_servers_after_its_type_was_altered[alone]"
    ),
    "nothing-read-again": f"{COPY}an_unchanged_toast_value_of_a_row_that_moved_between_two_chunk_reads",
    "visible-because-older": f"{COPY}commits_are_streamed_before_snapshots_see_them",
    "open-transactions-not-awaited": f"{COPY}a_table_added_while_a_transaction_that_wrote_to_it_is_open",
    "changes-after-the-copy-forgotten": f"{COPY}changes_after_the_final_snapshot_come_after_the_copied_rows",
    "another-file-not-noticed": f"{COPY}a_table_is_altered_in_every_chunk[rewritten]",
    "truncates-forgotten": f"{COPY}a_table_emptied_or_rewritten_after_the_final_snapshot",
    "odd-keys-believed": "test_isolation.py::test_rows_whose_key_the_log_cannot_hold_become_letters",
    "standbys-snapshots-believed": f"{STANDBY}a_copy_from_a_standby_with_a_transaction_open_on_the_primary",
    "primarys-snapshots-believed": f"{STANDBY}commits_that_a_synchronous_standby_is_waited_for",
    "commits-at-the-point-seen": f"{STANDBY}a_commit_right_at_the_consistent_point_of_the_slot",
    "standby-not-waited-for": f"{STANDBY}a_standby_that_is_behind_is_waited_for",
    "lost-snapshots-replaced": f"{STANDBY}a_copy_from_a_standby_whose_snapshot_is_lost",
    "standby-never-given-up": f"{STANDBY}a_copy_from_a_standby_whose_snapshot_is_lost",
    "feedback-not-asked-for": f"{STANDBY}a_standby_whose_rows_may_be_vacuumed_is_not_copied_from",
    "heirs-published-with-their-parent": APPLICATION,
    "nobody-gives-way": APPLICATION,
    "only-table-locks-give-way": APPLICATION,
    "waits-for-locks-without-end": ("test_application.py::test_nothing_waits_behind_us_for_what_somebody_else_holds"),
    "every-table-in-one-publication": APPLICATION,
    "generated-identities-believed": APPLICATION,
    "event-triggers-not-heard": f"{TRIGGER}every_kind_of_ddl_is_known_in_the_commit_in_which_it_happened",
    "nothing-between-ddl-and-the-next-row": f"{TRIGGER}several_changes_in_one_transaction_take_effect_at_their_places",
    "columns-altered-twice-believed": f"{TRIGGER}several_changes_in_one_transaction_take_effect_at_their_places",
    "tables-without-identity-left-where-they-are": f"{TRIGGER}a_table_that_loses_its_key_can_be_updated_at_once",
    "errors-of-event-triggers-not-caught": f"{TRIGGER}nothing_of_the_trigger_makes_ddl_fail",
    "old-snapshots-believed": f"{TRIGGER}what_is_not_told_exactly_has_the_catalog_looked_at",
}


def test_every_mutation_has_a_test_that_must_see_it() -> None:
    assert set(CAUGHT) == set(MUTATIONS)


@pytest.mark.long
@pytest.mark.timeout(700)
@pytest.mark.parametrize("name", CAUGHT)
def test_a_mutation_is_caught(name: str) -> None:
    code, said = MUTATIONS.run(name, [HERE / CAUGHT[name]], 600)
    assert code == 1, f"{name} was not caught by {CAUGHT[name]}:\n{said}"
    assert "AttributeError: module" not in said, f"{name} does not fit the code any more, and proves nothing:\n{said}"
    failed = next((line for line in said.splitlines() if line.startswith(("FAILED tests", "ERROR tests"))), "")
    why = next((line[1:].strip() for line in said.splitlines() if line.startswith("E  ")), "")
    print(f"{name} -> {failed}: {why[:300]}")
