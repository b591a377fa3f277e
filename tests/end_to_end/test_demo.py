"""``headwater demo --check``: everything at once under load proves itself, and a single wrong value is found."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.end_to_end.site import HEADWATER
from tests.waiting import until

import headwater as hw
from headwater import config
from headwater.log import manifest
from headwater_connectors.demo import proof
from headwater_connectors.demo.project import SOURCE, opened, view_queries
from headwater_connectors.demo.shop import TABLES
from headwater_pipelines.api import paused_by

RUN_S = 110


def check(folder: Path, load: str, seed: int) -> subprocess.CompletedProcess[str]:
    argv = [*HEADWATER, "demo", str(folder), "--check", "--for", load, "--rate", "1500", "--readers", "2"]
    argv += ["--seed", str(seed % 10_000)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=RUN_S)


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """The figures of the one line at the end."""
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("demo check: "), done.stdout + done.stderr
    found = re.findall(r"(rows|commits|views|compared|differences) ([\d,]+)", last)
    return {name: int(text.replace(",", "")) for name, text in found}


def corrupt_one_value(root: Path) -> int:
    """Add 1 to one balance in a sealed file, as a failing disk or a wrong tool might; the account's id."""
    with hw.open(root) as lake:
        topic = lake.log.topic("shop.public.accounts")
        listed = json.loads(manifest.path(lake.log, topic).read_text())["segments"]
        path = lake.log.folder / listed[-1]["path"]
    with pq.ParquetFile(path) as file:
        rows, schema = file.read(), file.schema_arrow
    balances = rows.column("balance")
    place = len(balances) - 1
    wrong = pc.add(balances[place], pa.scalar(1, balances.type)).cast(balances.type)
    changed = pa.concat_arrays([*balances.slice(0, place).chunks, pa.array([wrong.as_py()], balances.type)])
    mode = path.stat().st_mode
    path.chmod(0o644)
    rows = rows.set_column(rows.schema.get_field_index("balance"), schema.field("balance"), changed)
    pq.write_table(rows.cast(schema), path)
    path.chmod(mode)
    return int(rows.column("id")[place].as_py())


def proofs_can_fail(root: Path) -> None:
    """Each proof that just held is asked something slightly wrong."""
    queries = view_queries(config.load(root))
    queries["orders_enriched"] = queries["orders_enriched"].replace("'large'", "'LARGE'")
    with hw.open(root) as lake:
        step = lake.log.last_step()
        assert step is not None
        _, found = proof.views_equal_queries(lake, queries, TABLES, [step])
        assert {each.place.split()[1] for each in found} == {"orders_enriched"}
        assert proof.sums_kept(lake, "shop.public.accounts", "id", "balance", Decimal(1))[1]
        assert proof.partitions_used(lake, "shop.public.orders", 3)
        listed = manifest.path(lake.log, lake.log.topic("shop.public.wishes"))
        whole = listed.read_text()
        short = json.loads(whole) | {"segments": []}
        listed.write_text(json.dumps(short))
        assert proof.manifests_count(lake, ["shop.public.orders", "shop.public.wishes"])
        listed.write_text(whole)


@pytest.mark.long
@pytest.mark.timeout(4 * RUN_S)
def test_the_check_proves_everything_and_a_proof_finds_one_wrong_value(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "demo"
    tmp_path.chmod(0o755)  # the database runs as a user of its own when the tests run as root
    done = check(folder, "3s", seed)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = summary(done)
    assert figures["differences"] == 0
    assert figures["views"] >= 6
    assert figures["rows"] > 33_000, "the initial rows and some thousand changes"
    assert figures["compared"] > 50_000
    assert figures["commits"] > 10
    assert "p95" in done.stdout

    proofs_can_fail(folder)
    account = corrupt_one_value(folder)
    with opened(folder, seed) as demo, hw.open(folder) as lake:
        _, found = proof.tables_equal_source(lake, demo.dsn, SOURCE, TABLES, lake.position())
    assert {each.place for each in found} == {"shop.public.accounts"}, f"account {account}: {found}"


@pytest.mark.long
@pytest.mark.timeout(4 * RUN_S)
def test_a_check_that_finds_a_wrong_value_says_so_and_fails(tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "demo"
    tmp_path.chmod(0o755)
    done = check(folder, "2s", seed)
    assert done.returncode == 0, done.stdout + done.stderr
    account = corrupt_one_value(folder)
    done = check(folder, "0s", seed)
    assert done.returncode == 1, f"account {account}: {done.stdout}{done.stderr}"
    assert summary(done)["differences"] > 0
    assert "shop.public.accounts" in done.stdout


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_show_starts_everything_and_stops_in_order(tmp_path: Path, seed: int) -> None:
    tmp_path.chmod(0o755)
    folder, output = tmp_path / "demo", tmp_path / "out.txt"
    argv = [*HEADWATER, "demo", str(folder), "--no-browser", "--rate", "500", "--seed", str(seed % 10_000)]
    with output.open("wb") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, start_new_session=True)
    try:
        until(lambda: (folder / "lake" / "live.sqlite").exists() or process.poll() is not None, "a lake")
        with hw.open(folder) as lake:
            # By Dagster: only a run that its sensor launched starts the worker.
            until(lambda: lake.log.last_step() is not None or process.poll() is not None, "a step", 150)
            before = lake.position()
            until(lambda: lake.position() > before + 5, "more commits")
        process.send_signal(signal.SIGINT)
        assert process.wait(90) == 0, output.read_text()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(90)
    text = output.read_text()
    assert "http://127.0.0.1:" in text
    assert "nothing runs any more" in text
    assert "Traceback" not in text
    order = ["the load and Dagster's daemon", "Dagster's runs", "the views' worker", "capture, upkeep", "PostgreSQL"]
    assert sorted(order, key=lambda each: text.index(f"stopping {each}")) == order
    with hw.open(folder) as lake:
        assert paused_by(lake) is None, "Ctrl-C is no wish to pause"
        stopped = lake.position()
        time.sleep(1)  # what must not happen cannot be waited for: nobody writes any more
        assert lake.position() == stopped
