-- HAVING: a product enters this view when its 100th page is viewed.
CREATE MATERIALIZED VIEW hot_products AS
SELECT product_id, count(*) AS views, count(customer_id) AS known_visitors
FROM page_views
GROUP BY product_id
HAVING count(*) >= 100;
