-- name: pivot_revenue_by_channel
PIVOT (SELECT status, channel, total FROM orders) ON channel IN ('web', 'store', 'app') USING sum(total) GROUP BY status
;
-- name: pivot_counts_two_aggregates
SELECT * FROM (SELECT customer_id, status, total FROM orders) PIVOT (count(*) AS n, sum(total) AS s FOR status IN ('new', 'paid'))
;
-- name: pivot_group_months
WITH m AS (SELECT channel, month(placed) AS mon, total FROM orders)
PIVOT m ON mon IN (1, 2, 3) USING sum(total) AS rev GROUP BY channel
;
-- name: pivot_payment_methods
FROM (FROM payments SELECT order_id, method, amount WHERE ok) PIVOT (sum(amount) FOR method IN ('card', 'paypal', 'invoice') GROUP BY order_id)
;
-- name: unpivot_employee_measures
SELECT * FROM (SELECT id, salary::DECIMAL(12,2) AS salary, year(hired)::DECIMAL(12,2) AS started FROM employees) UNPIVOT (value FOR measure IN (salary, started))
;
-- name: unpivot_keyword
UNPIVOT (SELECT product_id, warehouse, quantity FROM stock) ON quantity INTO NAME metric VALUE amount
;
-- name: union_by_name_people
SELECT id, name, city FROM customers UNION ALL BY NAME SELECT id, name, department FROM employees
;
-- name: union_by_name_distinct
SELECT country, city FROM customers UNION BY NAME SELECT country, region FROM regions
;
-- name: union_by_name_three
SELECT 'order' AS what, id, placed AS at FROM orders UNION ALL BY NAME SELECT 'event' AS what, e.at, id, kind FROM events e UNION ALL BY NAME SELECT visitor, v.at FROM visits v
;
-- name: columns_round_all
SELECT order_id, line, round(COLUMNS(['price', 'discount']), 1) FROM items
;
-- name: columns_lambda
SELECT COLUMNS(lambda c: c LIKE '%_id' OR c = 'id') FROM orders
;
-- name: columns_min_max
SELECT min(COLUMNS(lambda c: c IN ('total', 'placed'))), max(COLUMNS(lambda c: c IN ('id', 'customer_id'))) FROM orders
;
-- name: columns_regex_coalesce
SELECT id, coalesce(COLUMNS('.*name.*'), 'n/a') FROM products
;
-- name: columns_star_count
SELECT count(COLUMNS(*)) FROM payments
;
-- name: columns_where_all
SELECT product_id, warehouse FROM stock WHERE COLUMNS(* EXCLUDE (counted)) IS NOT NULL
;
-- name: columns_group_avg
SELECT category, avg(COLUMNS('price|weight')) FROM products GROUP BY category
;
-- name: exclude_replace_prefix
SELECT o.* EXCLUDE (note, coupon) REPLACE (upper(channel) AS channel), c.country FROM orders o JOIN customers c ON c.id = o.customer_id
;
-- name: star_like
SELECT * LIKE 's%' FROM orders
;
-- name: rename_star
SELECT * RENAME (placed AS ordered_at) FROM orders WHERE total > 100
;
-- name: group_by_all_order_by_all
SELECT channel, date_trunc('week', placed) AS week, count(*) AS orders, sum(total) AS revenue, avg(total) AS aov FROM orders GROUP BY ALL ORDER BY ALL
;
-- name: from_first_group
FROM visits SELECT page, count(*) AS hits, count(DISTINCT visitor) AS uniques, median(ms) AS med GROUP BY page
;
-- name: positional_names_products
SELECT a.name, b.name AS other FROM (SELECT name FROM products ORDER BY id) a POSITIONAL JOIN (SELECT name FROM employees ORDER BY id) b
;
-- name: struct_pack_address
SELECT id, {'city': city, 'zip': address.zip, 'lat': address.geo.lat} AS place FROM customers WHERE address.geo.lat > 45
;
-- name: struct_star_unnest
SELECT id, unnest(address) FROM customers
;
-- name: struct_recursive_unnest
SELECT id, unnest(address, recursive := true) FROM customers
;
-- name: address_dot_star
SELECT id, unnest(address.geo) FROM customers
;
-- name: list_comprehension_tags
SELECT id, [upper(t) for t in tags if t <> 'sale'] AS shown FROM customers
;
-- name: list_filter_reduce
SELECT id, list_reduce(list_transform(range(1, len(tags) + 1), lambda x: x * x), lambda a, b: a + b) AS sq FROM customers WHERE len(tags) > 0
;
-- name: list_sort_slice
SELECT id, list_sort(tags)[1:2] AS two, list_contains(tags, 'sale') AS on_sale, array_to_string(list_reverse_sort(tags), '|') AS txt FROM customers
;
-- name: tag_pairs
SELECT a.tag AS one, b.tag AS other, count(*) AS n FROM (SELECT id, unnest(tags) AS tag FROM customers) a JOIN (SELECT id, unnest(tags) AS tag FROM customers) b ON a.id = b.id AND a.tag < b.tag GROUP BY ALL
;
-- name: map_from_entries_len
SELECT id, cardinality(map_from_entries([(id, brand)])) AS n FROM products
;
-- name: map_extract_value
SELECT id, MAP {'red': 1, 'blue': 2}[attributes ->> 'color'] AS code FROM products
;
-- name: map_result
SELECT category, histogram(brand) AS brands FROM products GROUP BY category
;
-- name: map_of_counts
SELECT customer_id, map(list(status ORDER BY status), list(total ORDER BY status, total)) AS m FROM (SELECT customer_id, status, sum(total) AS total FROM orders GROUP BY ALL) GROUP BY customer_id
;
-- name: json_path_sum
SELECT kind, sum((payload ->> '$.amount')::INT) AS amount, count(*) FILTER ((payload -> 'tags') IS NOT NULL) AS tagged FROM events GROUP BY kind
;
-- name: json_tags_unnest
SELECT e.id, t.tag FROM events e, unnest(json_extract_string(e.payload, '$.tags[*]')) AS t(tag)
;
-- name: json_each_payload
SELECT e.id, j.key, j.value FROM events e, json_each(e.payload) j
;
-- name: json_each_tags_count
SELECT j.value ->> '$' AS tag, count(*) AS n FROM events e, LATERAL json_each(e.payload, '$.tags') j GROUP BY 1
;
-- name: json_transform_struct
SELECT id, from_json(attributes, '{"color":"VARCHAR","size":"INTEGER"}') AS a FROM products
;
-- name: json_object_build
SELECT id, json_object('id', id, 'name', name, 'tags', tags) AS doc FROM customers
;
-- name: json_merge_array
SELECT category, json_group_array(name) AS names, json_group_object(id, price) AS prices FROM products GROUP BY category
;
-- name: json_type_keys
SELECT id, json_type(attributes) AS t, json_keys(attributes) AS k, json_array_length(attributes, '$.tags') AS n FROM products
;
-- name: window_exclude_current
SELECT id, total - avg(total) OVER (PARTITION BY customer_id ORDER BY placed, id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW) AS vs_others FROM orders
;
-- name: window_exclude_ties
SELECT id, count(*) OVER (PARTITION BY channel ORDER BY total ROWS BETWEEN 2 PRECEDING AND 2 FOLLOWING EXCLUDE GROUP) AS near FROM orders
;
-- name: window_groups_frame
SELECT product_id, warehouse, sum(quantity) OVER (PARTITION BY warehouse ORDER BY product_id GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS around FROM stock
;
-- name: window_range_interval
SELECT customer_id, placed, sum(total) OVER (PARTITION BY customer_id ORDER BY placed RANGE BETWEEN INTERVAL 7 DAY PRECEDING AND CURRENT ROW) AS week_spend FROM orders
;
-- name: window_named
SELECT id, customer_id, row_number() OVER w AS n, lag(placed) OVER w AS before, sum(total) OVER (w ROWS UNBOUNDED PRECEDING) AS running FROM orders WINDOW w AS (PARTITION BY customer_id ORDER BY placed, id)
;
-- name: window_filter
SELECT id, count(*) FILTER (WHERE status = 'paid') OVER (PARTITION BY customer_id ORDER BY placed, id) AS paid_so_far FROM orders
;
-- name: window_ignore_nulls
SELECT id, last_value(coupon IGNORE NULLS) OVER (PARTITION BY customer_id ORDER BY placed, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS last_coupon FROM orders
;
-- name: window_ntile_percent
SELECT id, ntile(4) OVER (PARTITION BY category ORDER BY price, id) AS quartile, percent_rank() OVER (PARTITION BY category ORDER BY price) AS pr, cume_dist() OVER (PARTITION BY category ORDER BY price) AS cd FROM products
;
-- name: window_over_aggregate
SELECT channel, month(placed) AS m, sum(total) AS s, sum(sum(total)) OVER (PARTITION BY channel ORDER BY month(placed)) AS ytd FROM orders GROUP BY channel, month(placed)
;
-- name: window_share_of_total
SELECT category, brand, count(*) AS n, round(100.0 * count(*) / sum(count(*)) OVER (PARTITION BY category), 2) AS pct FROM products GROUP BY category, brand
;
-- name: window_median_rolling
SELECT visitor, v.at, median(ms) OVER (PARTITION BY visitor ORDER BY v.at RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW) AS med FROM visits v
;
-- name: window_nth_first
SELECT DISTINCT customer_id, first_value(channel) OVER w AS first_channel, nth_value(channel, 2) OVER w AS second_channel FROM orders WINDOW w AS (PARTITION BY customer_id ORDER BY placed, id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
;
-- name: moving_average_7
SELECT day, revenue, avg(revenue) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW) AS ma7 FROM (SELECT placed::DATE AS day, sum(total) AS revenue FROM orders GROUP BY 1)
;
-- name: running_total_month
SELECT date_trunc('month', placed) AS month, id, sum(total) OVER (PARTITION BY date_trunc('month', placed) ORDER BY placed, id) AS mtd FROM orders
;
-- name: day_over_day
WITH d AS (SELECT channel, placed::DATE AS day, sum(total) AS s FROM orders GROUP BY ALL)
SELECT channel, day, s, s - lag(s) OVER (PARTITION BY channel ORDER BY day) AS delta, s / nullif(lag(s) OVER (PARTITION BY channel ORDER BY day), 0) - 1 AS growth FROM d
;
-- name: calendar_spine
SELECT c.day::DATE AS day, count(o.id) AS orders FROM generate_series(DATE '2026-01-01', DATE '2026-03-31', INTERVAL 1 DAY) AS c(day) LEFT JOIN orders o ON o.placed::DATE = c.day::DATE GROUP BY 1
;
-- name: calendar_spine_months_channel
WITH months AS (SELECT unnest(generate_series(DATE '2026-01-01', DATE '2026-06-01', INTERVAL 1 MONTH))::DATE AS m), ch AS (SELECT DISTINCT channel FROM orders)
SELECT m, ch.channel, coalesce(sum(o.total), 0) AS revenue FROM months CROSS JOIN ch LEFT JOIN orders o ON date_trunc('month', o.placed) = m AND o.channel = ch.channel GROUP BY ALL
;
-- name: range_join_price_band
SELECT p.id, b.band FROM products p JOIN (VALUES (0, 50, 'low'), (50, 200, 'mid'), (200, 100000, 'high')) AS b(lo, hi, band) ON p.price >= b.lo AND p.price < b.hi
;
-- name: range_join_visits_orders
SELECT v.visitor, v.at, o.id FROM visits v JOIN orders o ON v.at BETWEEN o.placed - INTERVAL 30 MINUTE AND o.placed
;
-- name: asof_price_at_order
SELECT i.order_id, i.line, p.price AS list_price, i.price AS paid FROM items i JOIN orders o ON o.id = i.order_id ASOF JOIN prices p ON p.product_id = i.product_id AND p.valid_from <= o.placed
;
-- name: asof_left_rates
SELECT o.id, r.rate FROM (SELECT o.id, o.placed::DATE AS d, g.currency FROM orders o JOIN customers c ON c.id = o.customer_id JOIN regions g ON g.country = c.country) o ASOF LEFT JOIN rates r ON r.currency = o.currency AND r.day <= o.d
;
-- name: asof_using
SELECT s.product_id, s.counted, p.price FROM (SELECT product_id, counted, counted AS valid_from FROM stock) s ASOF JOIN prices p USING (product_id, valid_from)
;
-- name: lateral_last_three_orders
SELECT c.id, l.id AS order_id, l.total FROM customers c, LATERAL (SELECT o.id, o.total FROM orders o WHERE o.customer_id = c.id ORDER BY o.placed DESC, o.id LIMIT 3) l
;
-- name: lateral_left_stats
SELECT p.id, s.sold, s.last FROM products p LEFT JOIN LATERAL (SELECT sum(i.quantity) AS sold, max(i.order_id) AS last FROM items i WHERE i.product_id = p.id) s ON true
;
-- name: lateral_expression
SELECT o.id, x.net, x.net * 0.19 AS vat FROM orders o, LATERAL (SELECT o.total / 1.19 AS net) x
;
-- name: recursive_org_chart
WITH RECURSIVE org AS (SELECT id, name, manager_id, 0 AS depth, [name] AS path FROM employees WHERE manager_id IS NULL UNION ALL SELECT e.id, e.name, e.manager_id, o.depth + 1, list_append(o.path, e.name) FROM employees e JOIN org o ON e.manager_id = o.id)
SELECT id, depth, array_to_string(path, ' > ') AS path FROM org
;
-- name: recursive_headcount
WITH RECURSIVE r(root, id) AS (SELECT id, id FROM employees UNION ALL SELECT r.root, e.id FROM r JOIN employees e ON e.manager_id = r.id)
SELECT root, count(*) - 1 AS reports FROM r GROUP BY root
;
-- name: recursive_numbers
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12) SELECT n.i AS month, count(o.id) AS orders FROM n LEFT JOIN orders o ON month(o.placed) = n.i GROUP BY n.i
;
-- name: correlated_in_select_count
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer_id = c.id) AS orders, (SELECT max(placed) FROM orders o WHERE o.customer_id = c.id AND status = 'paid') AS last_paid FROM customers c
;
-- name: correlated_nonequal
SELECT o.id, (SELECT count(*) FROM orders p WHERE p.customer_id = o.customer_id AND p.placed < o.placed) AS earlier FROM orders o
;
-- name: correlated_having
SELECT customer_id, sum(total) AS s FROM orders o GROUP BY customer_id HAVING sum(total) > (SELECT avg(total) * 2 FROM orders)
;
-- name: correlated_having_group
SELECT o.customer_id, count(*) AS n FROM orders o GROUP BY o.customer_id HAVING count(*) > (SELECT count(*) FROM payments p JOIN orders q ON q.id = p.order_id WHERE q.customer_id = o.customer_id)
;
-- name: correlated_order_by
SELECT c.id, c.name FROM customers c ORDER BY (SELECT count(*) FROM orders o WHERE o.customer_id = c.id) DESC, c.id
;
-- name: correlated_order_by_limit
SELECT c.id, c.name FROM customers c ORDER BY (SELECT count(*) FROM orders o WHERE o.customer_id = c.id) DESC, c.id LIMIT 5
;
-- name: correlated_where_avg
SELECT id, category, price FROM products p WHERE price > (SELECT avg(price) FROM products q WHERE q.category = p.category)
;
-- name: correlated_two_levels
SELECT c.id FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.order_id = o.id AND p.ok))
;
-- name: correlated_case
SELECT id, CASE WHEN EXISTS (SELECT 1 FROM payments p WHERE p.order_id = o.id AND p.ok) THEN 'paid' WHEN coupon IS NOT NULL THEN 'promised' ELSE 'open' END AS state FROM orders o
;
-- name: not_in_nulls
SELECT id FROM customers WHERE id NOT IN (SELECT customer_id FROM orders)
;
-- name: not_in_or
SELECT id, name FROM products WHERE discontinued IS NOT NULL OR id NOT IN (SELECT product_id FROM items WHERE product_id IS NOT NULL)
;
-- name: in_or_in
SELECT id FROM customers WHERE id IN (SELECT customer_id FROM orders WHERE channel = 'web') OR id IN (SELECT customer_id FROM events WHERE kind = 'purchase')
;
-- name: row_in_pairs
SELECT order_id, line FROM items WHERE (product_id, price) IN (SELECT product_id, price FROM prices)
;
-- name: row_in_values
SELECT id FROM orders WHERE (channel, status) IN (('web', 'paid'), ('app', 'new'))
;
-- name: row_not_in
SELECT product_id, warehouse FROM stock WHERE (product_id, warehouse) NOT IN (SELECT product_id, 'A' FROM prices)
;
-- name: any_all_comparison
SELECT id, price FROM products WHERE price >= ALL (SELECT price FROM prices WHERE product_id = products.id)
;
-- name: greater_any
SELECT id FROM orders WHERE total > ANY (SELECT amount FROM payments WHERE ok)
;
-- name: values_mapping_join
SELECT o.id, m.label FROM orders o LEFT JOIN (VALUES ('new', 'Open'), ('paid', 'Paid'), ('shipped', 'Done')) m(status, label) USING (status)
;
-- name: values_only_cte
WITH w(code, factor) AS (VALUES ('EUR', 1.0), ('USD', 0.9)) SELECT r.country, w.factor FROM regions r JOIN w ON w.code = r.currency
;
-- name: regex_extract_parts
SELECT id, regexp_extract(email, '^([^@]+)@(.+)$', ['user', 'host']) AS parts, regexp_extract_all(name, '[0-9]+') AS digits FROM customers
;
-- name: regex_filter_similar
SELECT id FROM products WHERE name SIMILAR TO '.*[0-3]' AND brand ~ '^[A-Z]'
;
-- name: try_cast_note
SELECT id, try_cast(split_part(note, ' ', 2) AS INTEGER) AS note_no, try_strptime(coupon, '%Y-%m-%d') AS coupon_day FROM orders
;
-- name: qualify_top_per_channel
SELECT channel, id, total FROM orders QUALIFY rank() OVER (PARTITION BY channel ORDER BY total DESC) <= 3
;
-- name: qualify_dedupe_latest
SELECT * FROM prices QUALIFY row_number() OVER (PARTITION BY product_id ORDER BY valid_from DESC) = 1
;
-- name: qualify_group
SELECT country, segment, count(*) AS n FROM customers GROUP BY country, segment QUALIFY row_number() OVER (PARTITION BY country ORDER BY count(*) DESC, segment) = 1
;
-- name: percentiles_by_page
SELECT page, quantile_cont(ms, [0.5, 0.9, 0.99]) AS q, percentile_disc(0.95) WITHIN GROUP (ORDER BY ms) AS p95, mad(ms) AS mad FROM visits GROUP BY page
;
-- name: mode_within_group
SELECT customer_id, mode(channel ORDER BY channel) AS usual FROM orders GROUP BY customer_id
;
-- name: rollup_grouping
SELECT coalesce(c.country, 'all') AS country, c.segment, grouping(c.country, c.segment) AS level, count(*) AS n, sum(o.total) AS s FROM orders o JOIN customers c ON c.id = o.customer_id GROUP BY ROLLUP (c.country, c.segment)
;
-- name: cube_grouping_id
SELECT channel, status, GROUPING_ID(channel, status) AS g, count(*) AS n FROM orders GROUP BY CUBE (channel, status) HAVING count(*) > 1
;
-- name: grouping_sets_mixed
SELECT brand, category, max(price) AS top FROM products GROUP BY GROUPING SETS ((brand), (category), ())
;
-- name: rollup_with_window
SELECT channel, status, sum(total) AS s, rank() OVER (PARTITION BY grouping(channel, status) ORDER BY sum(total) DESC) AS r FROM orders GROUP BY ROLLUP (channel, status)
;
-- name: filter_clause_matrix
SELECT placed::DATE AS day, count(*) FILTER (channel = 'web') AS web, count(*) FILTER (channel = 'app') AS app, sum(total) FILTER (WHERE status <> 'cancelled') AS net, count(DISTINCT customer_id) FILTER (coupon IS NOT NULL) AS coupon_users FROM orders GROUP BY day
;
-- name: distinct_on_latest_event
SELECT DISTINCT ON (customer_id, kind) customer_id, kind, e.at, payload FROM events e ORDER BY customer_id, kind, e.at DESC, id
;
-- name: distinct_on_no_order
SELECT DISTINCT ON (country) country, region, currency FROM regions
;
-- name: nested_ctes
WITH a AS (WITH b AS (SELECT customer_id, count(*) AS n FROM orders GROUP BY 1) SELECT * FROM b WHERE n > 1), c AS (SELECT id, country FROM customers)
SELECT c.country, sum(a.n) AS repeat_orders FROM a JOIN c ON c.id = a.customer_id GROUP BY ALL
;
-- name: cte_used_twice
WITH t AS (SELECT customer_id, sum(total) AS s FROM orders GROUP BY customer_id) SELECT a.customer_id, b.customer_id AS other FROM t a JOIN t b ON a.s = b.s AND a.customer_id < b.customer_id
;
-- name: cte_materialized
WITH big AS MATERIALIZED (SELECT * FROM orders WHERE total > 200) SELECT channel, count(*) AS n FROM big GROUP BY channel UNION ALL SELECT 'all', count(*) FROM big
;
-- name: anti_join_keyword
SELECT c.id, c.email FROM customers c ANTI JOIN orders o ON o.customer_id = c.id
;
-- name: semi_join_keyword
SELECT p.id, p.name FROM products p SEMI JOIN items i ON i.product_id = p.id AND i.quantity > 3
;
-- name: left_join_null_check
SELECT o.id FROM orders o LEFT JOIN payments p ON p.order_id = o.id WHERE p.id IS NULL
;
-- name: full_join_reconcile
SELECT coalesce(o.id, p.order_id) AS order_id, o.total, p.paid, coalesce(o.total, 0) - coalesce(p.paid, 0) AS diff FROM orders o FULL JOIN (SELECT order_id, sum(amount) AS paid FROM payments WHERE ok GROUP BY order_id) p ON p.order_id = o.id
;
-- name: sessionize_gap
WITH marked AS (SELECT visitor, v.at, page, CASE WHEN v.at - lag(v.at) OVER (PARTITION BY visitor ORDER BY v.at) <= INTERVAL 30 MINUTE THEN 0 ELSE 1 END AS fresh FROM visits v),
numbered AS (SELECT visitor, m.at, page, sum(fresh) OVER (PARTITION BY visitor ORDER BY m.at RANGE UNBOUNDED PRECEDING) AS session FROM marked m)
SELECT visitor, session, min(n.at) AS began, max(n.at) AS ended, count(*) AS pages FROM numbered n GROUP BY visitor, session
;
-- name: self_join_next_visit
SELECT a.visitor, a.at, min(b.at) AS next_at FROM visits a JOIN visits b ON b.visitor = a.visitor AND b.at > a.at GROUP BY a.visitor, a.at
;
-- name: funnel_steps
WITH s AS (SELECT customer_id, min(e.at) FILTER (kind = 'view') AS viewed, min(e.at) FILTER (kind = 'click') AS clicked, min(e.at) FILTER (kind = 'purchase') AS bought FROM events e GROUP BY customer_id)
SELECT count(viewed) AS viewed, count(*) FILTER (clicked > viewed) AS clicked, count(*) FILTER (clicked > viewed AND bought > clicked) AS bought FROM s
;
-- name: funnel_pages
SELECT visitor, bool_or(page = '/cart') AS cart, bool_or(page = '/checkout') AS checkout FROM visits GROUP BY visitor HAVING bool_or(page = '/cart')
;
-- name: cohort_retention
WITH first AS (SELECT customer_id, date_trunc('month', min(placed)) AS cohort FROM orders GROUP BY customer_id),
act AS (SELECT DISTINCT customer_id, date_trunc('month', placed) AS month FROM orders)
SELECT cohort, date_diff('month', cohort, month) AS age, count(*) AS customers FROM first JOIN act USING (customer_id) GROUP BY ALL
;
-- name: cohort_share
WITH f AS (SELECT customer_id, min(placed)::DATE AS d0 FROM orders GROUP BY 1), a AS (SELECT f.d0, o.customer_id, o.placed::DATE - f.d0 AS age FROM orders o JOIN f USING (customer_id))
SELECT d0, count(DISTINCT customer_id) AS size, count(DISTINCT customer_id) FILTER (age BETWEEN 1 AND 7) * 100.0 / count(DISTINCT customer_id) AS week1 FROM a GROUP BY d0
;
-- name: gaps_islands_order_days
WITH days AS (SELECT DISTINCT customer_id, placed::DATE AS day FROM orders), grp AS (SELECT customer_id, day, day - row_number() OVER (PARTITION BY customer_id ORDER BY day)::INT AS island FROM days)
SELECT customer_id, min(day) AS since, max(day) AS until, count(*) AS days FROM grp GROUP BY customer_id, island
;
-- name: gaps_in_ids
SELECT id + 1 AS from_id, next - 1 AS to_id FROM (SELECT id, lead(id) OVER (ORDER BY id) AS next FROM orders) WHERE next > id + 1
;
-- name: repeat_purchase_interval
SELECT customer_id, avg(date_diff('day', prev, placed)) AS days_between FROM (SELECT customer_id, placed, lag(placed) OVER (PARTITION BY customer_id ORDER BY placed) AS prev FROM orders) WHERE prev IS NOT NULL GROUP BY customer_id
;
-- name: top_products_per_category
SELECT category, product_id, revenue FROM (SELECT p.category, p.id AS product_id, sum(i.price * i.quantity) AS revenue, row_number() OVER (PARTITION BY p.category ORDER BY sum(i.price * i.quantity) DESC, p.id) AS rn FROM items i JOIN products p ON p.id = i.product_id GROUP BY p.category, p.id) WHERE rn <= 3
;
-- name: max_by_min_by
SELECT customer_id, max_by(id, placed) AS last_order, min_by(channel, placed) AS first_channel, arg_max(total, placed, 2) AS last_two FROM orders GROUP BY customer_id
;
-- name: first_last_agg
SELECT customer_id, first(channel ORDER BY placed, id) AS first_channel, last(status ORDER BY placed, id) AS last_status FROM orders GROUP BY customer_id
;
-- name: string_agg_plain
SELECT country, string_agg(name, ', ') AS names FROM customers GROUP BY country
;
-- name: list_of_structs
SELECT order_id, list({'p': product_id, 'q': quantity} ORDER BY line) AS lines FROM items GROUP BY order_id
;
-- name: any_value_group
SELECT customer_id, any_value(channel) AS some_channel, count(*) AS n FROM orders GROUP BY customer_id
;
-- name: array_subquery
SELECT c.id, ARRAY(SELECT o.id FROM orders o WHERE o.customer_id = c.id ORDER BY o.id) AS orders FROM customers c
;
-- name: array_subquery_uncorrelated
SELECT id, id IN (SELECT unnest([1, 2, 3])) AS small FROM products
;
-- name: market_basket
SELECT a.product_id AS p1, b.product_id AS p2, count(*) AS together FROM items a JOIN items b ON a.order_id = b.order_id AND a.product_id < b.product_id GROUP BY 1, 2 HAVING count(*) >= 2
;
-- name: rfm_scores
WITH r AS (SELECT customer_id, max(placed) AS last, count(*) AS f, sum(total) AS m FROM orders WHERE status <> 'cancelled' GROUP BY customer_id)
SELECT customer_id, ntile(5) OVER (ORDER BY last, customer_id) AS r, ntile(5) OVER (ORDER BY f, customer_id) AS f, ntile(5) OVER (ORDER BY m, customer_id) AS m FROM r
;
-- name: pareto_share
SELECT id, total, sum(total) OVER (ORDER BY total DESC, id) / sum(total) OVER () AS cum_share FROM orders
;
-- name: conversion_by_referrer
SELECT referrer, count(DISTINCT visitor) AS visitors, count(DISTINCT visitor) FILTER (page = '/checkout') AS buyers, round(count(DISTINCT visitor) FILTER (page = '/checkout') / count(DISTINCT visitor), 3) AS rate FROM visits GROUP BY referrer
;
-- name: time_bucket_hits
SELECT time_bucket(INTERVAL 6 HOUR, v.at) AS bucket, page, count(*) AS n, max(ms) AS slowest FROM visits v GROUP BY ALL
;
-- name: date_parts
SELECT extract('isodow' FROM placed) AS dow, extract(hour FROM placed) AS h, count(*) AS n, strftime(min(placed), '%Y-W%V') AS first_week FROM orders GROUP BY 1, 2
;
-- name: age_buckets
SELECT CASE WHEN birthday IS NULL THEN 'unknown' WHEN date_part('year', birthday) < 2000 THEN '20th' ELSE '21st' END AS century, count(*) AS n, avg(credit) AS credit FROM customers GROUP BY century
;
-- name: stddev_corr
SELECT category, stddev_samp(price) AS sd, corr(price, weight) AS c, regr_slope(weight, price) AS slope FROM products GROUP BY category
;
-- name: intersect_buyers
SELECT customer_id FROM orders WHERE channel = 'web' INTERSECT SELECT customer_id FROM orders WHERE channel = 'store'
;
-- name: except_all_chain
SELECT product_id FROM stock EXCEPT SELECT product_id FROM items EXCEPT SELECT id FROM products WHERE discontinued IS NOT NULL
;
-- name: union_intersect_mixed
(SELECT id FROM customers WHERE active UNION SELECT customer_id FROM events) INTERSECT SELECT customer_id FROM orders ORDER BY 1
;
-- name: limit_percent
SELECT id, total FROM orders ORDER BY total DESC, id LIMIT 10%
;
-- name: limit_offset_page
SELECT id, name FROM products ORDER BY name, id LIMIT 5 OFFSET 5
;
-- name: limit_without_order
SELECT id FROM orders LIMIT 3
;
-- name: union_limited
(SELECT id, total FROM orders ORDER BY total DESC, id LIMIT 2) UNION ALL (SELECT id, total FROM orders ORDER BY total, id LIMIT 2)
;
-- name: scalar_subquery_ratio
SELECT status, count(*) AS n, count(*) * 1.0 / (SELECT count(*) FROM orders) AS share FROM orders GROUP BY status
;
-- name: scalar_subquery_two
SELECT id, total - (SELECT min(total) FROM orders) AS above_min, (SELECT max(total) FROM orders) - total AS below_max FROM orders
;
-- name: natural_join
SELECT * FROM (SELECT country, name FROM customers) NATURAL JOIN (SELECT country, region FROM regions)
;
-- name: chained_left_joins
SELECT o.id, c.name, g.region, sum(p.amount) AS paid FROM orders o LEFT JOIN customers c ON c.id = o.customer_id LEFT JOIN regions g ON g.country = c.country LEFT JOIN payments p ON p.order_id = o.id AND p.ok GROUP BY ALL
;
-- name: right_join_stock
SELECT s.product_id, s.warehouse, p.name FROM products p RIGHT JOIN stock s ON s.product_id = p.id
;
-- name: window_last_value_default
SELECT id, last_value(status) OVER (PARTITION BY customer_id ORDER BY placed) AS s FROM orders
;
-- name: row_number_nonunique
SELECT id, row_number() OVER (PARTITION BY channel ORDER BY status) AS n FROM orders
;
-- name: unnest_ordinality
SELECT c.id, t.tag, t.n FROM customers c, unnest(c.tags) WITH ORDINALITY AS t(tag, n)
;
-- name: unnest_group
SELECT unnest(tags) AS tag, count(*) AS n FROM customers GROUP BY tag
;
-- name: unnest_struct_list
SELECT id, u.k, u.v FROM products, unnest([{'k': 'name', 'v': name}, {'k': 'brand', 'v': brand}]) AS t(u)
;
-- name: generate_subscripts_tags
SELECT id, generate_subscripts(tags, 1) AS i, unnest(tags) AS tag FROM customers
;
-- name: summarize_orders
SUMMARIZE orders
;
-- name: dates_between_orders
SELECT o.id, d.day FROM orders o, generate_series(o.placed, o.shipped, INTERVAL 1 DAY) AS d(day)
;
-- name: coalesce_ladder
SELECT id, coalesce(coupon, note, 'none') AS txt, ifnull(shipped, placed) AS at, nullif(channel, 'web') AS other, greatest(total, 10) AS g FROM orders
;
-- name: string_functions
SELECT id, lpad(id::VARCHAR, 6, '0') AS code, name[1:3] AS short, string_split(email, '@')[2] AS host, md5(email) AS h, levenshtein(name, city) AS d FROM customers
;
-- name: bit_and_hash
SELECT id % 4 AS shard, bit_xor(id) AS x, count_if(total > 100) AS big, sum(total::DOUBLE) AS s FROM orders GROUP BY 1
;
-- name: case_pivot_manual
SELECT customer_id, sum(CASE WHEN channel = 'web' THEN total ELSE 0 END) AS web, sum(CASE WHEN channel = 'app' THEN total ELSE 0 END) AS app FROM orders GROUP BY customer_id
;
-- name: having_only
SELECT product_id FROM items GROUP BY product_id HAVING sum(quantity) > 10 AND min(price) > 5
;
-- name: ordered_subquery_list
SELECT customer_id, list(id) AS ids FROM (SELECT customer_id, id FROM orders ORDER BY placed, id) GROUP BY customer_id
;
