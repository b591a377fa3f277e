"""Parameters of a watched query: bound values, and ipywidgets controls that it follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
import pytest

from headwater import Lake
from headwater.errors import SqlError, UsageError

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

BELOW = "SELECT id FROM orders WHERE id <= $most ORDER BY id"


def test_a_watch_binds_values_and_never_pastes_them(lake: Lake, shop: Shop) -> None:
    evil = "x' OR true --"
    shop.commit("c", (7, evil, None))
    watch = lake.watch("SELECT id FROM orders WHERE customer = $who", params={"who": evil})
    assert watch.latest().fetchall() == [(7,)]
    assert lake.watch(BELOW, params={"most": np.int64(2)}).latest().fetchall() == [(1,), (2,)]
    with pytest.raises(SqlError, match="most"):
        lake.watch(BELOW).latest()


def test_a_watch_follows_a_control(lake: Lake, shop: Shop) -> None:
    slider = ipywidgets.IntSlider(value=1, min=0, max=10)
    watch = lake.watch(BELOW, params={"most": slider}, interval=0)
    told = []
    for position, rows in watch:
        told.append((position, rows.column("id").to_pylist()))
        if len(told) == 1:
            slider.value = 2
        elif len(told) == 2:
            shop.commit("d", (1, None, None))
        else:
            watch.close()
    assert told == [(1, [1]), (1, [1, 2]), (2, [2])]


def test_changes_of_a_question_that_is_turned_add_up(lake: Lake) -> None:
    who = ipywidgets.Dropdown(options=["Ada", "nobody"])
    watch = lake.watch("SELECT id, customer FROM orders WHERE customer = $who", params={"who": who}, interval=0)
    changes = watch.changes()
    first = next(changes)
    assert (first.snapshot, first.rows.to_pylist()) == (True, [{"id": 1, "customer": "Ada", "_weight": 1}])
    who.value = "nobody"
    second = next(changes)
    assert (second.snapshot, second.rows.to_pylist()) == (False, [{"id": 1, "customer": "Ada", "_weight": -1}])
    with pytest.raises(UsageError, match="another query"):
        lake.watch(watch.query, params={"who": who}, resume=first.token)
    lake.watch(watch.query, params={"who": who}, resume=second.token)
