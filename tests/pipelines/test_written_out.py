"""What is written out before it is compiled (stars, PIVOT, BY NAME), and rows that follow from a row's values.

The oracle runs the definition as it was written. None of these is recomputed in full.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.pipelines.test_corpus import ShopWorld
from tests.pipelines.world import World

from headwater_pipelines.compiler.explain import explain

PLAIN = {
    "pivot_nulls": "PIVOT refs ON k2 IN (1, 2, NULL) USING count(*), max(name) GROUP BY k1",
    "pivot_two": "SELECT * FROM (SELECT grp, a, k FROM items) PIVOT (sum(a) AS s FOR k IN ('x', 'y') grp IN (1, 2))",
    "pivot_names": "FROM items PIVOT (coalesce(sum(a), 0) FOR k IN ('x' AS ex, 'y') GROUP BY grp)",
    "pivot_texts": "SELECT * FROM (SELECT b, a FROM items) PIVOT (count(*) FOR b IN (1, 2.5))",
    "pivot_joined": "SELECT p.x, q.grp FROM (PIVOT (SELECT grp, k, a FROM items) ON k IN ('x') USING sum(a)) AS p"
    " JOIN items q USING (grp)",
    "unpivot": "UNPIVOT (SELECT id, a, grp::HUGEINT AS g FROM items) ON a, g",
    "unpivot_nulls": "FROM (SELECT id, k, s FROM items) UNPIVOT INCLUDE NULLS (v FOR n IN (k AS kk, s)) AS p(q, r, t)",
    "unpivot_star": "UNPIVOT (SELECT x, k FROM bag) ON COLUMNS(* EXCLUDE (k))",
    "columns_of_one": "SELECT i.id, COLUMNS(i.* EXCLUDE (id)) FROM items i JOIN bag b USING (k)",
    "columns_unpacked": "SELECT coalesce(*COLUMNS('^(k|s)$')) AS v, id FROM items",
    "columns_grouped": "SELECT grp, count(COLUMNS('^[ab]$')) FROM items GROUP BY grp HAVING count(*) > 1",
    "columns_renamed": "SELECT count(*) AS n FROM (SELECT COLUMNS('(.)') AS 'z_\\1' FROM bag) WHERE z_x > 1",
    "columns_tested": "SELECT id FROM items WHERE COLUMNS(lambda c: c IN ('a', 'b')) > 0 AND k <> 'z'",
    "star_like": "SELECT * LIKE '_' FROM items",
    "star_renamed": "SELECT * EXCLUDE (f) REPLACE (a + 1 AS a) RENAME (k AS kk) FROM items ORDER BY ALL",
    "by_name": "SELECT k, x FROM bag UNION BY NAME SELECT grp AS x, n FROM events",
    "by_name_all": "SELECT x AS v FROM bag UNION ALL BY NAME SELECT n AS V, grp FROM events UNION ALL BY NAME"
    " SELECT b AS v FROM items",
    "in_value": "SELECT id, a IN (SELECT x FROM bag) AS v, a NOT IN (SELECT n FROM events) AS w FROM items",
    "in_or": "SELECT id FROM items WHERE a IN (SELECT x FROM bag WHERE k = 'x') OR b > 20",
    "in_nothing": "SELECT id, a IN (SELECT x FROM bag WHERE x > 100) AS e FROM items",
    "in_filter": "SELECT k, count(*) FILTER (a IN (SELECT x FROM bag)) AS n FROM items GROUP BY k",
    "in_rows": "SELECT id FROM items WHERE (k, a) IN (SELECT k, x FROM bag)",
    "hidden_names": "SELECT id, a AS v0, grp AS n FROM items WHERE (k IN (SELECT k FROM bag) OR grp > 9)"
    " AND n > 0 AND v0 > 1",
    "figures": "SELECT (SELECT count(*) FROM items) - (SELECT count(*) FROM bag) AS d, (SELECT sum(x) FROM bag) AS s",
    "figures_of_ctes": "WITH k AS (SELECT count(*) AS n FROM bag) SELECT (SELECT n FROM k) AS n, 7 AS seven",
    "having_keys": "SELECT i.k, count(*) AS n FROM items i GROUP BY i.k HAVING i.k IN (SELECT k FROM bag WHERE x > 2)"
    " AND EXISTS (SELECT 1 FROM refs r WHERE r.k1 = i.k) AND count(*) > 1",
    "on_condition": "SELECT i.id FROM items i JOIN bag b ON b.k = i.k AND i.b > (SELECT avg(x) FROM bag)",
}  # fmt: skip
NESTED = {
    "lateral_values": "SELECT o.id, y.z FROM orders o, LATERAL (SELECT o.total * 2 AS w) x, LATERAL (SELECT x.w / 2"
    " AS z) y WHERE y.z > 100",
    "lateral_unnest": "SELECT c.id, t.tag FROM customers c, LATERAL (SELECT unnest(c.tags) AS tag) t",
    "json_each": "SELECT e.id, j.key, j.value, j.type FROM events e, json_each(e.payload) j WHERE j.key <> 'size'",
    "json_each_left": "SELECT e.id, j.key FROM events e LEFT JOIN json_each(e.payload -> 'tags') j ON true",
    "json_tree": "SELECT t.fullkey, count(*) AS n FROM events e, json_tree(e.payload) t GROUP BY ALL",
    "json_counted": "SELECT e.id FROM events e, json_each(e.payload)",
    "ordinality": "SELECT c.id, tag, n FROM customers c, unnest(c.tags) WITH ORDINALITY AS t(tag, n) WHERE n > 1",
    "struct": "SELECT id, unnest(address), name FROM customers",
    "struct_deep": "SELECT id, unnest(address, recursive := true) FROM customers WHERE id > 3",
    "struct_star": "SELECT id, address.*, name FROM customers",
    "unnest_grouped": "SELECT country, unnest(tags) AS tag, count(*) AS n FROM customers GROUP BY country, tag"
    " HAVING count(*) > 1",
    "unnest_of_groups": "SELECT country, unnest(list(name)) AS nm FROM customers GROUP BY country",
    "unnest_beside": "SELECT id, unnest(tags) AS tag, rank() OVER (PARTITION BY country ORDER BY id) AS n"
    " FROM customers",
    "array": "SELECT c.id, ARRAY(SELECT o.total FROM orders o WHERE o.customer_id = c.id ORDER BY o.placed DESC) AS t"
    " FROM customers c",
    "any_of_list": "SELECT id, 'a' = ANY(tags) AS v, city IN (SELECT unnest(['Berlin', NULL])) AS w FROM customers"
    " WHERE NOT ('a' = ANY(tags)) OR id > 5",
    "asof_using": "SELECT * FROM (SELECT product_id, counted AS valid_from FROM stock) s ASOF LEFT JOIN prices p"
    " USING (product_id, valid_from)",
}  # fmt: skip


WORLDS = [(World, PLAIN), (ShopWorld, NESTED)]


def said_the_same(made: World) -> None:
    for view in made.views.values():
        full = [node for node in explain(view).nodes if node.maintenance == "full"]
        assert not full, f"{view.name}: {full}"
    made.step()
    made.step()
    made.state.close()


@pytest.mark.parametrize(("world", "shapes"), WORLDS)
def test_some_that_are_written_out_say_the_same(seed: int, world: type[World], shapes: Mapping[str, str]) -> None:
    rng = random.Random(seed)
    said_the_same(world(rng, None, {name: shapes[name] for name in rng.sample(list(shapes), 6)}))


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("world", "shapes"), WORLDS)
def test_all_that_are_written_out_say_the_same(
    seed: int, tmp_path: Path, world: type[World], shapes: Mapping[str, str]
) -> None:
    said_the_same(world(random.Random(seed), tmp_path, shapes))
