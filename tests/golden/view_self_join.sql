-- view
SELECT p.id AS p, q.id AS q FROM a p JOIN a q USING (k);

-- output term of t1
SELECT p.id AS "p", q.id AS "q", "p"._w * "q"._w AS _w FROM "d_t1" AS "p", "t1" AS "q" WHERE (p.k = q.k);

-- output term of t1
SELECT p.id AS "p", q.id AS "q", "p"._w * "q"._w AS _w FROM (SELECT * FROM "t1" UNION ALL SELECT * FROM "d_t1") AS "p", "d_t1" AS "q" WHERE (p.k = q.k);

-- contents
SELECT p.id AS "p", q.id AS "q", "p"._w * "q"._w AS _w FROM "t1" AS "p", "t1" AS "q" WHERE (p.k = q.k);
