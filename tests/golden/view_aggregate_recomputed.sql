-- view
SELECT k, max(x) AS m FROM a GROUP BY k;

-- touched keys
SELECT k AS "c0" FROM (FROM "d_t1");

-- of these, those whose extremes may become others
SELECT DISTINCT i."k0" AS "c0" FROM (SELECT a.k AS "k0", a.x AS "c0", "a"._w AS _w FROM "d_t1" AS "a") AS i LEFT JOIN (SELECT "c0", "c1", "c2" FROM "r_c116cec608cd" GROUP BY ALL HAVING sum(_w) > 0) AS s ON s."c0" IS NOT DISTINCT FROM i."k0" WHERE s."c2" IS NULL OR (i.c0) > s."c2" OR (i._w < 0 AND (i.c0) = s."c2");

-- delta of r_c116cec608cd
WITH "hw_23ec998ab622" AS (SELECT "k0", "c0" FROM (SELECT "k0", "c0", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k0", "c0", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT a.k AS "k0", a.x AS "c0", "a"._w AS _w FROM "t1" AS "a") AS i SEMI JOIN "touched" AS k ON i."k0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) > 0))) SELECT "c0", "c1", "c2", CAST(sum(_w) AS BIGINT) AS _w FROM (SELECT "c0", "c1", "c2", 1::BIGINT AS _w FROM (SELECT * FROM (SELECT i.k0, i.k0, max(i.c0) AS v0 FROM hw_23ec998ab622 AS i GROUP BY i.k0) AS q("c0", "c1", "c2")) UNION ALL SELECT "c0", "c1", "c2", -_w AS _w FROM r_c116cec608cd AS s SEMI JOIN "touched" AS k ON s."c0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) <> 0;

-- output term of r_c116cec608cd
SELECT g.k0 AS "k", g.v0 AS "m", "g"._w AS _w FROM (SELECT r."c1" AS "k0", r."c2" AS "v0", "r"._w AS _w FROM "d_r_c116cec608cd" AS "r") AS "g";

-- contents
SELECT g.k0 AS "k", g.v0 AS "m", "g"._w AS _w FROM (SELECT r."c1" AS "k0", r."c2" AS "v0", "r"._w AS _w FROM "r_c116cec608cd" AS "r") AS "g";
