-- view
SELECT DISTINCT k FROM b;

-- delta of g_474d4fe80cf3
SELECT raw."k0" AS "k0", CAST(CASE WHEN side.w < 0 THEN s."n" ELSE coalesce(s."n", 0) + raw."n" END AS BIGINT) AS "n", side.w AS _w FROM (SELECT * FROM (SELECT "k0", CAST(coalesce(sum(_w), 0) AS BIGINT) AS "n" FROM (SELECT u."k" AS "k0", "u"._w AS _w FROM (SELECT b.k AS "k", "b"._w AS _w FROM "d_t2" AS "b") AS "u") GROUP BY "k0") WHERE "n" <> 0) AS raw LEFT JOIN "g_474d4fe80cf3" AS s ON s."k0" IS NOT DISTINCT FROM raw."k0" CROSS JOIN (VALUES (-1::BIGINT), (1::BIGINT)) AS side(w) WHERE (side.w > 0 OR s."n" IS NOT NULL) AND (side.w < 0 OR coalesce(s."n", 0) + raw."n" <> 0);

-- apply
DELETE FROM "g_474d4fe80cf3" USING "d_g_474d4fe80cf3" AS d WHERE d._w < 0 AND "g_474d4fe80cf3"."k0" IS NOT DISTINCT FROM d."k0";

-- apply
INSERT INTO "g_474d4fe80cf3" SELECT "k0", "n" FROM "d_g_474d4fe80cf3" WHERE _w > 0;

-- output term of g_474d4fe80cf3
SELECT s."k0" AS "k", "s"._w AS _w FROM "d_g_474d4fe80cf3" AS "s";

-- contents
SELECT s."k0" AS "k" FROM "g_474d4fe80cf3" AS "s";
