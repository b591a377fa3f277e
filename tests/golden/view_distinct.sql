-- view
SELECT DISTINCT k FROM b;

-- delta of a_dc447f24846b
SELECT raw."k0" AS "k0", CAST(CASE WHEN side.w < 0 THEN s."n" ELSE coalesce(s."n", 0) + raw."n" END AS BIGINT) AS "n", side.w AS _w FROM (SELECT * FROM (SELECT "k0", CAST(coalesce(sum(_w), 0) AS BIGINT) AS "n" FROM (SELECT u."k" AS "k0", "u"._w AS _w FROM (SELECT b.k AS "k", "b"._w AS _w FROM "d_t2" AS "b") AS "u") GROUP BY "k0") WHERE "n" <> 0) AS raw LEFT JOIN "a_dc447f24846b" AS s ON s."k0" IS NOT DISTINCT FROM raw."k0" CROSS JOIN (VALUES (-1::BIGINT), (1::BIGINT)) AS side(w) WHERE (side.w > 0 OR s."n" IS NOT NULL) AND (side.w < 0 OR coalesce(s."n", 0) + raw."n" <> 0);

-- apply
DELETE FROM "a_dc447f24846b" USING "d_a_dc447f24846b" AS d WHERE d._w < 0 AND "a_dc447f24846b"."k0" IS NOT DISTINCT FROM d."k0";

-- apply
INSERT INTO "a_dc447f24846b" SELECT "k0", "n" FROM "d_a_dc447f24846b" WHERE _w > 0;

-- output term of a_dc447f24846b
SELECT s."k0" AS "k", "s"._w AS _w FROM "d_a_dc447f24846b" AS "s";

-- contents
SELECT s."k0" AS "k" FROM "a_dc447f24846b" AS "s";
