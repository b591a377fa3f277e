-- name: desk_revenue_by_quarter_channel
SELECT date_trunc('quarter', placed) AS quarter, channel, sum(total) AS revenue, count(DISTINCT customer_id) AS buyers
FROM orders WHERE status NOT IN ('cancelled', 'new') GROUP BY ALL ORDER BY ALL
;
-- name: desk_first_order_size
SELECT c.id, c.name, o.total AS first_total, o.placed
FROM customers c
JOIN LATERAL (SELECT total, placed FROM orders WHERE customer_id = c.id ORDER BY placed, id LIMIT 1) o ON true
;
-- name: desk_days_between_orders
SELECT customer_id, id, placed,
       date_diff('day', lag(placed) OVER w, placed) AS days_since_last,
       avg(total) OVER (w ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS moving_avg
FROM orders WHERE placed IS NOT NULL
WINDOW w AS (PARTITION BY customer_id ORDER BY placed, id)
;
-- name: desk_churned
SELECT c.id, c.email, max(o.placed) AS last_order
FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.status <> 'cancelled'
GROUP BY c.id, c.email
HAVING max(o.placed) IS NULL OR max(o.placed) < TIMESTAMP '2026-02-15'
;
-- name: desk_rfm
WITH per_customer AS (
    SELECT customer_id, max(placed)::DATE AS recency, count(*) AS frequency, sum(total) AS monetary
    FROM orders WHERE status IN ('paid', 'shipped') GROUP BY customer_id
)
SELECT customer_id,
       CASE WHEN recency > DATE '2026-04-01' THEN 3 WHEN recency > DATE '2026-02-15' THEN 2 ELSE 1 END AS r,
       CASE WHEN frequency >= 5 THEN 3 WHEN frequency >= 2 THEN 2 ELSE 1 END AS f,
       ntile(4) OVER (PARTITION BY frequency >= 2 ORDER BY monetary DESC NULLS LAST, customer_id) AS m
FROM per_customer
;
-- name: desk_basket_pairs
SELECT a.product_id AS one, b.product_id AS other, count(DISTINCT a.order_id) AS baskets
FROM items a JOIN items b ON a.order_id = b.order_id AND a.product_id < b.product_id
GROUP BY 1, 2 HAVING count(DISTINCT a.order_id) > 1
;
-- name: desk_underpaid
SELECT o.id, o.total, coalesce(p.paid, 0) AS paid, o.total - coalesce(p.paid, 0) AS open
FROM orders o
LEFT JOIN (SELECT order_id, sum(amount) FILTER (WHERE ok) AS paid FROM payments GROUP BY order_id) p ON p.order_id = o.id
WHERE o.status <> 'cancelled' AND o.total > coalesce(p.paid, 0)
;
-- name: desk_payment_method_share
SELECT method, sum(amount) AS amount, round(100.0 * sum(amount) / sum(sum(amount)) OVER (), 2) AS share
FROM payments WHERE ok GROUP BY method
;
-- name: desk_tag_counts
SELECT tag, count(*) AS customers, list(DISTINCT country ORDER BY country) AS countries
FROM (SELECT unnest(tags) AS tag, country FROM customers) GROUP BY tag
;
-- name: desk_tag_pairs
SELECT c.id, list_sort(list_distinct(list_transform(c.tags, lambda t: upper(trim(t))))) AS tags,
       list_has_any(c.tags, ['a', 'sale']) AS is_promo, len(coalesce(c.tags, [])) AS n
FROM customers c
;
-- name: desk_json_payload_types
SELECT json_type(payload) AS kind, payload ->> '$.color' AS color, (payload -> 'size')::INT AS size, count(*) AS n
FROM events GROUP BY ALL
;
-- name: desk_json_tags_exploded
SELECT e.id, j.value ->> '$' AS tag, j.key::INT AS place
FROM events e, json_each(e.payload, '$.tags') j
WHERE e.kind IN ('view', 'purchase')
;
-- name: desk_funnel
SELECT customer_id,
       min("at") FILTER (WHERE kind = 'view') AS viewed,
       min("at") FILTER (WHERE kind = 'click') AS clicked,
       min("at") FILTER (WHERE kind = 'purchase') AS bought,
       bool_or(kind = 'signup') AS signed_up
FROM events GROUP BY customer_id
HAVING count(*) FILTER (WHERE kind = 'view') > 0
;
-- name: desk_funnel_totals
SELECT count(*) AS customers, count(viewed) AS viewed, count(bought) AS bought,
       count(*) FILTER (WHERE bought > viewed) AS after_view
FROM (
    SELECT customer_id, min(CASE WHEN kind = 'view' THEN "at" END) AS viewed,
           min(CASE WHEN kind = 'purchase' THEN "at" END) AS bought
    FROM events GROUP BY customer_id
)
;
-- name: desk_session_gaps
SELECT visitor, "at", page,
       sum(CASE WHEN gap IS NULL OR gap > INTERVAL 30 MINUTE THEN 1 ELSE 0 END)
           OVER (PARTITION BY visitor ORDER BY "at", page, ms ROWS UNBOUNDED PRECEDING) AS session
FROM (SELECT *, "at" - lag("at") OVER (PARTITION BY visitor ORDER BY "at", page, ms) AS gap FROM visits)
;
-- name: desk_entry_exit_pages
SELECT visitor, date_trunc('day', "at") AS day, arg_min(page, "at") AS entry, arg_max(page, "at") AS exit, count(*) AS pages
FROM visits GROUP BY visitor, date_trunc('day', "at")
;
-- name: desk_slow_pages
SELECT page, quantile_cont(ms, 0.5) AS p50, quantile_cont(ms, [0.9, 0.99]) AS tail, max(ms) - min(ms) AS range
FROM visits WHERE ms IS NOT NULL GROUP BY page
;
-- name: desk_referrer_host
SELECT regexp_extract(referrer, '^(\w+)', 1) AS host, split_part(referrer, ' ', 2) AS rest, count(*) AS n
FROM visits WHERE referrer IS NOT NULL AND page <> '/checkout' GROUP BY 1, 2
;
-- name: desk_price_at_order
SELECT i.order_id, i.line, i.product_id, i.price, p.price AS list_price, i.price - p.price AS difference
FROM items i JOIN orders o ON o.id = i.order_id
ASOF LEFT JOIN prices p ON p.product_id = i.product_id AND p.valid_from <= o.placed
;
-- name: desk_current_price
SELECT product_id, price, valid_from FROM prices
QUALIFY row_number() OVER (PARTITION BY product_id ORDER BY valid_from DESC) = 1
;
-- name: desk_price_periods
SELECT product_id, price, valid_from, lead(valid_from) OVER (PARTITION BY product_id ORDER BY valid_from) AS valid_to,
       price > lag(price) OVER (PARTITION BY product_id ORDER BY valid_from) AS is_rise
FROM prices
;
-- name: desk_margin_by_category
SELECT p.category, p.brand, sum(i.quantity * i.price * (1 - coalesce(i.discount, 0))) AS net,
       sum(i.quantity) AS pieces, avg(i.discount) AS discount
FROM items i JOIN products p ON p.id = i.product_id
GROUP BY GROUPING SETS ((p.category, p.brand), (p.category), ())
;
-- name: desk_attribute_sizes
SELECT id, name, CAST(attributes ->> 'size' AS INTEGER) AS size, json_array_length(attributes, '$.tags') AS tags,
       json_extract_string(attributes, '$.tags[0]') AS first_tag, json_exists(attributes, '$.color') AS has_color
FROM products
;
-- name: desk_attribute_keys
SELECT k AS key, count(*) AS products FROM (SELECT unnest(json_keys(attributes)) AS k FROM products) GROUP BY k
;
-- name: desk_never_sold
SELECT p.id, p.name FROM products p
WHERE NOT EXISTS (SELECT 1 FROM items i WHERE i.product_id = p.id) AND p.discontinued IS NULL
;
-- name: desk_sold_everywhere
SELECT p.id FROM products p
WHERE NOT EXISTS (
    SELECT 1 FROM (SELECT DISTINCT warehouse FROM stock) w
    WHERE NOT EXISTS (SELECT 1 FROM stock s WHERE s.product_id = p.id AND s.warehouse = w.warehouse AND s.quantity > 0))
;
-- name: desk_above_category_average
SELECT p.id, p.name, p.price FROM products p
WHERE p.price > (SELECT avg(q.price) FROM products q WHERE q.category = p.category)
;
-- name: desk_cheapest_three
SELECT category, id, price FROM products QUALIFY rank() OVER (PARTITION BY category ORDER BY price) <= 3
;
-- name: desk_stock_pivot
PIVOT stock ON warehouse IN ('A', 'B') USING sum(quantity) AS pieces, max(counted) AS counted GROUP BY product_id
;
-- name: desk_orders_pivot_status
SELECT * FROM (SELECT date_trunc('week', placed) AS week, status, total FROM orders)
PIVOT (count(*) AS n, sum(total) AS total FOR status IN ('paid', 'shipped', 'cancelled') GROUP BY week)
;
-- name: desk_conditional_pivot
SELECT country, count_if(segment = 'vip') AS vip, count_if(segment = 'new') AS fresh, sum(credit) AS credit,
       max_by(name, credit) AS richest
FROM customers WHERE active GROUP BY country
;
-- name: desk_unpivot_products
FROM products UNPIVOT (value FOR what IN (price, weight)) SELECT id, what, value::DECIMAL(12,3) AS value
;
-- name: desk_salary_rank
SELECT name, department, salary, dense_rank() OVER (PARTITION BY department ORDER BY salary DESC) AS place,
       salary / sum(salary) OVER (PARTITION BY department) AS share,
       percent_rank() OVER (PARTITION BY department ORDER BY salary) AS percentile
FROM employees
;
-- name: desk_manager_names
SELECT e.name AS employee, coalesce(m.name, 'nobody') AS manager, coalesce(g.name, 'nobody') AS above
FROM employees e LEFT JOIN employees m ON m.id = e.manager_id LEFT JOIN employees g ON g.id = m.manager_id
;
-- name: desk_earns_more_than_manager
SELECT e.id, e.name, e.salary - m.salary AS more FROM employees e JOIN employees m ON e.manager_id = m.id AND e.salary > m.salary
;
-- name: desk_chain_of_command
WITH RECURSIVE chain(id, path, depth) AS (
    SELECT id, [name], 1 FROM employees WHERE manager_id IS NULL
    UNION ALL
    SELECT e.id, list_append(c.path, e.name), c.depth + 1 FROM employees e JOIN chain c ON e.manager_id = c.id
)
SELECT id, array_to_string(path, ' > ') AS path, depth FROM chain
;
-- name: desk_tenure
SELECT department, year(hired) AS year, count(*) AS hired, string_agg(name, ', ' ORDER BY hired, name) AS names,
       date_part('year', age(DATE '2026-06-01', min(hired))) AS oldest_years
FROM employees GROUP BY department, year(hired)
;
-- name: desk_revenue_eur
SELECT r.region, date_trunc('month', o.placed) AS month, sum(o.total) AS total, r.currency
FROM orders o JOIN customers c ON c.id = o.customer_id JOIN regions r USING (country)
GROUP BY r.region, r.currency, month
;
-- name: desk_converted
SELECT o.id, o.total, x.rate, round(o.total * x.rate, 2) AS converted
FROM orders o JOIN customers c ON o.customer_id = c.id JOIN regions r ON r.country = c.country
LEFT JOIN rates x ON x.currency = r.currency AND x.day = o.placed::DATE
;
-- name: desk_rate_change
SELECT currency, day, rate, rate - lag(rate) OVER (PARTITION BY currency ORDER BY day) AS change,
       avg(rate) OVER (PARTITION BY currency ORDER BY day RANGE BETWEEN INTERVAL 7 DAY PRECEDING AND CURRENT ROW) AS week
FROM rates
;
-- name: desk_address_fields
SELECT id, address.street, address.zip[1:2] AS area, round(address.geo.lat, 1) AS lat, address.geo.lon > 10 AS is_east
FROM customers WHERE address IS NOT NULL
;
-- name: desk_struct_summary
SELECT country, {'n': count(*), 'credit': sum(credit), 'active': count(*) FILTER (WHERE active)} AS summary
FROM customers GROUP BY country
;
-- name: desk_cities_list_agg
SELECT country, list(struct_pack(city := city, n := n) ORDER BY n DESC, city) AS cities
FROM (SELECT country, city, count(*) AS n FROM customers WHERE city IS NOT NULL GROUP BY country, city) GROUP BY country
;
-- name: desk_email_domain
SELECT lower(split_part(email, '@', -1)) AS domain, count(*) AS n, min(length(email)) AS shortest
FROM customers GROUP BY domain HAVING n > 1
;
-- name: desk_initials
SELECT id, concat_ws('.', left(name, 1), right(name, 1)) AS initials, reverse(name) AS backwards,
       regexp_replace(name, '[aeiou]', '*', 'g') AS masked, lpad(id::VARCHAR, 6, '0') AS code, name ILIKE '%1%' AS has_one
FROM customers
;
-- name: desk_birthdays_by_month
SELECT monthname(birthday) AS month, month(birthday) AS number, count(*) AS n, list(name ORDER BY day(birthday), id)[1:3] AS first
FROM customers WHERE birthday IS NOT NULL GROUP BY 1, 2
;
-- name: desk_buyers_not_visitors
SELECT customer_id FROM orders WHERE total > 100
EXCEPT SELECT customer_id FROM events WHERE kind = 'view'
;
-- name: desk_loyal
SELECT customer_id FROM orders WHERE placed < TIMESTAMP '2026-02-01'
INTERSECT SELECT customer_id FROM orders WHERE placed >= TIMESTAMP '2026-03-01'
;
-- name: desk_timeline
SELECT customer_id, placed AS "at", 'order ' || status AS what FROM orders
UNION ALL BY NAME SELECT customer_id, "at", kind AS what FROM events
UNION ALL BY NAME SELECT o.customer_id, paid_at AT TIME ZONE 'UTC' AS "at", 'payment' AS what
FROM payments JOIN orders o ON o.id = payments.order_id
;
-- name: desk_late_shipments
SELECT status, count(*) FILTER (WHERE shipped > placed + INTERVAL 3 DAY) AS late, count(shipped) AS shipped,
       avg(date_diff('hour', placed, shipped)) AS hours
FROM orders GROUP BY status
;
-- name: desk_coupon_uplift
SELECT coalesce(coupon, 'none') AS coupon, avg(total) AS mean, avg(total) - (SELECT avg(total) FROM orders WHERE coupon IS NULL) AS uplift
FROM orders GROUP BY 1
;
-- name: desk_best_customer_per_country
SELECT DISTINCT ON (c.country) c.country, c.id, sum(o.total) AS spent
FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.country, c.id ORDER BY c.country, spent DESC, c.id
;
-- name: desk_running_total
SELECT placed::DATE AS day, channel, sum(total) AS total,
       sum(sum(total)) OVER (PARTITION BY channel ORDER BY placed::DATE) AS so_far
FROM orders WHERE placed IS NOT NULL GROUP BY day, channel
;
-- name: desk_top_decile
SELECT id, total FROM orders WHERE total >= (SELECT quantile_disc(total, 0.9) FROM orders)
;
-- name: desk_biggest_orders
SELECT id, customer_id, total FROM orders ORDER BY total DESC NULLS LAST, id LIMIT 20
;
-- name: desk_kpis
SELECT (SELECT count(*) FROM customers WHERE active) AS customers, (SELECT sum(total) FROM orders) AS revenue,
       (SELECT max(placed) FROM orders) AS newest, (SELECT count(DISTINCT visitor) FROM visits) AS visitors
;
-- name: desk_orders_near_visit
SELECT e.id AS event, o.id AS order_id, o.placed - e.at AS after
FROM events e JOIN orders o ON o.customer_id = e.customer_id AND o.placed BETWEEN e.at AND e.at + INTERVAL 2 HOUR
WHERE e.kind = 'click'
;
-- name: desk_gaps_in_days
SELECT d.day, coalesce(count(o.id), 0) AS orders
FROM (SELECT unnest(generate_series(DATE '2026-01-01', DATE '2026-04-30', INTERVAL 1 DAY))::DATE AS day) d
LEFT JOIN orders o ON o.placed::DATE = d.day GROUP BY d.day
;
-- name: desk_duplicates
SELECT lower(name) AS name, city, count(*) AS n, array_agg(id ORDER BY id) AS ids FROM customers
GROUP BY ALL HAVING count(*) > 1
;
-- name: desk_weighted_discount
SELECT order_id, sum(discount * price * quantity) / nullif(sum(price * quantity), 0) AS discount,
       product_id IN (SELECT id FROM products WHERE category = 'hats') AS has_hats
FROM items GROUP BY order_id, has_hats
;
-- name: desk_repeat_rate_by_cohort
WITH firsts AS (SELECT customer_id, min(date_trunc('month', placed)) AS cohort FROM orders GROUP BY customer_id),
activity AS (SELECT DISTINCT customer_id, date_trunc('month', placed) AS month FROM orders)
SELECT cohort, date_diff('month', cohort, month) AS age, count(*) AS active,
       first_value(count(*)) OVER (PARTITION BY cohort ORDER BY date_diff('month', cohort, month)) AS at_first
FROM firsts JOIN activity USING (customer_id) GROUP BY cohort, month
;
-- name: desk_stock_value_alerts
SELECT s.product_id, s.warehouse, s.quantity, p.price * s.quantity AS value,
       CASE WHEN s.quantity = 0 THEN 'empty' WHEN s.quantity < 5 THEN 'low' ELSE 'fine' END AS level
FROM stock s JOIN products p ON p.id = s.product_id
WHERE s.counted > (SELECT max(counted) - INTERVAL 30 DAY FROM stock)
;
