-- A view on a view: each country's part of the whole, in percent.
CREATE MATERIALIZED VIEW country_share AS
WITH shop AS (
    SELECT sum(revenue) AS revenue FROM sales_by_country
)
SELECT s.country, s.revenue, round(100 * s.revenue / shop.revenue, 3) AS percent
FROM sales_by_country AS s
JOIN shop ON shop.revenue > 0;
