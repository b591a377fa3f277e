"""Cutting received messages at whole source transactions, wherever the stream was torn into pieces."""

from __future__ import annotations

import random

import numpy as np

from headwater_connectors.postgres.stream import FRAME, Block
from headwater_connectors.postgres.transactions import HEADER, KEEPALIVE, Chunk, Idle, Part, Pending, pieces, received


def message(kind: str, number: int) -> bytes:
    return (bytes(FRAME) + b"w").ljust(HEADER, b"\0") + kind.encode() + number.to_bytes(4, "big")


def stream(draw: random.Random, transactions: int) -> list[bytes]:
    """Begin, some changes, commit, again and again; every message is different."""
    kinds: list[str] = []
    for _ in range(transactions):
        kinds += ["B", *("I" * draw.randint(1, 9)), "C"]
    return [message(kind, number) for number, kind in enumerate(kinds)]


def block(messages: list[bytes]) -> Block:
    return Block(b"".join(messages), np.array([len(each) for each in messages]))


def bytes_of(parts: list[Part]) -> bytes:
    return b"".join(bytes(part.load().data) for part in parts)


def test_what_is_taken_ends_with_a_commit_and_loses_nothing(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(200):
        messages = stream(draw, draw.randint(1, 12))
        pending, taken, low = Pending(), b"", 0
        while low < len(messages):
            high = low + draw.randint(1, 15)
            for chunk in received(block(messages[low:high])):
                assert isinstance(chunk, Chunk)
                pending.add(chunk)
            low = high
            if pending.whole and draw.random() < 0.6:
                part = pending.take_whole()
                last = messages[sum(chunk.messages for chunk in part) - 1 + len(taken) // len(messages[0])]
                assert last[HEADER : HEADER + 1] == b"C"
                assert part[-1].load().data[-len(last) :] == last
                taken += bytes_of(part)
            assert pending.size == sum(map(len, messages[: min(low, len(messages))])) - len(taken)
        taken += bytes_of(pending.take_whole())
        assert taken == b"".join(messages)
        assert not pending.whole
        assert pending.messages == 0


def test_a_transaction_without_its_end_is_taken_only_on_demand() -> None:
    pending = Pending()
    pending.add(Chunk.of(message("B", 1) + message("I", 2), np.array([len(message("B", 1))] * 2)))
    assert not pending.whole
    assert pending.take_whole() == []
    assert bytes_of(pending.take_all()) == message("B", 1) + message("I", 2)
    assert pending.size == 0


def test_keepalives_keep_their_place_between_messages() -> None:
    idle = bytes(FRAME) + KEEPALIVE.pack(b"k", 77, 0, 1)
    found = list(received(block([message("B", 1), idle, message("C", 2), idle])))
    assert [type(each) for each in found] == [Chunk, Idle, Chunk, Idle]
    assert [each.whole for each in found if isinstance(each, Chunk)] == [0, 1]
    assert [each.end_lsn for each in found if isinstance(each, Idle)] == [77, 77]


def test_pieces_keep_every_chunk_in_order_and_are_of_the_size_asked_for() -> None:
    chunks = [Chunk(bytes(size), np.array([size]), 0) for size in (3, 1, 4, 1, 5, 9, 2)]
    found = [[chunk.size for chunk in piece] for piece in pieces(chunks, 5)]
    assert found == [[3, 1, 4], [1, 5], [9], [2]]
    assert list(pieces([], 5)) == []
