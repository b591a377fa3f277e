"""`headwater topic produce`: files of every format, refusals with their line, kills and resumes."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from headwater.catalog.records import TopicSettings
from headwater.cli.main import main
from headwater.client import door, files
from headwater.log import Log, open_log, topics
from headwater.schema import Field, Schema
from headwater.testing import producing
from headwater.testing.forks import FORKS

SCHEMA = Schema(
    fields=(
        Field(id=1, name="id", type="BIGINT", nullable=False),
        Field(id=2, name="name", type="VARCHAR"),
        Field(id=3, name="amount", type="DECIMAL(38,20)"),
        Field(id=4, name="at", type="TIMESTAMP WITH TIME ZONE"),
        Field(id=5, name="tags", type="VARCHAR[]"),
        Field(id=6, name="body", type="BLOB"),
        Field(id=7, name="more", type="JSON"),
        Field(id=8, name="region", type="VARCHAR"),
    ),
    key=("id",),
)


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a topic ``events``."""
    (tmp_path / "headwater.toml").write_text('[project]\nname = "shop"\n')
    log = open_log(tmp_path / "lake", create=True)
    with log, log.transaction("system:test", log.raise_epoch("system:test")) as tx:
        tx.create_topic("events", "event", SCHEMA, partitions=2)
        tx.commit()
    return tmp_path


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process."""

    def produce(*args: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(["topic", "produce", "events", *args, "--project", str(project)])
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, printed.out, printed.err)

    return produce


def _rows(project: Path, topic: str = "events") -> list[dict[str, Any]]:
    with open_log(project / "lake") as log:
        return _read(log, topic)


def _read(log: Log, topic: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = log.read_changes(topic, 0, log.newest_commit()).to_pylist()
    return found


EXPECTED = {
    "id": 2**60,
    "name": 'a "quoted"\nline, ß',
    "amount": Decimal("0.12345678901234567891"),
    "at": dt.datetime(2026, 3, 1, 10, tzinfo=dt.UTC),
    "tags": ["x y", "z"],
    "body": b"\x00\xff",
    "more": '{"k":1.10}',
    "region": "eu",
}
CSV = (
    "id,name,amount,at,tags,body,more,region\n"
    '1152921504606846976,"a ""quoted""\nline, ß",0.12345678901234567891,2026-03-01T12:00:00+02:00,'
    '"[x y, z]",00FF,"{""k"":1.10}",eu\n'
    '2,"",,,,,,\n'
)
JSONL = (
    '{"id":1152921504606846976,"name":"a \\"quoted\\"\\nline, \\u00df","amount":0.12345678901234567891,'
    '"at":"2026-03-01T12:00:00+02:00","tags":["x y","z"],"body":"00ff","more":{"k":1.10},"region":"eu"}\n'
    "\n"
    '{"id":"2","name":"","at":null}'
)


def _write(folder: Path, form: str) -> Path:
    path = folder / f"rows.{form}"
    match form:
        case "csv":
            path.write_text(CSV, encoding="utf-8")
        case "csv.gz":
            path.write_bytes(gzip.compress(CSV.encode()))
        case "jsonl":
            path.write_text(JSONL, encoding="utf-8")
        case "parquet":
            rows = [EXPECTED, {"id": 2, "name": ""}]
            parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA.arrow()), path)
    return path


@pytest.mark.parametrize("form", ["csv", "csv.gz", "jsonl", "parquet"])
def test_every_format_loses_nothing(run: Run, project: Path, tmp_path: Path, form: str) -> None:
    done = run(str(_write(tmp_path, form)), "--json")
    assert (done.code, done.err) == (0, "")
    told = json.loads(done.out)
    assert (told["topic"], told["rows"], told["batches"]) == ("events", 2, 1)
    rows = {row["id"]: row for row in _rows(project)}
    assert {name: rows[2**60][name] for name in EXPECTED} == EXPECTED
    assert {name: value for name, value in rows[2].items() if name in EXPECTED and value is not None} == {
        "id": 2,
        "name": "",
    }


def test_stdin_keys_and_metadata(run: Run, project: Path) -> None:
    text = b'{"id":1,"_event_id":"e1","_event_at":"2026-01-01T00:00:00Z","_headers":{"k":"v","n":5}}\n'
    assert run("-", "--format", "jsonl", "--key", "region=eu", "--key", "name=5", stdin=text).code == 0
    assert run("--format", "csv", stdin=b"\xef\xbb\xbfid,name\r\n2,x\r\n").code == 0
    assert run("--format", "csv", stdin=b"id\n").code == 0
    rows = {row["id"]: row for row in _rows(project)}
    assert (rows[1]["region"], rows[1]["name"], rows[1]["_event_id"]) == ("eu", "5", "e1")
    assert rows[1]["_event_at"] == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert rows[1]["_headers"] == [("k", "v"), ("n", "5")]
    assert (rows[2]["name"], len(rows)) == ("x", 2)


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("csv", b"id,name\n1,a\nx,b\n", "row 2, id: 'x' does not fit BIGINT"),
        ("csv", b"id,name\n1,a\n\n2,b,c\n", "row 2, the row has not the 2 values"),
        ("csv", b"id,name\n1,a\n2\n", "row 2, the row has not the 2 values"),
        ("csv", b"id,nmae\n1,a\n", "row 1, nmae: 'a' is no column of the topic"),
        ("csv", b"id,name\n,a\n", "row 1, id is missing in the key"),
        ("csv", b"id,name\n1,\xff\n", "row 1, name: '\\\\xff' does not fit VARCHAR"),
        ("csv", b"id,amount\n1,1e3\n", "row 1, amount: '1e3' does not fit"),
        ("csv", b"id,id\n1,1\n", "names its columns, each once"),
        ("csv", b"", "names its columns, each once"),
        ("jsonl", b'{"id":1}\n\n{"id":2.5}\n', "line 3, id: '2.5' does not fit BIGINT"),
        ("jsonl", b'{"id":1}\n{"id":2\n', "line 2, the line is not a JSON object"),
        ("jsonl", b"[1]\n", "line 1, the line is not a JSON object"),
        ("jsonl", b'{"id":1,"name":5}\n', "line 1, name: '5' does not fit VARCHAR"),
        ("jsonl", b'{"id":1,"tags":"x"}\n', "line 1, tags"),
        ("jsonl", b'{"id":1,"zz":null}\n', "line 1, zz"),
        ("parquet", b"no parquet", "cannot be read"),
    ],
)
def test_refusals_name_row_or_line_and_field(
    run: Run, project: Path, tmp_path: Path, form: str, text: bytes, said: str
) -> None:
    path = tmp_path / f"bad.{form}"
    path.write_bytes(text)
    done = run(str(path))
    assert done.code == 1
    assert said in done.err
    assert _rows(project) == []


def test_wrong_usage_is_said(run: Run, tmp_path: Path) -> None:
    path = _write(tmp_path, "csv")
    for args, said in (
        (["-"], "Say --format"),
        ([str(path), "--format", "xml"], "'xml' is no format"),
        ([str(tmp_path / "nothing.csv")], "there is no file"),
        ([str(path), "--resume"], "--resume needs"),
        ([str(path), "--key", "region"], "no COLUMN=VALUE"),
        ([str(path), "--key", "region=x"], "the file has a column region itself"),
        ([str(path), "--id", "~x"], "no name for a producer"),
    ):
        done = run(*args)
        assert (done.code, said in done.err) == (2, True), done


def test_what_came_before_a_refusal_stays_and_is_told(run: Run, project: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id\n" + "\n".join("x" if n == 25 else str(n) for n in range(1, 41)))
    done = run(str(path), "--batch-rows", "10", "--id", "load")
    assert done.code == 1
    assert "row 25, id" in done.err
    assert "20 rows before it are in the log and stay. Go on with --resume" in done.err
    path.write_text("id\n" + "\n".join(map(str, range(1, 41))))
    done = run(str(path), "--batch-rows", "10", "--id", "load", "--resume", "--json")
    assert (json.loads(done.out)["rows"], json.loads(done.out)["repeated"]) == (20, 2)
    assert sorted(row["id"] for row in _rows(project)) == list(range(1, 41))


def test_bad_rows_as_dead_letters_keep_their_bytes(run: Run, project: Path) -> None:
    text = b'id,name\n1,a\nx,"b\n"\n2,c,d\n3,\xff\n4,e\n'
    done = run("--format", "csv", "--on-error", "dead-letter", stdin=text)
    assert (done.code, done.out) == (0, "2 rows to events in 1 batch, 3 dead letters.\n")
    lines = b'{"id":5}\n{"id":\n{"id":"y", "name": 7}\n{}'
    assert run("--format", "jsonl", "--on-error", "dead-letter", "--key", "region=eu", stdin=lines).code == 0
    assert sorted(row["id"] for row in _rows(project)) == [1, 4, 5]
    letters = [(each["original"], each["format"], each["error_field"]) for each in _rows(project, "events.dlq")]
    assert letters == [
        (b'{"id": "x", "name": "b\\n"}', "json", "id"),
        (b"2,c,d", "csv", "the row"),
        (b'"3","\xff"', "csv", "name"),
        (b'{"id":', "text", "the line"),
        (b'{"id":"y", "name": 7, "region": "eu"}', "json", "id"),
        (b'{"region": "eu"}', "json", "id"),
    ]


def test_a_name_is_resumed_only_when_asked_and_with_the_same_file(run: Run, project: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id\n" + "\n".join(map(str, range(25))))
    args = (str(path), "--id", "load", "--batch-rows", "10")
    assert run(*args, "--resume").code == 0
    done = run(*args)
    assert done.code == 2
    assert "3 batches are stored under this name" in done.err
    done = run(*args, "--resume")
    assert (done.code, done.out) == (0, "0 rows to events in 0 batches, 3 batches there already.\n")
    path.write_text("id\n" + "\n".join(map(str, range(1000, 1025))))
    assert "batch 2 of producer:load holds" in run(*args, "--resume").err
    path.write_text("id\n1\n")
    assert "the file has only 1" in run(*args, "--resume").err
    assert len(_rows(project)) == 25


def test_a_load_that_is_killed_again_and_again_arrives_once(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,name\n" + "\n".join(f"{n},row {n}" for n in range(60)))
    command = ["topic", "produce", "events", str(path), "--project", str(project)]
    command += ["--batch-rows", "10", "--id", "load", "--resume"]
    for plan in ("kill:catalog.commit:after:4", "kill:producer.commit:before:3", ""):
        process = FORKS.Process(target=producing.command, args=(command, plan), daemon=True)
        process.start()
        process.join(60)
        assert process.exitcode == (-signal.SIGKILL if plan else 0)
    assert sorted(row["id"] for row in _rows(project)) == list(range(60))


def test_a_terminal_sees_a_bar(project: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headwater.cli", "topic", "produce", "events", str(_write(tmp_path, "csv"))]
    screen, terminal = pty.openpty()
    try:
        ended = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, stderr=terminal, timeout=60, check=False)
        assert (ended.returncode, ended.stdout) == (0, b"2 rows to events in 1 batch.\n")
        assert b"producing" in os.read(screen, 65_536)
    finally:
        os.close(terminal)
        os.close(screen)


def test_pieces_are_the_same_however_the_bytes_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks, torn rows at their borders: rows keep their numbers, pieces their sizes."""
    text = "id\n" + "".join(f"{n},torn\n" if n % 7 == 0 else f"{n}\n" for n in range(1, 501))
    monkeypatch.setattr(files, "BLOCK_BYTES", 128)
    topic = topics.new("t", "event", Schema.of({"id": "BIGINT"}), 1, None, "", TopicSettings())
    sizes, good, bad = [], [], []
    for frame in files.pieces(io.BytesIO(text.encode()), "csv", topic, 40):
        checked = door.check(frame, topic, "UTC")
        sizes.append(frame.rows)
        good += checked.good().column("id").to_pylist()
        bad += [int(row) + frame.first for row in checked.bad]
    assert sizes == [40] * 12 + [20]
    assert good == [n for n in range(1, 501) if n % 7]
    assert bad == [n for n in range(1, 501) if n % 7 == 0]


def test_a_large_file_is_read_in_bounded_memory(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("id,name\n")
        line = "x" * 200
        for start in range(0, 100_000, 1000):
            file.writelines(f"{n},{line}\n" for n in range(start, start + 1000))
    before, highest = pa.total_allocated_bytes(), 0

    def watch(frames: Any) -> Any:
        nonlocal highest
        for frame in frames:
            highest = max(highest, pa.total_allocated_bytes())
            yield frame

    pieces = files.pieces
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", 1 << 18)
        patch.setattr(files, "pieces", lambda *args: watch(pieces(*args)))
        assert run(str(path), "--batch-rows", "1000").code == 0
    assert path.stat().st_size > 20_000_000
    assert highest - before < 15_000_000
