"""The published vectors of the partitioner: a key must find its partition for as long as there are lakes."""

from __future__ import annotations

import random
import re
import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headwater import duck
from headwater.log.partitioner import hashes, partition_of
from headwater.types import arrow_type, lower_sql

KAFKA = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}
"""Of Kafka's own test of its murmur2."""

BYTES: list[tuple[str, Any, bytes]] = [
    ("BIGINT", 42, bytes.fromhex("000000000000002a")),
    ("TINYINT", -1, b"\xff" * 8),
    ("SMALLINT", -1, b"\xff" * 8),
    ("INTEGER", 42, bytes.fromhex("000000000000002a")),
    ("UTINYINT", 255, bytes.fromhex("00000000000000ff")),
    ("UINTEGER", 2**32 - 1, bytes.fromhex("00000000ffffffff")),
    ("UBIGINT", 2**64 - 1, b"\xff" * 8),
    ("HUGEINT", 42, b"42"),
    ("BOOLEAN", True, b"\x01"),
    ("BOOLEAN", False, b"\x00"),
    ("VARCHAR", "Zürich", "Zürich".encode()),
    ("VARCHAR", "", b""),
    ("JSON", '{"a":1}', b'{"a":1}'),
    ("BLOB", b"\x00\xff", b"\x00\xff"),
    ("UUID", bytes(range(16)), bytes(range(16))),
    ("DECIMAL(20,2)", Decimal("1.5"), b"1.50"),
    ("DECIMAL(20,2)", Decimal("-0.00"), b"0.00"),
    ("DECIMAL(38,0)", Decimal(-7), b"-7"),
    ("DOUBLE", 0.1, b"0.1"),
    ("DOUBLE", 1.0, b"1"),
    ("DOUBLE", 1e300, b"1e+300"),
    ("DOUBLE", -0.0, b"0"),
    ("DOUBLE", float("nan"), b"nan"),
    ("FLOAT", 0.1, b"0.1"),
    ("DATE", date(2024, 2, 29), b"2024-02-29"),
    ("TIME", time(1, 2, 3, 4), b"01:02:03.000004"),
    ("TIMESTAMP", datetime(2024, 2, 29, 1, 2, 3, 4), b"2024-02-29 01:02:03.000004"),  # noqa: DTZ001 -- it has no zone
    ("TIMESTAMPTZ", datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC), b"2024-02-29 01:02:03.000004Z"),
    ("INTERVAL", {"months": 1, "days": 2, "micros": 3}, b"".join(struct.pack(">iq", 8, n) for n in (1, 2, 3))),
    ("INTEGER[]", [1, 2], b"".join(struct.pack(">iq", 8, n) for n in (1, 2))),
    ("VARCHAR[]", [], b""),
    ("BIGINT", None, b""),
    ("UUID", None, b""),
    ("VARCHAR[]", None, b""),
]


def murmur2(data: bytes) -> int:
    """The hash in plain Python, as Kafka's Java has it."""
    h = 0x9747B28C ^ len(data)
    for place in range(0, len(data) // 4 * 4, 4):
        k = int.from_bytes(data[place : place + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        k = (k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        h = h * 0x5BD1E995 & 0xFFFFFFFF ^ k
    rest = data[len(data) // 4 * 4 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15


def column(kind: str, *values: Any) -> pa.ChunkedArray:
    """Two rows more than asked for, in two chunks, one of them with an offset."""
    target = arrow_type(kind)
    storage = target.storage_type if isinstance(target, pa.BaseExtensionType) else target
    array = pa.array([None, *values], storage).slice(1)
    if isinstance(target, pa.BaseExtensionType):
        array = pa.ExtensionArray.from_storage(target, array)
    return pa.chunked_array([array, array])


def hash_of(*columns: pa.ChunkedArray) -> int:
    first, second = hashes(columns).tolist()
    assert first == second
    return int(first)


def test_the_plain_hash_and_ours_have_kafkas_vectors() -> None:
    for text, expected in KAFKA.items():
        assert murmur2(text.encode()) == hash_of(column("VARCHAR", text)) == expected % 2**32
    assert partition_of([column("VARCHAR", "foobar")], 50).tolist() == [16, 16]


@pytest.mark.parametrize(("kind", "value", "canonical"), BYTES)
def test_the_canonical_bytes_of_every_type(kind: str, value: Any, canonical: bytes) -> None:
    assert hash_of(column(kind, value)) == murmur2(canonical)
    if kind not in ("JSON", "UUID"):
        assert hash_of(column(kind, value, None).take(pa.array([0, 2]))) == murmur2(canonical), "beside a NULL"


def test_a_key_of_several_columns_is_each_behind_its_length() -> None:
    framed = (
        struct.pack(">iq", 8, 42) + struct.pack(">i", 3) + b"abc" + struct.pack(">i", 0) + struct.pack(">i", 1) + b"x"
    )
    columns = [column("BIGINT", 42), column("VARCHAR", "abc"), column("DATE", None), column("BLOB", b"x")]
    assert hash_of(*columns) == murmur2(framed)
    one, other = ("ab", "c"), ("a", "bc")
    assert hash_of(*(column("VARCHAR", v) for v in one)) != hash_of(*(column("VARCHAR", v) for v in other))


def test_many_keys_of_all_lengths_in_one_column(seed: int) -> None:
    chance = random.Random(seed)
    keys = [chance.randbytes(chance.choice([0, 1, 2, 3, 4, 5, 7, 8, 36, 200])) for _ in range(70_000)]
    found = hashes([pa.chunked_array([pa.array(keys)])])
    for place in chance.sample(range(len(keys)), k=2000):
        assert found[place] == murmur2(keys[place])
    wide = np.arange(-40_000, 40_000)
    assert hashes([pa.chunked_array([wide])]).tolist()[::997] == [murmur2(struct.pack(">q", n)) for n in wide[::997]]
    spread = np.bincount(partition_of([pa.chunked_array([wide])], 16))
    assert spread.min() > 0.9 * len(wide) / 16


def test_the_published_vectors_are_true() -> None:
    page = (Path(__file__).parents[2] / "docs" / "topics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \| `?([0-9a-f]*)`? \| (-?\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert len(rows) > 20
    for kinds, key, canonical, expected, of_12 in rows:
        composite = "," in kinds and "(" not in kinds
        columns = zip(kinds.split(", "), key.split(", "), strict=True) if composite else [(kinds, key)]
        keys = [_typed(kind, text) for kind, text in columns]
        assert murmur2(bytes.fromhex(canonical)) == int(hashes(keys)[0]) == int(expected) % 2**32, key
        assert partition_of(keys, 12).tolist() == [int(of_12)]


def _typed(kind: str, text: str) -> pa.ChunkedArray:
    """A key as DuckDB reads it and as files hold it."""
    with duck.connect(for_files=True) as connection:
        value = connection.sql("SELECT CAST(nullif($text, 'NULL') AS " + kind + ") AS v", params={"text": text})
        lowered = value.project(f"{lower_sql('v', kind)} AS v").to_arrow_table()["v"]
    return lowered.cast(arrow_type(kind))


def test_no_keys_at_all() -> None:
    for kind in ("BIGINT", "VARCHAR", "UUID", "BIGINT[]", "DECIMAL(9,2)"):
        assert partition_of([pa.chunked_array([], arrow_type(kind))], 4).tolist() == []
        assert partition_of([column(kind).slice(0, 0), column("VARCHAR").slice(0, 0)], 4).tolist() == []
