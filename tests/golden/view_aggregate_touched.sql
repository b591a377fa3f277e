-- view
SELECT k, sum(f) AS s FROM b GROUP BY k;

-- delta of a_5d3d2ada916a
WITH touched AS MATERIALIZED (SELECT * FROM (SELECT DISTINCT "k0" FROM (SELECT b.k AS "k0", b.f AS "x0", "b"._w AS _w FROM "d_t2" AS "b"))), old AS (SELECT "k0", "n", "n_x0", "s_x0" FROM (SELECT s.* FROM a_5d3d2ada916a AS s SEMI JOIN touched ON s."k0" IS NOT DISTINCT FROM touched."k0") GROUP BY ALL HAVING sum(_w) > 0), new AS (SELECT "k0", CAST(coalesce(sum(_w), 0) AS BIGINT) AS "n", CAST(coalesce(sum(_w) FILTER ("x0" IS NOT NULL), 0) AS BIGINT) AS "n_x0", CAST(coalesce(sum(CAST("x0" AS DOUBLE) * _w), 0) AS DOUBLE) AS "s_x0" FROM (SELECT "k0", "x0", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT b.k AS "k0", b.f AS "x0", "b"._w AS _w FROM "t2" AS "b") AS i SEMI JOIN touched ON i."k0" IS NOT DISTINCT FROM touched."k0") GROUP BY ALL HAVING sum(_w) <> 0) GROUP BY "k0" HAVING sum(_w) <> 0) SELECT "k0", "n", "n_x0", "s_x0", -1::BIGINT AS _w FROM old UNION ALL SELECT "k0", "n", "n_x0", "s_x0", 1::BIGINT AS _w FROM new;

-- output term of a_5d3d2ada916a
SELECT g.k0 AS "k", g.v0 AS "s", "g"._w AS _w FROM (SELECT s."k0" AS "k0", CASE WHEN s."n_x0" > 0 THEN s."s_x0" END AS "v0", "s"._w AS _w FROM "d_a_5d3d2ada916a" AS "s") AS "g";

-- contents
SELECT g.k0 AS "k", g.v0 AS "s", "g"._w AS _w FROM (SELECT s."k0" AS "k0", CASE WHEN s."n_x0" > 0 THEN s."s_x0" END AS "v0", "s"._w AS _w FROM "a_5d3d2ada916a" AS "s") AS "g";
