-- view
SELECT id FROM a WHERE a.at > now() - INTERVAL 1 DAY AND a.at + INTERVAL 1 HOUR < now();

-- delta of c_5ee7db730739
SELECT s.v, -1::BIGINT AS _w FROM (SELECT v FROM "c_5ee7db730739" GROUP BY v HAVING sum(_w) > 0) AS s, (SELECT (clock.now - to_days(CAST(trunc(CAST(1 AS DOUBLE)) AS INTEGER))) AS v FROM (SELECT make_timestamptz(0) AS now) AS clock) AS n WHERE s.v IS DISTINCT FROM n.v UNION ALL SELECT n.v, 1::BIGINT FROM (SELECT v FROM "c_5ee7db730739" GROUP BY v HAVING sum(_w) > 0) AS s, (SELECT (clock.now - to_days(CAST(trunc(CAST(1 AS DOUBLE)) AS INTEGER))) AS v FROM (SELECT make_timestamptz(0) AS now) AS clock) AS n WHERE s.v IS DISTINCT FROM n.v;

-- bounds
SET VARIABLE min_c_5ee7db730739 = (SELECT min(v) FROM "d_c_5ee7db730739");

-- bounds
SET VARIABLE max_c_5ee7db730739 = (SELECT max(v) FROM "d_c_5ee7db730739");

-- delta of c_f7e93e6604d9
SELECT s.v, -1::BIGINT AS _w FROM (SELECT v FROM "c_f7e93e6604d9" GROUP BY v HAVING sum(_w) > 0) AS s, (SELECT clock.now AS v FROM (SELECT make_timestamptz(0) AS now) AS clock) AS n WHERE s.v IS DISTINCT FROM n.v UNION ALL SELECT n.v, 1::BIGINT FROM (SELECT v FROM "c_f7e93e6604d9" GROUP BY v HAVING sum(_w) > 0) AS s, (SELECT clock.now AS v FROM (SELECT make_timestamptz(0) AS now) AS clock) AS n WHERE s.v IS DISTINCT FROM n.v;

-- bounds
SET VARIABLE min_c_f7e93e6604d9 = (SELECT min(v) FROM "d_c_f7e93e6604d9");

-- bounds
SET VARIABLE max_c_f7e93e6604d9 = (SELECT max(v) FROM "d_c_f7e93e6604d9");

-- output term of t1
SELECT a.id AS "id", "a"._w * "hw_1"._w * "hw_2"._w AS _w FROM "d_t1" AS "a", "c_5ee7db730739" AS "hw_1", "c_f7e93e6604d9" AS "hw_2" WHERE (a."at" > hw_1.v) AND ((a."at" + to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) < hw_2.v);

-- output term of c_5ee7db730739
SELECT a.id AS "id", "a"._w * "hw_1"._w * "hw_2"._w AS _w FROM "t1" AS "a", "d_c_5ee7db730739" AS "hw_1", "c_f7e93e6604d9" AS "hw_2" WHERE (a."at" > hw_1.v) AND ((a."at" + to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) < hw_2.v) AND (a."at" BETWEEN CAST(CAST(getvariable('min_c_5ee7db730739') AS TIMESTAMP) - CASE current_setting('TimeZone') WHEN 'UTC' THEN INTERVAL 0 DAY ELSE INTERVAL 2 DAY END AS TIMESTAMP) AND CAST(CAST(getvariable('max_c_5ee7db730739') AS TIMESTAMP) + CASE current_setting('TimeZone') WHEN 'UTC' THEN INTERVAL 0 DAY ELSE INTERVAL 2 DAY END AS TIMESTAMP) AND a."at" BETWEEN getvariable('min_c_5ee7db730739') AND getvariable('max_c_5ee7db730739'));

-- output term of c_f7e93e6604d9
SELECT a.id AS "id", "a"._w * "hw_1"._w * "hw_2"._w AS _w FROM "t1" AS "a", "c_5ee7db730739" AS "hw_1", "d_c_f7e93e6604d9" AS "hw_2" WHERE (a."at" > hw_1.v) AND ((a."at" + to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) < hw_2.v) AND (a."at" BETWEEN CAST(CAST(getvariable('min_c_f7e93e6604d9') AS TIMESTAMP) - (to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) - CASE current_setting('TimeZone') WHEN 'UTC' THEN INTERVAL 0 DAY ELSE INTERVAL 2 DAY END - CASE WHEN date_part('month', to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) <> 0 OR date_part('year', to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) <> 0 THEN INTERVAL 4 DAY ELSE INTERVAL 0 DAY END AS TIMESTAMP) AND CAST(CAST(getvariable('max_c_f7e93e6604d9') AS TIMESTAMP) - (to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) + CASE current_setting('TimeZone') WHEN 'UTC' THEN INTERVAL 0 DAY ELSE INTERVAL 2 DAY END + CASE WHEN date_part('month', to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) <> 0 OR date_part('year', to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) <> 0 THEN INTERVAL 4 DAY ELSE INTERVAL 0 DAY END AS TIMESTAMP) AND (a."at" + to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) BETWEEN getvariable('min_c_f7e93e6604d9') AND getvariable('max_c_f7e93e6604d9'));

-- contents
SELECT a.id AS "id", "a"._w * "hw_1"._w * "hw_2"._w AS _w FROM "t1" AS "a", "c_5ee7db730739" AS "hw_1", "c_f7e93e6604d9" AS "hw_2" WHERE (a."at" > hw_1.v) AND ((a."at" + to_hours(CAST(trunc(CAST(1 AS DOUBLE)) AS BIGINT))) < hw_2.v);
