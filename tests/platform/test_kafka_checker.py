"""The checker of histories: sound ones pass, and each anomaly is found, alone."""

from __future__ import annotations

import pytest

from headwater.testing.kafka_checker import Operation, Poll, Send, State, check


def sent(process: str, *values: tuple[str, int, int | None], state: State = "ok") -> Operation:
    actions = tuple(Send(key=key, value=value, offset=offset) for key, value, offset in values)
    return Operation(process=process, state=state, actions=actions)


def read(process: str, *polls: dict[str, list[tuple[int, int]]], fresh: frozenset[str] = frozenset()) -> Operation:
    return Operation(process=process, state="ok", actions=tuple(Poll(records=each) for each in polls), fresh=fresh)


SOUND = [
    sent("p1", ("x", 1, 0), ("y", 2, 0)),
    sent("p2", ("x", 3, 4)),
    sent("p2", ("x", 9, None), state="info"),
    sent("p1", ("x", 8, None), state="fail"),
    read("c1", {"x": [(0, 1)]}, {"x": [(4, 3)], "y": [(0, 2)]}),
    read("c1", {"x": [(5, 9)]}),
    read("c2", {"x": [(0, 1), (4, 3)]}, fresh=frozenset({"x"})),
    read("c2", {"x": [(0, 1)]}, fresh=frozenset({"x"})),
]


def test_a_sound_history_has_no_anomaly() -> None:
    assert check(SOUND) == {}
    assert check([]) == {}


@pytest.mark.parametrize(
    ("anomaly", "history"),
    [
        ("inconsistent offset", [sent("p", ("x", 1, 0)), read("c", {"x": [(0, 1)]}), read("d", {"x": [(0, 7)]})]),
        ("duplicate", [sent("p", ("x", 1, 0)), read("c", {"x": [(0, 1), (1, 1)]})]),
        ("aborted read", [sent("p", ("x", 1, None), state="fail"), read("c", {"x": [(0, 1)]})]),
        (
            "precommitted read",
            [
                Operation(
                    process="p",
                    state="ok",
                    actions=(Send(key="x", value=1, offset=0), Poll(records={"x": [(0, 1)]})),
                )
            ],
        ),
        ("lost write", [sent("p", ("x", 1, 0)), sent("p", ("x", 2, 1)), read("c", {"x": [(1, 2)]})]),
        ("unseen", [sent("p", ("x", 1, 0)), sent("p", ("x", 2, 1)), read("c", {"x": [(0, 1)]})]),
        (
            "poll skip",
            [
                sent("p", ("x", 1, 0), ("x", 2, 1), ("x", 3, 2)),
                read("c", {"x": [(0, 1)]}),
                read("c", {"x": [(2, 3)]}),
                read("d", {"x": [(1, 2)]}),
            ],
        ),
        (
            "nonmonotonic poll",
            [sent("p", ("x", 1, 0), ("x", 2, 1)), read("c", {"x": [(0, 1), (1, 2)]}), read("c", {"x": [(1, 2)]})],
        ),
        (
            "int poll skip",
            [
                sent("p", ("x", 1, 0), ("x", 2, 1), ("x", 3, 2)),
                read("c", {"x": [(0, 1), (2, 3)]}),
                read("d", {"x": [(1, 2)]}),
            ],
        ),
        ("int nonmonotonic poll", [sent("p", ("x", 1, 0), ("x", 2, 1)), read("c", {"x": [(1, 2), (0, 1)]})]),
        (
            "nonmonotonic send",
            [sent("p", ("x", 2, 1)), sent("p", ("x", 1, 0)), read("c", {"x": [(0, 1), (1, 2)]})],
        ),
        ("int nonmonotonic send", [sent("p", ("x", 2, 1), ("x", 1, 0)), read("c", {"x": [(0, 1), (1, 2)]})]),
        (
            "cycle",
            [
                sent("p", ("x", 1, 0), ("y", 2, 1)),
                sent("q", ("x", 3, 1), ("y", 4, 0)),
                read("c", {"x": [(0, 1), (1, 3)], "y": [(0, 4), (1, 2)]}),
            ],
        ),
    ],
)
def test_each_anomaly_is_found(anomaly: str, history: list[Operation]) -> None:
    assert list(check(history)) == [anomaly]
