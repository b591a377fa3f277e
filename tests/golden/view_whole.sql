-- view
SELECT id FROM a WHERE k > ANY (SELECT k FROM b) OR x > 1;

-- delta of r_0af20a215245
WITH "hw_5f8a26d33e01" AS (SELECT "id", "k", "x" FROM (SELECT "id", "k", "x", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "id", "k", "x", sum(_w) AS _w FROM (SELECT t."id" AS "id", t."k" AS "k", t."x" AS "x", "t"._w AS _w FROM "t1" AS "t") GROUP BY ALL HAVING sum(_w) > 0))), "hw_10fb26f3d288" AS (SELECT "k" FROM (SELECT "k", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k", sum(_w) AS _w FROM (SELECT t."k" AS "k", "t"._w AS _w FROM "t2" AS "t") GROUP BY ALL HAVING sum(_w) > 0))) SELECT "c0", CAST(sum(_w) AS BIGINT) AS _w FROM (SELECT "c0", 1::BIGINT AS _w FROM (SELECT * FROM (SELECT id FROM hw_5f8a26d33e01 AS a WHERE ((k > ANY(SELECT k FROM hw_10fb26f3d288 AS b)) OR (x > 1))) AS q("c0")) UNION ALL SELECT "c0", -_w AS _w FROM r_0af20a215245 AS s) GROUP BY ALL HAVING sum(_w) <> 0;

-- output term of r_0af20a215245
SELECT r."c0" AS "id", "r"._w AS _w FROM "d_r_0af20a215245" AS "r";

-- contents
SELECT r."c0" AS "id", "r"._w AS _w FROM "r_0af20a215245" AS "r";
