"""The registry of a log: versions, races between writers, and any sequence of calls against a plain model."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headwater.catalog.records import TopicSettings
from headwater.cli.main import main
from headwater.errors import IncompatibleSchema, NameNotFound, SchemaConflict, SchemaError
from headwater.log import Log, open_log, subjects
from headwater.registry import MODES, Mode, Proposal
from headwater.schema import Field, Schema
from headwater.testing.writer import Writer

TOPIC = "app.events"
FIRST = Schema.of(id="BIGINT", n="INTEGER", key=("id",))


def column(name: str, kind: str, **values: Any) -> Field:
    return Field(id=0, name=name, type=kind, **values)


def create(log: Log, mode: Mode = "BACKWARD_TRANSITIVE", schema: Schema = FIRST) -> Writer:
    writer = Writer(log, "producer:test")
    with writer.transaction() as tx:
        tx.create_topic(TOPIC, "event", schema, settings=TopicSettings(compatibility=mode))
        tx.commit()
    return writer


def plus(*fields: Field) -> Proposal:
    return Proposal(fields=(*Proposal.of(FIRST).fields, *fields))


def test_versions_have_a_commit_and_its_time(log: Log) -> None:
    create(log)
    second = subjects.register(log, log.topic(TOPIC), plus(column("note", "VARCHAR", null_default=True)))
    assert (second.number, second.commit, log.newest_commit()) == (2, 2, 2)
    found = subjects.versions(log, log.topic(TOPIC))
    assert [(each.number, each.commit, len(each.schema.fields)) for each in found] == [(1, 1, 2), (2, 2, 3)]
    assert [each.time for each in found] == [log.commit_info(1).time, log.commit_info(2).time]
    assert log.topics(at=1)[0].schema == FIRST
    with pytest.raises(NameNotFound, match="no schema version 3"):
        subjects.version(log, log.topic(TOPIC), 3)


def test_what_is_in_force_already_is_no_new_version_and_no_commit(log: Log) -> None:
    create(log)
    topic = log.topic(TOPIC)
    assert subjects.register(log, topic, Proposal.of(FIRST)).number == 1
    assert subjects.propose(log, topic, Proposal.of(FIRST)).changes == ()
    assert log.newest_commit() == 1


def test_a_check_changes_nothing_and_a_refused_version_leaves_nothing(log: Log) -> None:
    create(log)
    topic = log.topic(TOPIC)
    wrong = Proposal.of(Schema.of(id="BIGINT", n="VARCHAR", key=("id",)))
    answer = subjects.propose(log, topic, wrong)
    assert [(each.rule, each.field) for each in answer.violations] == [("TYPE_CHANGED", "n")]
    assert [each.kind for each in answer.changes] == ["retyped"]
    with pytest.raises(IncompatibleSchema, match="TYPE_CHANGED; BACKWARD_TRANSITIVE, against version 1"):
        subjects.register(log, topic, wrong)
    assert (log.newest_commit(), list(log.schemas(topic))) == (1, [1])


def test_records_of_a_refused_version_are_not_there_either(log: Log) -> None:
    writer = create(log)
    required = replace(FIRST, fields=(*FIRST.fields, Field(id=3, name="must", type="BIGINT", nullable=False)))
    with writer.transaction() as tx:
        tx.add_schema(TOPIC, required)
        tx.append(TOPIC, pa.table({"id": [1], "n": pa.array([1], pa.int32()), "must": [1]}))
        with pytest.raises(IncompatibleSchema, match="REQUIRED_WITHOUT_DEFAULT"):
            tx.commit()
    assert log.read_changes(TOPIC, 0, log.newest_commit()).num_rows == 0
    assert list((log.folder / "data" / "hot").iterdir()) == []


def test_captured_tables_follow_their_source(log: Log, writer: Writer) -> None:
    writer.create("shop.public.t", "table", FIRST)
    with pytest.raises(SchemaError, match="follows source shop"):
        subjects.register(log, log.topic("t"), plus(column("x", "VARCHAR", null_default=True)))
    text = replace(FIRST, fields=(FIRST.fields[0], replace(FIRST.fields[1], type="VARCHAR")))
    with writer.transaction() as tx:
        tx.add_schema("shop.public.t", text)
        tx.commit()
    assert log.topic("t").schema_version == 2


def test_of_two_versions_made_from_one_only_the_first_is_taken(log: Log) -> None:
    writer = create(log)
    other = Writer(log, "producer:other")
    mine = replace(FIRST, fields=(*FIRST.fields, Field(id=3, name="mine", type="BIGINT", null_default=True)))
    theirs = replace(FIRST, fields=(*FIRST.fields, Field(id=3, name="theirs", type="BIGINT", null_default=True)))
    with writer.transaction() as one, other.transaction() as two:
        one.add_schema(TOPIC, mine)
        two.add_schema(TOPIC, theirs)  # the same id: by rules alone it would pass as a rename
        two.append(TOPIC, pa.table({"id": [1], "n": pa.array([1], pa.int32()), "theirs": [1]}))
        one.commit()
        with pytest.raises(SchemaConflict, match="version 2 was registered meanwhile"):
            two.commit()
    assert log.topic(TOPIC).schema.names == ("id", "n", "mine")
    with other.transaction() as again:  # the very same version is welcome
        again.add_schema(TOPIC, log.topic(TOPIC).schema)
        assert not again.changed


def test_the_same_version_from_two_writers_is_one(log: Log) -> None:
    writer, other = create(log), Writer(log, "producer:other")
    new = replace(FIRST, fields=(*FIRST.fields, Field(id=3, name="more", type="BIGINT", null_default=True)))
    row = {"id": [1], "n": pa.array([1], pa.int32())}
    with writer.transaction() as one, other.transaction() as two:
        for tx, value in ((one, 1), (two, 2)):
            tx.add_schema(TOPIC, new)
            tx.append(TOPIC, pa.table({**row, "more": [value]}))
        one.commit()
        two.commit()
    assert sorted(log.schemas(log.topic(TOPIC))) == [1, 2]
    assert log.read_changes(TOPIC, 0, log.newest_commit())["more"].to_pylist() == [1, 2]


def test_rows_of_an_older_version_in_flight_are_kept(log: Log) -> None:
    writer = create(log)
    with writer.transaction() as tx:
        tx.append(TOPIC, pa.table({"id": [1], "n": pa.array([1], pa.int32())}))
        subjects.register(log, log.topic(TOPIC), plus(column("x", "VARCHAR", write_default="-")))
        tx.commit()
    assert log.read_changes(TOPIC, 0, log.newest_commit())["x"].to_pylist() == ["-"]


@pytest.mark.parametrize("attempt", range(4))
def test_conflicting_versions_at_the_same_moment(log: Log, attempt: int) -> None:
    """Two handles, two threads: each version in force was accepted against all before it, whoever came first."""
    create(log, "FULL_TRANSITIVE")
    proposals = (plus(column("x", "VARCHAR", null_default=True)), plus(column("x", "BIGINT", null_default=True)))
    start, outcomes = threading.Barrier(2), []

    def run(proposal: Proposal) -> None:
        with open_log(log.folder) as own:
            topic = own.topic(TOPIC)
            start.wait(30)
            try:
                outcomes.append(subjects.register(own, topic, proposal).schema.field("x").type)
            except (IncompatibleSchema, SchemaConflict) as error:
                outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=run, args=(each,)) for each in proposals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    won = [each for each in outcomes if each in ("VARCHAR", "BIGINT")]
    assert len(outcomes) == 2
    assert len(won) == 1, (attempt, outcomes)
    assert log.topic(TOPIC).schema.field("x").type == won[0]
    assert sorted(log.schemas(log.topic(TOPIC))) == [1, 2]


class RegistryMachine(RuleBasedStateMachine):
    """Any sequence of proposals and records; the model is a list of versions and a dict of what each record says."""

    @initialize(mode=st.sampled_from(MODES))
    def begin(self, mode: Mode) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="headwater-registry-")
        self.log = open_log(Path(self.folder.name) / "lake", create=True)
        self.writer = create(self.log, mode)
        self.mode = mode
        self.model: list[dict[str, tuple[int, str]]] = [{"id": (1, "BIGINT"), "n": (2, "INTEGER")}]
        self.rows: list[dict[int, Any]] = []
        self.used = 2

    @rule(name=st.sampled_from("abc"), has_default=st.booleans())
    def add(self, name: str, has_default: bool) -> None:
        now = self.model[-1]
        if name in now:
            return
        ok = self.mode in ("NONE", "FORWARD", "FORWARD_TRANSITIVE") or has_default
        ok = ok and not self.named_before(name)
        if self.propose([*self.columns(), column(name, "INTEGER", null_default=has_default)], ok):
            self.used += 1
            self.model.append({**now, name: (self.used, "INTEGER")})

    @rule(name=st.sampled_from("nabc"))
    def drop(self, name: str) -> None:
        now = self.model[-1]
        if name not in now:
            return
        ok = self.mode.startswith(("NONE", "BACKWARD")) or self.droppable(now[name][0])
        if self.propose([each for each in self.columns() if each.name != name], ok):
            self.model.append({key: value for key, value in now.items() if key != name})

    @rule(old=st.sampled_from("nabc"), new=st.sampled_from("abcd"))
    def rename(self, old: str, new: str) -> None:
        now = self.model[-1]
        if old not in now or new in now:
            return
        before = {version[new][0] for version in self.compared() if new in version}
        columns = [replace(each, name=new) if each.name == old else each for each in self.columns()]
        if self.propose(columns, before <= {now[old][0]}, {new: old}):
            self.model.append({new if key == old else key: value for key, value in now.items()})

    @rule(name=st.sampled_from("nabc"))
    def widen(self, name: str) -> None:
        now = self.model[-1]
        if now.get(name, (0, ""))[1] != "INTEGER":
            return
        columns = [replace(each, type="BIGINT") if each.name == name else each for each in self.columns()]
        if self.propose(columns, self.mode.startswith(("NONE", "BACKWARD"))):
            self.model.append({**now, name: (now[name][0], "BIGINT")})

    @rule()
    def write(self) -> None:
        now = self.model[-1]
        row = {field_id: len(self.rows) for field_id, _ in now.values()}
        types = {"INTEGER": pa.int32(), "BIGINT": pa.int64()}
        data = {name: pa.array([row[field_id]], types[kind]) for name, (field_id, kind) in now.items()}
        self.writer.write(TOPIC, pa.table(data))
        self.rows.append(row)

    @invariant()
    def newest_version_is_the_models(self) -> None:
        if not hasattr(self, "log"):
            return
        schema = self.log.topic(TOPIC).schema
        assert {f.name: (f.id, f.type) for f in schema.fields} == self.model[-1]
        assert len(subjects.versions(self.log, self.log.topic(TOPIC))) == len(self.model)

    @invariant()
    def every_record_is_read_by_field(self) -> None:
        if not hasattr(self, "log"):
            return
        found = self.log.read_changes(TOPIC, 0, self.log.newest_commit())
        for name, (field_id, _) in self.model[-1].items():
            assert found[name].to_pylist() == [row.get(field_id) for row in self.rows]

    def teardown(self) -> None:
        if hasattr(self, "log"):
            self.log.close()
            self.folder.cleanup()

    def columns(self) -> list[Field]:
        return [replace(each, id=0) for each in self.log.topic(TOPIC).schema.fields]

    def compared(self) -> list[dict[str, tuple[int, str]]]:
        if self.mode == "NONE":
            return []
        return self.model if self.mode.endswith("TRANSITIVE") else self.model[-1:]

    def named_before(self, name: str) -> bool:
        return any(name in version for version in self.compared())

    def droppable(self, field_id: int) -> bool:
        """Whether every version compared with that has the field gives it a default."""
        topic = self.log.topic(TOPIC)
        known = self.log.schemas(topic)
        chosen = known.values() if self.mode.endswith("TRANSITIVE") else [known[max(known)]]
        having = [found for each in chosen if (found := each.by_id(field_id)) is not None]
        return all(each.optional for each in having)

    def propose(self, columns: list[Field], ok: bool, renames: dict[str, str] | None = None) -> bool:
        topic = self.log.topic(TOPIC)
        proposal = Proposal(fields=tuple(columns), renames=renames or {})
        if ok:
            subjects.register(self.log, topic, proposal)
        else:
            with pytest.raises(IncompatibleSchema):
                subjects.register(self.log, topic, proposal)
        return ok


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=8, stateful_step_count=10)


class LongRegistryMachine(RegistryMachine):
    """The same for longer."""


TestLongRegistryMachine = pytest.mark.long(pytest.mark.timeout(1_800)(LongRegistryMachine.TestCase))
TestLongRegistryMachine.settings = settings(max_examples=150, stateful_step_count=40)


@pytest.fixture
def headwater(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """The command line in a project's folder: exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    (tmp_path / "headwater.toml").write_text('[project]\nname = "app"\n')

    def run(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["schema", *args])
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, printed.out, printed.err

    return run


AVSC: dict[str, Any] = {
    "type": "record", "name": "Order",
    "fields": [
        {"name": "id", "type": "long"}, {"name": "n", "type": "int"},
        {"name": "state", "type": "string", "default": "open"},
    ],
}  # fmt: skip


def test_command_line(headwater: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "one.avsc").write_text(json.dumps(AVSC))
    code, out, _ = headwater("import", "app.orders", "one.avsc", "--key", "id", "--json")
    assert (code, json.loads(out)["key"], json.loads(out)["version"]) == (0, ["id"], 1)

    code, out, _ = headwater("export", "orders")
    own = json.loads(out)
    own["fields"][1] |= {"type": "BIGINT", "name": "count"}
    own["fields"].append({"name": "note", "type": "VARCHAR", "default": None})
    (tmp_path / "two.json").write_text(json.dumps(own))
    code, out, _ = headwater("check", "orders", "two.json")
    assert code == 0
    assert "renamed count: n → count" in out
    assert "accepted by BACKWARD_TRANSITIVE" in out
    assert headwater("list", "--json")[1].count('"version": 1') == 1  # a check changes nothing
    code, out, _ = headwater("register", "orders", "two.json")
    assert (code, out) == (0, "app.orders version 2 since commit 2\n")
    assert headwater("register", "orders", "two.json")[1] == "app.orders version 2 is in force already\n"

    code, out, _ = headwater("diff", "orders", "--json")
    assert [(c["kind"], c["field"]) for c in json.loads(out)["changes"]] == [
        ("renamed", "count"), ("retyped", "count"), ("added", "note"),
    ]  # fmt: skip
    code, out, _ = headwater("diff", "orders", "2", "1")
    assert "app.orders: version 2 to 1" in out
    assert "removed note" in out
    code, out, _ = headwater("list", "orders", "--json")
    assert [(v["version"], v["commit"], v["columns"], v["compatibility"]) for v in json.loads(out)["schemas"]] == [
        (1, 1, 3, "BACKWARD_TRANSITIVE"), (2, 2, 4, "BACKWARD_TRANSITIVE"),
    ]  # fmt: skip
    assert "count" in headwater("show", "orders")[1]
    assert [f["name"] for f in json.loads(headwater("show", "orders", "--version", "1", "--json")[1])["fields"]] == [
        "id",
        "n",
        "state",
    ]


def test_command_line_refusals(headwater: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "one.avsc").write_text(json.dumps(AVSC))
    headwater("import", "app.orders", "one.avsc", "--key", "id")
    bad = {**AVSC, "fields": [AVSC["fields"][0], {"name": "n", "type": "string"}]}
    (tmp_path / "bad.avsc").write_text(json.dumps(bad))
    code, out, _ = headwater("check", "orders", "bad.avsc")
    assert code == 1
    assert "refused by TYPE_CHANGED: n was INTEGER and would be VARCHAR (version 2 against version 1)" in out
    code, out, _ = headwater("check", "orders", "bad.avsc", "--json")
    document = json.loads(out)
    assert (code, document["accepted"]) == (1, False)
    assert [(v["rule"], v["field"], v["old"], v["new"]) for v in document["violations"]] == [
        ("TYPE_CHANGED", "n", 1, 2)
    ]
    code, _, err = headwater("register", "orders", "bad.avsc")
    assert (code, err.count("\n")) == (1, 1)
    assert "[TYPE_CHANGED; BACKWARD_TRANSITIVE, against version 1]" in err
    assert headwater("check", "orders", "nowhere.avsc")[0] == 2
    assert headwater("check", "orders", "one.avsc", "--rename", "n")[0] == 2
    assert headwater("show", "orders", "--version", "9")[0] == 1
    renamed = {**AVSC, "fields": [AVSC["fields"][0], {"name": "m", "type": "int"}, AVSC["fields"][2]]}
    (tmp_path / "renamed.avsc").write_text(json.dumps(renamed))
    assert headwater("check", "orders", "renamed.avsc")[0] == 1  # a new column without a default
    assert headwater("check", "orders", "renamed.avsc", "--rename", "n=m")[0] == 0
    for form in ("avro", "json-schema", "headwater"):
        exported = headwater("export", "orders", "--format", form)[1]
        (tmp_path / f"{form}.json").write_text(exported)
        assert "in force already" in headwater("check", "orders", f"{form}.json")[1]
