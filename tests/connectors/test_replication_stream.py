"""Blocks of whole messages from a connection: frames are found exactly, whatever they hold and wherever reads end."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from headwater.errors import SourceError, SourceUnreachable
from headwater_connectors.postgres import session, slot, stream
from headwater_connectors.postgres.stream import FRAME, Block, LibpqStream, SocketStream, frame_ends

if TYPE_CHECKING:
    from tests.connectors.conftest import Captured


def frame(body: bytes) -> bytes:
    return b"d" + struct.pack(">i", len(body) + 4) + body


def walked(data: bytes) -> list[int]:
    """The ends of whole frames, one after the other."""
    ends, at = [], 0
    while at + FRAME < len(data) and data[at] == ord("d") and data[at + FRAME] in b"wk":
        at += 1 + int.from_bytes(data[at + 1 : at + FRAME])
        if at <= len(data):
            ends.append(at)
    return ends


def test_frames_are_found_among_bytes_that_look_like_frames(seed: int) -> None:
    draw = random.Random(seed)
    lures = [frame(b"w" * size) for size in (1, 2, 30)] + [
        b"d\0\0\0\x05w",
        b"d\xff\xff\xff\xffw",
        b"d\x7f\0\0\0k",
        b"dddww",
    ]
    for _ in range(300):
        bodies = [
            draw.choice([b"w", b"k"]) + b"".join(draw.choices([*lures, b"d", b"w", b"xyz"], k=draw.randint(0, 12)))
            for _ in range(draw.randint(1, 40))
        ]
        data = b"".join(map(frame, bodies))
        for cut in {len(data), draw.randint(0, len(data)), draw.randint(0, len(data)), draw.randint(0, 12)}:
            part = data[:cut]
            assert frame_ends(np.frombuffer(part, np.uint8), b"wk").tolist() == walked(part), part


def test_what_follows_the_frames_is_left_alone() -> None:
    data = frame(b"w1") + frame(b"k2")
    notice = b"N\0\0\0\x08abcd"
    assert frame_ends(np.frombuffer(data + notice + frame(b"w3"), np.uint8), b"wk").tolist() == [7, 14]
    assert not len(frame_ends(np.frombuffer(notice + data, np.uint8), b"wk"))


def contents(found: list[Block]) -> list[bytes]:
    """Every message that is not a keepalive, without what differs by sending: the time in its header."""
    bodies = []
    for block in found:
        for end, length in zip(np.cumsum(block.lengths).tolist(), block.lengths.tolist(), strict=True):
            body = block.data[end - length + FRAME : end]
            bodies += [body[:17] + body[25:]] if body[:1] == b"w" else []
    return bodies


@pytest.mark.parametrize("kind", [SocketStream, LibpqStream])
def test_both_ways_of_reading_give_the_same_messages(
    shop: Captured, kind: type[SocketStream] | type[LibpqStream]
) -> None:
    """The value of 3 MB is larger than any buffer; the many small ones come in one read."""
    shop.run("CREATE TABLE docs (id int PRIMARY KEY, body text)")
    shop.catch_up()
    shop.run(
        "INSERT INTO docs SELECT i, repeat('d', i % 90) FROM generate_series(1, 5000) i",
        "INSERT INTO docs VALUES (0, repeat('dw', 1500000))",
        "DELETE FROM docs WHERE id = 0",
    )
    expected = shop.source_rows(
        "SELECT data FROM pg_logical_slot_peek_binary_changes('headwater_shop', NULL, NULL, 'proto_version', '1',"
        " 'publication_names', 'headwater_shop,headwater_shop_inserts', 'messages', 'true')"
    )
    position = shop.log.producer("source:shop").position or ""
    command = slot.start_command(
        "shop", ("headwater_shop", "headwater_shop_inserts"), position, version=150_000, binary=False
    )
    connection = session.connect_replication(shop.dsn, "shop")
    if kind is SocketStream:
        opened = stream.start(connection, command, "shop")
    else:
        session.run_replication(connection, command, "shop")
        opened = LibpqStream(connection, "shop")
    assert isinstance(opened, kind)
    found: list[Block] = []
    try:
        while len(contents(found)) < len(expected):
            found.append(opened.read())
    finally:
        opened.close()
    assert [body[17:] for body in contents(found)] == [bytes(row[0]) for row in expected]


def test_a_refused_start_says_why_and_gives_the_connection_back(shop: Captured) -> None:
    connection = session.connect_replication(shop.dsn, "shop")
    with pytest.raises(SourceError, match='replication slot "headwater_nonesuch" does not exist'):
        stream.start(
            connection, slot.start_command("nonesuch", ("a", "b"), "0/0", version=150_000, binary=False), "shop"
        )
    connection.finish()


def test_a_stream_the_server_ends_is_unreachable(shop: Captured) -> None:
    shop.run("CREATE TABLE docs (id int PRIMARY KEY)")
    shop.catch_up()
    connection = session.connect_replication(shop.dsn, "shop")
    position = shop.log.producer("source:shop").position or ""
    command = slot.start_command(
        "shop", ("headwater_shop", "headwater_shop_inserts"), position, version=150_000, binary=False
    )
    opened = stream.start(connection, command, "shop")
    shop.run(f"SELECT pg_terminate_backend({connection.backend_pid})")
    with pytest.raises(SourceUnreachable, match="terminating connection"):
        list(iter(opened.read, None))
    opened.close()
