-- name: more_monthly_revenue_growth
WITH paid AS (
    SELECT date_trunc('month', o.placed) AS month, o.channel, sum(o.total) AS revenue, count(*) AS n
    FROM orders o
    WHERE o.status IN ('paid', 'shipped', 'delivered')
    GROUP BY ALL
), lagged AS (
    SELECT *, lag(revenue) OVER (PARTITION BY channel ORDER BY month) AS previous
    FROM paid
)
SELECT month, channel, revenue, n, round(100.0 * (revenue - previous) / nullif(previous, 0), 2) AS growth_pct
FROM lagged
ORDER BY channel, month
;
-- name: more_from_first_country_counts
FROM customers c
JOIN regions r USING (country)
SELECT r.region, country, count(*) AS customers, count(*) FILTER (WHERE c.active) AS active, avg(c.credit)::DECIMAL(12,2) AS avg_credit
GROUP BY ALL
HAVING count(*) > 1
;
-- name: more_latest_order_per_customer
SELECT o.customer_id, o.id AS order_id, o.placed, o.total, o.status
FROM orders o
QUALIFY row_number() OVER (PARTITION BY o.customer_id ORDER BY o.placed DESC NULLS LAST, o.id DESC) = 1
;
-- name: more_distinct_on_last_successful_payment
SELECT DISTINCT ON (p.order_id) p.order_id, p.id, p.method, p.amount, p.paid_at
FROM payments p
WHERE p.ok
ORDER BY p.order_id, p.paid_at DESC, p.id DESC
;
-- name: more_payment_reconciliation_full
SELECT coalesce(o.id, p.order_id) AS order_id,
       o.total AS expected,
       coalesce(p.received, 0) AS received,
       coalesce(o.total, 0) - coalesce(p.received, 0) AS gap,
       CASE WHEN o.id IS NULL THEN 'orphan payment'
            WHEN p.order_id IS NULL THEN 'unpaid'
            WHEN abs(o.total - p.received) < 0.01 THEN 'matched'
            WHEN o.total > p.received THEN 'underpaid'
            ELSE 'overpaid' END AS verdict
FROM orders o
FULL OUTER JOIN (
    SELECT order_id, sum(amount) AS received FROM payments WHERE ok GROUP BY order_id
) p ON p.order_id = o.id
WHERE o.status IS DISTINCT FROM 'cancelled'
;
-- name: more_sessions_thirty_minutes
WITH marked AS (
    SELECT visitor, "at", page, referrer, ms,
           CASE WHEN "at" - lag("at") OVER w <= INTERVAL 30 MINUTE THEN 0 ELSE 1 END AS starts
    FROM visits
    WINDOW w AS (PARTITION BY visitor ORDER BY "at", page, referrer, ms)
), numbered AS (
    SELECT *, sum(starts) OVER (PARTITION BY visitor ORDER BY "at", page, referrer, ms ROWS UNBOUNDED PRECEDING) AS session_no
    FROM marked
)
SELECT visitor, session_no, min("at") AS started, max("at") AS ended, count(*) AS views,
       arg_min(page, "at") AS landing, date_diff('second', min("at"), max("at")) AS seconds, sum(ms) AS total_ms
FROM numbered
GROUP BY visitor, session_no
;
-- name: more_signup_cohort_retention
WITH firsts AS (
    SELECT customer_id, min(date_trunc('month', placed)) AS cohort FROM orders GROUP BY customer_id
), activity AS (
    SELECT DISTINCT customer_id, date_trunc('month', placed) AS month FROM orders
)
SELECT f.cohort, date_diff('month', f.cohort, a.month) AS age, count(DISTINCT a.customer_id) AS buyers,
       count(DISTINCT a.customer_id) / first_value(count(DISTINCT a.customer_id)) OVER (PARTITION BY f.cohort ORDER BY date_diff('month', f.cohort, a.month)) AS retention
FROM firsts f JOIN activity a USING (customer_id)
GROUP BY f.cohort, age
ORDER BY f.cohort, age
;
-- name: more_funnel_by_visitor
WITH steps AS (
    SELECT visitor,
           min("at") FILTER (WHERE page LIKE '/product%') AS t_product,
           min("at") FILTER (WHERE page LIKE '/cart%') AS t_cart,
           min("at") FILTER (WHERE page = '/checkout') AS t_checkout
    FROM visits
    GROUP BY visitor
)
SELECT count(*) AS visitors,
       count(t_product) AS saw_product,
       count(*) FILTER (WHERE t_cart > t_product) AS then_cart,
       count(*) FILTER (WHERE t_cart > t_product AND t_checkout > t_cart) AS then_checkout,
       median(epoch(t_checkout - t_product)) FILTER (WHERE t_checkout > t_product) AS median_seconds
FROM steps
;
-- name: more_org_chart_paths
WITH RECURSIVE tree AS (
    SELECT id, name, manager_id, 0 AS depth, name AS path, [id] AS chain
    FROM employees WHERE manager_id IS NULL
    UNION ALL
    SELECT e.id, e.name, e.manager_id, t.depth + 1, t.path || ' > ' || e.name, list_append(t.chain, e.id)
    FROM employees e JOIN tree t ON e.manager_id = t.id
    WHERE NOT list_contains(t.chain, e.id) AND t.depth < 12
)
SELECT id, name, depth, path, chain[1] AS root, len(chain) AS levels FROM tree
;
-- name: more_salary_under_each_manager
WITH RECURSIVE under(boss, id) AS (
    SELECT id, id FROM employees
    UNION
    SELECT u.boss, e.id FROM under u JOIN employees e ON e.manager_id = u.id
)
SELECT b.id, b.name, count(*) - 1 AS reports, sum(e.salary) AS payroll, max(e.hired) AS newest
FROM under u
JOIN employees b ON b.id = u.boss
JOIN employees e ON e.id = u.id
GROUP BY b.id, b.name
HAVING count(*) > 1
ORDER BY payroll DESC
;
-- name: more_salary_ranks_named_windows
SELECT id, name, department, salary,
       rank() OVER by_pay AS pay_rank,
       dense_rank() OVER by_pay AS dense,
       percent_rank() OVER by_pay AS pr,
       cume_dist() OVER by_pay AS cd,
       ntile(4) OVER (by_pay) AS quartile,
       salary - avg(salary) OVER dep AS above_avg,
       salary / sum(salary) OVER dep AS share
FROM employees
WINDOW dep AS (PARTITION BY department), by_pay AS (PARTITION BY department ORDER BY salary DESC, id)
;
-- name: more_rolling_seven_days_range
WITH daily AS (
    SELECT placed::DATE AS day, sum(total) AS revenue, count(DISTINCT customer_id) AS buyers
    FROM orders GROUP BY 1
)
SELECT day, revenue,
       sum(revenue) OVER (ORDER BY day RANGE BETWEEN INTERVAL 6 DAYS PRECEDING AND CURRENT ROW) AS week_sum,
       avg(revenue) OVER (ORDER BY day ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING EXCLUDE CURRENT ROW) AS neighbours,
       max(buyers) OVER (ORDER BY day RANGE BETWEEN INTERVAL 1 MONTH PRECEDING AND INTERVAL 1 DAY PRECEDING) AS best_before
FROM daily
;
-- name: more_groups_frame_exclude_ties
SELECT product_id, warehouse, quantity,
       sum(quantity) OVER (PARTITION BY warehouse ORDER BY quantity GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE TIES) AS near,
       count(*) OVER (PARTITION BY warehouse ORDER BY quantity GROUPS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE GROUP) AS smaller
FROM stock
;
-- name: more_price_at_order_time_asof
SELECT o.id, i.line, i.product_id, i.price AS charged, p.price AS listed, p.valid_from,
       round(100 * (1 - i.price / nullif(p.price, 0)), 1) AS markdown
FROM (SELECT it.*, od.placed FROM items it JOIN orders od ON od.id = it.order_id) i
ASOF LEFT JOIN prices p ON i.product_id = p.product_id AND i.placed >= p.valid_from
JOIN orders o ON o.id = i.order_id
;
-- name: more_price_validity_ranges
WITH spans AS (
    SELECT product_id, price, valid_from,
           lead(valid_from, 1, TIMESTAMP '9999-12-31 00:00:00') OVER (PARTITION BY product_id ORDER BY valid_from) AS valid_to
    FROM prices
)
SELECT s.product_id, s.valid_from, s.valid_to, s.price, count(i.order_id) AS lines, coalesce(sum(i.quantity), 0) AS units
FROM spans s
LEFT JOIN (items i JOIN orders o ON o.id = i.order_id) ON i.product_id = s.product_id AND o.placed >= s.valid_from AND o.placed < s.valid_to
GROUP BY ALL
;
-- name: more_revenue_rollup_region
SELECT CASE WHEN grouping(r.region) = 1 THEN 'ALL' ELSE coalesce(r.region, 'unknown') END AS region,
       CASE WHEN grouping(o.channel) = 1 THEN 'ALL' ELSE o.channel END AS channel,
       grouping(r.region, o.channel) AS level,
       sum(o.total) AS revenue, count(*) AS orders
FROM orders o
JOIN customers c ON c.id = o.customer_id
LEFT JOIN regions r ON r.country = c.country
GROUP BY ROLLUP (r.region, o.channel)
;
-- name: more_cube_segment_status
SELECT segment, status, year(placed) AS y, count(*) AS n, sum(total) AS revenue, grouping_id(segment, status, year(placed)) AS gid
FROM orders JOIN customers ON customers.id = orders.customer_id
GROUP BY CUBE (segment, status, year(placed))
HAVING count(*) >= 2
;
-- name: more_grouping_sets_payment_methods
SELECT method, ok, date_trunc('week', paid_at AT TIME ZONE 'UTC') AS week, sum(amount) AS amount, count(*) AS tries
FROM payments
GROUP BY GROUPING SETS ((method, ok), (method, date_trunc('week', paid_at AT TIME ZONE 'UTC')), (ok), ())
;
-- name: more_customers_without_orders
SELECT c.id, c.name, c.email, c.joined
FROM customers c
WHERE NOT EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id AND o.status <> 'cancelled')
  AND c.active IS NOT FALSE
;
-- name: more_anti_join_never_sold
FROM products p
ANTI JOIN items i ON i.product_id = p.id
SELECT p.id, p.name, p.category, p.price
WHERE p.discontinued IS NULL
;
-- name: more_semi_join_big_spenders
SELECT c.* EXCLUDE (address, tags) REPLACE (upper(c.country) AS country)
FROM customers c
SEMI JOIN (SELECT customer_id FROM orders GROUP BY customer_id HAVING sum(total) > 500) b ON b.customer_id = c.id
;
-- name: more_above_own_average
SELECT o.id, o.customer_id, o.total,
       (SELECT avg(x.total) FROM orders x WHERE x.customer_id = o.customer_id) AS own_average
FROM orders o
WHERE o.total > 1.5 * (SELECT avg(x.total) FROM orders x WHERE x.customer_id = o.customer_id AND x.id <> o.id)
;
-- name: more_cheaper_than_all_in_category
SELECT p.id, p.name, p.category, p.price
FROM products p
WHERE p.price <= ALL (SELECT q.price FROM products q WHERE q.category = p.category AND q.price IS NOT NULL)
  AND p.brand = ANY (SELECT brand FROM products GROUP BY brand HAVING count(*) > 1)
;
-- name: more_top_three_products_lateral
SELECT c.category, t.id, t.name, t.units
FROM (SELECT DISTINCT category FROM products) c,
LATERAL (
    SELECT p.id, p.name, sum(i.quantity) AS units
    FROM products p JOIN items i ON i.product_id = p.id
    WHERE p.category = c.category
    GROUP BY p.id, p.name
    ORDER BY units DESC, p.id
    LIMIT 3
) t
;
-- name: more_last_two_orders_lateral
SELECT c.id, c.name, l.id AS order_id, l.placed, l.total
FROM customers c
LEFT JOIN LATERAL (
    SELECT o.id, o.placed, o.total FROM orders o WHERE o.customer_id = c.id ORDER BY o.placed DESC, o.id DESC LIMIT 2
) l ON true
;
-- name: more_calendar_daily_orders
SELECT d.day::DATE AS day, dayname(d.day) AS weekday, count(o.id) AS orders, coalesce(sum(o.total), 0) AS revenue
FROM generate_series(DATE '2024-01-01', DATE '2024-03-31', INTERVAL 1 DAY) AS d(day)
LEFT JOIN orders o ON o.placed >= d.day AND o.placed < d.day + INTERVAL 1 DAY
GROUP BY d.day
ORDER BY d.day
;
-- name: more_calendar_fill_from_data
WITH bounds AS (
    SELECT min(placed)::DATE AS lo, max(placed)::DATE AS hi FROM orders
), days AS (
    SELECT unnest(generate_series(lo, hi, INTERVAL 1 DAY))::DATE AS day FROM bounds
), sums AS (
    SELECT placed::DATE AS day, channel, sum(total) AS revenue FROM orders GROUP BY ALL
)
SELECT days.day, ch.channel, coalesce(s.revenue, 0.00) AS revenue,
       sum(s.revenue) OVER (PARTITION BY ch.channel ORDER BY days.day) AS running
FROM days
CROSS JOIN (SELECT DISTINCT channel FROM orders) ch
LEFT JOIN sums s ON s.day = days.day AND s.channel IS NOT DISTINCT FROM ch.channel
;
-- name: more_order_day_streaks
WITH days AS (
    SELECT DISTINCT customer_id, placed::DATE AS day FROM orders WHERE placed IS NOT NULL
), islands AS (
    SELECT customer_id, day, day - (row_number() OVER (PARTITION BY customer_id ORDER BY day))::INTEGER AS grp
    FROM days
)
SELECT customer_id, min(day) AS start_day, max(day) AS end_day, count(*) AS length
FROM islands
GROUP BY customer_id, grp
HAVING count(*) >= 2
ORDER BY length DESC, customer_id, start_day
;
-- name: more_pivot_orders_by_status
PIVOT (SELECT channel, status, total FROM orders)
ON status IN ('new', 'paid', 'shipped', 'cancelled')
USING sum(total) AS revenue, count(*) AS n
GROUP BY channel
ORDER BY channel
;
-- name: more_standard_pivot_stock
SELECT * FROM (SELECT product_id, warehouse, quantity FROM stock)
PIVOT (sum(quantity) FOR warehouse IN ('north', 'south', 'east') GROUP BY product_id)
ORDER BY product_id
;
-- name: more_unpivot_order_timestamps
SELECT id, milestone, moment
FROM (SELECT id, placed, shipped FROM orders) o
UNPIVOT INCLUDE NULLS (moment FOR milestone IN (placed, shipped))
ORDER BY id, milestone
;
-- name: more_unpivot_customer_attributes
UNPIVOT (SELECT id, country, city, segment FROM customers)
ON country, city, segment
INTO NAME attribute VALUE val
;
-- name: more_event_payload_fields
SELECT id, kind, "at",
       payload->>'$.sku' AS sku,
       TRY_CAST(payload->>'amount' AS DECIMAL(12,2)) AS amount,
       json_extract_string(payload, '$.device.os') AS os,
       json_array_length(payload, '$.items') AS n_items,
       json_type(payload) AS shape
FROM events
WHERE kind IN ('purchase', 'refund') AND json_valid(payload)
;
-- name: more_event_payload_keys_frequency
SELECT kind, k AS key, count(*) AS n, count(DISTINCT customer_id) AS customers
FROM (SELECT kind, customer_id, unnest(json_keys(payload)) AS k FROM events WHERE json_type(payload) = 'OBJECT')
GROUP BY kind, k
QUALIFY rank() OVER (PARTITION BY kind ORDER BY n DESC) <= 5
;
-- name: more_json_items_exploded
SELECT e.id, e.customer_id, j.item->>'sku' AS sku, (j.item->>'qty')::INTEGER AS qty
FROM events e, LATERAL (SELECT unnest(from_json(e.payload->'items', '["JSON"]')) AS item) j
WHERE json_type(e.payload, '$.items') = 'ARRAY' AND regexp_matches(j.item->>'qty', '^[0-9]{1,6}$')
;
-- name: more_label_counts
SELECT label, count(*) AS uses, count(DISTINCT e.kind) AS kinds, min(e.at) AS first_seen, max(e.at) AS last_seen
FROM events e, unnest(e.labels) AS u(label)
WHERE label IS NOT NULL AND trim(label) <> ''
GROUP BY label
ORDER BY uses DESC, label
LIMIT 20
;
-- name: more_tag_lambdas
SELECT id,
       list_transform(tags, lambda t: lower(trim(t))) AS clean,
       list_filter(tags, lambda t: t LIKE 'vip%') AS vip,
       [length(t) FOR t IN tags IF t IS NOT NULL] AS lengths,
       list_sort(list_distinct(tags)) AS sorted,
       list_reduce(list_transform(tags, lambda t: coalesce(length(t), 0)), lambda a, b: a + b, 0) AS chars,
       array_to_string(list_sort(tags), '|') AS joined_tags
FROM customers
WHERE len(tags) > 0
;
-- name: more_tag_overlap_pairs
SELECT a.id AS left_id, b.id AS right_id,
       len(list_intersect(a.tags, b.tags)) AS shared,
       len(list_intersect(a.tags, b.tags))::DOUBLE / len(list_distinct(a.tags || b.tags)) AS jaccard
FROM customers a JOIN customers b ON a.id < b.id AND list_has_any(a.tags, b.tags)
WHERE a.country = b.country
;
-- name: more_struct_address_access
SELECT c.id, c.address.street, c.address.zip[1:2] AS area, c.address.geo AS geo,
       struct_pack(city := c.city, zip := c.address.zip) AS place,
       {'name': c.name, 'contact': {'email': c.email, 'country': c.country}} AS card
FROM customers c
WHERE c.address IS NOT NULL AND c.address.zip SIMILAR TO '[0-9]+'
;
-- name: more_map_of_channel_totals
SELECT customer_id,
       map_from_entries(list((channel, revenue) ORDER BY channel)) AS by_channel,
       map_from_entries(list((channel, revenue) ORDER BY channel))['web'] AS web,
       sum(revenue) AS total
FROM (SELECT customer_id, channel, sum(total) AS revenue FROM orders WHERE channel IS NOT NULL GROUP BY ALL)
GROUP BY customer_id
;
-- name: more_histogram_of_statuses
SELECT channel, histogram(status) AS statuses, map_keys(histogram(status)) AS seen, mode(status ORDER BY id) AS usual
FROM orders
WHERE status IS NOT NULL
GROUP BY channel
;
-- name: more_order_value_quantiles
SELECT c.segment,
       quantile_cont(o.total, 0.5) AS med,
       quantile_disc(o.total, [0.1, 0.9]) AS deciles,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY o.total) AS p95,
       mad(o.total::DOUBLE) AS mad_total,
       stddev_samp(o.total) AS sd, skewness(o.total::DOUBLE) AS skew
FROM orders o JOIN customers c ON c.id = o.customer_id
GROUP BY c.segment
;
-- name: more_top_n_arg_max
SELECT customer_id,
       arg_max(id, total, 3) AS best_orders,
       max(total, 3) AS best_totals,
       arg_min(channel, placed) AS first_channel,
       arg_max(status, placed) AS last_status,
       min_by(coupon, placed) AS first_coupon
FROM orders
GROUP BY customer_id
;
-- name: more_basket_strings
SELECT o.id,
       string_agg(p.name || ' x' || i.quantity, ', ' ORDER BY i.line) AS basket,
       list(DISTINCT p.category ORDER BY p.category) AS categories,
       first(p.name ORDER BY i.price * i.quantity DESC, i.line) AS main_product,
       last(p.brand ORDER BY i.line) AS last_brand,
       sum(i.quantity * i.price * (1 - coalesce(i.discount, 0))) AS net
FROM orders o
JOIN items i ON i.order_id = o.id
JOIN products p ON p.id = i.product_id
GROUP BY o.id
;
-- name: more_bought_together
WITH pairs AS (
    SELECT a.product_id AS a, b.product_id AS b, count(DISTINCT a.order_id) AS n
    FROM items a JOIN items b ON a.order_id = b.order_id AND a.product_id < b.product_id
    GROUP BY ALL
), solo AS (
    SELECT product_id, count(DISTINCT order_id) AS n FROM items GROUP BY product_id
), everything AS (SELECT count(DISTINCT order_id) AS n FROM items)
SELECT pairs.a, pairs.b, pairs.n AS together,
       pairs.n::DOUBLE / sa.n AS confidence,
       (pairs.n::DOUBLE * everything.n) / (sa.n * sb.n) AS lift
FROM pairs
JOIN solo sa ON sa.product_id = pairs.a
JOIN solo sb ON sb.product_id = pairs.b
CROSS JOIN everything
WHERE pairs.n >= 2
ORDER BY lift DESC, 1, 2
;
-- name: more_order_subtotal_mismatch
FROM orders
LEFT JOIN (
    FROM items
    SELECT order_id, sum(quantity * price * (1 - coalesce(discount, 0))) AS computed, count(*) AS lines
    GROUP BY order_id
) AS s ON s.order_id = orders.id
SELECT orders.id, orders.total, round(s.computed, 2) AS computed, coalesce(s.lines, 0) AS lines
WHERE abs(coalesce(orders.total, 0) - coalesce(s.computed, 0)) > 0.05
;
-- name: more_revenue_in_euro_asof
WITH o AS (
    SELECT ord.id, ord.placed::DATE AS day, ord.total, r.currency, r.region
    FROM orders ord
    JOIN customers c ON c.id = ord.customer_id
    JOIN regions r ON r.country = c.country
)
SELECT o.region, date_trunc('quarter', o.day) AS quarter, round(sum(o.total * coalesce(x.rate, 1.0)), 2) AS euros,
       count(*) FILTER (WHERE x.rate IS NULL) AS without_rate
FROM o ASOF LEFT JOIN rates x ON o.currency = x.currency AND o.day >= x.day
GROUP BY ALL
;
-- name: more_last_rate_correlated
SELECT r.country, r.currency,
       (SELECT x.rate FROM rates x WHERE x.currency = r.currency ORDER BY x.day DESC LIMIT 1) AS last_rate,
       (SELECT count(*) FROM customers c WHERE c.country = r.country) AS customers
FROM regions r
WHERE r.currency IN (SELECT currency FROM rates WHERE rate > 0)
;
-- name: more_rate_changes
SELECT currency, day, rate, rate / lag(rate) OVER w - 1 AS change,
       exp(sum(ln(rate)) OVER (w ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) / 3) AS geo_mean,
       nth_value(rate, 2) OVER (PARTITION BY currency ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS second_rate,
       last_value(rate IGNORE NULLS) OVER (PARTITION BY currency ORDER BY day) AS filled
FROM rates
WHERE rate > 0
WINDOW w AS (PARTITION BY currency ORDER BY day)
;
-- name: more_union_by_name_activity
SELECT customer_id, placed AS "at", 'order' AS what, total AS amount FROM orders
UNION ALL BY NAME
SELECT 'event:' || kind AS what, customer_id, "at", labels FROM events
UNION ALL BY NAME
SELECT id AS customer_id, joined::TIMESTAMP AS "at", 'signup' AS what FROM customers
;
-- name: more_intersect_loyal_customers
SELECT customer_id FROM orders WHERE placed >= TIMESTAMP '2024-01-01' AND placed < TIMESTAMP '2024-02-01'
INTERSECT
SELECT customer_id FROM orders WHERE placed >= TIMESTAMP '2024-02-01' AND placed < TIMESTAMP '2024-03-01'
EXCEPT
SELECT o.customer_id FROM orders o JOIN payments p ON p.order_id = o.id WHERE NOT p.ok
;
-- name: more_except_all_pages
SELECT page FROM visits WHERE referrer IS NOT NULL
EXCEPT ALL
SELECT page FROM visits WHERE ms > 5000
;
-- name: more_traffic_buckets
SELECT time_bucket(INTERVAL 15 MINUTE, "at") AS bucket,
       regexp_extract(coalesce(referrer, 'direct'), '^(?:https?://)?([^/]+)', 1) AS source,
       count(*) AS views, approx_count_distinct(visitor) > 0 AS any_visitor, count(DISTINCT visitor) AS visitors,
       avg(ms) AS avg_ms, max(ms) AS worst_ms
FROM visits
GROUP BY bucket, source
ORDER BY bucket, source
;
-- name: more_page_sections
SELECT split_part(ltrim(page, '/'), '/', 1) AS section,
       string_split(page, '/')[-1] AS leaf,
       regexp_replace(page, '[0-9]+', ':id', 'g') AS template,
       count(*) AS n, bool_or(ms > 3000) AS any_slow, bool_and(ms IS NOT NULL) AS all_timed
FROM visits
GROUP BY ALL
ORDER BY ALL
;
-- name: more_next_page_transitions
SELECT page AS from_page, coalesce(next_page, '(exit)') AS to_page, count(*) AS n,
       round(count(*) * 100.0 / sum(count(*)) OVER (PARTITION BY page), 1) AS pct
FROM (
    SELECT page, lead(page) OVER (PARTITION BY visitor ORDER BY "at", page, ms) AS next_page FROM visits
) steps
GROUP BY page, next_page
QUALIFY row_number() OVER (PARTITION BY page ORDER BY count(*) DESC, next_page) <= 3
;
-- name: more_rfm_scores
WITH latest AS (SELECT max(placed) AS anchor FROM orders),
base AS (
    SELECT o.customer_id, date_diff('day', max(o.placed), any_value(l.anchor)) AS recency, count(*) AS frequency, sum(o.total) AS monetary
    FROM orders o, latest l
    WHERE o.status != 'cancelled'
    GROUP BY o.customer_id
), scored AS (
    SELECT *, ntile(5) OVER (ORDER BY recency DESC, customer_id) AS r,
              ntile(5) OVER (ORDER BY frequency, customer_id) AS f,
              ntile(5) OVER (ORDER BY monetary, customer_id) AS m
    FROM base
)
SELECT c.name, s.* , concat(r, f, m) AS code,
       CASE WHEN r >= 4 AND f >= 4 THEN 'champion' WHEN r >= 3 AND m >= 3 THEN 'loyal' WHEN r <= 2 AND f >= 3 THEN 'at risk' WHEN r = 1 THEN 'lost' ELSE 'other' END AS label
FROM scored s JOIN customers c ON c.id = s.customer_id
;
-- name: more_customer_features
SELECT c.id,
       date_diff('year', c.birthday, c.joined) AS age_at_join,
       coalesce(o.orders, 0) AS orders,
       coalesce(o.revenue, 0) AS revenue,
       o.avg_gap_days,
       coalesce(p.failed, 0) / nullif(p.tries, 0) AS failure_rate,
       greatest(o.last_order, e.last_event) AS last_seen,
       (c.email ILIKE '%@gmail.com')::INTEGER AS gmail
FROM customers c
LEFT JOIN (
    SELECT customer_id, count(*) AS orders, sum(total) AS revenue, max(placed) AS last_order,
           date_diff('day', min(placed), max(placed)) / nullif(count(*) - 1, 0) AS avg_gap_days
    FROM orders GROUP BY customer_id
) o ON o.customer_id = c.id
LEFT JOIN (
    SELECT o2.customer_id, count(*) AS tries, count_if(NOT ok) AS failed
    FROM payments JOIN orders o2 ON o2.id = payments.order_id GROUP BY 1
) p ON p.customer_id = c.id
LEFT JOIN (SELECT customer_id, max("at") AS last_event FROM events GROUP BY customer_id) e ON e.customer_id = c.id
;
-- name: more_fraud_rapid_orders
SELECT a.customer_id, a.id AS first_order, b.id AS second_order, b.placed - a.placed AS apart
FROM orders a
JOIN orders b ON a.customer_id = b.customer_id AND a.id <> b.id
 AND b.placed BETWEEN a.placed AND a.placed + INTERVAL '10 minutes'
WHERE a.total + b.total > 200 AND (a.placed < b.placed OR a.id < b.id)
;
-- name: more_fraud_failed_then_ok
WITH seq AS (
    SELECT order_id, id, ok, method, paid_at,
           count(*) FILTER (WHERE NOT ok) OVER (PARTITION BY order_id ORDER BY paid_at, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS failed_before,
           lag(method) OVER (PARTITION BY order_id ORDER BY paid_at, id) AS method_before
    FROM payments
)
SELECT s.*, c.email, c.country
FROM seq s
JOIN orders o ON o.id = s.order_id
JOIN customers c ON c.id = o.customer_id
WHERE s.ok AND s.failed_before >= 2 AND s.method IS DISTINCT FROM s.method_before
;
-- name: more_duplicate_emails
SELECT lower(trim(email)) AS email, count(*) AS n, list(id ORDER BY id) AS ids, min(joined) AS first_joined
FROM customers
WHERE email IS NOT NULL AND contains(email, '@')
GROUP BY 1
HAVING n > 1
;
-- name: more_stock_cover_days
WITH sold AS (
    SELECT i.product_id, sum(i.quantity) / 30.0 AS per_day
    FROM items i JOIN orders o ON o.id = i.order_id
    WHERE o.placed > (SELECT max(placed) - INTERVAL 30 DAY FROM orders)
    GROUP BY i.product_id
)
SELECT p.id, p.name, sum(s.quantity) AS on_hand, any_value(d.per_day) AS per_day,
       CASE WHEN coalesce(any_value(d.per_day), 0) = 0 THEN NULL ELSE round(sum(s.quantity) / any_value(d.per_day), 1) END AS cover,
       arg_max(s.warehouse, s.quantity) AS main_warehouse
FROM products p
LEFT JOIN stock s ON s.product_id = p.id
LEFT JOIN sold d ON d.product_id = p.id
GROUP BY p.id, p.name
;
-- name: more_stock_value_abc
WITH v AS (
    SELECT p.id, p.name, sum(s.quantity * p.price) AS worth
    FROM products p JOIN stock s ON s.product_id = p.id
    GROUP BY p.id, p.name
), running AS (
    SELECT *, sum(worth) OVER (ORDER BY worth DESC, id) / sum(worth) OVER () AS cumulative FROM v
)
SELECT id, name, worth, cumulative,
       CASE WHEN cumulative <= 0.8 THEN 'A' WHEN cumulative <= 0.95 THEN 'B' ELSE 'C' END AS class
FROM running
;
-- name: more_warehouse_gaps_full_join
SELECT product_id, n.quantity AS north, s.quantity AS south, coalesce(n.quantity, 0) - coalesce(s.quantity, 0) AS diff
FROM (SELECT product_id, quantity FROM stock WHERE warehouse = 'north') n
FULL JOIN (SELECT product_id, quantity FROM stock WHERE warehouse = 'south') s USING (product_id)
WHERE n.quantity IS DISTINCT FROM s.quantity
;
-- name: more_price_bands_values
SELECT b.band, count(p.id) AS products, min(p.price) AS cheapest, max(p.price) AS dearest
FROM (VALUES ('budget', 0, 20), ('mid', 20, 100), ('premium', 100, NULL)) AS b(band, lo, hi)
LEFT JOIN products p ON p.price >= b.lo AND (p.price < b.hi OR b.hi IS NULL)
GROUP BY b.band
ORDER BY products DESC, b.band
;
-- name: more_status_names_values_join
WITH labels(status, label, weight) AS (
    VALUES ('new', 'Open', 1), ('paid', 'In progress', 2), ('shipped', 'On its way', 3), ('cancelled', 'Lost', 0)
)
SELECT coalesce(l.label, 'Unmapped: ' || o.status, 'No status') AS label, sum(l.weight) AS weight, count(*) AS n
FROM orders o LEFT JOIN labels l USING (status)
GROUP BY 1
;
-- name: more_natural_join_prices_stock
SELECT product_id, warehouse, quantity, price, valid_from, quantity * price AS worth
FROM stock NATURAL JOIN prices
WHERE valid_from <= counted
;
-- name: more_price_changes_columns
SELECT product_id, min(COLUMNS(* EXCLUDE (product_id))), max(COLUMNS('^(price|valid_from)$')), count(*) AS changes
FROM prices
GROUP BY product_id
;
-- name: more_products_star_rename
SELECT * EXCLUDE (attributes) REPLACE (round(price * 1.2, 2) AS price) RENAME (name AS title, discontinued AS ended)
FROM products
WHERE COLUMNS(lambda c: c IN ('name', 'brand')) IS NOT NULL
;
-- name: more_product_attributes_json
SELECT p.id, p.attributes->>'color' AS color,
       coalesce(TRY_CAST(p.attributes->>'$.size' AS INTEGER), 0) AS size,
       json_exists(p.attributes, '$.warranty') AS has_warranty,
       json_object('id', p.id, 'name', p.name, 'tags', json_array(p.category, p.brand)) AS doc,
       len(json_keys(p.attributes)) AS n_keys
FROM products p
WHERE p.attributes IS NOT NULL
ORDER BY size DESC, p.id
LIMIT 50
;
-- name: more_shipping_delay_sla
SELECT channel,
       avg(date_diff('hour', placed, shipped)) AS avg_hours,
       count(*) FILTER (shipped - placed > INTERVAL 2 DAY) AS late,
       count(*) FILTER (WHERE shipped IS NULL AND status = 'paid') AS waiting,
       100.0 * sum(CASE WHEN shipped <= placed + INTERVAL 48 HOUR THEN 1 ELSE 0 END) / count(*) AS on_time_pct,
       max(age(shipped, placed)) AS slowest
FROM orders
GROUP BY channel
;
-- name: more_weekday_hour_heatmap
SELECT isodow(placed) AS dow, extract(hour FROM placed) AS hour, strftime(min(placed), '%Y-%m-%d') AS since, count(*) AS n,
       n - avg(count(*)) OVER () AS versus_avg
FROM orders
WHERE placed IS NOT NULL
GROUP BY dow, hour
ORDER BY dow, hour
;
-- name: more_running_customer_value
SELECT o.customer_id, o.id, o.placed, o.total,
       sum(o.total) OVER w AS lifetime,
       count(*) OVER w AS nth,
       o.placed - lag(o.placed) OVER w AS since_last,
       first_value(o.channel) OVER w AS first_channel,
       sum(o.total) OVER (PARTITION BY o.customer_id) - sum(o.total) OVER w AS still_to_come
FROM orders o
WINDOW w AS (PARTITION BY o.customer_id ORDER BY o.placed, o.id)
QUALIFY lifetime > 100 OR nth = 1
;
-- name: more_attribution_last_touch
SELECT o.id AS order_id, o.customer_id, o.placed, e.kind AS last_event, e.labels, e.at, date_diff('minute', e.at, o.placed) AS minutes_before
FROM orders o
ASOF JOIN (SELECT * FROM events WHERE kind IN ('click', 'email_open')) e
  ON o.customer_id = e.customer_id AND o.placed > e.at
WHERE o.placed - e.at < INTERVAL 7 DAY
;
-- name: more_concurrent_open_orders
WITH changes AS (
    SELECT placed AS "at", 1 AS delta FROM orders WHERE placed IS NOT NULL
    UNION ALL
    SELECT shipped, -1 FROM orders WHERE shipped IS NOT NULL AND placed IS NOT NULL
), net AS (SELECT "at", sum(delta) AS delta FROM changes GROUP BY "at")
SELECT "at", sum(delta) OVER (ORDER BY "at") AS open_orders, max("at") OVER (ORDER BY "at" ROWS BETWEEN 1 FOLLOWING AND 1 FOLLOWING) AS until
FROM net
;
-- name: more_coupon_effect
SELECT coalesce(upper(nullif(trim(coupon), '')), 'NONE') AS coupon,
       count(*) AS orders, avg(total) AS avg_total,
       avg(total) - (SELECT avg(total) FROM orders WHERE coupon IS NULL) AS uplift,
       count(DISTINCT customer_id) AS customers
FROM orders
GROUP BY 1
HAVING avg(total) > (SELECT 0.5 * avg(total) FROM orders)
ORDER BY uplift DESC NULLS LAST, 1
;
-- name: more_manager_self_join
SELECT e.name AS employee, m.name AS manager, g.name AS grand_manager, e.salary, m.salary AS manager_salary,
       e.salary > m.salary AS earns_more, date_diff('month', m.hired, e.hired) AS months_after
FROM employees e
LEFT JOIN employees m ON m.id = e.manager_id
LEFT JOIN employees g ON g.id = m.manager_id
WHERE e.department NOT IN (SELECT department FROM employees WHERE department IS NOT NULL GROUP BY department HAVING count(*) < 2)
;
-- name: more_note_words
WITH words AS (
    SELECT id, unnest(regexp_split_to_array(lower(note), '[^a-z]+')) AS word FROM orders WHERE note IS NOT NULL
)
SELECT word, count(*) AS n, count(DISTINCT id) AS notes, list_slice(list(DISTINCT id ORDER BY id), 1, 5) AS examples
FROM words
WHERE length(word) > 3 AND word NOT IN ('with', 'please', 'from')
GROUP BY word
ORDER BY n DESC, word
LIMIT 25
;
-- name: more_dashboard_single_row
SELECT (SELECT count(*) FROM customers WHERE active) AS active_customers,
       (SELECT sum(total) FROM orders WHERE status = 'paid') AS paid_revenue,
       (SELECT count(*) FROM stock WHERE quantity <= 0) AS out_of_stock,
       (SELECT max("at") FROM events) AS last_event,
       EXISTS (FROM payments WHERE NOT ok AND amount > 1000) AS alarm
;
-- name: more_category_share_top_n_other
WITH cat AS (
    SELECT p.category, sum(i.quantity * i.price) AS revenue
    FROM items i JOIN products p ON p.id = i.product_id
    GROUP BY p.category
), ranked AS (
    SELECT *, row_number() OVER (ORDER BY revenue DESC NULLS LAST, category) AS rk FROM cat
)
SELECT if(rk <= 3, category, 'other') AS bucket, sum(revenue) AS revenue,
       round(sum(revenue) / (SELECT sum(revenue) FROM cat), 4) AS share
FROM ranked
GROUP BY bucket
ORDER BY min(rk)
;
-- name: more_visit_dwell_pyramid
SELECT visitor,
       CASE WHEN count(*) = 1 THEN 'bounce'
            WHEN count(DISTINCT page) >= 5 AND coalesce(avg(ms), 0) < 500 THEN 'skimmer'
            WHEN bool_or(page = '/checkout') THEN CASE WHEN count(*) FILTER (WHERE page = '/checkout') > 2 THEN 'struggling' ELSE 'buyer' END
            ELSE 'browser' END AS kind,
       min_by(referrer, "at") AS first_referrer,
       list(page ORDER BY "at", page)[1:3] AS first_pages,
       list_aggregate(list(ms), 'max') AS slowest
FROM visits
GROUP BY visitor
HAVING max("at") >= ANY (SELECT placed FROM orders WHERE channel = 'web')
;
