"""The magics in a real IPython shell: results, parameters, views, errors, completion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets
import pytest
from IPython.core.interactiveshell import InteractiveShell

from headwater import Lake, Result, Watch
from headwater.errors import HeadwaterError, NameNotFound, UsageError
from headwater_notebooks import cell, extension, failure
from headwater_notebooks.magics import HeadwaterMagics, Status

if TYPE_CHECKING:
    from tests.notebooks.conftest import Shop

INJECTION = "Ada' OR 'a' = 'a"


@pytest.fixture
def shell(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A shell in a folder below the project, with the extension loaded as a person loads it."""
    below = shop.folder / "notebooks"
    below.mkdir()
    monkeypatch.chdir(below)
    made = InteractiveShell.instance()
    made.run_line_magic("load_ext", "headwater")
    yield made
    made.run_line_magic("unload_ext", "headwater")
    InteractiveShell.clear_instance()


def run(shell: InteractiveShell, source: str) -> Any:
    """What a cell returns; its error is raised."""
    outcome = shell.run_cell(source)
    outcome.raise_error()
    return outcome.result


def message(shell: InteractiveShell, source: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines a person sees when the cell fails, without colours."""
    capsys.readouterr()
    outcome = shell.run_cell(source)
    assert isinstance(outcome.error_in_exec, HeadwaterError)
    shown = capsys.readouterr().out
    for code in ("\x1b[31m", "\x1b[2m", "\x1b[0m"):
        shown = shown.replace(code, "")
    return shown.rstrip().splitlines()


def test_a_cell_returns_a_result(shell: InteractiveShell) -> None:
    found = run(shell, "%%sql\nSELECT * FROM orders ORDER BY id")
    assert isinstance(found, Result)
    assert found.rows == 3
    assert run(shell, "%%hw\nSELECT count(*) FROM orders").scalar() == 3
    assert run(shell, "%sql SELECT count(*) AS n FROM orders").columns == ["n"]


def test_a_result_can_be_kept_and_converted(shell: InteractiveShell) -> None:
    assert run(shell, "%%sql kept <<\nSELECT id, total FROM orders ORDER BY id") is None
    assert shell.user_ns["kept"].pl().height == 3
    assert run(shell, "%%sql\nalso << SELECT 7 AS seven") is None
    assert run(shell, "also.df().seven.sum()") == 7
    assert run(shell, "kept.arrow().column('total').to_pylist()[1]") is None


def test_parameters_are_bound_and_never_pasted(shell: InteractiveShell) -> None:
    shell.user_ns.update(who=INJECTION, least=2)
    assert run(shell, "%%sql\nSELECT * FROM orders WHERE customer = :who").rows == 0
    assert (
        run(shell, "%%sql\nSELECT id FROM orders WHERE id>=:least AND ':who' <> '' -- :nobody\nORDER BY id").rows == 2
    )


def test_position_and_limit(shell: InteractiveShell, shop: Shop) -> None:
    shop.commit("c", *[(number, None, None) for number in range(100, 150)])
    assert run(shell, "%%sql --at 1\nSELECT count(*) FROM orders").scalar() == 3
    shown = run(shell, "%%sql --limit 5\nSELECT * FROM orders")
    assert shown.rows == 53
    assert shown._repr_html_().count("<tr") == 6
    assert "showing 5 of 53 rows" in shown._repr_html_()


def test_live_cells_follow_the_lake_and_the_controls_that_are_turned(shell: InteractiveShell, shop: Shop) -> None:
    shell.user_ns.update(below=ipywidgets.IntSlider(value=50, max=10_000), some="Ada")
    cell = "%%sql --live\nSELECT count(*) AS n FROM orders WHERE id < :below AND coalesce(customer, :some) = :some"
    watch = run(shell, cell)
    assert isinstance(watch, Watch)
    assert watch.latest().scalar() == 2
    shell.user_ns["below"].value = 1
    assert watch.latest().scalar() == 0
    assert run(shell, cell.replace(" --live", "")).scalar() == 0, "a control is what it is set to"
    assert run(shell, cell.replace("--live", "kept << --live")) is None
    shell.user_ns["below"].value = 9
    shop.commit("c", (8, "Ada", None))
    assert run(shell, "kept.latest().scalar()") == 3
    fixed = run(shell, "%%sql --live --at 1\nSELECT count(*) FROM orders")
    assert fixed.latest().scalar() == 3, "a position stays where it is"
    with pytest.raises(UsageError, match="shown once"):
        run(shell, "%%sql --live --limit 3\nSELECT 1")
    with pytest.raises(HeadwaterError, match="nowhere"):
        run(shell, "%%sql --live\nSELECT * FROM nowhere")


@pytest.mark.parametrize(
    "source",
    [
        "%%time\n%%sql\nSELECT count(*) AS n FROM orders",
        "%%sql\n-- how many\n/* of\nthem */ SELECT count(*) AS n FROM orders; -- that's it\n",
        "%%sql\n\n\nSELECT count(*) AS n\nFROM orders\n;\n",
        "%%hw --limit 1\nFROM orders SELECT count(*) AS n",
    ],
)
def test_cells_are_understood_in_many_forms(shell: InteractiveShell, source: str) -> None:
    assert run(shell, source).scalar() == 3


def test_a_result_may_be_named_behind_a_comment(shell: InteractiveShell) -> None:
    assert run(shell, "%%sql\n-- the sum\n/* once */ größe << SELECT 'é' AS ключ, 7 AS größe") is None
    assert shell.user_ns["größe"].columns == ["ключ", "größe"]
    assert run(shell, "%%sql\n-- x << is no assignment in a comment\nSELECT 1 AS one").scalar() == 1


def test_choosing_a_lake(shell: InteractiveShell, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = run(shell, "%headwater")
    assert isinstance(lake, Lake)
    assert lake.position() == 1
    assert run(shell, f"%headwater {shop.folder}").position() == 1
    monkeypatch.chdir(tmp_path)
    run(shell, "%unload_ext headwater\n%load_ext headwater")
    with pytest.raises(HeadwaterError, match=r"headwater\.toml"):
        run(shell, "%%sql\nSELECT 1")
    monkeypatch.setenv("HEADWATER_PROJECT", str(shop.folder))
    assert run(shell, "%%sql\nSELECT count(*) FROM orders").scalar() == 3


def test_status_is_a_table(shell: InteractiveShell) -> None:
    status = run(shell, "%hwstatus")
    assert isinstance(status, Status)
    assert [row[:3] for row in status.rows] == [("source", "shop", "stopped")]
    assert "<table" in status._repr_html_()


def test_a_view_is_made_once_and_replaced_on_request(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    count = "%%view per_customer\nSELECT customer, count(*) AS n FROM orders GROUP BY customer"
    made = run(shell, count)
    assert made.name == "per_customer"
    assert "aggregate" in str(made.plan)
    assert "<svg" in made._repr_html_()
    assert "headwater up" in made.state, "no worker runs here"
    assert run(shell, count).name == "per_customer", "the same cell again changes nothing"
    total = count.replace("count(*) AS n", "sum(total) AS t")
    assert "--replace" in message(shell, total, capsys)[-1]
    run(shell, total.replace("per_customer", "per_customer --replace", 1))
    assert "sum" in next(view.sql for view in run(shell, "%headwater").views())


def test_a_refused_view_creates_nothing(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    lines = message(shell, "%%view drawn\nSELECT id,\n  random() AS lot FROM orders", capsys)
    assert len(lines) <= failure.LINES_MAX
    assert "random" in lines[0]
    assert lines[1].endswith("  random() AS lot FROM orders")
    assert lines[2].index("^") == lines[1].index("random")
    assert run(shell, "%headwater").views() == []


@pytest.mark.parametrize(
    ("source", "kind", "marked", "hint"),
    [
        ("SELECT id,\n  custmer FROM orders", "UnknownColumn", "custmer", 'Did you mean "customer"?'),
        ("SELECT * FROM ordrs", "NameNotFound", "ordrs", "Did you mean shop.public.orders?"),
        ("SELECT * FORM orders WHERE id = 1", "SqlSyntax", "orders", ""),
        ("SELECT id FROM orders WHERE nothere(id)", "SqlError", "nothere", ""),
        ("SELECT 1 AS one\nFROM orders\nWHERE id = :wo", "NameNotFound", ":wo", "Did you mean who?"),
        ("SELECT 1 WHERE 1 = :zzzzzz", "NameNotFound", ":zzzzzz", "zzzzzz = ..."),
        ("WITH a AS (SELECT * FROM orders)\nSELECT a.custmer FROM a", "UnknownColumn", "custmer", '"customer"'),
        ("SELECT o.custmer FROM orders o", "UnknownColumn", "custmer", '"customer"'),
        ("SELECT 'größe' AS größe, custmer FROM orders", "UnknownColumn", "custmer", '"customer"'),
    ],
)
def test_an_error_is_short_marks_the_place_and_says_what_was_meant(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], source: str, kind: str, marked: str, hint: str
) -> None:
    shell.user_ns["who"] = "Ada"
    lines = message(shell, f"%%sql\n{source}", capsys)
    assert len(lines) <= failure.LINES_MAX
    assert lines[0].startswith(f"{kind}: ")
    caret = next(place for place, line in enumerate(lines) if "^" in line)
    begin = lines[caret].index("^")
    assert lines[caret - 1][begin : begin + lines[caret].count("^")] == marked
    assert hint in lines[-1]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize(
    ("cell", "kind", "marked"),
    [
        ("%%view v\nSELECT id,\n  custmer FROM orders", "UnknownColumn", "custmer"),
        ("%%view v\nSELECT id FROM ordrs", "NameNotFound", "ordrs"),
        ("%%view v --replace\nSELECT id\nFROM orders TABLESAMPLE 10%", "UnsupportedSql", "orders"),
        ("%%hwexplain\nSELECT id,\n  random() AS lot FROM orders", "UnsupportedSql", "random"),
        ("%hwexplain v", "NameNotFound", ""),
        ("lake.sql('SELECT id, custmer FROM orders')", "UnknownColumn", "custmer"),
        ("lake.sql('SELECT id FROM ordrs')", "NameNotFound", "ordrs"),
        ("api.create_view(lake, 'SELECT random() AS lot FROM orders', name='v')", "UnsupportedSql", "random"),
        ("api.explain(lake, 'SELECT custmer FROM orders')", "UnknownColumn", "custmer"),
    ],
)
def test_what_is_wrong_with_a_view_or_a_query_is_marked(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], cell: str, kind: str, marked: str
) -> None:
    run(shell, "from headwater_pipelines import api\nlake = %headwater")
    lines = message(shell, cell, capsys)
    assert len(lines) <= failure.LINES_MAX
    assert lines[0].startswith(f"{kind}: ")
    carets = [place for place, line in enumerate(lines) if "^" in line]
    found = [lines[at - 1][lines[at].index("^") :][: lines[at].count("^")] for at in carets]
    assert found == ([marked] if marked else [])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("SELECT 1; SELECT 2", ["SqlSyntax: 2 statements were given", "Give one SELECT."]),
        ("-- nothing\n/* here */ ;", ["UsageError: the cell has no SQL"]),
        ("EXPLAIN SELECT 1", ["SqlSyntax: EXPLAIN is not a query", ".explain()"]),
        ("DELETE FROM orders", ["SqlSyntax: DELETE is not a query", "SELECT"]),
    ],
)
def test_what_is_no_query_is_refused_with_what_to_do(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], source: str, said: list[str]
) -> None:
    lines = message(shell, f"%%sql\n{source}", capsys)
    assert len(lines) <= 3
    assert all(any(each in line for line in lines) for each in said)


def test_a_caret_stands_below_wide_characters(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    lines = message(shell, "%%sql\nSELECT '数据' AS a, custmer FROM orders", capsys)
    assert lines[2].index("^") == lines[1].index("custmer") + 2, "each of the two takes two columns"


def test_errors_of_python_cells_are_short_as_well(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    run(shell, "lake = %headwater")
    assert len(message(shell, "lake.sql('SELECT * FROM nowhere')", capsys)) <= failure.LINES_MAX


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("WHERE x=:a AND y IN (:b,:c)", ["a", "b", "c"]),
        ("SELECT a::int, x[1:n], {'k': v, k:v}, ':no', \":no\" -- :no", []),
        ("/* :no */ SELECT $$ :no $$, 'it''s :no', :yes", ["yes"]),
        ("LIMIT :n", ["n"]),
    ],
)
def test_what_is_a_parameter(sql: str, names: list[str]) -> None:
    bound, params = cell.bind(sql, dict.fromkeys("abcnv", 1) | {"yes": 1, "no": 1})
    assert list(params) == names
    assert all(f"${name}" in bound for name in names)


def test_options_are_read_and_mistakes_refused() -> None:
    read = cell.read('x << --at "2026-01-02 03:04" --limit 7', "-- a comment\nSELECT 1", {})
    assert (read.assign, read.at, read.limit, read.sql) == ("x", "2026-01-02 03:04", 7, "-- a comment\nSELECT 1")
    for line, body in (
        ("--lmit 3", "SELECT 1"),
        ("--limit 0", "SELECT 1"),
        ("--at", "SELECT 1"),
        ("what", "SELECT 1"),
        ("", " "),
    ):
        with pytest.raises(UsageError):
            cell.read(line, body, {})
    with pytest.raises(NameNotFound):
        cell.read("", "SELECT :x", {})


def test_loading_twice_and_unloading_leave_the_shell_as_it_was(shell: InteractiveShell) -> None:
    shell.run_line_magic("unload_ext", "headwater")
    before = {kind: set(names) for kind, names in shell.magics_manager.magics.items()}
    matchers = list(shell.Completer.custom_matchers)
    extension.load(shell)
    extension.load(shell)
    assert len(shell.Completer.custom_matchers) == len(matchers) + 1
    assert {"hw", "sql", "view", "hwview"} <= set(shell.magics_manager.magics["cell"])
    extension.unload(shell)
    assert {kind: set(names) for kind, names in shell.magics_manager.magics.items()} == before
    assert shell.Completer.custom_matchers == matchers
    assert not hasattr(HeadwaterError, "_render_traceback_")
    for name in ("sql", "view"):
        shell.magics_manager.magics["cell"][name] = lambda *_: "theirs"
    extension.load(shell)
    for name in ("sql", "view"):
        assert shell.run_cell_magic(name, "", "SELECT 1") == "theirs", "what another extension has stays"
    assert run(shell, "%%hwview v\nSELECT id FROM orders").name == "v"
    assert run(shell, "%%hw\nSELECT 1 AS one").scalar() == 1


def test_every_magic_explains_itself() -> None:
    for name in ("hw", "hwview", "headwater", "hwstatus"):
        assert len(getattr(HeadwaterMagics, name).__doc__) > 60


def test_a_position_may_be_a_variable(shell: InteractiveShell, shop: Shop) -> None:
    run(shell, "%load_ext headwater\nlake = %headwater\nbefore = lake.position()")
    shop.commit("c", (77, "Bob", "1.00"))
    counted = "SELECT count(*) FROM orders"
    assert run(shell, f"%%sql --at :before\n{counted}").scalar() == 3
    assert run(shell, f"%%sql\n{counted}").scalar() == 4
    with pytest.raises(UsageError, match="a variable's name") as said:
        run(shell, f"%%sql --at before\n{counted}")
    assert said.value.todo == "Write --at :before for its value."
    with pytest.raises(NameNotFound, match="no variable befor for :befor"):
        run(shell, f"%%sql --at :befor\n{counted}")


def test_a_view_without_a_name_is_told_where_to_write_it(shell: InteractiveShell) -> None:
    with pytest.raises(UsageError, match="the view has no name") as said:
        run(shell, "%%view\nSELECT count(*) AS n FROM orders")
    assert "%%view big_orders" in said.value.todo
    assert "created" in run(shell, "%%view\nCREATE MATERIALIZED VIEW n AS SELECT count(*) AS n FROM orders").state
