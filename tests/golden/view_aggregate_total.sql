-- view
SELECT count(*) AS n, sum(y) AS s FROM b;

-- delta of a_862545295e04
WITH raw AS MATERIALIZED (SELECT * FROM (SELECT * FROM (SELECT CAST(coalesce(sum(_w), 0) AS BIGINT) AS "n", CAST(coalesce(sum(_w) FILTER ("x0" IS NOT NULL), 0) AS BIGINT) AS "n_x0", CAST(coalesce(sum(CAST("x0" AS BIGINT) * _w), 0) AS HUGEINT) AS "s_x0" FROM (SELECT b.y AS "x0", "b"._w AS _w FROM "d_t2" AS "b")) WHERE "n" <> 0 OR "n_x0" <> 0 OR "s_x0" <> 0)), s AS (SELECT "n", "n_x0", "s_x0" FROM (SELECT s.* FROM a_862545295e04 AS s SEMI JOIN raw ON true) GROUP BY ALL HAVING sum(_w) > 0) SELECT CAST(CASE WHEN side.w < 0 THEN s."n" ELSE coalesce(s."n", 0) + raw."n" END AS BIGINT) AS "n", CAST(CASE WHEN side.w < 0 THEN s."n_x0" ELSE coalesce(s."n_x0", 0) + raw."n_x0" END AS BIGINT) AS "n_x0", CAST(CASE WHEN side.w < 0 THEN s."s_x0" ELSE coalesce(s."s_x0", 0) + raw."s_x0" END AS HUGEINT) AS "s_x0", side.w AS _w FROM raw LEFT JOIN s ON true CROSS JOIN (VALUES (-1::BIGINT), (1::BIGINT)) AS side(w) WHERE (side.w > 0 OR s."n" IS NOT NULL);

-- output term of a_862545295e04
SELECT g.v0 AS "n", g.v1 AS "s", "g"._w AS _w FROM (SELECT s."n" AS "v0", CASE WHEN s."n_x0" > 0 THEN s."s_x0" END AS "v1", "s"._w AS _w FROM "d_a_862545295e04" AS "s") AS "g";

-- contents
SELECT g.v0 AS "n", g.v1 AS "s", "g"._w AS _w FROM (SELECT s."n" AS "v0", CASE WHEN s."n_x0" > 0 THEN s."s_x0" END AS "v1", "s"._w AS _w FROM "a_862545295e04" AS "s") AS "g";
