-- view
SELECT id, upper(k) AS k FROM a WHERE x > 1;

-- output term of t1
SELECT a.id AS "id", upper(a.k) AS "k", "a"._w AS _w FROM "d_t1" AS "a" WHERE (a.x > 1);

-- contents
SELECT a.id AS "id", upper(a.k) AS "k", "a"._w AS _w FROM "t1" AS "a" WHERE (a.x > 1);
