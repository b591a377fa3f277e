-- UNION ALL: everything that customers did.
CREATE MATERIALIZED VIEW activity_by_country AS
WITH activity AS (
    SELECT customer_id, 'order' AS what FROM orders
    UNION ALL
    SELECT customer_id, 'page view' AS what FROM page_views
    UNION ALL
    SELECT customer_id, 'wish' AS what FROM wishes
)
SELECT c.country, a.what, count(*) AS times
FROM activity AS a
JOIN customers AS c ON c.id = a.customer_id
GROUP BY c.country, a.what;
