"""The worker over a real log: steps, views on views, create, drop, pause, resume, failure, restart."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.waiting import until

from headwater.config import Settings, load
from headwater.errors import NameNotFound, OwnedElsewhere, UsageError
from headwater.lake import Lake
from headwater.log import Log, open_log
from headwater.ownership import own
from headwater.schema import Schema
from headwater_pipelines import api
from headwater_pipelines.compiler.plan import Base
from headwater_pipelines.runtime import registry, worker
from headwater_pipelines.runtime.arrived import Arrived
from headwater_pipelines.runtime.bases import Store
from headwater_pipelines.runtime.state import State

from .conftest import VIEWS, Shop


def run(log: Log, settings: Settings | None = None) -> None:
    worker.run(log, settings or Settings(), threading.Event(), until_caught_up=True)


def create_all(log: Log) -> None:
    for name, sql in VIEWS.items():
        api.create_view(log, f"CREATE MATERIALIZED VIEW {name} AS {sql}")


def test_every_step_equals_the_sql(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        run(log)
        assert [view.state for view in log.views()] == ["live"] * len(VIEWS)
        for _ in range(8):
            shop.commit(log)
            run(log)
        assert shop.check_every_step(log, list(VIEWS)) >= 8
        assert log.last_step().input_commit == shop.commits[-1]  # type: ignore[union-attr]


@pytest.mark.long
def test_many_commits_in_one_step_and_one_commit_per_step_agree(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        run(log)
        for _ in range(10):
            shop.commit(log)
        before = log.last_step().number  # type: ignore[union-attr]
        run(log)
        assert log.last_step().number == before + 1  # type: ignore[union-attr]
        for _ in range(6):
            shop.commit(log)
        run(log, Settings(step_rows_target=1))
        assert log.last_step().number == before + 7  # type: ignore[union-attr]
        shop.check_every_step(log, list(VIEWS))


def test_a_view_created_later_and_one_recreated(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        api.create_view(log, VIEWS["totals"], name="totals")
        run(log)
        shop.commit(log)
        api.create_view(log, VIEWS["revenue"], name="revenue")
        run(log)
        shop.commit(log)
        api.drop_view(log, "revenue")
        run(log)
        shop.commit(log)
        api.create_view(log, VIEWS["revenue"], name="revenue")
        run(log)
        shop.check_every_step(log, ["totals", "revenue"])


def test_a_view_that_others_read_is_not_dropped(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        with pytest.raises(UsageError, match="countries"):
            api.drop_view(log, "revenue")
        assert api.lineage(log)["countries"] == ["views.revenue"]
        assert api.column_lineage(log)["countries"]["shop.public.customers"] == ["country", "id"]


def test_pause_and_resume_publish_the_difference(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        run(log)
        api.pause_view(log, "totals")
        for _ in range(3):
            shop.commit(log)
        run(log)
        step = log.last_step()
        paused = log.view("totals")
        assert step is not None
        assert paused.id not in step.views
        api.resume_view(log, "totals")
        run(log)
        assert log.view("totals").state == "live"
        shop.commit(log)
        run(log)
        shop.check_every_step(log, list(VIEWS))


def test_a_failing_view_is_paused_and_the_others_go_on(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        api.create_view(log, VIEWS["totals"], name="totals")
        api.create_view(log, "SELECT id, note::INTEGER AS n FROM orders WHERE id >= 1000", name="casts")
        run(log)
        assert log.view("casts").state == "live"
        bad = pa.table({"id": [1000], "customer_id": [1], "total": pa.array([None], pa.decimal128(12, 2)),
                        "note": ["no number"], "_op": ["c"]})  # fmt: skip
        shop.rows["orders"][1000] = {"id": 1000, "customer_id": 1, "total": None, "note": "no number"}
        with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
            tx.append("shop.public.orders", bad)
            shop.finish(tx)
        run(log)
        casts = log.view("casts")
        assert casts.state == "paused"
        assert "no number" in casts.reason
        shop.commit(log)
        run(log)
        shop.check_every_step(log, ["totals"])
        assert log.last_step().input_commit == shop.commits[-1]  # type: ignore[union-attr]


def test_a_lost_state_file_is_rebuilt_from_the_log(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        run(log)
        shop.commit(log)
        run(log)
        for path in (shop.lake / "state").glob("main.duckdb*"):
            path.unlink()
        shop.commit(log)
        run(log)
        shop.check_every_step(log, list(VIEWS))


def test_a_state_file_of_another_lake_is_not_trusted(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        run(log)
    with open_log(shop.lake) as log:
        log.set_setting("incarnation", "another")
        shop.commit(log)
        run(log)
        shop.check_every_step(log, list(VIEWS))


def test_a_view_waits_for_its_table(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        log.create_view("later", "SELECT count(*) AS n FROM payments")
        run(log)
        assert log.view("later").state == "creating"
        assert "payments" in log.view("later").reason
        with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
            tx.create_topic("shop.public.payments", "insert_only", Schema.of(amount="BIGINT"), source="shop")
            tx.append("shop.public.payments", pa.table({"amount": [1, 2], "_op": ["c", "c"]}))
            shop.finish(tx)
        run(log)
        assert log.view("later").state == "live"
        rows = log.read_changes("views.later", 0, log.newest_commit(), ["n", "_weight"])
        assert rows.to_pylist() == [{"n": 2, "_weight": 1}]


def test_a_table_that_comes_while_its_view_is_looked_at(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker has found no table and not yet said so; then there is one, and nothing changes after it."""
    compile_all = registry.compile_all

    def then_a_table(log: Log, *arguments: Any) -> Any:
        found = compile_all(log, *arguments)
        if not any(topic.name == "shop.public.payments" for topic in log.topics()) and asked.is_set():
            with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
                tx.create_topic("shop.public.payments", "insert_only", Schema.of(amount="BIGINT"), source="shop")
                tx.append("shop.public.payments", pa.table({"amount": [1, 2], "_op": ["c", "c"]}))
                shop.finish(tx)
        asked.set()  # first the state is opened; then the views are looked at
        return found

    asked, stop = threading.Event(), threading.Event()
    monkeypatch.setattr(registry, "compile_all", then_a_table)
    with open_log(shop.lake) as log:
        log.create_view("later", "SELECT count(*) AS n FROM payments")
        thread = threading.Thread(target=worker.run, args=(log, Settings(), stop))
        thread.start()
        try:
            until(lambda: log.view("later").state == "live")
        finally:
            stop.set()
            thread.join()


def test_a_value_no_type_can_hold_pauses_only_the_views_that_use_it(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        api.create_view(log, VIEWS["totals"], name="totals")
        api.create_view(log, "SELECT count(*) AS n FROM customers", name="customer_count")
        run(log)
        row = {"id": [1], "customer_id": [1], "total": pa.array([None], pa.decimal128(12, 2)), "note": ["x"]}
        raw = pa.array([[("total", "NaN")]], pa.map_(pa.string(), pa.string()))
        with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
            tx.append("shop.public.orders", pa.table({**row, "_op": ["u"], "_raw": raw}))
            shop.finish(tx)
        run(log)
        assert log.view("totals").state == "paused"
        assert "total" in log.view("totals").reason
        assert log.view("customer_count").state == "live"


def test_a_table_of_another_shape_rebuilds_its_views(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        api.create_view(log, "SELECT note, count(*) AS n FROM orders GROUP BY note", name="notes")
        run(log)
        wider = Schema.of(id="BIGINT", customer_id="BIGINT", total="DECIMAL(14,2)", note="VARCHAR", key=["id"])
        api.create_view(log, VIEWS["totals"], name="totals")
        run(log)
        with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
            tx.add_schema("shop.public.orders", wider)
            shop.finish(tx)
        run(log)
        assert [view.state for view in log.views()] == ["live", "live"]
        shop.commit(log)
        run(log)
        shop.check_every_step(log, ["totals"])


def test_a_corrupt_state_file_is_rebuilt(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        run(log)
        file = shop.lake / "state" / "main.duckdb"
        file.write_bytes(b"not a database" * 1000)
        shop.commit(log)
        run(log)
        shop.check_every_step(log, list(VIEWS))


def test_project_files_become_views(shop: Shop) -> None:
    project = load(shop.folder)
    project.views_dir.mkdir()
    for name, sql in VIEWS.items():
        (project.views_dir / f"{name}.sql").write_text(f"CREATE MATERIALIZED VIEW {name} AS\n{sql};\n")
    (project.views_dir / "early.sql").write_text("SELECT * FROM not_captured_yet")
    with open_log(shop.lake) as log:
        assert len(api.sync_project_views(project, log)) == len(VIEWS) + 1
        run(log)
        states = {view.name: view.state for view in log.views()}
        assert states == {**dict.fromkeys(VIEWS, "live"), "early": "creating"}
        assert api.sync_project_views(project, log) == []
        (project.views_dir / "totals.sql").write_text("SELECT 1 + count(*) AS n FROM orders")
        assert "totals.sql: differs" in api.sync_project_views(project, log)[0]


def test_uuid_keys(shop: Shop) -> None:
    ids = pa.array([bytes([n]) * 16 for n in range(3)], pa.uuid())
    with open_log(shop.lake) as log:
        with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
            schema = Schema.of(token="UUID", part="INTEGER", amount="BIGINT", key=["token", "part"])
            tx.create_topic("shop.public.tokens", "table", Schema.of(token="UUID", amount="BIGINT", key=["token"]))
            tx.create_topic("shop.public.parts", "table", schema)
            tx.append("shop.public.tokens", pa.table({"token": ids, "amount": [1, 2, 3], "_op": ["c"] * 3}))
            rows = {"token": ids, "part": pa.array([1, 1, 2], pa.int32()), "amount": [1, 2, 3]}
            tx.append("shop.public.parts", pa.table({**rows, "_op": ["c"] * 3}))
            shop.finish(tx)
        api.create_view(log, "SELECT token, amount FROM tokens", name="tokens_view")
        api.create_view(log, "SELECT sum(amount) AS s FROM parts", name="parts_view")
        run(log)
        with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
            tx.append("shop.public.tokens", pa.table({"token": ids, "amount": [10, 0, 3], "_op": ["u", "d", "u"]}))
            tx.append("shop.public.parts", pa.table({**rows, "amount": [5, 0, 3], "_op": ["u", "d", "u"]}))
            shop.finish(tx)
        run(log)
        api.pause_view(log, "tokens_view")
        run(log)
        api.resume_view(log, "tokens_view")
        run(log)  # rebuilt: the difference to what is published is nothing
        out = log.read_changes("views.tokens_view", 0, log.newest_commit(), ["amount", "_weight"]).to_pylist()
        assert sorted((row["amount"], row["_weight"]) for row in out[3:]) == [(1, -1), (2, -1), (10, 1)]
        out = log.read_changes("views.parts_view", 0, log.newest_commit(), ["s", "_weight"]).to_pylist()
        assert [(int(row["s"]), row["_weight"]) for row in out if row["_weight"] > 0] == [(6, 1), (8, 1)]


def test_an_update_changes_a_view_only_where_it_reads_another_value(shop: Shop) -> None:
    """Equal is not the same: a comparison takes 0.0 for -0.0, and a text of it does not."""
    rows = pa.table({"id": [1, 2], "country": ["NO", "SE"], "level": [0.0, 1.0], "visits": [0, 0]})
    with open_log(shop.lake) as log:
        with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
            schema = Schema.of(id="BIGINT", country="VARCHAR", level="DOUBLE", visits="BIGINT", key=["id"])
            tx.create_topic("shop.public.guests", "table", schema)
            tx.append("shop.public.guests", rows.append_column("_op", pa.array(["c", "c"])))
            shop.finish(tx)
        api.create_view(log, "SELECT id, country FROM guests", name="places")
        run(log)
        filled = len(log.read_changes("views.places", 0, log.newest_commit()))

        def update(**columns: list[object]) -> None:
            changed = rows
            for name, values in columns.items():
                changed = changed.set_column(rows.column_names.index(name), name, pa.array(values))
            with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
                tx.append("shop.public.guests", changed.append_column("_op", pa.array(["u", "u"])))
                shop.finish(tx)
            run(log)

        def changes(view: str, after: int) -> list[tuple[object, ...]]:
            out = log.read_changes(f"views.{view}", 0, log.newest_commit()).drop_columns(["_offset", "_partition"])
            return [tuple(row[name] for name in (*out.column_names[:2], "_weight")) for row in out.to_pylist()][after:]

        update(visits=[1, 1])
        assert changes("places", filled) == []
        update(visits=[2, 2], country=["NO", "FI"])
        assert sorted(changes("places", filled)) == [(2, "FI", 1), (2, "SE", -1)]
        api.create_view(log, "SELECT id, CAST(level AS VARCHAR) AS shown FROM guests", name="levels")
        run(log)
        update(level=[-0.0, 1.0])
        assert sorted(changes("levels", 2)) == [(1, "-0.0", 1), (1, "0.0", -1)]


def test_an_update_of_other_columns_makes_no_delta(tmp_path: Path) -> None:
    state = State(tmp_path / "state.duckdb", timezone="UTC")
    store = Store(Base("shop.public.guests", 1, "table"), Schema.of(id="BIGINT", country="VARCHAR", key=["id"]))
    store.create(state)
    kinds = {"_unchanged": pa.list_(pa.string()), "_partition": pa.int32()}
    kinds |= dict.fromkeys(("_offset", "_lsn", "_seq"), pa.int64())
    meta = {name: pa.nulls(2, kind) for name, kind in kinds.items()}

    def staged(op: str, *countries: str) -> int:
        changes = pa.table({"id": [1, 2], "country": list(countries), "_op": [op, op], **meta})
        rows = store.stage(state, Arrived.of(changes))
        store.apply(state, rows)
        return rows

    assert staged("c", "NO", "SE") == 2
    assert staged("u", "NO", "SE") == 0
    assert staged("u", "NO", "FI") == 2
    state.close()


def test_rows_that_cancel_out_in_a_bag_do_not_reach_a_view(shop: Shop) -> None:
    """A stored bag may still hold both; a row that joins them brings neither."""
    with open_log(shop.lake) as log:

        def commit(topic: str, **columns: list[object]) -> None:
            with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
                tx.append(topic, pa.table(columns))
                shop.finish(tx)

        with log.transaction("source:shop", shop.epoch, str(shop.position)) as tx:
            tx.create_topic("shop.public.marks", "multiset", Schema.of(k="BIGINT"))
            tx.create_topic("shop.public.owners", "table", Schema.of(id="BIGINT", key=["id"]))
            tx.append("shop.public.owners", pa.table({"id": [7], "_op": ["c"]}))
            shop.finish(tx)
        api.create_view(log, "SELECT o.id FROM owners o JOIN marks m ON m.k = o.id", name="marked")
        run(log)
        commit("shop.public.marks", k=[1], _op=["c"], _weight=[1])
        run(log)
        commit("shop.public.marks", k=[1], _op=["d"], _weight=[-1])
        run(log)
        commit("shop.public.owners", id=[1], _op=["c"])
        run(log)
        assert log.last_step().input_commit == shop.commits[-1]  # type: ignore[union-attr]
        assert len(log.read_changes("views.marked", 0, log.newest_commit())) == 0


def test_one_worker_at_a_time(shop: Shop) -> None:
    with open_log(shop.lake) as log, own(log, "pipeline:main"), pytest.raises(OwnedElsewhere):
        run(log)


def test_an_unknown_view_is_named_with_its_neighbours(shop: Shop) -> None:
    with open_log(shop.lake) as log:
        create_all(log)
        with pytest.raises(NameNotFound, match="revenue"):
            api.pause_view(log, "revenu")


def test_a_row_that_changed_its_key_keeps_what_the_source_did_not_send(tmp_path: Path) -> None:
    """An unchanged TOAST value is not sent with the new key: it is the old key's, prior or of the same batch."""
    schema = Schema.of({"id": "BIGINT", "body": "VARCHAR", "n": "BIGINT"}, key=["id"])
    types = pa.schema(
        [
            *schema.arrow(),
            ("_op", pa.string()),
            ("_unchanged", pa.list_(pa.string())),
            ("_lsn", pa.int64()),
            ("_seq", pa.int64()),
        ]
    )

    def rows(*values: tuple[object, ...]) -> pa.Table:
        return pa.Table.from_pylist([dict(zip(types.names, row, strict=True)) for row in values], schema=types)

    # The delete and the create of one key change stand at one place (_lsn, _seq) of one transaction.
    batches = {
        "0/1": rows((1, "long one", 0, "r", None, 0, 1), (2, "long two", 0, "r", None, 0, 2)),
        "0/2": rows((1, None, None, "d", None, 1, 1), (11, None, 5, "c", ["body"], 1, 1)),
        "0/3": rows(
            (2, "changed", 1, "u", None, 2, 1), (2, None, None, "d", None, 2, 2), (12, None, 6, "c", ["body"], 2, 2)
        ),
    }
    with open_log(tmp_path / "lake", create=True) as log, own(log, "source:s") as owner:
        before = None
        for position, changes in batches.items():
            with log.transaction("source:s", owner.epoch, before) as tx:
                if before is None:
                    tx.create_topic("s.public.t", "table", schema, source="s")
                tx.append("s.public.t", changes)
                tx.position = position
                tx.commit()
            if before is None:
                api.create_view(log, "SELECT id, body FROM t", name="bodies")
            before = position
            run(log)
        with Lake(log) as lake:
            found = lake.sql("SELECT id, body FROM bodies ORDER BY id").fetchall()
            assert found == [(11, "long one"), (12, "changed")]
            assert found == lake.sql("SELECT id, body FROM t ORDER BY id").fetchall()
