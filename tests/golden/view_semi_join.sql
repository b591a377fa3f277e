-- view
SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k);

-- touched keys
SELECT "k" AS "c0" FROM "d_t1" UNION SELECT "k" AS "c0" FROM "d_t2";

-- delta of r_33fdd7bf0551
WITH "hw_c8bb4570e776" AS (SELECT "k0", "l0", "l1" FROM (SELECT "k0", "l0", "l1", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k0", "l0", "l1", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT hw_l.l1 AS "k0", hw_l."l0" AS "l0", hw_l."l1" AS "l1", "hw_l"._w AS _w FROM (SELECT a.id AS "l0", a.k AS "l1", "a"._w AS _w FROM "t1" AS "a") AS "hw_l") AS i SEMI JOIN "touched" AS k ON i."k0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) > 0))), "hw_7db24738a2b8" AS (SELECT "k0", "r0" FROM (SELECT "k0", "r0", unnest(range(CAST(_w AS BIGINT))) FROM (SELECT "k0", "r0", sum(_w) AS _w FROM (SELECT i.* FROM (SELECT hw_r.r0 AS "k0", hw_r."r0" AS "r0", "hw_r"._w AS _w FROM (SELECT b.k AS "r0", "b"._w AS _w FROM "t2" AS "b") AS "hw_r") AS i SEMI JOIN "touched" AS k ON i."k0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) > 0))) SELECT "c0", "c1", CAST(sum(_w) AS BIGINT) AS _w FROM (SELECT "c0", "c1", 1::BIGINT AS _w FROM (SELECT * FROM (SELECT hw_l."k0" AS "l1", hw_l."l0" FROM hw_c8bb4570e776 AS hw_l SEMI JOIN hw_7db24738a2b8 AS hw_r ON ((hw_r.r0 = hw_l.l1))) AS q("c0", "c1")) UNION ALL SELECT "c0", "c1", -_w AS _w FROM r_33fdd7bf0551 AS s SEMI JOIN "touched" AS k ON s."c0" IS NOT DISTINCT FROM k."c0") GROUP BY ALL HAVING sum(_w) <> 0;

-- output term of r_33fdd7bf0551
SELECT hw_1.l0 AS "id", "hw_1"._w AS _w FROM (SELECT r."c0" AS "l1", r."c1" AS "l0", "r"._w AS _w FROM "d_r_33fdd7bf0551" AS "r") AS "hw_1";

-- contents
SELECT hw_1.l0 AS "id", "hw_1"._w AS _w FROM (SELECT r."c0" AS "l1", r."c1" AS "l0", "r"._w AS _w FROM "r_33fdd7bf0551" AS "r") AS "hw_1";
