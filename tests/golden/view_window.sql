-- view
SELECT id, rank() OVER (PARTITION BY k ORDER BY x) AS r FROM a;

-- touched keys
SELECT "k" AS "c0" FROM "d_t1";

-- delta of r_ca14122fc70b
WITH "hw_9ae35bebaae8" AS (SELECT "k0", "c1", "c2" FROM (SELECT "k0", "c1", "c2", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k0", "c1", "c2", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT a.k AS "k0", a.id AS "c1", a.x AS "c2", "a"._w AS _w FROM "t1" AS "a") AS i SEMI JOIN "touched" AS k ON i."k0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) > 0))) SELECT "c0", "c1", "c2", CAST(sum(_w) AS BIGINT) AS _w FROM (SELECT "c0", "c1", "c2", 1::BIGINT AS _w FROM (SELECT * FROM (SELECT i.k0 AS "e0", i.c1 AS "e1", rank() OVER (PARTITION BY i.k0 ORDER BY i.c2) AS "e2" FROM hw_9ae35bebaae8 AS i) AS q("c0", "c1", "c2")) UNION ALL SELECT "c0", "c1", "c2", -_w AS _w FROM r_ca14122fc70b AS s SEMI JOIN "touched" AS k ON s."c0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) <> 0;

-- output term of r_ca14122fc70b
SELECT r."c1" AS "id", r."c2" AS "r", "r"._w AS _w FROM "d_r_ca14122fc70b" AS "r";

-- contents
SELECT r."c1" AS "id", r."c2" AS "r", "r"._w AS _w FROM "r_ca14122fc70b" AS "r";
