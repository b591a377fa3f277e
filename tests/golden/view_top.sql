-- view
SELECT id FROM a ORDER BY x DESC, id LIMIT 3;

-- delta of r_b1b89e62bd10
WITH "hw_a887f0751163" AS (SELECT "id", "hw_o0", "hw_o1" FROM (SELECT "id", "hw_o0", "hw_o1", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "id", "hw_o0", "hw_o1", sum(_w) AS _w FROM (SELECT a.id AS "id", a.x AS "hw_o0", a.id AS "hw_o1", "a"._w AS _w FROM "t1" AS "a") GROUP BY ALL HAVING sum(_w) > 0))) SELECT "c0", CAST(sum(_w) AS BIGINT) AS _w FROM (SELECT "c0", 1::BIGINT AS _w FROM (SELECT * FROM (SELECT i."id" FROM hw_a887f0751163 AS i ORDER BY hw_o0 DESC, hw_o1 LIMIT 3) AS q("c0")) UNION ALL SELECT "c0", -_w AS _w FROM r_b1b89e62bd10 AS s) GROUP BY ALL HAVING sum(_w) <> 0;

-- output term of r_b1b89e62bd10
SELECT r."c0" AS "id", "r"._w AS _w FROM "d_r_b1b89e62bd10" AS "r";

-- contents
SELECT r."c0" AS "id", "r"._w AS _w FROM "r_b1b89e62bd10" AS "r";
