-- view
SELECT id FROM a ORDER BY x DESC, id LIMIT 3;

-- delta of r_757bf38d0b38
WITH "hw_a887f0751163" AS (SELECT a.id AS "id", a.x AS "hw_o0", a.id AS "hw_o1" FROM "t1" AS "a") SELECT "c0", CAST(sum(_w) AS BIGINT) AS _w FROM (SELECT "c0", 1::BIGINT AS _w FROM (SELECT * FROM (SELECT i."id" FROM hw_a887f0751163 AS i ORDER BY hw_o0 DESC, hw_o1 LIMIT 3) AS q("c0")) UNION ALL SELECT "c0", -_w AS _w FROM "r_757bf38d0b38" AS s) GROUP BY ALL HAVING sum(_w) <> 0;

-- apply
INSERT INTO "r_757bf38d0b38" SELECT * FROM "d_r_757bf38d0b38";

-- output term of r_757bf38d0b38
SELECT r."c0" AS "id", "r"._w AS _w FROM "d_r_757bf38d0b38" AS "r";

-- contents
SELECT r."c0" AS "id", "r"._w AS _w FROM "r_757bf38d0b38" AS "r";
