-- Three tables, and CASE inside the sums.
CREATE MATERIALIZED VIEW revenue_by_product AS
SELECT p.id AS product_id, p.title, p.category,
       sum(CASE WHEN o.status = 'cancelled' THEN 0 ELSE i.quantity * i.price END) AS revenue,
       sum(CASE WHEN o.status = 'cancelled' THEN i.quantity ELSE 0 END) AS cancelled,
       sum(i.quantity) AS ordered
FROM order_items AS i
JOIN orders AS o ON o.id = i.order_id
JOIN products AS p ON p.id = i.product_id
GROUP BY p.id, p.title, p.category;
