-- view
SELECT k FROM a UNION ALL SELECT k FROM b;

-- output term of t1
SELECT CAST("u"."k" AS VARCHAR) AS "k", "u"._w AS _w FROM (SELECT a.k AS "k", "a"._w AS _w FROM "d_t1" AS "a") AS "u";

-- output term of t2
SELECT CAST("u"."k" AS VARCHAR) AS "k", "u"._w AS _w FROM (SELECT b.k AS "k", "b"._w AS _w FROM "d_t2" AS "b") AS "u";

-- contents
SELECT CAST("u"."k" AS VARCHAR) AS "k", "u"._w AS _w FROM (SELECT a.k AS "k", "a"._w AS _w FROM "t1" AS "a") AS "u" UNION ALL SELECT CAST("u"."k" AS VARCHAR) AS "k", "u"._w AS _w FROM (SELECT b.k AS "k", "b"._w AS _w FROM "t2" AS "b") AS "u";
