-- A join and an aggregate: what each country bought.
CREATE MATERIALIZED VIEW sales_by_country AS
SELECT c.country, count(*) AS orders, sum(o.total) AS revenue, avg(o.total) AS average
FROM orders AS o
JOIN customers AS c ON c.id = o.customer_id
WHERE o.status <> 'cancelled'
GROUP BY c.country;
