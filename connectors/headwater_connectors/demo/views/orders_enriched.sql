-- Row by row: every order with its customer.
CREATE MATERIALIZED VIEW orders_enriched AS
SELECT o.id AS order_id, o.placed_at, o.status, o.total, c.name, c.country,
       CASE WHEN o.total >= 500 THEN 'large' WHEN o.total >= 100 THEN 'medium' ELSE 'small' END AS size
FROM orders AS o
JOIN customers AS c ON c.id = o.customer_id;
