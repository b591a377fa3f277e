-- view
SELECT DISTINCT k FROM b;

-- delta of a_dc447f24846b
WITH raw AS MATERIALIZED (SELECT * FROM (SELECT * FROM (SELECT "k0", CAST(coalesce(sum(_w), 0) AS BIGINT) AS "n" FROM (SELECT u."k" AS "k0", "u"._w AS _w FROM (SELECT b.k AS "k", "b"._w AS _w FROM "d_t2" AS "b") AS "u") GROUP BY "k0") WHERE "n" <> 0)), s AS (SELECT "k0", "n" FROM (SELECT s.* FROM a_dc447f24846b AS s SEMI JOIN raw ON s."k0" IS NOT DISTINCT FROM raw."k0") GROUP BY ALL HAVING sum(_w) > 0) SELECT raw."k0" AS "k0", CAST(CASE WHEN side.w < 0 THEN s."n" ELSE coalesce(s."n", 0) + raw."n" END AS BIGINT) AS "n", side.w AS _w FROM raw LEFT JOIN s ON s."k0" IS NOT DISTINCT FROM raw."k0" CROSS JOIN (VALUES (-1::BIGINT), (1::BIGINT)) AS side(w) WHERE (side.w > 0 OR s."n" IS NOT NULL) AND (side.w < 0 OR coalesce(s."n", 0) + raw."n" <> 0);

-- output term of a_dc447f24846b
SELECT s."k0" AS "k", "s"._w AS _w FROM "d_a_dc447f24846b" AS "s";

-- contents
SELECT s."k0" AS "k", "s"._w AS _w FROM "a_dc447f24846b" AS "s";
