-- view
SELECT k FROM a EXCEPT SELECT k FROM b;

-- touched keys
SELECT "k0" AS "c0" FROM (SELECT u."k" AS "k0", "u"._w AS _w FROM (SELECT CAST("u"."k" AS VARCHAR) AS "k", "u"._w AS _w FROM (SELECT a.k AS "k", "a"._w AS _w FROM "d_t1" AS "a") AS "u") AS "u") UNION SELECT "k0" AS "c0" FROM (SELECT u."k" AS "k0", "u"._w AS _w FROM (SELECT CAST("u"."k" AS VARCHAR) AS "k", "u"._w AS _w FROM (SELECT b.k AS "k", "b"._w AS _w FROM "d_t2" AS "b") AS "u") AS "u");

-- delta of r_905623f0195d
WITH "hw_7bf78638f97c" AS (SELECT "k0" FROM (SELECT "k0", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k0", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT u."k" AS "k0", "u"._w AS _w FROM (SELECT CAST("u"."k" AS VARCHAR) AS "k", "u"._w AS _w FROM (SELECT a.k AS "k", "a"._w AS _w FROM "t1" AS "a") AS "u") AS "u") AS i SEMI JOIN "touched" AS k ON i."k0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) > 0))), "hw_720cfa0b2d5a" AS (SELECT "k0" FROM (SELECT "k0", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k0", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT u."k" AS "k0", "u"._w AS _w FROM (SELECT CAST("u"."k" AS VARCHAR) AS "k", "u"._w AS _w FROM (SELECT b.k AS "k", "b"._w AS _w FROM "t2" AS "b") AS "u") AS "u") AS i SEMI JOIN "touched" AS k ON i."k0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) > 0))) SELECT "c0", "c1", CAST(sum(_w) AS BIGINT) AS _w FROM (SELECT "c0", "c1", 1::BIGINT AS _w FROM (SELECT * FROM (SELECT k0, k0 FROM (SELECT k0 FROM hw_7bf78638f97c EXCEPT SELECT k0 FROM hw_720cfa0b2d5a)) AS q("c0", "c1")) UNION ALL SELECT "c0", "c1", -_w AS _w FROM r_905623f0195d AS s SEMI JOIN "touched" AS k ON s."c0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) <> 0;

-- output term of r_905623f0195d
SELECT r."c1" AS "k", "r"._w AS _w FROM "d_r_905623f0195d" AS "r";

-- contents
SELECT r."c1" AS "k", "r"._w AS _w FROM "r_905623f0195d" AS "r";
