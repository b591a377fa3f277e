"""Completion in SQL cells, asked for as a notebook asks; ``|`` is the cursor."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from headwater.lake import open_lake
from headwater.schema import Schema
from headwater_notebooks.names import functions
from headwater_notebooks.scope import place

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory, shop_class: type[Shop]) -> Iterator[InteractiveShell]:
    """A shell with a lake of two schemas: orders, items in both, and a table whose names need quotes."""
    shop = shop_class(tmp_path_factory.mktemp("completion") / "shop")
    shop.commit("c", (1, "Ada", "1.00"))
    with open_lake(shop.folder) as lake:
        for name in ("shop.public.items", "shop.archive.items"):
            lake.create_topic(name, Schema.of({"sku": "VARCHAR", "price": "DOUBLE"}, key=["sku"]))
        lake.create_topic("shop.public.Sizes", Schema.of({"Größe cm": "BIGINT", "gröber": "BIGINT"}, key=["gröber"]))
        made = InteractiveShell.instance()
        made.run_line_magic("load_ext", "headwater")
        made.run_line_magic("headwater", str(shop.folder))
        yield made
        made.run_line_magic("unload_ext", "headwater")
        InteractiveShell.clear_instance()
    shop.log.close()


def completed(shell: InteractiveShell, text: str) -> list[str]:
    """The texts of which each would stand instead of what was written, as whole as the cursor's line has it."""
    cursor = text.index("|")
    text = text.replace("|", "")
    with provisionalcompleter():
        found = list(itertools.islice(shell.Completer.completions(text, cursor), 300))
    begin = text.rfind("\n", 0, cursor) + 1
    return [(text[begin : each.start] + each.text).split(" ", 1)[-1] for each in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%%sql\nSELECT * FROM or|", ["* FROM orders"]),
        ("%%sql\nSELECT * FROM OR|", ["* FROM orders"]),
        ("%%sql\nSELECT 1 FROM orders, shop.archive.it|", ["1 FROM orders, shop.archive.items"]),
        ("%%sql\nSELECT * FROM shop.public.it|", ["* FROM shop.public.items"]),
        ("%%sql\nSELECT * FROM si|", ['* FROM "Sizes"']),
        ("%%hw\nSELECT o.| FROM orders AS o", ["o.id", "o.customer", "o.total"]),
        ("%%sql\nSELECT o.c| FROM orders o", ["o.customer"]),
        ("%%sql\nSELECT orders.c| FROM orders", ["orders.customer"]),
        ("%%sql\nSELECT id+o.to| FROM orders o", ["id+o.total"]),
        ("%%sql\nSELECT id-to| FROM orders", ["id-total"]),
        ('%%sql\nSELECT g.| FROM "Sizes" g', ['g."Größe cm"', 'g."gröber"']),
        ("%%sql\nWITH a AS (SELECT id AS number, total FROM orders)\nSELECT a.| FROM a", ["a.number", "a.total"]),
        ("%%sql\nWITH a AS (SELECT * FROM orders)\nSELECT x.cu| FROM a x", ["x.customer"]),
        ("%%sql\nWITH mine AS (SELECT 1 AS one)\nSELECT * FROM mi|", ["* FROM mine"]),
        ("%%sql\nSELECT s.|\nFROM (SELECT id AS n FROM orders) s", ["s.n"]),
        (
            "%%sql\nSELECT 1 FROM orders WHERE EXISTS (SELECT 1\nFROM shop.public.items i WHERE i.p|)",
            ["shop.public.items i WHERE i.price"],
        ),
        ("%%sql\nSELECT id FROM orders o WHERE o.id IN\n(SELECT o.cu| FROM shop.public.items)", ["o.customer"]),
        ('%%sql\nSELECT * FROM log."shop.public.or|', ['* FROM log."shop.public.orders"']),
        ("%%sql\nSELECT * FROM history.o|", ["* FROM history.orders"]),
        ('%%sql\nSELECT l._c| FROM log."shop.public.orders" l', ["l._committed_at", "l._commit"]),
        ("%%sql\nSELECT valid_| FROM history.orders", ["valid_from", "valid_to"]),
        ("%%sql\nSELECT 'or|' FROM orders", []),
        ("%%sql\nSELECT 1 -- or|", []),
        ("found = %sql SELECT * FROM or|", ["= %sql SELECT * FROM orders"]),
        ("%%time\n%%sql\nSELECT * FROM or|", ["* FROM orders"]),
        ("%%view v\nSELECT to| FROM orders", ["total"]),
        ("%%sql --li|", ["--limit", "--live"]),
        ("%%sql --limit 5 --l|", ["--limit 5 --live"]),
        ("%%sql --at la|\nSELECT 1", ["--at latest"]),
        ("%%hwview v --r|\nSELECT 1", ["v --replace"]),
    ],
)
def test_what_may_be_written_here(shell: InteractiveShell, text: str, expected: list[str]) -> None:
    found = completed(shell, text)
    if expected:
        assert found[: len(expected)] == expected
    else:
        assert found == [text[: text.index("|")].rpartition("\n")[2].split(" ", 1)[-1]], "it stays as it is"


def test_names_that_are_not_unique_are_offered_in_full(shell: InteractiveShell) -> None:
    found = completed(shell, "%%sql\nSELECT * FROM shop.|")
    assert {"* FROM shop.archive.items", "* FROM shop.public.items", "* FROM shop.public.orders"} <= set(found)
    assert "* FROM items" not in completed(shell, "%%sql\nSELECT * FROM |")


def test_keywords_are_written_as_they_were_begun(shell: InteractiveShell) -> None:
    assert "SELECT" in completed(shell, "%%sql\nSE|")
    assert "select" in completed(shell, "%%sql\nse|")
    assert completed(shell, "%%sql\nSELECT id FROM orders GR|")[0] == "id FROM orders GROUP BY"


def test_functions_say_what_they_take(shell: InteractiveShell) -> None:
    text = "%%sql\nSELECT date_tr"
    with provisionalcompleter():
        (found,) = shell.Completer.completions(text, len(text))
    assert (found.text, found.type) == ("date_trunc", functions()[1]["date_trunc"])
    assert str(found.type).startswith("function (")
    index, signatures = functions()
    assert len(signatures) > 500
    assert list(index.starting("ROW_NUM")) == ["row_number"]


def test_a_new_view_or_table_is_there_with_the_next_key(shell: InteractiveShell) -> None:
    lake = shell.run_line_magic("headwater", "")
    assert completed(shell, "%%sql\nSELECT * FROM fre|") == ["* FROM fre"]
    lake.create_view("fresh_view", "SELECT id FROM orders")
    assert completed(shell, "%%sql\nSELECT * FROM fre|") == ["* FROM fresh_view"]
    lake.create_topic("shop.events.fresh", Schema.of({"what": "VARCHAR"}))
    assert completed(shell, "%%sql\nSELECT * FROM fre|") == ["* FROM fresh", "* FROM fresh_view"]
    assert completed(shell, "%%sql\nSELECT f.w| FROM fresh f") == ["f.what"]


def test_python_is_left_alone(shell: InteractiveShell) -> None:
    shell.user_ns["ordinary"] = 1
    for text in ("or|", "x = or|", "# %%sql\nor|", "text = '''\n%%sql\nor|"):
        assert not any(each.endswith("orders") for each in completed(shell, text))
    assert "ordinary" in completed(shell, "ordin|")


def test_another_extensions_cell_is_left_alone(shell: InteractiveShell) -> None:
    registered = shell.magics_manager.magics["cell"]
    ours = registered["sql"]
    try:
        registered["sql"] = lambda *_: None
        assert "* FROM orders" not in completed(shell, "%%sql\nSELECT * FROM or|")
        assert completed(shell, "%%hw\nSELECT * FROM or|") == ["* FROM orders"]
    finally:
        registered["sql"] = ours


@pytest.mark.parametrize(
    "text",
    ["", "(", ")", "))) FROM", "SELECT '", 'SELECT "', "FROM (((", "WITH a AS (", "WITH a AS (SELECT", "SELECT a..",
     ".", "/*", "FROM a JOIN", "a AS b AS (", "SELECT * FROM (SELECT * FROM (SELECT",
     "WITH a AS (SELECT * FROM a) SELECT a."],
)  # fmt: skip
def test_what_is_half_written_breaks_nothing(text: str) -> None:
    for cursor in range(len(text) + 1):
        place(text, cursor)
