-- view
SELECT a.id, b.y FROM a LEFT JOIN b ON a.k = b.k AND b.y > a.x;

-- touched keys
SELECT "k" AS "c0" FROM "d_t1" UNION SELECT "k" AS "c0" FROM "d_t2";

-- delta of r_f94402c5c98c
WITH "hw_7df2feaa8e70" AS (SELECT "k0", "l0", "l1", "l2" FROM (SELECT "k0", "l0", "l1", "l2", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k0", "l0", "l1", "l2", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT hw_l.l1 AS "k0", hw_l."l0" AS "l0", hw_l."l1" AS "l1", hw_l."l2" AS "l2", "hw_l"._w AS _w FROM (SELECT a.id AS "l0", a.k AS "l1", a.x AS "l2", "a"._w AS _w FROM "t1" AS "a") AS "hw_l") AS i SEMI JOIN "touched" AS k ON i."k0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) > 0))), "hw_d3523add2db7" AS (SELECT "k0", "r0", "r1" FROM (SELECT "k0", "r0", "r1", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k0", "r0", "r1", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT hw_r.r0 AS "k0", hw_r."r0" AS "r0", hw_r."r1" AS "r1", "hw_r"._w AS _w FROM (SELECT b.k AS "r0", b.y AS "r1", "b"._w AS _w FROM "t2" AS "b") AS "hw_r") AS i SEMI JOIN "touched" AS k ON i."k0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) > 0))) SELECT "c0", "c1", "c2", "c3", CAST(sum(_w) AS BIGINT) AS _w FROM (SELECT "c0", "c1", "c2", "c3", 1::BIGINT AS _w FROM (SELECT * FROM (SELECT hw_l."k0" AS "l1", hw_l."l0", hw_r."r0", hw_r."r1" FROM hw_7df2feaa8e70 AS hw_l LEFT JOIN hw_d3523add2db7 AS hw_r ON ((hw_l.l1 = hw_r.r0)) AND ((hw_r.r1 > hw_l.l2))) AS q("c0", "c1", "c2", "c3")) UNION ALL SELECT "c0", "c1", "c2", "c3", -_w AS _w FROM r_f94402c5c98c AS s SEMI JOIN "touched" AS k ON s."c0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) <> 0;

-- output term of r_f94402c5c98c
SELECT hw_1.l0 AS "id", hw_1.r1 AS "y", "hw_1"._w AS _w FROM (SELECT r."c0" AS "l1", r."c1" AS "l0", r."c2" AS "r0", r."c3" AS "r1", "r"._w AS _w FROM "d_r_f94402c5c98c" AS "r") AS "hw_1";

-- contents
SELECT hw_1.l0 AS "id", hw_1.r1 AS "y", "hw_1"._w AS _w FROM (SELECT r."c0" AS "l1", r."c1" AS "l0", r."c2" AS "r0", r."c3" AS "r1", "r"._w AS _w FROM "r_f94402c5c98c" AS "r") AS "hw_1";
