-- A self-join: pairs of products in one order.
CREATE MATERIALIZED VIEW bought_together AS
SELECT a.product_id AS product, b.product_id AS other, count(*) AS orders
FROM order_items AS a
JOIN order_items AS b ON a.order_id = b.order_id AND a.product_id < b.product_id
GROUP BY a.product_id, b.product_id;
