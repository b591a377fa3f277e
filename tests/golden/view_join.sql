-- view
SELECT a.id, b.y FROM a JOIN b ON a.k = b.k;

-- output term of t1
SELECT a.id AS "id", b.y AS "y", "a"._w * "b"._w AS _w FROM "d_t1" AS "a", "t2" AS "b" WHERE (a.k = b.k);

-- output term of t2
SELECT a.id AS "id", b.y AS "y", "a"._w * "b"._w AS _w FROM "t1" AS "a", "d_t2" AS "b" WHERE (a.k = b.k);

-- contents
SELECT a.id AS "id", b.y AS "y", "a"._w * "b"._w AS _w FROM "t1" AS "a", "t2" AS "b" WHERE (a.k = b.k);
