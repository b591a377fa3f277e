-- view
SELECT k, max(x) AS m FROM a GROUP BY k;

-- touched keys
SELECT "k" AS "c0" FROM "d_t1";

-- of these, those whose extremes may become others
SELECT DISTINCT i."k0" AS "c0" FROM (SELECT a.k AS "k0", a.x AS "c1", "a"._w AS _w FROM "d_t1" AS "a") AS i LEFT JOIN (SELECT "c0", "c1" FROM "r_192f2240c571" GROUP BY ALL HAVING sum(_w) > 0) AS s ON s."c0" IS NOT DISTINCT FROM i."k0" WHERE s."c1" IS NULL OR (i.c1) > s."c1" OR (i._w < 0 AND (i.c1) = s."c1");

-- delta of r_192f2240c571
WITH "hw_1afefdee1729" AS (SELECT "k0", "c1" FROM (SELECT "k0", "c1", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k0", "c1", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT a.k AS "k0", a.x AS "c1", "a"._w AS _w FROM "t1" AS "a") AS i SEMI JOIN "touched" AS k ON i."k0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) > 0))) SELECT "c0", "c1", CAST(sum(_w) AS BIGINT) AS _w FROM (SELECT "c0", "c1", 1::BIGINT AS _w FROM (SELECT * FROM (SELECT i.k0, max(i.c1) AS v0 FROM hw_1afefdee1729 AS i GROUP BY i.k0) AS q("c0", "c1")) UNION ALL SELECT "c0", "c1", -_w AS _w FROM r_192f2240c571 AS s SEMI JOIN "touched" AS k ON s."c0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) <> 0;

-- output term of r_192f2240c571
SELECT g.k0 AS "k", g.v0 AS "m", "g"._w AS _w FROM (SELECT r."c0" AS "k0", r."c1" AS "v0", "r"._w AS _w FROM "d_r_192f2240c571" AS "r") AS "g";

-- contents
SELECT g.k0 AS "k", g.v0 AS "m", "g"._w AS _w FROM (SELECT r."c0" AS "k0", r."c1" AS "v0", "r"._w AS _w FROM "r_192f2240c571" AS "r") AS "g";
