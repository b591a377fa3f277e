"""What is refused, with which code and at which place; what is misspelt, with which suggestion."""

from __future__ import annotations

import pytest

from headwater.errors import (
    AmbiguousName,
    HeadwaterError,
    NameNotFound,
    SqlError,
    SqlSyntax,
    UnknownColumn,
    UnsupportedSql,
)
from headwater.schema import Schema
from headwater_pipelines.compiler import CompiledView, Relations, Table, compile_view, parse
from headwater_pipelines.compiler.explain import explain, require_incremental
from headwater_pipelines.compiler.plan import Base

RELATIONS = Relations(
    [
        Table(
            Base("shop.public.orders", 1, "table"),
            Schema.of(
                id="BIGINT", customer_id="BIGINT", total="DECIMAL(12,2)", weight="DOUBLE", day="DATE", key=["id"]
            ),
        ),
        Table(Base("shop.public.customers", 2, "table"), Schema.of(id="BIGINT", name="VARCHAR", key=["id"])),
        Table(Base("erp.public.customers", 3, "table"), Schema.of(id="BIGINT", name="VARCHAR", key=["id"])),
    ]
)

REFUSED = [
    ("SELECT o.id FROM orders o POSITIONAL JOIN orders p", "POSITIONAL_JOIN", None),
    ("SELECT id, current_user FROM orders", "VOLATILE_FUNCTION", (1, 12)),
    ("SELECT id, now() + random() * INTERVAL 1 DAY AS t FROM orders", "VOLATILE_FUNCTION", (1, 20)),
    ("SELECT id, random() FROM orders", "VOLATILE_FUNCTION", (1, 12)),
    ("SELECT id, nextval('s') FROM orders", "VOLATILE_FUNCTION", (1, 12)),
    ("SELECT id FROM orders WHERE id IN (SELECT id FROM orders WHERE random() > 1)", "VOLATILE_FUNCTION", (1, 64)),
    ("SELECT reservoir_quantile(id, 0.5) FROM orders", "SAMPLING_AGGREGATE", (1, 8)),
    ("SELECT bitstring_agg(id) FROM orders", "TABLE_STATISTICS", (1, 8)),
    ("SELECT * FROM read_csv('a.csv')", "TABLE_FUNCTION", (1, 15)),
    ("SELECT id FROM orders TABLESAMPLE 10%", "SAMPLE", None),
    ("SELECT id FROM orders WHERE id = $1", "PARAMETER", (1, 34)),
    ("SELECT MAP {'a': id} AS s FROM orders", "OUTPUT_TYPE", None),
    ("SELECT o.id, p.id FROM orders o, orders p", "DUPLICATE_COLUMN", None),
    ("SELECT id AS _weight FROM orders", "RESERVED_COLUMN", None),
    ("CREATE VIEW v AS SELECT id FROM orders", "NOT_A_VIEW_DEFINITION", (1, 8)),
    ("CREATE MATERIALIZED VIEW v WITH (speed = 'high') AS SELECT id FROM orders", "UNKNOWN_OPTION", (1, 34)),
    ("CREATE MATERIALIZED VIEW v WITH (refresh = 'hourly') AS SELECT id FROM orders", "UNKNOWN_OPTION", (1, 34)),
]
CLASSES = [
    ("SELECT id FROM orders WHERE day > current_date - 7", "linear", "CLOCK_RANGE"),
    ("SELECT day, count(*) FILTER (WHERE day < today()) AS n FROM orders GROUP BY day", "linear", "CLOCK_RANGE"),
    ("SELECT day FROM orders GROUP BY day HAVING max(day) < current_date", "linear", "CLOCK_RANGE"),
    ("SELECT id, current_date - day AS days FROM orders", "full", "CLOCK"),
    ("SELECT id FROM orders WHERE now() - day < INTERVAL 1 DAY", "linear", "CLOCK_RANGE"),
    ("SELECT id FROM orders WHERE now() - day < INTERVAL 1 MONTH", "full", "CLOCK"),
    ("SELECT id FROM orders WHERE now() - day BETWEEN INTERVAL 1 DAY AND weight * INTERVAL 1 DAY", "full", "CLOCK"),
    ("SELECT current_date AS d", "full", "CLOCK_VALUES"),
    ("SELECT (SELECT min(id) FROM orders) AS m", "first-rows", "FIRST_ROWS"),
    ("SELECT median(id) AS m FROM orders", "full", "GROUP_WHOLE"),
    ("SELECT day, min(id) AS m FROM orders GROUP BY day", "touched-key", "GROUP_EXTREMES"),
    ("SELECT day, min(id) AS m, count(*) AS n FROM orders GROUP BY day", "touched-key", "GROUP"),
    ("SELECT day, max([id]) AS m FROM orders GROUP BY day", "touched-key", "GROUP"),
    ("SELECT (SELECT count(*) FROM orders) AS n, (SELECT sum(total) FROM orders) AS s", "bilinear", "BILINEAR"),
    ("SELECT id FROM orders LEFT JOIN shop.public.customers c USING (id)", "touched-key", "JOIN_KEY"),
    ("SELECT o.id FROM orders o FULL JOIN orders p ON o.id < p.id", "touched-key", "JOIN_MATCHES"),
    ("SELECT o.id, p.id AS p FROM orders o ASOF JOIN orders p ON o.day >= p.day", "full", "JOIN_WHOLE"),
    ("SELECT DISTINCT day FROM orders", "additive", "ADDITIVE_STATE"),
    ("SELECT id FROM orders ORDER BY id", "linear", "LINEAR"),
    ("SELECT id FROM orders ORDER BY id LIMIT 3", "first-rows", "FIRST_ROWS"),
    ("SELECT id FROM orders UNION ALL SELECT id + 1 FROM orders ORDER BY id LIMIT 3", "first-rows", "FIRST_ROWS"),
    ("SELECT id FROM orders ORDER BY id LIMIT 3%", "full", "TOP_N"),
    ("SELECT DISTINCT ON (day) day, id FROM orders ORDER BY day, id", "touched-key", "FIRST_OF_KEY"),
    ("SELECT id FROM orders UNION SELECT id FROM orders", "additive", "ADDITIVE_STATE"),
    ("SELECT id FROM orders EXCEPT ALL SELECT id FROM orders", "touched-key", "ROW_COUNTS"),
    ("SELECT id, rank() OVER (PARTITION BY day ORDER BY id) AS r FROM orders", "touched-key", "WINDOW_PARTITION"),
    ("SELECT id, rank() OVER (ORDER BY id) AS r FROM orders", "full", "WINDOW_WHOLE"),
    ("SELECT id FROM orders WHERE id IN (SELECT id FROM orders)", "touched-key", "JOIN_KEY"),
    ("SELECT id FROM orders o WHERE NOT EXISTS (SELECT 1 FROM orders p WHERE p.id = o.id)", "touched-key", "JOIN_KEY"),
    ("SELECT id FROM orders WHERE total > (SELECT avg(total) FROM orders)", "bilinear", "BILINEAR"),
    ("SELECT id FROM orders WHERE id IN (SELECT id FROM orders) OR total > 3", "touched-key", "JOIN_KEY"),
    ("SELECT id FROM orders WHERE total > ANY (SELECT total FROM orders)", "first-rows", "FIRST_ROWS"),
    ("SELECT EXISTS (SELECT 1 FROM orders p WHERE p.id = o.id) AS e FROM orders o", "touched-key", "JOIN_KEY"),
    (
        "SELECT id, (SELECT total FROM orders p WHERE p.day = o.day ORDER BY p.id LIMIT 1) AS t FROM orders o",
        "touched-key",
        "FIRST_OF_KEY",
    ),
    ("SELECT max(id) AS m, arg_min(day, total) AS d, count(*) AS n FROM orders", "first-rows", "FIRST_ROWS"),
    ("SELECT day, max(id) AS m, count(DISTINCT total) AS n FROM orders GROUP BY day", "touched-key", "GROUP_EXTREMES"),
    ("SELECT day, count(DISTINCT total) AS n, sum(total) AS s FROM orders GROUP BY day", "additive", "ADDITIVE_STATE"),
    ("SELECT day, sum(DISTINCT weight) AS s FROM orders GROUP BY day", "touched-key", "GROUP"),
    ("SELECT id, sum(total) AS s FROM orders GROUP BY ROLLUP (id)", "additive", "ADDITIVE_STATE"),
    ("WITH RECURSIVE r AS (SELECT id FROM orders UNION SELECT id + 1 FROM r WHERE id < 3) FROM r", "full", "RECURSION"),
    ("SELECT id IN (SELECT id FROM orders) AS i, count(*) AS n FROM orders GROUP BY i", "touched-key", "JOIN_KEY"),
    ("SELECT 1 AS one", "linear", "CONSTANT"),
    ("SELECT unnest([id, 2]) AS v FROM orders", "linear", "LINEAR"),
]


def compiled(sql: str) -> CompiledView:
    return compile_view(parse(sql, name="v"), RELATIONS)


@pytest.mark.parametrize(("sql", "code", "place"), REFUSED, ids=[f"{c}-{i}" for i, (_, c, _) in enumerate(REFUSED)])
def test_refused_with_code_and_place(sql: str, code: str, place: tuple[int, int] | None) -> None:
    with pytest.raises(UnsupportedSql) as caught:
        compiled(sql)
    error = caught.value
    assert error.code == code
    assert error.todo, "a refusal says what to do"
    assert "\n" not in str(error), "one paragraph"
    if place is not None:
        assert (error.line, error.column) == place
        line = sql.splitlines()[place[0] - 1]
        assert line[place[1] - 1 :].startswith(error.sql.splitlines()[0])


@pytest.mark.parametrize(
    ("sql", "kind", "text"),
    [
        ("SELECT totl FROM orders", UnknownColumn, 'Did you mean "total"?'),
        ("SELECT list_transform([id], x -> x + 1) AS l FROM orders", UnknownColumn, "written lambda x: "),
        ("SELECT o.idd FROM orders o", UnknownColumn, "line 1, column 8"),
        ("SELECT id FROM ordrs", NameNotFound, "shop.public.orders"),
        ("SELECT id FROM customers", AmbiguousName, "erp.public.customers"),
        ("SELECT id FROM", SqlSyntax, "syntax error"),
        ("SELECT id, sum(total) FROM orders", SqlError, "GROUP BY"),
        ("SELECT total + name FROM orders, shop.public.customers", SqlError, "No function matches"),
        ("SELECT 'open FROM orders", SqlSyntax, "quotes"),
        ("DROP TABLE orders", SqlSyntax, "SELECT"),
    ],
)
def test_errors_say_what_is_meant(sql: str, kind: type[HeadwaterError], text: str) -> None:
    with pytest.raises(kind, match=text.replace("?", r"\?")) as caught:
        compiled(sql)
    assert "\n" not in str(caught.value)


def test_strict_refuses_full_recomputation() -> None:
    sql = "CREATE MATERIALIZED VIEW v WITH (refresh_mode = 'incremental strict') AS SELECT sum({}) AS s FROM orders"
    require_incremental(compiled(sql.format("total")))
    with pytest.raises(UnsupportedSql, match="FLOAT_SUM_WHOLE"):
        require_incremental(compiled(sql.format("weight")))


@pytest.mark.parametrize(("sql", "maintenance", "reason"), CLASSES)
def test_how_a_query_is_maintained(sql: str, maintenance: str, reason: str) -> None:
    nodes = explain(compiled(sql)).nodes
    assert (maintenance, reason) in {(node.maintenance, node.reason) for node in nodes}, nodes
    assert maintenance == "full" or not any(node.maintenance == "full" for node in nodes)


def test_explain_names_class_and_reason_of_every_node() -> None:
    plan = explain(
        compiled(
            "SELECT c.name, count(*) AS n, sum(o.total) AS t FROM orders o JOIN shop.public.customers c"
            " ON c.id = o.customer_id WHERE o.total > 10 GROUP BY c.name HAVING n > 1"
        )
    )
    assert [(node.operator, node.maintenance) for node in plan.nodes] == [
        ("project", "linear"),
        ("filter", "linear"),
        ("project", "linear"),
        ("aggregate", "additive"),
        ("project", "linear"),
        ("inner join", "bilinear"),
        ("table", "linear"),
        ("table", "linear"),
    ]
    text = str(plan)
    assert "shop.public.orders (customer_id, total) as o" in text
    assert "BILINEAR: each input's delta" in text
    shown = plan._repr_html_()
    assert shown.count("<rect") == 2 * len(plan.nodes)
    assert shown.count("<tr>") == len(plan.nodes) + 1
    assert plan.to_dict()["incremental"] is True
    touched = explain(compiled("SELECT day, sum(weight) AS w FROM orders GROUP BY day"))
    assert ("touched-key", "FLOAT_SUM") in [(node.maintenance, node.reason) for node in touched.nodes]
