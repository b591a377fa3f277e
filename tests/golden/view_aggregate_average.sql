-- view
SELECT k, avg(x) AS m FROM a GROUP BY k;

-- delta of a_5894fe699d99
WITH raw AS MATERIALIZED (SELECT * FROM (SELECT * FROM (SELECT "k0", CAST(coalesce(sum(_w), 0) AS BIGINT) AS "n", CAST(coalesce(sum(_w) FILTER ("x0" IS NOT NULL), 0) AS BIGINT) AS "n_x0", CAST(coalesce(sum(CAST("x0" AS DECIMAL(38,2)) * _w), 0) AS DECIMAL(38,2)) AS "s_x0" FROM (SELECT a.k AS "k0", a.x AS "x0", "a"._w AS _w FROM "d_t1" AS "a") GROUP BY "k0") WHERE "n" <> 0 OR "n_x0" <> 0 OR "s_x0" <> 0)), s AS (SELECT "k0", "n", "n_x0", "s_x0" FROM (SELECT s.* FROM a_5894fe699d99 AS s SEMI JOIN raw ON s."k0" IS NOT DISTINCT FROM raw."k0") GROUP BY ALL HAVING sum(_w) > 0) SELECT raw."k0" AS "k0", CAST(CASE WHEN side.w < 0 THEN s."n" ELSE coalesce(s."n", 0) + raw."n" END AS BIGINT) AS "n", CAST(CASE WHEN side.w < 0 THEN s."n_x0" ELSE coalesce(s."n_x0", 0) + raw."n_x0" END AS BIGINT) AS "n_x0", CAST(CASE WHEN side.w < 0 THEN s."s_x0" ELSE coalesce(s."s_x0", 0) + raw."s_x0" END AS DECIMAL(38,2)) AS "s_x0", side.w AS _w FROM raw LEFT JOIN s ON s."k0" IS NOT DISTINCT FROM raw."k0" CROSS JOIN (VALUES (-1::BIGINT), (1::BIGINT)) AS side(w) WHERE (side.w > 0 OR s."n" IS NOT NULL) AND (side.w < 0 OR coalesce(s."n", 0) + raw."n" <> 0);

-- output term of a_5894fe699d99
SELECT g.k0 AS "k", g.v0 AS "m", "g"._w AS _w FROM (SELECT s."k0" AS "k0", CASE WHEN s."n_x0" > 0 THEN finalize(to_aggregate_state({'count': CAST(s."n_x0" AS UBIGINT), 'value': CAST(replace(CAST(s."s_x0" AS VARCHAR), '.', '') AS HUGEINT)}, 'avg', ['DECIMAL(12,2)'])) END AS "v0", "s"._w AS _w FROM "d_a_5894fe699d99" AS "s") AS "g";

-- contents
SELECT g.k0 AS "k", g.v0 AS "m", "g"._w AS _w FROM (SELECT s."k0" AS "k0", CASE WHEN s."n_x0" > 0 THEN finalize(to_aggregate_state({'count': CAST(s."n_x0" AS UBIGINT), 'value': CAST(replace(CAST(s."s_x0" AS VARCHAR), '.', '') AS HUGEINT)}, 'avg', ['DECIMAL(12,2)'])) END AS "v0", "s"._w AS _w FROM "a_5894fe699d99" AS "s") AS "g";
