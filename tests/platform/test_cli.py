"""The command line as scripts use it: exit codes, exact output, errors as one paragraph."""

from __future__ import annotations

import csv
import io
import json
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import duckdb
import psutil
import pyarrow as pa
import pytest

from headwater.cli.main import BUILT_IN, app, as_command, load_target, main, plug_ins
from headwater.log import open_log
from headwater.metrics import HELP
from headwater.ownership import own
from headwater.schema import Schema

COMMAND_S = 60
NUMBER = 2**53 + 1
PRICE = Decimal("12345678901234.5678")
BIG = 2**70 + 1
SCHEMA = Schema.of(
    id="BIGINT",
    price="DECIMAL(20,4)",
    note="VARCHAR",
    at="TIMESTAMP WITH TIME ZONE",
    big="HUGEINT",
    share="DOUBLE",
    tags="VARCHAR[]",
    span="INTERVAL",
    token="UUID",
    body="BLOB",
    key=("id",),
)


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class Runner(Protocol):
    def __call__(self, *args: str, cwd: Path, stdin: str = "") -> Done: ...


@pytest.fixture
def headwater(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runner:
    """The command in this process: the same ``main`` as the script's, its heavy imports paid once."""

    def run(*args: str, cwd: Path, stdin: str = "") -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main sets it; given back afterwards
        monkeypatch.setenv("COLUMNS", "120")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(list(args))
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, printed.out, printed.err)

    return run


def script(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    command = [sys.executable, "-m", "headwater.cli", *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=COMMAND_S, check=False)


def rows(first: int) -> list[dict[str, Any]]:
    common = {
        "price": PRICE,
        "at": datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        "big": Decimal(BIG),
        "tags": ["a", 'b,"c'],
        "span": {"months": 1, "days": 2, "micros": 3},
        "token": uuid.UUID(int=7).bytes,
        "body": b"\x00\xff",
        "_op": "c",
        "_lsn": first,
        "_xid": first,
        "_seq": 0,
    }
    return [
        {**common, "id": NUMBER + first, "note": "", "share": float("nan")},
        {**common, "id": first, "note": None, "share": 0.1},
    ]


def table(found: list[dict[str, Any]]) -> pa.Table:
    metadata = [("_op", pa.string()), ("_lsn", pa.int64()), ("_xid", pa.int64()), ("_seq", pa.int64())]
    data = SCHEMA.arrow()
    stored = [pa.field(f.name, getattr(f.type, "storage_type", f.type)) for f in data]
    extra = [pa.field(name, kind) for name, kind in metadata]
    return pa.Table.from_pylist(found, schema=pa.schema([*stored, *extra])).cast(pa.schema([*data, *extra]))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose lake has one table and two commits of two rows."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "headwater.toml").write_text('[project]\nname = "shop"\n[source.shop]\ndsn = "host=nowhere"\n')
    with open_log(folder / "lake", create=True) as log, own(log, "source:shop") as owner:
        position = None
        for number in range(2):
            with log.transaction("source:shop", owner.epoch, position) as tx:
                if number == 0:
                    tx.create_topic("shop.public.orders", "table", SCHEMA, partitions=2, source="shop")
                tx.append("shop.public.orders", table(rows(number)))
                tx.position = position = f"0/{number + 10:X}"
                tx.commit()
    return folder


# ---- exact output


def test_json_is_one_object_that_loses_nothing(headwater: Runner, project: Path) -> None:
    done = headwater("sql", "SELECT * FROM orders ORDER BY id DESC LIMIT 2", "--format", "json", cwd=project)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout, parse_float=lambda text: pytest.fail(f"a float: {text}"))
    assert (answer["position"], answer["input_position"]) == (2, 2)
    assert {each["name"]: each["type"] for each in answer["columns"]}["big"] == "HUGEINT"
    first = answer["rows"][0]
    assert first["id"] == str(NUMBER + 1)
    assert first["price"] == str(PRICE)
    assert int(first["big"]) == BIG
    assert (first["note"], first["share"], first["tags"]) == ("", "NaN", ["a", 'b,"c'])
    assert first["token"] == str(uuid.UUID(int=7))
    assert first["body"] == "00ff"
    assert first["span"] == "1 month 2 days 00:00:00.000003"
    assert datetime.fromisoformat(first["at"]) == datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def test_small_integers_and_floats_are_json_numbers(headwater: Runner, project: Path) -> None:
    box = "{'cents': 1.50::DECIMAL(5,2), 'n': 3, 'raw': [unhex('00FF')]}"
    query = f"SELECT id, share, note, {box} AS box FROM orders ORDER BY id LIMIT 1"
    row = json.loads(headwater("sql", query, "--format", "json", cwd=project).stdout)["rows"][0]
    assert row == {"id": 0, "share": 0.1, "note": None, "box": {"cents": "1.50", "n": 3, "raw": ["00ff"]}}


def test_csv_is_exact_and_tells_null_from_empty(headwater: Runner, project: Path) -> None:
    done = headwater("sql", "FROM orders ORDER BY id", "--format", "csv", cwd=project)
    assert done.returncode == 0, done.stderr
    found = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [each["id"] for each in found] == ["0", "1", str(NUMBER), str(NUMBER + 1)]
    assert {each["price"] for each in found} == {str(PRICE)}
    assert {each["big"] for each in found} == {str(BIG)}
    lines = done.stdout.splitlines()
    assert ',"",' in lines[3]
    assert ',"",' not in lines[1]


def test_parquet_keeps_the_types(headwater: Runner, project: Path, tmp_path: Path) -> None:
    target = tmp_path / "orders.parquet"
    assert headwater("sql", "FROM orders ORDER BY id", "-o", str(target), cwd=project).returncode == 0
    with duckdb.connect() as connection:
        read = "SELECT id, price, big, span.micros, token FROM read_parquet($path) ORDER BY id DESC LIMIT 1"
        found = connection.execute(read, {"path": str(target)}).fetchone()
    assert found == (NUMBER + 1, PRICE, Decimal(BIG), 3, uuid.UUID(int=7))


def test_an_answer_of_the_past(headwater: Runner, project: Path) -> None:
    for at in ("1", "commit:1", "lsn:0/A"):
        done = headwater("sql", "SELECT count(*) AS n FROM orders", "--at", at, "--format", "json", cwd=project)
        assert json.loads(done.stdout)["rows"] == [{"n": 2}], at


def test_order_survives_every_format(headwater: Runner, project: Path, tmp_path: Path) -> None:
    query = "SELECT range AS n FROM range(300000) ORDER BY n DESC"
    target = tmp_path / "n.csv"
    assert headwater("sql", query, "-o", str(target), cwd=project).returncode == 0
    numbers = [int(line) for line in target.read_text().splitlines()[1:]]
    assert numbers == list(range(299_999, -1, -1))


def test_a_query_from_stdin_and_a_table_for_people(headwater: Runner, project: Path) -> None:
    done = headwater("sql", "-", cwd=project, stdin="SELECT count(*) AS orders FROM orders")
    assert done.returncode == 0
    assert "orders" in done.stdout
    assert "at commit 2" in done.stdout


def test_a_failed_answer_leaves_no_file(headwater: Runner, project: Path, tmp_path: Path) -> None:
    target = tmp_path / "missing" / "x.csv"
    done = headwater("sql", "SELECT 1", "-o", str(target), cwd=project)
    assert done.returncode == 2
    assert f"there is no folder {target.parent}" in done.stderr


# ---- errors


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("sql", "SELECT nope FROM orders"), 1, ("nope", "Did you mean")),
        (("sql", "SELECT * FROM orderz"), 1, ("orderz", "shop.public.orders")),
        (("sql", "SELECT 1", "--at", "commit:99"), 1, ("commit 99", "The newest is commit:2")),
        (("sql", "SELECT 1", "--at", "yesterday"), 2, ("'yesterday' is not a position", "commit:42")),
        (("topic", "show", "orderz"), 1, ("orderz",)),
        (("sql", "SELECT 1", "--project", "/"), 1, ("no headwater.toml", "headwater init")),
        (("sql",), 2, ("Missing argument",)),
        (("status", "--nope"), 2, ("--nope",)),
        (("staus",), 2, ("Did you mean 'status'",)),
    ],
)
def test_an_error_is_one_paragraph(
    headwater: Runner, project: Path, args: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    done = headwater(*args, cwd=project)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    if "Usage:" not in done.stderr:
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("args", [("--debug", "sql", "FROM orderz"), ("sql", "FROM orderz", "--debug")])
def test_debug_shows_where_it_happened(command: Path, project: Path, args: tuple[str, ...]) -> None:
    done = subprocess.run([command, *args], cwd=project, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "NameNotFound" in done.stderr


def test_the_script_itself(project: Path) -> None:
    good = script("sql", "SELECT count(*) AS n FROM orders", "--format", "csv", cwd=project)
    assert (good.returncode, good.stdout, good.stderr) == (0, "n\n4\n", "")
    bad = script("sql", "SELECT nope FROM orders", cwd=project)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.startswith("error: ")
    assert "Traceback" not in bad.stderr


def test_what_escapes_the_error_tree_is_called_our_defect(project: Path) -> None:
    code = "from headwater.cli import main as m; m._run = lambda *_: 1 / 0; m.main([])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    assert done.returncode == 1
    assert "defect in headwater" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_lake_yet(headwater: Runner, tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('[project]\nname = "new"\n')
    done = headwater("status", cwd=tmp_path)
    assert done.returncode == 1
    assert "headwater up" in done.stderr
    assert not (tmp_path / "lake").exists()


def test_control_c_ends_a_query_without_a_traceback(project: Path) -> None:
    query = "SELECT count(*) FROM range(100000000000) a WHERE a.range % 7 = 3"
    process = psutil.Popen(
        [sys.executable, "-m", "headwater.cli", "--debug", "sql", query],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores SIGINT, these tests perhaps, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        poll = threading.Event()
        while process.cpu_times().user < 5.0:  # well past the imports: DuckDB is counting
            assert process.poll() is None, process.stderr.read()
            poll.wait(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=COMMAND_S)
    finally:
        if process.poll() is None:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "")


def test_a_reader_that_has_seen_enough(project: Path) -> None:
    command = f'"{sys.executable}" -m headwater.cli sql "FROM range(1000000)" --format csv | head -2'
    done = subprocess.run(
        ["bash", "-c", command], cwd=project, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["range", "0"], "")


# ---- status, topics, verify, seal


def test_status_json(headwater: Runner, project: Path) -> None:
    document = json.loads(headwater("status", "--json", cwd=project).stdout)
    assert document["position"] == 2
    assert {"project", "lake", "position_time", "sources", "views", "topics", "components", "http"} <= set(document)
    (source,) = document["sources"]
    assert (source["name"], source["state"], source["confirmed_lsn"]) == ("shop", "stopped", "0/B")
    assert {"received_lsn", "lag_bytes", "lag_ms", "rows_per_s", "age_s"} <= set(source)
    (topic,) = document["topics"]
    assert (topic["name"], topic["records"], topic["partitions"]) == ("shop.public.orders", 4, 2)
    assert document["views"] == []


def test_status_and_topics_for_people(headwater: Runner, project: Path) -> None:
    for args in (("status",), ("topic", "list"), ("topic", "show", "orders")):
        done = headwater(*args, cwd=project)
        assert done.returncode == 0, done.stderr
        assert "shop.public.orders" in done.stdout
    figures = headwater("status", cwd=project).stdout
    assert "position 2" in figures
    assert [line.split()[1:3] for line in figures.splitlines() if line.startswith("shop ")][-1] == ["stopped", "0/B"]


def test_tail_prints_the_newest_records_as_lines(headwater: Runner, project: Path) -> None:
    done = headwater("topic", "tail", "orders", "-n", "3", cwd=project)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["_commit"] for each in records] == [1, 2, 2]
    assert {each["_op"] for each in records} == {"c"}
    assert {each["span"] for each in records} == {"1 month 2 days 00:00:00.000003"}


def test_tail_follows(headwater: Runner, project: Path) -> None:
    done = headwater("topic", "tail", "orders", "-n", "0", "-f", "--for", "0.2", cwd=project)
    assert (done.returncode, done.stdout) == (0, "")


def test_seal_then_verify_then_a_changed_byte(headwater: Runner, project: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(project), str(copied)], check=True)
    done = headwater("seal", "--json", cwd=copied)
    assert done.returncode == 0, done.stderr
    sealed = json.loads(done.stdout)
    assert sealed["sealed"] == 4
    whole = headwater("verify", "--deep", "--json", cwd=copied)
    assert (whole.returncode, json.loads(whole.stdout)["findings"]) == (0, [])

    segment = max((copied / "lake" / "data" / "segments").rglob("*.parquet"), key=lambda path: path.stat().st_size)
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    assert headwater("verify", cwd=copied).returncode == 0  # without --deep only sizes are compared
    broken = headwater("verify", "--deep", "--json", cwd=copied)
    assert broken.returncode == 1
    (finding, *_) = json.loads(broken.stdout)["findings"]
    assert segment.name in finding["where"]
    assert headwater("verify", cwd=copied).returncode == 1  # what is known to be damaged is looked at again

    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    mended = headwater("verify", "--chain", "--json", cwd=copied)
    assert (mended.returncode, json.loads(mended.stdout)["released"]) == (0, 1)
    assert json.loads(mended.stdout)["chain"]["entries"] > 1


def test_backup_then_restore_into_another_project(headwater: Runner, project: Path, tmp_path: Path) -> None:
    first, again = (headwater("backup", str(tmp_path / "kept"), "--json", cwd=project) for _ in range(2))
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)
    assert made["copied_bytes"] > 0 == json.loads(again.stdout)["copied_bytes"]
    assert headwater("init", str(tmp_path / "other"), cwd=tmp_path).returncode == 0
    done = headwater("restore", str(tmp_path / "kept"), "--to", str(tmp_path / "other"), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["position"] == made["position"]
    query = ("sql", "SELECT * FROM orders ORDER BY id", "--format", "csv")
    assert headwater(*query, cwd=tmp_path / "other").stdout == headwater(*query, cwd=project).stdout != ""
    assert headwater("verify", "--deep", "--chain", cwd=tmp_path / "other").returncode == 0
    refused = headwater("restore", str(tmp_path / "kept"), "--to", str(tmp_path / "other"), cwd=tmp_path)
    assert (refused.returncode, "not empty" in refused.stderr) == (2, True)
    assert headwater("restore", cwd=project).returncode == 2


# ---- init


def test_init_makes_a_project_and_overwrites_nothing(headwater: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "my shop"
    done = headwater("init", str(folder), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (folder / "views").is_dir()
    assert (folder / "notebooks").is_dir()
    text = (folder / "headwater.toml").read_text()
    assert "[source.my_shop]" in text
    again = headwater("init", str(folder), cwd=tmp_path)
    assert again.returncode == 2
    assert "already there" in again.stderr
    assert (folder / "headwater.toml").read_text() == text


def test_init_refuses_a_name_queries_use(headwater: Runner, tmp_path: Path) -> None:
    done = headwater("init", "x", "--name", "views", cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot be called" in done.stderr
    assert not (tmp_path / "x").exists()


# ---- every command


def leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
    else:
        for name, child in children.items():
            yield from leaves(child, (*path, name))


def all_commands() -> list[tuple[tuple[str, ...], Any]]:
    names = [*BUILT_IN, *sorted(plug_ins())]
    return [leaf for name in names for leaf in leaves(as_command(name, load_target(name)), (name,))]


@pytest.mark.parametrize(("path", "command"), [pytest.param(*each, id=" ".join(each[0])) for each in all_commands()])
def test_every_command_explains_itself(path: tuple[str, ...], command: Any) -> None:
    assert command.help, path
    assert "Cannot be loaded" not in command.help
    for parameter in command.params:
        assert parameter.name == "help" or getattr(parameter, "help", None), (path, parameter.name)


@pytest.mark.parametrize("path", [path for path, _ in all_commands()], ids=" ".join)
def test_every_command_is_documented(path: tuple[str, ...]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    assert f"headwater {' '.join(path)}" in page


@pytest.mark.parametrize("name", sorted(HELP))
def test_every_metric_is_documented(name: str) -> None:
    assert f"`{name}`" in (Path(__file__).parents[2] / "docs" / "operate.md").read_text()


@pytest.mark.parametrize(
    ("path", "command"),
    [pytest.param(*each, id=" ".join(each[0])) for each in all_commands() if each[0] not in (("init",), ("demo",))],
)
def test_every_command_takes_a_project(path: tuple[str, ...], command: Any) -> None:
    assert any("--project" in parameter.opts for parameter in command.params), path


def test_a_built_in_name_cannot_be_taken() -> None:
    assert not set(BUILT_IN) & set(plug_ins())
    assert app.info.name == "headwater"
