-- name: active_customers
SELECT id, name, email FROM customers WHERE active
;
-- name: active_customers_nl
select id, name, city
from customers
where active and country = 'NL'
;
-- name: email_domain
SELECT id, lower(split_part(email, '@', 2)) AS domain FROM customers WHERE email LIKE '%@%'
;
-- name: email_normalized
SELECT
    id,
    lower(trim(email)) AS email,
    regexp_replace(lower(trim(email)), '\+[^@]*', '') AS email_no_tag,
    email IS NULL AS missing
FROM customers
;
-- name: invalid_emails
select id, email from customers where email is not null and not regexp_matches(email, '^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$')
;
-- name: customer_initials
SELECT id, upper(left(name, 1)) || coalesce(upper(left(nullif(split_part(name, ' ', 2), ''), 1)), '') AS initials FROM customers
;
-- name: first_last_name
SELECT id
     , split_part(name, ' ', 1)   AS first_name
     , nullif(trim(substr(name, strpos(name, ' ') + 1)), name) AS last_name
     , length(name) AS name_len
FROM customers
WHERE name IS NOT NULL
;
-- name: clean_city
select id, initcap_city as city from (
  select id, upper(substr(trim(city),1,1)) || lower(substr(trim(city),2)) as initcap_city from customers
) t where initcap_city <> ''
;
-- name: ilike_search
FROM customers SELECT id, name WHERE name ILIKE '%mul%' OR name ILIKE '%an%'
;
-- name: customers_from_first
FROM customers
;
-- name: customers_star_exclude
SELECT * EXCLUDE (tags, address, email) FROM customers WHERE segment = 'vip'
;
-- name: customers_star_replace
SELECT * REPLACE (lower(segment) AS segment, coalesce(credit, 0) AS credit) FROM customers
;
-- name: products_columns_regex
SELECT id, COLUMNS('^(name|brand|category)$') FROM products
;
-- name: segment_lower
SELECT id, lower(segment) AS segment FROM customers WHERE segment IS NOT NULL
;
-- name: segment_not_vip_null_trap
SELECT id, segment FROM customers WHERE segment <> 'vip'
;
-- name: segment_distinct_from
SELECT id, segment FROM customers WHERE segment IS DISTINCT FROM 'vip'
;
-- name: segment_not_distinct_null
select id, "name" from "customers" where segment is not distinct from null
;
-- name: credit_bucket
SELECT id,
       credit,
       CASE WHEN credit IS NULL THEN 'unknown'
            WHEN credit < 0 THEN 'debt'
            WHEN credit = 0 THEN 'zero'
            WHEN credit < 1000 THEN 'low'
            ELSE 'high' END AS bucket
FROM customers
;
-- name: credit_between
SELECT id, credit FROM customers WHERE credit BETWEEN 0 AND 1000
;
-- name: credit_not_between
SELECT id, credit FROM customers WHERE credit NOT BETWEEN 0 AND 1000
;
-- name: credit_rounding
select id, round(credit, 0) as r0, floor(credit) as f, ceil(credit) as c, trunc(credit) as t, abs(credit) as a, sign(credit) as s from customers
;
-- name: credit_cents
SELECT id, CAST(credit * 100 AS BIGINT) AS cents, CAST(credit * 100 AS BIGINT) % 7 AS shard FROM customers
;
-- name: country_in_list
SELECT id, name, country FROM customers WHERE country IN ('NL', 'DE', 'FR')
;
-- name: country_not_in_list
SELECT id, country FROM customers WHERE country NOT IN ('NL', 'DE')
;
-- name: country_label_simple_case
SELECT id, CASE country WHEN 'NL' THEN 'Netherlands' WHEN 'DE' THEN 'Germany' WHEN 'FR' THEN 'France' ELSE 'Other' END AS country_name FROM customers
;
-- name: missing_profile_fields
SELECT id,
  (name IS NULL)::INT + (email IS NULL)::INT + (country IS NULL)::INT + (city IS NULL OR city = '')::INT AS missing_fields
FROM customers
WHERE name IS NULL OR email IS NULL OR country IS NULL OR city IS NULL OR city = ''
;
-- name: joined_parts
SELECT id, year(joined) AS y, month(joined) AS m, quarter(joined) AS qtr, dayofweek(joined) AS dow, week(joined) AS wk FROM customers
;
-- name: joined_month
SELECT id, date_trunc('month', joined) AS joined_month FROM customers WHERE joined >= DATE '2021-01-01'
;
-- name: joined_month_text
select id, strftime(joined, '%Y-%m') as ym, strftime(joined, '%A') as weekday from customers where joined is not null
;
-- name: age_at_join
SELECT id, date_diff('year', birthday, joined) AS years_naive, date_sub('year', birthday, joined) AS years_full FROM customers
;
-- name: birthday_in_december
SELECT id, name, birthday FROM customers WHERE extract(month FROM birthday) = 12
;
-- name: generation
SELECT id, CASE WHEN year(birthday) < 1965 THEN 'boomer' WHEN year(birthday) < 1981 THEN 'x' WHEN year(birthday) < 1997 THEN 'millennial' WHEN birthday IS NOT NULL THEN 'z' END AS generation FROM customers
;
-- name: joined_weekend
SELECT id, joined FROM customers WHERE isodow(joined) IN (6, 7)
;
-- name: trial_end
SELECT id, joined, joined + INTERVAL 30 DAY AS trial_end, joined + 365 AS anniversary, last_day(joined) AS eom FROM customers
;
-- name: fiscal_year
SELECT id, CASE WHEN month(placed) >= 4 THEN year(placed) ELSE year(placed) - 1 END AS fiscal_year, total FROM orders WHERE placed IS NOT NULL
;
-- name: has_tag_vip
SELECT id, tags FROM customers WHERE list_contains(tags, 'vip')
;
-- name: tag_count
select id, len(tags) as n_tags, tags[1] as first_tag, tags[-1] as last_tag from customers
;
-- name: tag_string
SELECT id, array_to_string(tags, '|') AS tag_str FROM customers WHERE len(tags) > 0
;
-- name: tags_sorted_distinct
SELECT id, list_sort(list_distinct(tags)) AS tags FROM customers
;
-- name: tags_has_any
SELECT id FROM customers WHERE list_has_any(tags, ['new', 'churn'])
;
-- name: tags_has_all
SELECT id, name FROM customers WHERE list_has_all(tags, ['vip', 'eu'])
;
-- name: tags_upper
SELECT id, list_transform(tags, lambda t: upper(t)) AS tags_upper FROM customers
;
-- name: tags_comprehension
SELECT id, [t || '!' for t in tags if t <> 'eu'] AS shouted FROM customers
;
-- name: tags_filter_nulls
SELECT id, list_filter(tags, lambda x: x IS NOT NULL) AS clean_tags, len(list_filter(tags, lambda x: x IS NULL)) AS null_tags FROM customers
;
-- name: tags_append
SELECT id, list_append(coalesce(tags, []), coalesce(segment, 'none')) AS labels FROM customers
;
-- name: tags_slice
SELECT id, tags[1:2] AS top_two, list_position(tags, 'eu') AS eu_pos FROM customers
;
-- name: any_tag_in
SELECT id, name FROM customers WHERE 'eu' = ANY(tags)
;
-- name: address_zip
SELECT id, address.zip AS zip, address.street AS street FROM customers WHERE address IS NOT NULL
;
-- name: address_geo
SELECT id, address.geo.lat AS lat, address.geo.lon AS lon FROM customers WHERE address.geo.lat IS NOT NULL
;
-- name: geo_bbox
SELECT c.id, c.name FROM customers c WHERE c.address.geo.lat BETWEEN 50 AND 54 AND c.address.geo.lon BETWEEN 3 AND 8
;
-- name: geo_distance_amsterdam
SELECT id, round(2 * 6371 * asin(sqrt(greatest(0.0, least(1.0, pow(sin(radians(address.geo.lat - 52.37) / 2), 2) + cos(radians(52.37)) * cos(radians(address.geo.lat)) * pow(sin(radians(address.geo.lon - 4.9) / 2), 2))))), 2) AS km
FROM customers
;
-- name: dutch_zip
SELECT id, address.zip[1:4]::VARCHAR AS zip4 FROM customers WHERE regexp_full_match(address.zip, '[0-9]{4}[A-Z]{2}')
;
-- name: make_struct
SELECT id, {'n': name, 'c': country, 'days': joined - DATE '2020-01-01'} AS info FROM customers
;
-- name: struct_star
SELECT id, address.* FROM customers
;
-- name: product_color
SELECT id, attributes->>'color' AS color, attributes->>'$.size' AS size FROM products
;
-- name: product_dims
SELECT id, TRY_CAST(attributes->'dims'->>'w' AS DOUBLE) AS w, TRY_CAST(attributes->'dims'->>'h' AS DOUBLE) AS h FROM products WHERE json_exists(attributes, '$.dims')
;
-- name: product_eco
SELECT id, name FROM products WHERE coalesce(TRY_CAST(attributes->>'eco' AS BOOLEAN), false)
;
-- name: product_json_type
SELECT id, json_type(attributes) AS jt, json_array_length(attributes, '$.tags') AS n_tags, json_keys(attributes) AS keys FROM products
;
-- name: warranty_years
select id, try_cast(json_extract_string(attributes, '$.warranty_months') as integer) / 12 as warranty_years from products where json_extract_string(attributes, '$.warranty_months') is not null
;
-- name: price_ending
SELECT id, price, CASE WHEN price % 1 >= 0.95 THEN 'charm' WHEN price % 1 = 0 THEN 'round' ELSE 'other' END AS ending FROM products WHERE price IS NOT NULL
;
-- name: price_with_vat
SELECT id, name, price, round(price * 1.21, 2) AS price_incl, round(price * 0.21, 2) AS vat FROM products
;
-- name: price_per_kg
SELECT id, round(price / nullif(weight, 0), 4) AS price_per_kg FROM products WHERE weight > 0
;
-- name: product_slug
SELECT id, trim(regexp_replace(lower(name), '[^a-z0-9]+', '-', 'g'), '-') AS slug FROM products
;
-- name: product_search_text
SELECT id, lower(concat_ws(' ', name, brand, category)) AS doc, md5(concat_ws('|', name, brand, category)) AS doc_hash FROM products
;
-- name: product_numbers_in_name
SELECT id, name, TRY_CAST(regexp_extract(name, '(\d+)', 1) AS INTEGER) AS num FROM products WHERE name SIMILAR TO '.*[0-9].*'
;
-- name: live_products
SELECT id, name FROM products WHERE discontinued IS NULL
;
-- name: live_products_at
SELECT id, name, coalesce(discontinued > DATE '2023-06-30', true) AS live_mid_2023 FROM products
;
-- name: order_lead_time
SELECT id, shipped - placed AS lead, date_diff('hour', placed, shipped) AS hours, epoch(shipped - placed) AS secs FROM orders WHERE shipped IS NOT NULL
;
-- name: slow_orders
SELECT id, customer_id, placed, shipped FROM orders WHERE shipped > placed + INTERVAL '3 days' OR (shipped IS NULL AND status = 'paid')
;
-- name: order_hour_bucket
SELECT id, hour(placed) AS h, CASE WHEN hour(placed) BETWEEN 6 AND 11 THEN 'morning' WHEN hour(placed) BETWEEN 12 AND 17 THEN 'afternoon' WHEN hour(placed) IS NULL THEN NULL ELSE 'night' END AS part FROM orders
;
-- name: order_time_bucket_15
select id, time_bucket(interval '15 minutes', placed) as slot from orders
;
-- name: order_week_start
SELECT id, date_trunc('week', placed)::DATE AS week_start, placed::DATE AS day, placed::TIME AS tod FROM orders
;
-- name: q1_orders
SELECT id, total FROM orders WHERE placed >= '2024-01-01' AND placed < '2024-04-01'
;
-- name: notes_phone
SELECT id, regexp_extract(note, '(\d{3})-(\d{4})', 0) AS phone FROM orders WHERE note ~ '.*\d{3}-\d{4}.*'
;
-- name: notes_ref_struct
SELECT id, regexp_extract(note, '#([A-Z])-(\d+)', ['series', 'num']) AS ref FROM orders WHERE note LIKE '%#%'
;
-- name: notes_words
SELECT id, len(string_split(trim(note), ' ')) AS words, string_split(note, ' ') AS tokens FROM orders WHERE note <> ''
;
-- name: urgent_flag
SELECT id, coalesce(contains(upper(note), 'URGENT'), false) AS urgent, starts_with(note, 'ref') AS is_ref, suffix(note, 'door') AS at_door FROM orders
;
-- name: coupon_upper
SELECT id, upper(coupon) AS coupon, TRY_CAST(regexp_extract(coupon, '\d+$') AS INT) AS pct FROM orders WHERE coupon IS NOT NULL
;
-- name: item_net
SELECT order_id, line, quantity * price AS gross, quantity * price * (1 - coalesce(discount, 0)) AS net FROM items
;
-- name: item_discounted
SELECT order_id, line, discount FROM items WHERE discount > 0 AND quantity >= 2
;
-- name: item_flags
SELECT order_id, line, quantity > 5 AS bulk, discount IS NULL AS no_discount_info, price >= 100 AND coalesce(discount, 0) = 0 AS full_price_luxury FROM items
;
-- name: failed_payments
SELECT id, order_id, amount FROM payments WHERE ok = FALSE
;
-- name: not_ok_payments_unknown
SELECT id, ok FROM payments WHERE ok IS NOT TRUE
;
-- name: refunds
SELECT id, order_id, -amount AS refunded, method FROM payments WHERE amount < 0
;
-- name: payments_local_ny
SELECT id, paid_at AT TIME ZONE 'America/New_York' AS paid_ny, (paid_at AT TIME ZONE 'UTC')::DATE AS paid_day_utc FROM payments
;
-- name: payment_masks
SELECT id, lpad(id::VARCHAR, 8, '0') AS ref, rpad(upper(left(method, 4)), 6, '*') AS masked, format('{}:{}', method, amount) AS label, printf('%05d', id) AS code FROM payments
;
-- name: visits_path
SELECT visitor, v.at AS ts, split_part(page, '?', 1) AS path, regexp_extract(page, '[?&]q=([^&]*)', 1) AS q FROM visits v
;
-- name: visits_product_pages
SELECT visitor, "at", TRY_CAST(regexp_extract(page, '^/product/(\d+)$', 1) AS BIGINT) AS product_id FROM visits WHERE page LIKE '/product/%'
;
-- name: visits_referrer_host
SELECT visitor, page, CASE WHEN referrer IS NULL THEN '(none)' WHEN referrer = 'direct' THEN 'direct' ELSE replace(split_part(split_part(referrer, '//', 2), '/', 1), 'www.', '') END AS source FROM visits
;
-- name: visits_slow
select visitor, page, ms, ms / 1000 as seconds, ms // 1000 as whole_seconds from visits where ms > 1000
;
-- name: visits_clamped
SELECT visitor, page, least(greatest(ms, 10), 30000) AS ms_clamped, ln(1 + greatest(ms, 0)) > 6 AS heavy FROM visits WHERE ms IS NOT NULL
;
-- name: event_payload_amount
SELECT id, kind, TRY_CAST(payload->>'amount' AS DECIMAL(12,2)) AS amount, payload->>'amount' AS raw FROM events
;
-- name: event_device_os
SELECT id, coalesce(payload->'device'->>'os', payload->>'source', 'unknown') AS origin FROM events WHERE kind IN ('login', 'view', 'purchase')
;
-- name: event_labels_concat
SELECT id, kind || ':' || coalesce(array_to_string(labels, '+'), '-') AS k FROM events
;
-- name: event_labels_reduce
SELECT id, list_reduce(list_transform(labels, lambda l: coalesce(len(l), 0)), lambda a, b: a + b, 0) AS label_chars FROM events
;
-- name: event_list_zip
SELECT id, list_unique(labels) AS uniq, list_count(labels) AS nonnull, list_reverse(labels) AS rev, list_contains(labels, kind) AS self FROM events
;
-- name: employees_band
SELECT id, name, salary, CASE WHEN salary >= 100000 THEN 'A' WHEN salary >= 50000 THEN 'B' ELSE 'C' END AS band, salary / 12 AS monthly FROM employees
;
-- name: employees_tenure
SELECT id, date_sub('month', hired, DATE '2024-06-30') AS months, age(TIMESTAMP '2024-06-30', hired::TIMESTAMP) AS tenure FROM employees WHERE hired IS NOT NULL
;
-- name: employees_missing_boss
SELECT id, name FROM employees WHERE manager_id IS NULL AND NOT (department = 'hr')
;
-- name: stock_status
SELECT product_id, warehouse, quantity, if(quantity <= 0, 'out', if(quantity < 5, 'low', 'ok')) AS status FROM stock
;
-- name: stock_negative_or_stale
SELECT * FROM stock WHERE quantity < 0 OR counted < TIMESTAMP '2024-03-10 00:00:00' OR counted IS NULL
;
-- name: rates_inverse
SELECT currency, day, round(rate, 4) AS rate, round(1 / rate, 6) AS inv FROM rates WHERE currency <> 'EUR'
;
-- name: regions_defaults
SELECT country, ifnull(region, 'n/a') AS region, coalesce(currency, 'EUR') AS currency FROM regions
;
-- name: hash_bucket
SELECT id, ('0x' || left(md5(id::VARCHAR), 4))::BIGINT % 10 AS bucket FROM customers
;
-- name: levenshtein_brand
SELECT id, brand, levenshtein(lower(brand), 'acme') AS d, jaccard(lower(brand), 'acme') > 0.5 AS near FROM products WHERE brand IS NOT NULL
;
-- name: orders_with_customer
SELECT o.id, o.total, c.name, c.country FROM orders o JOIN customers c ON c.id = o.customer_id
;
-- name: orders_left_customer
SELECT o.id AS order_id, o.status, c.id AS customer_id, c.name FROM orders o LEFT JOIN customers c ON o.customer_id = c.id
;
-- name: customers_left_orders
select c.id, c.name, o.id order_id, o.total from customers c left join orders o on o.customer_id = c.id
;
-- name: customers_right_orders
SELECT o.id AS order_id, c.name AS customer_name FROM customers c RIGHT JOIN orders o ON c.id = o.customer_id
;
-- name: customers_full_orders
SELECT c.id AS cid, o.id AS oid, o.total FROM customers AS c FULL OUTER JOIN orders AS o ON c.id = o.customer_id
;
-- name: comma_join_orders_customers
select o.id, c.name from orders o, customers c where o.customer_id = c.id and o.status = 'shipped'
;
-- name: comma_join_four
SELECT o.id AS order_id, i.line, p.name AS product, c.name AS customer
FROM orders o, items i, products p, customers c
WHERE i.order_id = o.id AND i.product_id = p.id AND o.customer_id = c.id
;
-- name: order_lines_enriched
SELECT i.order_id, i.line, p.name AS product_name, p.category, i.quantity, i.price * i.quantity AS amount
FROM items i
INNER JOIN products p ON p.id = i.product_id
;
-- name: order_lines_left_product
SELECT i.order_id, i.line, i.product_id, coalesce(p.name, '<missing>') AS product_name
FROM items i LEFT JOIN products p ON p.id = i.product_id
;
-- name: order_lines_orphans
SELECT i.* FROM items i LEFT JOIN orders o ON o.id = i.order_id WHERE o.id IS NULL
;
-- name: items_missing_product
SELECT i.order_id, i.line FROM items i ANTI JOIN products p ON p.id = i.product_id
;
-- name: customers_semi_orders
SELECT c.id, c.name FROM customers c SEMI JOIN orders o ON o.customer_id = c.id
;
-- name: customers_semi_big_orders
SELECT c.* EXCLUDE (address) FROM customers c SEMI JOIN orders o ON o.customer_id = c.id AND o.total > 100
;
-- name: customers_anti_orders
SELECT c.id FROM customers c ANTI JOIN orders o ON (o.customer_id = c.id AND o.status <> 'cancelled')
;
-- name: customers_using_regions
SELECT id, country, region, currency FROM customers JOIN regions USING (country)
;
-- name: customers_left_using_regions
select c.id, country, r.region from customers c left join regions r using (country)
;
-- name: regions_full_using_customers
SELECT country, r.region, c.id AS customer_id FROM regions r FULL JOIN customers c USING (country)
;
-- name: regions_without_customers
SELECT r.country, r.region FROM regions r LEFT JOIN customers c USING (country) WHERE c.id IS NULL
;
-- name: natural_join_regions
SELECT id, country, region FROM customers NATURAL JOIN regions
;
-- name: stock_using_prices
SELECT product_id, s.warehouse, s.quantity, pr.valid_from, pr.price FROM stock s JOIN prices pr USING (product_id)
;
-- name: orders_payments
SELECT o.id, o.total, p.id AS payment_id, p.amount, p.ok FROM orders o JOIN payments p ON p.order_id = o.id
;
-- name: orders_payment_mismatch
SELECT o.id, o.total, p.amount, o.total - p.amount AS diff FROM orders o JOIN payments p ON p.order_id = o.id WHERE p.ok AND o.total <> p.amount
;
-- name: orders_unpaid
SELECT o.id, o.total FROM orders o LEFT JOIN payments p ON p.order_id = o.id AND p.ok WHERE p.id IS NULL AND o.status NOT IN ('cancelled')
;
-- name: payments_full_orders
SELECT coalesce(o.id, p.order_id) AS order_id, o.total, p.amount,
  CASE WHEN o.id IS NULL THEN 'payment without order' WHEN p.id IS NULL THEN 'order without payment' WHEN o.total = p.amount THEN 'match' ELSE 'mismatch' END AS recon
FROM orders o FULL JOIN payments p ON o.id = p.order_id
;
-- name: manager_self_join
SELECT e.id, e.name AS employee, m.name AS manager FROM employees e LEFT JOIN employees m ON m.id = e.manager_id
;
-- name: earns_more_than_manager
select e.name as employee, e.salary, m.salary as manager_salary from employees e join employees m on e.manager_id = m.id where e.salary > m.salary
;
-- name: skip_level_manager
SELECT e.id, m.id AS mgr, mm.id AS skip FROM employees e LEFT JOIN employees m ON e.manager_id = m.id LEFT JOIN employees mm ON m.manager_id = mm.id
;
-- name: colleagues_pairs
SELECT a.id AS a_id, b.id AS b_id, a.department FROM employees a JOIN employees b ON a.department = b.department AND a.id < b.id
;
-- name: same_salary_pairs
SELECT a.name AS a, b.name AS b, a.salary FROM employees a INNER JOIN employees b ON a.salary = b.salary AND a.id <> b.id
;
-- name: hired_before_manager
SELECT e.id, e.hired, m.hired AS m_hired FROM employees e, employees m WHERE e.manager_id = m.id AND e.hired < m.hired
;
-- name: duplicate_emails_self
SELECT DISTINCT a.id, a.email FROM customers a JOIN customers b ON lower(a.email) = lower(b.email) AND a.id <> b.id
;
-- name: same_birthday
SELECT a.id AS first_id, b.id AS second_id FROM customers a JOIN customers b ON month(a.birthday) = month(b.birthday) AND day(a.birthday) = day(b.birthday) AND a.id < b.id
;
-- name: products_same_brand_cheaper
SELECT p.id, q.id AS alt_id, p.price - q.price AS saving FROM products p JOIN products q ON lower(q.brand) = lower(p.brand) AND q.category = p.category AND q.price < p.price
;
-- name: co_purchased_pairs
SELECT a.product_id AS p1, b.product_id AS p2, a.order_id FROM items a JOIN items b ON a.order_id = b.order_id AND a.product_id < b.product_id
;
-- name: next_orders_within_week
SELECT a.id, b.id AS next_id FROM orders a JOIN orders b ON a.customer_id = b.customer_id AND b.placed > a.placed AND b.placed <= a.placed + INTERVAL 7 DAY
;
-- name: price_at_order_asof
SELECT i.order_id, i.line, i.price AS charged, pr.price AS list_price, pr.valid_from
FROM (SELECT it.order_id, it.line, it.product_id, it.price, o.placed FROM items it JOIN orders o ON o.id = it.order_id) i
ASOF JOIN prices pr ON pr.product_id = i.product_id AND i.placed >= pr.valid_from
;
-- name: price_at_order_asof_left
WITH lines AS (SELECT it.order_id, it.line, it.product_id, o.placed FROM items it JOIN orders o ON o.id = it.order_id)
SELECT l.order_id, l.line, l.product_id, pr.price FROM lines l ASOF LEFT JOIN prices pr ON l.product_id = pr.product_id AND l.placed >= pr.valid_from
;
-- name: asof_using_price
SELECT s.product_id, s.warehouse, s.counted, p.price FROM stock s ASOF JOIN prices p ON s.product_id = p.product_id AND s.counted > p.valid_from
;
-- name: asof_rate_for_order
SELECT o.id, o.total, x.day, round(o.total * x.rate, 2) AS total_eur
FROM (SELECT o.id, o.total, o.placed::DATE AS d, r.currency FROM orders o JOIN customers c ON c.id = o.customer_id JOIN regions r ON r.country = c.country) o
ASOF LEFT JOIN rates x ON o.currency = x.currency AND o.d >= x.day
;
-- name: asof_next_price
select s.product_id, s.warehouse, n.valid_from as next_change from stock s asof left join prices n on n.product_id = s.product_id and s.counted < n.valid_from
;
-- name: asof_stock_value
SELECT s.warehouse, s.product_id, s.quantity * p.price AS value
FROM stock s ASOF JOIN prices p ON p.product_id = s.product_id AND s.counted >= p.valid_from
WHERE s.quantity > 0
;
-- name: range_join_price_validity
WITH pv AS (SELECT product_id, price, valid_from, lead(valid_from) OVER (PARTITION BY product_id ORDER BY valid_from) AS valid_to FROM prices)
SELECT i.order_id, i.line, pv.price FROM items i JOIN orders o ON o.id = i.order_id JOIN pv ON pv.product_id = i.product_id AND o.placed >= pv.valid_from AND (o.placed < pv.valid_to OR pv.valid_to IS NULL)
;
-- name: range_join_salary_bands
SELECT e.id, e.name, b.band FROM employees e JOIN (VALUES ('junior', 0, 50000), ('mid', 50000, 90000), ('senior', 90000, 1000000)) AS b(band, lo, hi) ON e.salary >= b.lo AND e.salary < b.hi
;
-- name: range_join_credit_tiers
SELECT c.id, t.tier FROM customers c LEFT JOIN (SELECT 'bronze' AS tier, -100 AS lo, 100 AS hi UNION ALL SELECT 'silver', 100, 1000 UNION ALL SELECT 'gold', 1000, 999999) t ON c.credit >= t.lo AND c.credit < t.hi
;
-- name: inequality_only_join
SELECT a.id AS emp, b.id AS richer FROM employees a JOIN employees b ON a.salary < b.salary
;
-- name: cross_join_category_warehouse
SELECT c.category, w.warehouse FROM (SELECT DISTINCT category FROM products) c CROSS JOIN (SELECT DISTINCT warehouse FROM stock) w
;
-- name: stock_matrix_missing
SELECT p.id AS product_id, w.warehouse, coalesce(s.quantity, 0) AS qty
FROM products p CROSS JOIN (SELECT DISTINCT warehouse FROM stock) w
LEFT JOIN stock s ON s.product_id = p.id AND s.warehouse = w.warehouse
;
-- name: five_table_join
SELECT o.id AS order_id, i.line, c.country, r.region, p.category, i.quantity * i.price AS revenue
FROM orders o
JOIN items i ON i.order_id = o.id
JOIN products p ON p.id = i.product_id
JOIN customers c ON c.id = o.customer_id
JOIN regions r ON r.country = c.country
WHERE o.status IN ('paid', 'shipped')
;
-- name: five_table_left_chain
select o.id, i.line, p.brand, c.segment, r.region
from orders o
left join items i on i.order_id = o.id
left join products p on p.id = i.product_id
left join customers c on c.id = o.customer_id
left join regions r on r.country = c.country
;
-- name: mixed_inner_left
SELECT o.id, c.name, p.method, p.amount FROM orders o JOIN customers c ON c.id = o.customer_id LEFT JOIN payments p ON p.order_id = o.id AND p.amount > 0 WHERE c.active IS NOT FALSE
;
-- name: left_join_filter_in_on
SELECT c.id, o.id AS web_order FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.channel = 'web'
;
-- name: left_join_filter_in_where
SELECT c.id, o.id AS web_order FROM customers c LEFT JOIN orders o ON o.customer_id = c.id WHERE o.channel = 'web' OR o.id IS NULL
;
-- name: left_join_constant_on
SELECT c.id, r.currency FROM customers c LEFT JOIN regions r ON r.country = c.country AND c.segment = 'vip'
;
-- name: join_nested_parens
SELECT c.id, o.id AS order_id, i.line FROM customers c LEFT JOIN (orders o JOIN items i ON i.order_id = o.id) ON o.customer_id = c.id
;
-- name: join_subquery_totals
SELECT o.id, o.total, t.lines_total, o.total - t.lines_total AS gap
FROM orders o JOIN (SELECT order_id, sum(quantity * price) AS lines_total FROM items GROUP BY order_id) t ON t.order_id = o.id
;
-- name: join_subquery_left_paid
SELECT o.id, o.total, coalesce(pd.paid, 0) AS paid, o.total - coalesce(pd.paid, 0) AS open_amount
FROM orders AS o LEFT JOIN (SELECT order_id, SUM(amount) AS paid FROM payments WHERE ok GROUP BY order_id) AS pd ON pd.order_id = o.id
;
-- name: join_on_expression
SELECT v.visitor, v.page, p.name FROM visits v JOIN products p ON p.id = TRY_CAST(regexp_extract(v.page, '^/product/(\d+)$', 1) AS BIGINT)
;
-- name: join_on_lower
SELECT a.id, b.id AS other FROM products a JOIN products b ON lower(a.brand) = lower(b.brand) AND a.id <> b.id WHERE a.brand <> b.brand
;
-- name: join_null_safe
SELECT a.id AS x, b.id AS y FROM customers a JOIN customers b ON a.city IS NOT DISTINCT FROM b.city AND a.id < b.id
;
-- name: join_null_safe_regions
SELECT r1.country AS c1, r2.country AS c2 FROM regions r1 JOIN regions r2 ON r1.currency IS NOT DISTINCT FROM r2.currency WHERE r1.country < r2.country
;
-- name: join_or_condition
SELECT o.id, c.id AS cid FROM orders o JOIN customers c ON o.customer_id = c.id OR (c.email = 'shared@example.com' AND o.total > 1000)
;
-- name: join_events_customers
SELECT e.kind, e.at AS ts, c.name FROM events e JOIN customers c ON c.id = e.customer_id
;
-- name: join_events_left_customers
SELECT e.id, e.kind, coalesce(c.segment, 'anonymous') AS segment FROM events e LEFT JOIN customers c ON e.customer_id = c.id
;
-- name: events_join_events_signup_purchase
SELECT s.customer_id, s.at AS signup_at, p.at AS purchase_at FROM events s JOIN events p ON p.customer_id = s.customer_id AND p.kind = 'purchase' AND p.at > s.at WHERE s.kind = 'signup'
;
-- name: events_near_orders
SELECT o.id, e.kind, e.at - o.placed AS delta FROM orders o JOIN events e ON e.customer_id = o.customer_id AND e.at BETWEEN o.placed - INTERVAL 1 DAY AND o.placed + INTERVAL 1 DAY
;
-- name: last_event_before_order_asof
SELECT o.id, e.last_at FROM orders o ASOF LEFT JOIN (SELECT DISTINCT customer_id, "at" AS last_at FROM events WHERE "at" IS NOT NULL) e ON e.customer_id = o.customer_id AND o.placed >= e.last_at
;
-- name: orders_rates_exact_day
SELECT o.id, x.currency, round(x.rate, 4) AS rate FROM orders o JOIN rates x ON x.day = o.placed::DATE
;
-- name: rates_cross_pairs
SELECT a.day, a.currency AS base, b.currency AS quote, round(b.rate / a.rate, 6) AS cross_rate FROM rates a JOIN rates b USING (day) WHERE a.currency <> b.currency
;
-- name: rates_day_over_day
SELECT t.currency, t.day, round(t.rate - y.rate, 6) AS change FROM rates t JOIN rates y ON y.currency = t.currency AND y.day = t.day - 15
;
-- name: stock_transfer_candidates
SELECT lo.product_id, hi.warehouse AS from_wh, lo.warehouse AS to_wh, (hi.quantity - greatest(lo.quantity, 0)) // 2 AS move_qty
FROM stock lo JOIN stock hi ON hi.product_id = lo.product_id AND hi.warehouse <> lo.warehouse
WHERE lo.quantity <= 3 AND hi.quantity >= 10
;
-- name: stock_for_open_orders
SELECT o.id, i.product_id, i.quantity AS wanted, s.warehouse, s.quantity AS available FROM orders o JOIN items i ON i.order_id = o.id JOIN stock s ON s.product_id = i.product_id AND s.quantity >= i.quantity WHERE o.status IN ('new', 'paid')
;
-- name: discontinued_still_in_stock
SELECT p.id, p.name, p.discontinued, s.warehouse, s.quantity FROM products p JOIN stock s ON s.product_id = p.id WHERE p.discontinued <= s.counted::DATE AND s.quantity > 0
;
-- name: products_never_stocked
SELECT p.id, p.name FROM products p LEFT JOIN stock s ON s.product_id = p.id WHERE s.product_id IS NULL
;
-- name: price_changes_self
SELECT a.product_id, a.price AS old_price, b.price AS new_price, b.valid_from FROM prices a JOIN prices b ON a.product_id = b.product_id AND a.valid_from < b.valid_from LEFT JOIN prices m ON m.product_id = a.product_id AND m.valid_from > a.valid_from AND m.valid_from < b.valid_from WHERE m.product_id IS NULL
;
-- name: price_drift_vs_catalog
SELECT p.id, p.price AS catalog_price, pr.price AS hist_price FROM products p JOIN prices pr ON pr.product_id = p.id WHERE pr.price IS DISTINCT FROM p.price
;
-- name: sold_below_catalog
SELECT i.order_id, i.line, p.price - i.price AS delta FROM items i JOIN products p ON p.id = i.product_id AND i.price < p.price
;
-- name: customer_orders_before_join
SELECT c.id, o.id AS order_id FROM customers c JOIN orders o ON o.customer_id = c.id AND o.placed < c.joined
;
-- name: domestic_currency_customers
SELECT c.id, c.name, coalesce(r.currency, '?') AS cur FROM regions r RIGHT JOIN customers c ON c.country = r.country AND r.region = 'EU'
;
-- name: full_join_three
SELECT coalesce(s.product_id, pr.product_id, p.id) AS product_id, s.warehouse, pr.valid_from, p.name
FROM stock s FULL JOIN prices pr ON pr.product_id = s.product_id FULL JOIN products p ON p.id = coalesce(s.product_id, pr.product_id)
;
-- name: right_join_chain
SELECT c.name, o.id AS order_id, p.id AS payment_id FROM customers c RIGHT JOIN orders o ON o.customer_id = c.id RIGHT JOIN payments p ON p.order_id = o.id
;
-- name: left_then_inner
SELECT o.id, c.name, i.line FROM orders o LEFT JOIN customers c ON c.id = o.customer_id JOIN items i ON i.order_id = o.id
;
-- name: semi_join_chain
SELECT p.id, p.name FROM products p SEMI JOIN items i ON i.product_id = p.id ANTI JOIN stock s ON s.product_id = p.id AND s.quantity > 0
;
-- name: semi_join_using
SELECT country, currency FROM regions SEMI JOIN customers USING (country)
;
-- name: anti_join_using
SELECT id, country FROM customers ANTI JOIN regions USING (country)
;
-- name: from_first_join
FROM orders o JOIN payments p ON p.order_id = o.id SELECT o.id AS oid, p.id AS pid, p.method WHERE p.method IN ('card', 'paypal')
;
-- name: from_first_three
FROM customers c
JOIN orders o ON o.customer_id = c.id
JOIN items i ON i.order_id = o.id
SELECT c.id AS customer, o.id AS ord, i.line, i.quantity
WHERE i.quantity > 1
;
-- name: quoted_identifiers_join
SELECT "o"."id" AS "Order Id", "c"."name" AS "Customer Name", "o"."total" AS "Total" FROM "orders" "o" INNER JOIN "customers" "c" ON "c"."id" = "o"."customer_id"
;
-- name: star_join_exclude
SELECT o.* EXCLUDE (note, coupon), c.name AS customer_name, c.segment FROM orders o JOIN customers c ON c.id = o.customer_id
;
-- name: visits_self_sequence
SELECT a.visitor, a.page AS from_page, b.page AS to_page FROM visits a JOIN visits b ON a.visitor = b.visitor AND b.at > a.at AND b.at <= a.at + INTERVAL '2 hours'
;
-- name: visits_referred_by_shop
SELECT v.visitor, v.page, r.page AS prev FROM visits v LEFT JOIN visits r ON r.visitor = v.visitor AND r.at < v.at AND r.page = '/home' WHERE v.page = '/checkout'
;
-- name: payment_late
SELECT p.id, o.id AS order_id, (p.paid_at AT TIME ZONE 'UTC') - o.placed AS delay FROM payments p JOIN orders o ON o.id = p.order_id WHERE (p.paid_at AT TIME ZONE 'UTC') > o.placed + INTERVAL 14 DAY
;
-- name: payment_method_country
SELECT DISTINCT p.method, c.country FROM payments p JOIN orders o ON o.id = p.order_id JOIN customers c ON c.id = o.customer_id WHERE p.ok
;
-- name: employee_customer_name_match
SELECT e.id AS employee_id, c.id AS customer_id FROM employees e JOIN customers c ON lower(split_part(e.name, ' ', 1)) = lower(split_part(c.name, ' ', 1)) OR left(lower(e.name), 1) = left(lower(c.name), 1)
;
-- name: join_list_contains
SELECT c.id, s.segment FROM customers c JOIN (SELECT DISTINCT lower(segment) AS segment FROM customers WHERE segment IS NOT NULL) s ON list_contains(c.tags, s.segment)
;
-- name: join_two_keys_mapping
SELECT i.order_id, i.line, s.warehouse FROM items i JOIN stock s ON (i.product_id, i.quantity) = (s.product_id, s.quantity)
;
-- name: join_json_key
SELECT e.id, m.channel FROM events e JOIN (VALUES ('mail', 'owned'), ('ad', 'paid')) m(source, channel) ON m.source = e.payload->>'source'
;
-- name: join_date_part_equality
SELECT o.id, e.name FROM orders o JOIN employees e ON month(e.hired) = month(o.placed) AND day(e.hired) = day(o.placed)
;
-- name: wide_denormalized_orders
SELECT
    o.id                                        AS order_id,
    o.placed                                    AS placed_at,
    coalesce(c.name, 'guest')                   AS customer,
    coalesce(c.segment, 'none')                 AS segment,
    c.address.zip                               AS zip,
    r.currency,
    o.total,
    p.method                                    AS payment_method,
    p.ok                                        AS payment_ok,
    o.coupon IS NOT NULL                        AS has_coupon
FROM orders o
LEFT JOIN customers c ON c.id = o.customer_id
LEFT JOIN regions   r ON r.country = c.country
LEFT JOIN payments  p ON p.order_id = o.id
;
-- name: count_customers
SELECT count(*) AS n FROM customers
;
-- name: order_totals_overall
SELECT count(*) AS orders, count(customer_id) AS with_customer, sum(total) AS revenue, avg(total) AS aov, min(placed) AS first_order, max(placed) AS last_order FROM orders
;
-- name: orders_by_status
SELECT status, count(*) AS n FROM orders GROUP BY status
;
-- name: orders_by_status_sum
select status, count(*) n, sum(total) revenue, min(total) lo, max(total) hi from orders group by 1
;
-- name: revenue_by_month
SELECT date_trunc('month', placed) AS month, sum(total) AS revenue FROM orders WHERE status <> 'cancelled' GROUP BY 1
;
-- name: revenue_by_month_channel_all
SELECT date_trunc('month', placed) AS month, channel, count(*) AS n, sum(total) AS revenue FROM orders GROUP BY ALL
;
-- name: revenue_by_country
SELECT c.country, count(DISTINCT o.customer_id) AS buyers, count(*) AS orders, sum(o.total) AS revenue FROM orders o JOIN customers c ON c.id = o.customer_id GROUP BY c.country
;
-- name: revenue_by_region
SELECT r.region, sum(o.total) AS revenue FROM orders o JOIN customers c ON c.id = o.customer_id LEFT JOIN regions r USING (country) GROUP BY r.region
;
-- name: customer_ltv
SELECT c.id, c.name, count(o.id) AS n_orders, coalesce(sum(o.total), 0) AS ltv, max(o.placed) AS last_order FROM customers c LEFT JOIN orders o ON o.customer_id = c.id GROUP BY c.id, c.name
;
-- name: customer_order_stats
SELECT customer_id, count(*) AS n, avg(total) AS avg_total, median(total) AS med_total, round(stddev_samp(total), 4) AS sd FROM orders WHERE customer_id IS NOT NULL GROUP BY customer_id
;
-- name: repeat_customers
SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id HAVING count(*) > 2
;
-- name: big_spenders_having
SELECT customer_id, sum(total) AS spent FROM orders WHERE status IN ('paid','shipped') GROUP BY customer_id HAVING sum(total) >= 200 AND count(*) FILTER (WHERE channel = 'web') > 0
;
-- name: status_filter_pivot
SELECT channel,
  count(*) FILTER (WHERE status = 'new') AS new_orders,
  count(*) FILTER (WHERE status = 'paid') AS paid_orders,
  count(*) FILTER (WHERE status = 'shipped') AS shipped_orders,
  sum(total) FILTER (WHERE status = 'cancelled') AS cancelled_total
FROM orders GROUP BY channel
;
-- name: status_case_pivot
select channel, sum(case when status = 'returned' then 1 else 0 end) as returned, sum(case when status = 'cancelled' then total else 0 end) as cancelled_value, count(case when coupon is not null then 1 end) as with_coupon from orders group by channel
;
-- name: order_value_histogram
SELECT CASE WHEN total < 20 THEN '0-20' WHEN total < 100 THEN '20-100' WHEN total < 500 THEN '100-500' WHEN total IS NULL THEN 'null' ELSE '500+' END AS bin, count(*) AS n FROM orders GROUP BY bin
;
-- name: order_value_bins_floor
SELECT (total // 50) * 50 AS bin_start, count(*) AS n FROM orders WHERE total IS NOT NULL GROUP BY ALL
;
-- name: histogram_sum_columns
SELECT sum((total < 50)::INT) AS lt50, sum((total >= 50 AND total < 200)::INT) AS lt200, sum((total >= 200)::INT) AS rest FROM orders
;
-- name: price_quantiles
SELECT category, quantile_cont(price, 0.25) AS p25, quantile_cont(price, 0.5) AS p50, quantile_cont(price, 0.9) AS p90 FROM products GROUP BY category
;
-- name: latency_percentiles
SELECT page, count(*) AS hits, quantile_disc(ms, 0.5) AS p50, quantile_disc(ms, 0.95) AS p95, max(ms) AS worst FROM visits GROUP BY page
;
-- name: latency_quantile_list
SELECT quantile_cont(ms, [0.1, 0.5, 0.9, 0.99]) AS q FROM visits
;
-- name: latency_percentile_within
SELECT page, percentile_cont(0.75) WITHIN GROUP (ORDER BY ms) AS p75, percentile_disc(0.25) WITHIN GROUP (ORDER BY ms DESC) AS d25 FROM visits GROUP BY page
;
-- name: median_salary_department
SELECT department, median(salary) AS median_salary, mad(salary) AS mad_salary, count(*) AS headcount FROM employees GROUP BY department
;
-- name: salary_spread
SELECT department, max(salary) - min(salary) AS spread, round(stddev_pop(salary), 3) AS sd FROM employees GROUP BY department HAVING count(*) > 1
;
-- name: mode_channel
SELECT customer_id, mode(channel ORDER BY channel) AS favourite_channel FROM orders GROUP BY customer_id
;
-- name: mode_page
SELECT visitor, mode(page ORDER BY page) AS top_page, count(DISTINCT page) AS pages FROM visits GROUP BY visitor
;
-- name: string_agg_products
SELECT i.order_id, string_agg(p.name, ', ' ORDER BY i.line) AS products FROM items i JOIN products p ON p.id = i.product_id GROUP BY i.order_id
;
-- name: string_agg_distinct
SELECT country, string_agg(DISTINCT segment, '/' ORDER BY segment) AS segments FROM customers GROUP BY country
;
-- name: list_orders_customer
SELECT customer_id, list(id ORDER BY placed, id) AS order_ids FROM orders GROUP BY customer_id
;
-- name: list_distinct_methods
SELECT order_id, list(DISTINCT method ORDER BY method) AS methods, bool_and(ok) AS all_ok, bool_or(ok) AS any_ok FROM payments GROUP BY order_id
;
-- name: list_of_structs
SELECT order_id, list({'p': product_id, 'q': quantity} ORDER BY line) AS basket FROM items GROUP BY order_id
;
-- name: array_agg_filter
SELECT department, array_agg(name ORDER BY name, id) FILTER (WHERE salary > 50000) AS well_paid FROM employees GROUP BY department
;
-- name: arg_max_order
SELECT customer_id, arg_max(id, (total, id)) AS biggest_order, max(total) AS biggest_total FROM orders WHERE total IS NOT NULL GROUP BY customer_id
;
-- name: arg_min_price
SELECT category, arg_min(name, (price, id)) AS cheapest, min(price) AS price FROM products WHERE price IS NOT NULL GROUP BY category
;
-- name: last_price_arg_max
SELECT product_id, arg_max(price, valid_from) AS current_price, max(valid_from) AS since FROM prices GROUP BY product_id
;
-- name: arg_max_top3
SELECT department, arg_max(id, (salary, id), 3) AS top3_ids FROM employees WHERE salary IS NOT NULL GROUP BY department
;
-- name: max_n
SELECT channel, max(total, 3) AS top3_totals, min(total, 2) AS bottom2 FROM orders GROUP BY channel
;
-- name: first_last_order
SELECT customer_id, first(status ORDER BY placed, id) AS first_status, last(status ORDER BY placed, id) AS last_status FROM orders WHERE placed IS NOT NULL GROUP BY customer_id
;
-- name: any_value_single
SELECT id, any_value(name) AS name, count(*) AS n FROM products GROUP BY id
;
-- name: count_distinct_many
SELECT count(DISTINCT customer_id) AS customers, count(DISTINCT channel) AS channels, count(DISTINCT coupon) AS coupons, count(DISTINCT placed::DATE) AS days FROM orders
;
-- name: count_distinct_pairs
SELECT count(DISTINCT (customer_id, channel)) AS pairs FROM orders
;
-- name: sum_distinct
SELECT channel, sum(DISTINCT total) AS sum_distinct, avg(DISTINCT total) AS avg_distinct FROM orders GROUP BY channel
;
-- name: count_if
SELECT country, count_if(active) AS active_n, count_if(NOT active) AS inactive_n, count(*) - count(active) AS unknown_n FROM customers GROUP BY country
;
-- name: active_ratio
SELECT segment, round(100.0 * count(*) FILTER (WHERE active) / count(*), 2) AS pct_active FROM customers GROUP BY segment
;
-- name: bool_aggregates
SELECT status, bool_and(shipped IS NOT NULL) AS all_shipped, bool_or(coupon IS NOT NULL) AS any_coupon FROM orders GROUP BY status
;
-- name: bit_aggregates
SELECT order_id, bit_or(line) AS bor, bit_and(quantity) AS band, bit_xor(quantity) AS bxor FROM items GROUP BY order_id
;
-- name: product_aggregate
SELECT order_id, round(product(quantity), 0) AS qty_product FROM items GROUP BY order_id
;
-- name: item_net_by_order
SELECT order_id, count(*) AS n_lines, sum(quantity) AS units, sum(quantity * price * (1 - discount)) AS net FROM items GROUP BY order_id
;
-- name: product_sales
SELECT p.id, p.name, coalesce(sum(i.quantity), 0) AS units, coalesce(sum(i.quantity * i.price), 0) AS revenue, count(DISTINCT i.order_id) AS orders FROM products p LEFT JOIN items i ON i.product_id = p.id GROUP BY p.id, p.name
;
-- name: category_brand_rollup
SELECT category, brand, count(*) AS n, avg(price) AS avg_price FROM products GROUP BY ROLLUP (category, brand)
;
-- name: rollup_grouping_labels
SELECT CASE WHEN grouping(c.country) = 1 THEN 'ALL' ELSE coalesce(c.country, '?') END AS country,
       CASE WHEN grouping(c.segment) = 1 THEN 'ALL' ELSE coalesce(c.segment, '?') END AS segment,
       count(*) AS n, sum(c.credit) AS credit
FROM customers c GROUP BY ROLLUP (c.country, c.segment)
;
-- name: cube_channel_status
SELECT channel, status, count(*) AS n, sum(total) AS total, grouping_id(channel, status) AS gid FROM orders GROUP BY CUBE (channel, status)
;
-- name: grouping_sets_orders
SELECT channel, status, date_trunc('month', placed) AS month, count(*) AS n
FROM orders
GROUP BY GROUPING SETS ((channel), (status), (date_trunc('month', placed)), ())
;
-- name: grouping_sets_nested
SELECT department, year(hired) AS y, count(*) AS n, sum(salary) AS payroll FROM employees GROUP BY GROUPING SETS ((department, year(hired)), (department), ())
;
-- name: rollup_having
SELECT warehouse, product_id, sum(quantity) AS qty FROM stock GROUP BY ROLLUP (warehouse, product_id) HAVING sum(quantity) > 5
;
-- name: group_by_expression
SELECT lower(brand) AS brand, count(*) AS n, sum(price) AS total_price FROM products GROUP BY lower(brand)
;
-- name: group_by_email_domain
SELECT lower(split_part(email, '@', 2)) AS domain, count(*) AS n FROM customers WHERE email LIKE '%@%' GROUP BY domain HAVING n > 1
;
-- name: group_by_alias_having_alias
SELECT year(joined) AS cohort, count(*) AS members, sum(credit) AS credit FROM customers GROUP BY cohort HAVING members >= 2
;
-- name: group_from_first
FROM orders SELECT channel, sum(total) AS revenue GROUP BY channel
;
-- name: group_from_first_all
FROM items SELECT product_id, sum(quantity) AS q, max(price) AS p GROUP BY ALL HAVING sum(quantity) > 3
;
-- name: distinct_visitors_per_day
SELECT v.at::DATE AS day, count(DISTINCT visitor) AS visitors, count(*) AS hits FROM visits v GROUP BY v.at::DATE
;
-- name: visits_hourly_heatmap
SELECT dayofweek(v.at) AS dow, hour(v.at) AS hr, count(*) AS hits, sum(ms) AS total_ms FROM visits v WHERE v.at IS NOT NULL GROUP BY 1, 2
;
-- name: visits_avg_ms
SELECT page, avg(ms) AS avg_ms, sum(ms) AS sum_ms, count(ms) AS n_ms FROM visits GROUP BY page
;
-- name: visits_by_source
select case when referrer ilike '%google%' or referrer ilike '%bing%' then 'search' when referrer = 'direct' or referrer is null then 'direct' else 'referral' end as source, count(*) as hits, count(distinct visitor) as uv from visits group by all
;
-- name: bounce_candidates
SELECT visitor, v.at::DATE AS day FROM visits v GROUP BY visitor, v.at::DATE HAVING count(*) = 1
;
-- name: visits_duplicates
SELECT visitor, "at", page, referrer, ms, count(*) AS copies FROM visits GROUP BY ALL HAVING count(*) > 1
;
-- name: duplicates_email
SELECT email, count(*) AS n, list(id ORDER BY id) AS ids FROM customers WHERE email IS NOT NULL GROUP BY email HAVING count(*) > 1
;
-- name: events_by_kind
SELECT kind, count(*) AS n, count(DISTINCT customer_id) AS people, min(e.at) AS first_seen, max(e.at) AS last_seen FROM events e GROUP BY kind
;
-- name: events_amount_by_source
SELECT payload->>'source' AS source, sum(TRY_CAST(payload->>'amount' AS DECIMAL(12,2))) AS amount, count(*) AS n FROM events GROUP BY 1
;
-- name: events_label_lengths
SELECT len(labels) AS n_labels, count(*) AS n FROM events GROUP BY len(labels)
;
-- name: events_funnel_flags
SELECT customer_id,
  bool_or(kind = 'signup') AS signed_up,
  bool_or(kind = 'add_to_cart') AS carted,
  bool_or(kind = 'purchase') AS purchased,
  min(e.at) FILTER (kind = 'purchase') AS first_purchase
FROM events e WHERE customer_id IS NOT NULL GROUP BY customer_id
;
-- name: payments_success_rate
SELECT method, count(*) AS tries, sum(ok::INT) AS good, sum(ok::INT) / count(*) AS rate FROM payments GROUP BY method
;
-- name: payments_by_day_tz
SELECT date_trunc('day', paid_at AT TIME ZONE 'Europe/Amsterdam') AS local_day, sum(amount) AS amount FROM payments WHERE ok GROUP BY 1
;
-- name: payments_net_by_method
SELECT method, sum(amount) AS net, sum(amount) FILTER (amount > 0) AS charged, sum(amount) FILTER (amount < 0) AS refunded FROM payments GROUP BY method
;
-- name: revenue_mix_share
SELECT category, sum(rev) AS revenue, round(sum(rev) / max(tot), 4) AS share
FROM (SELECT p.category, i.quantity * i.price AS rev FROM items i JOIN products p ON p.id = i.product_id), (SELECT sum(i2.quantity * i2.price) AS tot FROM items i2)
GROUP BY category
;
-- name: stock_by_warehouse
SELECT warehouse, sum(quantity) AS units, count(*) FILTER (WHERE quantity <= 0) AS out_of_stock, max(counted) AS last_count FROM stock GROUP BY warehouse
;
-- name: stock_value_by_category
SELECT p.category, s.warehouse, sum(s.quantity * p.price) AS stock_value FROM stock s JOIN products p ON p.id = s.product_id GROUP BY p.category, s.warehouse
;
-- name: stock_wide
SELECT product_id, max(quantity) FILTER (WHERE warehouse = 'AMS') AS ams, max(quantity) FILTER (WHERE warehouse = 'BER') AS ber, max(quantity) FILTER (WHERE warehouse = 'NYC') AS nyc, sum(quantity) AS total FROM stock GROUP BY product_id
;
-- name: headcount_by_manager
SELECT m.id, m.name, count(e.id) AS reports, sum(e.salary) AS payroll FROM employees m LEFT JOIN employees e ON e.manager_id = m.id GROUP BY m.id, m.name
;
-- name: hires_per_year
SELECT year(hired) AS y, count(*) AS hires, string_agg(name, '; ' ORDER BY hired, id) AS who FROM employees GROUP BY year(hired)
;
-- name: payroll_by_department_pct
SELECT department, sum(salary) AS payroll, round(100 * sum(salary) / (SELECT sum(salary) FROM employees), 2) AS pct FROM employees GROUP BY department
;
-- name: rates_monthly
SELECT currency, date_trunc('month', day) AS month, avg(TRY_CAST(rate AS DECIMAL(18,6))) AS avg_rate, min(rate) AS lo, max(rate) AS hi, count(rate) AS n FROM rates GROUP BY ALL
;
-- name: rates_arg_max_latest
SELECT currency, arg_max(rate, day) AS latest_rate, max(day) FILTER (rate IS NOT NULL) AS as_of FROM rates GROUP BY currency
;
-- name: weight_rounded_avg
SELECT category, round(avg(TRY_CAST(weight AS DECIMAL(12,3))), 6) AS avg_weight, round(sum(weight), 4) AS sum_weight, max(weight) AS heaviest FROM products GROUP BY category
;
-- name: correlation_price_weight
SELECT round(corr(weight, price), 4) AS r, round(regr_slope(price, weight), 4) AS slope, regr_count(price, weight) AS n FROM products
;
-- name: covariance_quantity_price
SELECT round(covar_pop(quantity, price), 4) AS cov FROM items
;
-- name: skew_kurt_totals
SELECT channel, round(skewness(total), 3) AS skew, round(kurtosis(total), 3) AS kurt FROM orders GROUP BY channel
;
-- name: entropy_pages
SELECT visitor, round(entropy(page), 4) AS h FROM visits GROUP BY visitor
;
-- name: geometric_mean_price
SELECT category, round(exp(avg(ln(price))), 4) AS geo_mean FROM products WHERE price > 0 GROUP BY category
;
-- name: weighted_average_price
SELECT product_id, sum(price * quantity) / nullif(sum(quantity), 0) AS wavg_price FROM items GROUP BY product_id
;
-- name: avg_lead_hours
SELECT channel, avg(date_diff('hour', placed, shipped)) AS avg_hours, count(*) FILTER (shipped IS NULL) AS pending FROM orders GROUP BY channel
;
-- name: sum_of_intervals
SELECT channel, max(shipped - placed) AS slowest, min(shipped - placed) AS fastest FROM orders GROUP BY channel
;
-- name: avg_date_epoch
SELECT segment, make_timestamp((avg(epoch(joined)::BIGINT)::BIGINT) * 1000000) AS avg_joined FROM customers GROUP BY segment
;
-- name: coupon_effect
SELECT coupon IS NOT NULL AS has_coupon, count(*) AS n, avg(total) AS aov, median(total) AS median_total FROM orders WHERE status <> 'cancelled' GROUP BY 1
;
-- name: coupon_normalized
SELECT upper(coupon) AS code, count(*) AS used, count(DISTINCT customer_id) AS users, sum(total) AS gross FROM orders WHERE coupon IS NOT NULL GROUP BY upper(coupon)
;
-- name: channel_by_weekday
SELECT strftime(placed, '%a') AS wd, count(*) FILTER (channel = 'web') AS web, count(*) FILTER (channel = 'app') AS app, count(*) FILTER (channel NOT IN ('web','app') OR channel IS NULL) AS other FROM orders WHERE placed IS NOT NULL GROUP BY wd
;
-- name: two_level_aggregate
SELECT n_orders, count(*) AS customers FROM (SELECT customer_id, count(*) AS n_orders FROM orders WHERE customer_id IS NOT NULL GROUP BY customer_id) t GROUP BY n_orders
;
-- name: avg_basket_size
SELECT avg(n) AS avg_lines, max(n) AS max_lines, avg(units) AS avg_units FROM (SELECT order_id, count(*) AS n, sum(quantity) AS units FROM items GROUP BY order_id)
;
-- name: group_by_struct_field
SELECT address.zip AS zip, count(*) AS n FROM customers GROUP BY address.zip
;
-- name: group_by_list
SELECT tags, count(*) AS n, min(id) AS sample_id FROM customers GROUP BY tags
;
-- name: group_by_json_text
SELECT attributes->>'color' AS color, attributes->>'size' AS size, count(*) AS n FROM products GROUP BY ALL HAVING count(*) >= 1
;
-- name: group_by_bool_null
SELECT active, count(*) AS n, sum(credit) AS credit FROM customers GROUP BY active
;
-- name: having_without_group
SELECT sum(total) AS total FROM orders HAVING count(*) > 10
;
-- name: group_by_constant_expr
SELECT 'all' AS scope, count(*) AS n, max(id) AS max_id FROM orders GROUP BY 'all'
;
-- name: group_no_aggregate
SELECT country, city FROM customers GROUP BY country, city
;
-- name: aggregate_empty_filter
SELECT sum(total) AS s, count(*) AS n, max(placed) AS m, list(id ORDER BY id) AS ids FROM orders WHERE status = 'does_not_exist'
;
-- name: nested_case_aggregate
SELECT c.segment, sum(CASE WHEN o.status = 'returned' THEN -o.total WHEN o.status = 'cancelled' THEN 0 ELSE o.total END) AS net FROM orders o LEFT JOIN customers c ON c.id = o.customer_id GROUP BY c.segment
;
-- name: having_subexpression
SELECT brand, avg(price) AS ap, count(*) AS n FROM products GROUP BY brand HAVING avg(price) > 20 OR count(*) = 1
;
-- name: max_by_min_by
SELECT channel, max_by(id, (total, id)) AS top_order, min_by(id, (total, id)) AS low_order FROM orders WHERE total IS NOT NULL GROUP BY channel
;
-- name: customers_demographics
SELECT country, year(birthday) // 10 * 10 AS decade, count(*) AS n, avg(credit) AS avg_credit FROM customers WHERE birthday IS NOT NULL GROUP BY country, decade
;
-- name: aggregate_over_five_tables
SELECT r.region, p.category, count(DISTINCT o.id) AS orders, sum(i.quantity) AS units, sum(i.quantity * i.price * (1 - coalesce(i.discount, 0))) AS net
FROM items i JOIN orders o ON o.id = i.order_id JOIN products p ON p.id = i.product_id JOIN customers c ON c.id = o.customer_id JOIN regions r ON r.country = c.country
GROUP BY r.region, p.category
;
-- name: in_subquery_customers
SELECT id, name FROM customers WHERE id IN (SELECT customer_id FROM orders)
;
-- name: in_subquery_filtered
select id, total from orders where customer_id in (select id from customers where country = 'DE' or segment = 'vip')
;
-- name: not_in_nullable
SELECT id, name FROM customers WHERE id NOT IN (SELECT customer_id FROM orders)
;
-- name: not_in_null_safe
SELECT id, name FROM customers WHERE id NOT IN (SELECT customer_id FROM orders WHERE customer_id IS NOT NULL)
;
-- name: not_in_left_nullable
SELECT id, country FROM customers WHERE country NOT IN (SELECT country FROM regions WHERE region = 'EU')
;
-- name: in_tuple
SELECT order_id, line FROM items WHERE (product_id, price) IN (SELECT id, price FROM products)
;
-- name: in_aggregated
SELECT id, name FROM products WHERE id IN (SELECT product_id FROM items GROUP BY product_id HAVING sum(quantity) > 5)
;
-- name: in_nested_three_levels
SELECT name FROM customers WHERE id IN (SELECT customer_id FROM orders WHERE id IN (SELECT order_id FROM items WHERE product_id IN (SELECT id FROM products WHERE category = 'electronics')))
;
-- name: exists_orders
SELECT c.id FROM customers c WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id)
;
-- name: exists_two_conditions
SELECT c.id, c.name FROM customers c WHERE EXISTS (SELECT * FROM orders o WHERE o.customer_id = c.id AND o.total > 100) AND EXISTS (SELECT * FROM events e WHERE e.customer_id = c.id AND e.kind = 'login')
;
-- name: not_exists_payments
SELECT o.id, o.status FROM orders o WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.order_id = o.id AND p.ok)
;
-- name: not_exists_newer_price
SELECT p.product_id, p.price, p.valid_from FROM prices p WHERE NOT EXISTS (SELECT 1 FROM prices q WHERE q.product_id = p.product_id AND q.valid_from > p.valid_from)
;
-- name: exists_or_exists
SELECT p.id, p.name FROM products p WHERE EXISTS (SELECT 1 FROM items i WHERE i.product_id = p.id AND i.quantity >= 3) OR EXISTS (SELECT 1 FROM stock s WHERE s.product_id = p.id AND s.quantity > 50)
;
-- name: exists_in_select_list
SELECT c.id, EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id AND o.status = 'returned') AS has_return FROM customers c
;
-- name: exists_in_case
SELECT o.id, CASE WHEN EXISTS (SELECT 1 FROM payments p WHERE p.order_id = o.id AND p.ok) THEN 'paid' WHEN EXISTS (SELECT 1 FROM payments p WHERE p.order_id = o.id) THEN 'attempted' ELSE 'open' END AS pay_state FROM orders o
;
-- name: in_as_boolean_column
SELECT id, country IN (SELECT country FROM regions WHERE region = 'EU') AS in_eu FROM customers
;
-- name: bought_all_in_category
SELECT c.id FROM customers c WHERE NOT EXISTS (
  SELECT 1 FROM products p WHERE p.category = 'kitchen' AND NOT EXISTS (
    SELECT 1 FROM orders o JOIN items i ON i.order_id = o.id WHERE o.customer_id = c.id AND i.product_id = p.id))
;
-- name: exists_inequality_correlated
SELECT e.id, e.name FROM employees e WHERE EXISTS (SELECT 1 FROM employees x WHERE x.department = e.department AND x.salary > e.salary)
;
-- name: not_exists_top_earner
SELECT e.department, e.id, e.salary FROM employees e WHERE e.salary IS NOT NULL AND NOT EXISTS (SELECT 1 FROM employees x WHERE x.department = e.department AND x.salary > e.salary)
;
-- name: scalar_above_average
SELECT id, total FROM orders WHERE total > (SELECT avg(total) FROM orders)
;
-- name: scalar_max_equals
select * from employees where salary = (select max(salary) from employees)
;
-- name: scalar_latest_day
SELECT currency, round(rate, 4) AS rate FROM rates WHERE day = (SELECT max(day) FROM rates)
;
-- name: scalar_in_select
SELECT id, total, (SELECT max(total) FROM orders) AS max_total, total / (SELECT sum(total) FROM orders) > 0.05 AS big FROM orders
;
-- name: scalar_correlated_count
SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer_id = c.id) AS n_orders FROM customers c
;
-- name: scalar_correlated_sum
SELECT c.id, c.name, (SELECT sum(o.total) FROM orders o WHERE o.customer_id = c.id AND o.status <> 'cancelled') AS spent FROM customers c
;
-- name: scalar_correlated_many
SELECT p.id,
  (SELECT count(*) FROM items i WHERE i.product_id = p.id) AS n_lines,
  (SELECT coalesce(sum(s.quantity), 0) FROM stock s WHERE s.product_id = p.id) AS in_stock,
  (SELECT max(pr.valid_from) FROM prices pr WHERE pr.product_id = p.id) AS last_repriced
FROM products p
;
-- name: scalar_correlated_latest_order
SELECT c.id, (SELECT o.id FROM orders o WHERE o.customer_id = c.id ORDER BY o.placed DESC NULLS LAST, o.id DESC LIMIT 1) AS last_order_id FROM customers c
;
-- name: scalar_correlated_price_at
SELECT o.id, i.line, (SELECT pr.price FROM prices pr WHERE pr.product_id = i.product_id AND pr.valid_from <= o.placed ORDER BY pr.valid_from DESC LIMIT 1) AS price_then FROM orders o JOIN items i ON i.order_id = o.id
;
-- name: scalar_correlated_where_avg
SELECT e.id, e.name, e.department, e.salary FROM employees e WHERE e.salary > (SELECT avg(x.salary) FROM employees x WHERE x.department = e.department)
;
-- name: scalar_correlated_two_levels
SELECT o.id FROM orders o WHERE o.total > (SELECT avg(o2.total) FROM orders o2 WHERE o2.customer_id IN (SELECT c2.id FROM customers c2 WHERE c2.country = (SELECT c.country FROM customers c WHERE c.id = o.customer_id)))
;
-- name: scalar_correlated_having
SELECT p.category, avg(p.price) AS avg_price FROM products p GROUP BY p.category HAVING avg(p.price) > (SELECT avg(price) FROM products)
;
-- name: having_in_subquery
SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id HAVING customer_id IN (SELECT id FROM customers WHERE active)
;
-- name: having_gt_average_count
SELECT customer_id, count(*) AS n FROM orders WHERE customer_id IS NOT NULL GROUP BY customer_id HAVING count(*) > (SELECT count(*) / count(DISTINCT customer_id) FROM orders)
;
-- name: having_max_group
SELECT channel, sum(total) AS revenue FROM orders GROUP BY channel HAVING sum(total) >= ALL (SELECT sum(total) FROM orders GROUP BY channel HAVING sum(total) IS NOT NULL)
;
-- name: having_exists
SELECT o.customer_id, sum(o.total) AS t FROM orders o GROUP BY o.customer_id HAVING EXISTS (SELECT 1 FROM events e WHERE e.customer_id = o.customer_id AND e.kind = 'refund')
;
-- name: any_subquery
SELECT id, price FROM products WHERE price > ANY (SELECT price FROM products WHERE category = 'kitchen')
;
-- name: all_subquery
SELECT id, name, price FROM products WHERE price >= ALL (SELECT price FROM products WHERE price IS NOT NULL)
;
-- name: some_equals_subquery
SELECT id FROM orders WHERE id = ANY (SELECT order_id FROM payments WHERE ok)
;
-- name: not_equal_all
SELECT id, country FROM customers WHERE country <> ALL (SELECT country FROM regions)
;
-- name: derived_table_filter
SELECT t.customer_id, t.n FROM (SELECT customer_id, count(*) AS n FROM orders GROUP BY customer_id) AS t WHERE t.n >= 3
;
-- name: derived_nested
SELECT z.m, z.rev FROM (SELECT y.m, sum(y.total) AS rev FROM (SELECT date_trunc('month', x.placed) AS m, x.total FROM (SELECT * FROM orders WHERE status <> 'cancelled') x) y GROUP BY y.m) z WHERE z.rev > 100
;
-- name: derived_column_aliases
SELECT t.a AS category, t.b AS n FROM (SELECT category, count(*) FROM products GROUP BY category) t(a, b)
;
-- name: derived_join_derived
SELECT a.customer_id, a.n_orders, b.n_events FROM (SELECT customer_id, count(*) n_orders FROM orders GROUP BY 1) a JOIN (SELECT customer_id, count(*) n_events FROM events GROUP BY 1) b ON a.customer_id = b.customer_id
;
-- name: derived_full_join_derived
SELECT coalesce(a.customer_id, b.customer_id) AS customer_id, coalesce(n_orders, 0) AS n_orders, coalesce(n_events, 0) AS n_events
FROM (SELECT customer_id, count(*) AS n_orders FROM orders GROUP BY 1) a FULL JOIN (SELECT customer_id, count(*) AS n_events FROM events GROUP BY 1) b USING (customer_id)
;
-- name: customers_diff_from_mean
SELECT id, credit - (SELECT avg(credit) FROM customers WHERE segment IS NOT NULL) > 0 AS above_mean FROM customers WHERE credit IS NOT NULL
;
-- name: normalized_minmax
SELECT id, round((price - (SELECT min(price) FROM products)) / nullif((SELECT max(price) FROM products) - (SELECT min(price) FROM products), 0), 4) AS price_norm FROM products
;
-- name: cross_join_scalar_stats
SELECT o.id, round((o.total - s.m) / nullif(round(s.sd, 6), 0), 3) AS z FROM orders o, (SELECT avg(total) AS m, stddev_samp(total) AS sd FROM orders) s
;
-- name: in_values_list_subquery
SELECT id, status FROM orders WHERE status IN (SELECT s FROM (VALUES ('new'), ('paid')) v(s))
;
-- name: in_union_subquery
SELECT id FROM customers WHERE id IN (SELECT customer_id FROM orders WHERE channel = 'app' UNION SELECT customer_id FROM events WHERE kind = 'purchase')
;
-- name: in_except_subquery
SELECT id, name FROM products WHERE id IN (SELECT product_id FROM stock EXCEPT SELECT product_id FROM items)
;
-- name: not_exists_same_email_older
SELECT c.id, c.email FROM customers c WHERE c.email IS NOT NULL AND NOT EXISTS (SELECT 1 FROM customers d WHERE d.email = c.email AND d.id < c.id)
;
-- name: exists_uncorrelated
SELECT id, name FROM regions r JOIN customers c ON c.country = r.country WHERE EXISTS (SELECT 1 FROM rates WHERE rate > 100)
;
-- name: not_exists_uncorrelated
SELECT warehouse, product_id FROM stock WHERE NOT EXISTS (SELECT 1 FROM orders WHERE status = 'lost')
;
-- name: correlated_rank
SELECT p.id, p.price, 1 + (SELECT count(*) FROM products q WHERE q.category = p.category AND q.price > p.price) AS price_rank FROM products p WHERE p.price IS NOT NULL
;
-- name: correlated_running_count
SELECT o.id, o.customer_id, (SELECT count(*) FROM orders x WHERE x.customer_id = o.customer_id AND (x.placed < o.placed OR (x.placed = o.placed AND x.id <= o.id))) AS nth FROM orders o
;
-- name: correlated_exists_join_inside
SELECT c.id FROM customers c WHERE EXISTS (SELECT 1 FROM orders o JOIN items i ON i.order_id = o.id JOIN products p ON p.id = i.product_id WHERE o.customer_id = c.id AND p.brand = 'Acme')
;
-- name: correlated_string_agg
SELECT c.id, (SELECT string_agg(DISTINCT o.channel, ',' ORDER BY o.channel) FROM orders o WHERE o.customer_id = c.id) AS channels FROM customers c
;
-- name: array_subquery
SELECT c.id, ARRAY(SELECT o.id FROM orders o WHERE o.customer_id = c.id ORDER BY o.id) AS order_ids FROM customers c
;
-- name: correlated_in
SELECT o.id FROM orders o WHERE 'card' IN (SELECT p.method FROM payments p WHERE p.order_id = o.id)
;
-- name: correlated_not_in
SELECT o.id FROM orders o WHERE 'card' NOT IN (SELECT p.method FROM payments p WHERE p.order_id = o.id)
;
-- name: correlated_min_date_diff
SELECT c.id, date_diff('day', c.joined, (SELECT min(o.placed)::DATE FROM orders o WHERE o.customer_id = c.id)) AS days_to_first_order FROM customers c
;
-- name: scalar_subquery_group_by
SELECT department, count(*) AS n, (SELECT count(*) FROM employees) AS company FROM employees GROUP BY department
;
-- name: subquery_in_aggregate
SELECT c.country, sum((SELECT count(*) FROM orders o WHERE o.customer_id = c.id)) AS orders FROM customers c GROUP BY c.country
;
-- name: subquery_in_order_limit
SELECT id, name, (SELECT count(*) FROM items i WHERE i.product_id = p.id) AS n FROM products p ORDER BY n DESC, id LIMIT 5
;
-- name: subquery_in_join_condition
SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer_id AND o.total > (SELECT median(total) FROM orders)
;
-- name: subquery_in_case_when
SELECT id, CASE WHEN total >= (SELECT quantile_cont(total, 0.9) FROM orders) THEN 'top' WHEN total <= (SELECT quantile_cont(total, 0.1) FROM orders) THEN 'bottom' ELSE 'mid' END AS decile FROM orders WHERE total IS NOT NULL
;
-- name: from_subquery_with_limit
SELECT sum(total) AS top5_total FROM (SELECT total FROM orders WHERE total IS NOT NULL ORDER BY total DESC, id LIMIT 5)
;
-- name: coalesce_scalar_subquery
SELECT r.country, coalesce((SELECT round(x.rate, 4) FROM rates x WHERE x.currency = r.currency ORDER BY x.day DESC LIMIT 1), 1) AS fx FROM regions r
;
-- name: products_above_category_median
SELECT id, category, price FROM products p WHERE price > (SELECT median(q.price) FROM products q WHERE q.category = p.category)
;
-- name: is_null_scalar_subquery
SELECT c.id FROM customers c WHERE (SELECT max(o.placed) FROM orders o WHERE o.customer_id = c.id) IS NULL
;
-- name: managers_only
SELECT id, name FROM employees WHERE id IN (SELECT DISTINCT manager_id FROM employees WHERE manager_id IS NOT NULL)
;
-- name: leaf_employees
SELECT id, name FROM employees e WHERE NOT EXISTS (FROM employees r WHERE r.manager_id = e.id)
;
-- name: second_highest_salary
SELECT max(salary) AS second_salary FROM employees WHERE salary < (SELECT max(salary) FROM employees)
;
-- name: nth_salary_correlated
SELECT e.id, e.salary FROM employees e WHERE 2 = (SELECT count(DISTINCT f.salary) FROM employees f WHERE f.salary > e.salary)
;
-- name: row_number_customer_orders
SELECT id, customer_id, row_number() OVER (PARTITION BY customer_id ORDER BY placed, id) AS nth FROM orders
;
-- name: running_total_customer
SELECT id, customer_id, placed, total, sum(total) OVER (PARTITION BY customer_id ORDER BY placed, id ROWS UNBOUNDED PRECEDING) AS running FROM orders
;
-- name: running_total_range
select id, placed, sum(total) over (order by placed) as cum_total from orders
;
-- name: running_total_global_rows
SELECT id, placed, sum(total) OVER (ORDER BY placed NULLS FIRST, id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS cum_total FROM orders
;
-- name: reverse_running_total
SELECT id, sum(total) OVER (ORDER BY id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS remaining FROM orders
;
-- name: moving_average_3
SELECT id, customer_id, avg(total) OVER (PARTITION BY customer_id ORDER BY placed, id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS ma3 FROM orders WHERE placed IS NOT NULL
;
-- name: centered_moving_average
SELECT currency, day, round(avg(rate) OVER (PARTITION BY currency ORDER BY day ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING), 4) AS smooth FROM rates
;
-- name: range_7_days
SELECT id, placed, sum(total) OVER (ORDER BY placed RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW) AS last7 FROM orders WHERE placed IS NOT NULL
;
-- name: range_30_days_partition
SELECT id, customer_id, count(*) OVER (PARTITION BY customer_id ORDER BY placed RANGE BETWEEN INTERVAL 30 DAYS PRECEDING AND CURRENT ROW) AS n30, max(total) OVER (PARTITION BY customer_id ORDER BY placed RANGE BETWEEN INTERVAL 30 DAYS PRECEDING AND CURRENT ROW) AS max30 FROM orders WHERE placed IS NOT NULL
;
-- name: range_numeric
SELECT id, price, count(*) OVER (ORDER BY price RANGE BETWEEN 10 PRECEDING AND 10 FOLLOWING) AS price_peers FROM products WHERE price IS NOT NULL
;
-- name: range_following_only
SELECT id, customer_id, count(*) OVER (PARTITION BY customer_id ORDER BY placed RANGE BETWEEN INTERVAL 1 SECOND FOLLOWING AND INTERVAL 14 DAYS FOLLOWING) AS orders_next_14d FROM orders WHERE placed IS NOT NULL
;
-- name: groups_frame
SELECT id, department, salary, sum(salary) OVER (PARTITION BY department ORDER BY salary GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s2 FROM employees
;
-- name: exclude_current_row
SELECT id, department, avg(salary) OVER (PARTITION BY department ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING EXCLUDE CURRENT ROW) AS others_avg FROM employees
;
-- name: exclude_ties
SELECT id, salary, count(*) OVER (ORDER BY salary RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW EXCLUDE TIES) AS c FROM employees
;
-- name: lag_order
SELECT id, customer_id, placed, lag(placed) OVER (PARTITION BY customer_id ORDER BY placed, id) AS prev_placed, lag(total, 1, 0) OVER (PARTITION BY customer_id ORDER BY placed, id) AS prev_total FROM orders
;
-- name: days_between_orders
SELECT id, customer_id, date_diff('day', lag(placed) OVER w, placed) AS gap_days, lead(status) OVER w AS next_status FROM orders WINDOW w AS (PARTITION BY customer_id ORDER BY placed, id)
;
-- name: lead_price_validity
SELECT product_id, price, valid_from, coalesce(lead(valid_from) OVER (PARTITION BY product_id ORDER BY valid_from), TIMESTAMP '9999-12-31') AS valid_to FROM prices
;
-- name: price_change_pct
SELECT product_id, valid_from, price, round(100 * (price - lag(price) OVER w) / lag(price) OVER w, 2) AS pct FROM prices WINDOW w AS (PARTITION BY product_id ORDER BY valid_from)
;
-- name: rate_change
SELECT currency, day, round(rate - lag(rate) OVER (PARTITION BY currency ORDER BY day), 4) AS delta, round(rate / first_value(rate) OVER (PARTITION BY currency ORDER BY day) - 1, 4) AS since_start FROM rates
;
-- name: rate_fill_forward
SELECT currency, day, round(last_value(rate IGNORE NULLS) OVER (PARTITION BY currency ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), 4) AS rate_filled FROM rates
;
-- name: first_last_nth_value
SELECT id, customer_id, first_value(total) OVER w AS first_total, last_value(total) OVER w AS last_total, nth_value(total, 2) OVER w AS second_total FROM orders WINDOW w AS (PARTITION BY customer_id ORDER BY placed, id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
;
-- name: rank_salary
SELECT id, department, salary, rank() OVER (PARTITION BY department ORDER BY salary DESC) AS rk, dense_rank() OVER (PARTITION BY department ORDER BY salary DESC) AS drk FROM employees
;
-- name: percent_rank_cume
SELECT id, total, round(percent_rank() OVER (ORDER BY total), 4) AS pr, round(cume_dist() OVER (ORDER BY total), 4) AS cd FROM orders WHERE total IS NOT NULL
;
-- name: ntile_quartiles
SELECT id, credit, ntile(4) OVER (ORDER BY credit, id) AS quartile FROM customers WHERE credit IS NOT NULL
;
-- name: qualify_latest_order
SELECT id, customer_id, placed, status FROM orders QUALIFY row_number() OVER (PARTITION BY customer_id ORDER BY placed DESC NULLS LAST, id DESC) = 1
;
-- name: qualify_top3_products
SELECT p.category, p.id, sum(i.quantity) AS units FROM products p JOIN items i ON i.product_id = p.id GROUP BY p.category, p.id QUALIFY row_number() OVER (PARTITION BY p.category ORDER BY sum(i.quantity) DESC, p.id) <= 3
;
-- name: qualify_rank_ties
SELECT id, department, salary FROM employees QUALIFY rank() OVER (PARTITION BY department ORDER BY salary DESC NULLS LAST) <= 2
;
-- name: qualify_dedupe_email
select id, email, joined from customers where email is not null qualify row_number() over (partition by lower(email) order by joined desc nulls last, id) = 1
;
-- name: qualify_named_window
SELECT product_id, valid_from, price, row_number() OVER w AS rn FROM prices WINDOW w AS (PARTITION BY product_id ORDER BY valid_from DESC) QUALIFY rn = 1
;
-- name: qualify_count_over
SELECT id, name, brand FROM products QUALIFY count(*) OVER (PARTITION BY brand) > 3
;
-- name: qualify_above_partition_avg
SELECT id, channel, total FROM orders QUALIFY total > avg(total) OVER (PARTITION BY channel)
;
-- name: top_n_subquery
SELECT * FROM (SELECT id, customer_id, total, row_number() OVER (PARTITION BY customer_id ORDER BY total DESC NULLS LAST, id) AS rn FROM orders WHERE customer_id IS NOT NULL) t WHERE rn <= 2
;
-- name: share_of_total
SELECT id, customer_id, round(total / sum(total) OVER (PARTITION BY customer_id), 4) AS share_cust, round(total / sum(total) OVER (), 6) AS share_all FROM orders
;
-- name: pareto_products
SELECT product_id, revenue, sum(revenue) OVER (ORDER BY revenue DESC, product_id ROWS UNBOUNDED PRECEDING) AS cum, round(sum(revenue) OVER (ORDER BY revenue DESC, product_id ROWS UNBOUNDED PRECEDING) / sum(revenue) OVER (), 4) AS cum_share
FROM (SELECT product_id, sum(quantity * price) AS revenue FROM items WHERE product_id IS NOT NULL GROUP BY product_id)
;
-- name: abc_classification
WITH r AS (SELECT product_id, sum(quantity * price) AS revenue FROM items GROUP BY product_id),
c AS (SELECT product_id, revenue, sum(revenue) OVER (ORDER BY revenue DESC, product_id ROWS UNBOUNDED PRECEDING) AS cum, sum(revenue) OVER () AS tot FROM r)
SELECT product_id, revenue, CASE WHEN cum <= tot * 0.8 THEN 'A' WHEN cum <= tot * 0.95 THEN 'B' ELSE 'C' END AS abc FROM c
;
-- name: monthly_growth
WITH m AS (SELECT date_trunc('month', placed) AS month, sum(total) AS rev FROM orders WHERE placed IS NOT NULL GROUP BY 1)
SELECT month, rev, lag(rev) OVER (ORDER BY month) AS prev_rev, round(100 * (rev / lag(rev) OVER (ORDER BY month) - 1), 2) AS growth_pct FROM m
;
-- name: monthly_cumulative_ytd
SELECT month, rev, sum(rev) OVER (PARTITION BY year(month) ORDER BY month) AS ytd FROM (SELECT date_trunc('month', placed) AS month, sum(total) AS rev FROM orders WHERE placed IS NOT NULL GROUP BY 1) m
;
-- name: aggregate_inside_window
SELECT channel, sum(total) AS revenue, rank() OVER (ORDER BY sum(total) DESC) AS rk, round(sum(total) / sum(sum(total)) OVER (), 4) AS share FROM orders GROUP BY channel
;
-- name: daily_running_signups
SELECT joined, n, sum(n) OVER (ORDER BY joined) AS total_customers FROM (SELECT joined, count(*) AS n FROM customers WHERE joined IS NOT NULL GROUP BY joined)
;
-- name: visits_daily_rolling
WITH d AS (SELECT v.at::DATE AS day, count(*) AS hits FROM visits v WHERE v.at IS NOT NULL GROUP BY 1)
SELECT day, hits, sum(hits) OVER (ORDER BY day RANGE BETWEEN INTERVAL 2 DAYS PRECEDING AND CURRENT ROW) AS hits_3d FROM d
;
-- name: visits_rank_slowest
SELECT visitor, page, v.at AS ts, ms, rank() OVER (PARTITION BY page ORDER BY ms DESC NULLS LAST) AS slow_rank FROM visits v
;
-- name: visits_distinct_sequence
SELECT visitor, ts, page, lag(page) OVER (PARTITION BY visitor ORDER BY ts, page) AS prev_page, lead(page) OVER (PARTITION BY visitor ORDER BY ts, page) AS next_page FROM (SELECT DISTINCT visitor, "at" AS ts, page FROM visits WHERE "at" IS NOT NULL) v
;
-- name: sessionize_visits
WITH v AS (SELECT DISTINCT visitor, "at" AS ts FROM visits WHERE visitor IS NOT NULL AND "at" IS NOT NULL),
g AS (SELECT visitor, ts, CASE WHEN ts - lag(ts) OVER (PARTITION BY visitor ORDER BY ts) <= INTERVAL 4 HOURS THEN 0 ELSE 1 END AS is_new FROM v)
SELECT visitor, ts, sum(is_new) OVER (PARTITION BY visitor ORDER BY ts) AS session_no FROM g
;
-- name: session_summary
WITH v AS (SELECT visitor, "at" AS ts, count(*) AS hits, sum(ms) AS ms FROM visits WHERE visitor IS NOT NULL AND "at" IS NOT NULL GROUP BY ALL),
g AS (SELECT *, CASE WHEN lag(ts) OVER w IS NULL OR ts > lag(ts) OVER w + INTERVAL '30 minutes' THEN 1 ELSE 0 END AS brk FROM v WINDOW w AS (PARTITION BY visitor ORDER BY ts)),
s AS (SELECT *, sum(brk) OVER (PARTITION BY visitor ORDER BY ts) AS sid FROM g)
SELECT visitor, sid, min(ts) AS started, max(ts) AS ended, sum(hits) AS hits, sum(ms) AS ms FROM s GROUP BY visitor, sid
;
-- name: islands_order_days
WITH d AS (SELECT DISTINCT placed::DATE AS day FROM orders WHERE placed IS NOT NULL),
i AS (SELECT day, day - CAST(row_number() OVER (ORDER BY day) AS INTEGER) AS grp FROM d)
SELECT min(day) AS from_day, max(day) AS to_day, count(*) AS days FROM i GROUP BY grp
;
-- name: gaps_order_days
SELECT day AS last_day, next_day, next_day - day - 1 AS idle_days FROM (SELECT day, lead(day) OVER (ORDER BY day) AS next_day FROM (SELECT DISTINCT placed::DATE AS day FROM orders WHERE placed IS NOT NULL)) WHERE next_day - day > 1
;
-- name: islands_order_ids
SELECT customer_id, min(id) AS from_id, max(id) AS to_id, count(*) AS n FROM (SELECT id, customer_id, row_number() OVER (ORDER BY id) - row_number() OVER (PARTITION BY customer_id ORDER BY id) AS grp FROM orders) GROUP BY customer_id, grp
;
-- name: status_streaks
SELECT status, min(id) AS first_id, count(*) AS streak FROM (SELECT id, status, id - row_number() OVER (PARTITION BY status ORDER BY id) AS g FROM orders) s GROUP BY status, g HAVING count(*) > 1
;
-- name: status_changes
SELECT id, customer_id, status, prev FROM (SELECT id, customer_id, status, lag(status) OVER (PARTITION BY customer_id ORDER BY placed, id) AS prev FROM orders) WHERE prev IS DISTINCT FROM status
;
-- name: login_streaks
WITH days AS (SELECT DISTINCT customer_id, e.at::DATE AS d FROM events e WHERE customer_id IS NOT NULL AND e.at IS NOT NULL),
x AS (SELECT customer_id, d, d - (row_number() OVER (PARTITION BY customer_id ORDER BY d))::INT AS k FROM days)
SELECT customer_id, min(d) AS streak_start, count(*) AS streak_len FROM x GROUP BY customer_id, k
;
-- name: first_touch_source
SELECT visitor, referrer AS first_referrer, ts AS first_at FROM (SELECT visitor, referrer, "at" AS ts FROM visits WHERE "at" IS NOT NULL GROUP BY ALL) v QUALIFY row_number() OVER (PARTITION BY visitor ORDER BY ts, referrer NULLS LAST) = 1
;
-- name: cohort_retention
WITH firsts AS (SELECT customer_id, date_trunc('month', min(placed)) AS cohort FROM orders WHERE placed IS NOT NULL AND customer_id IS NOT NULL GROUP BY customer_id),
act AS (SELECT DISTINCT customer_id, date_trunc('month', placed) AS month FROM orders WHERE placed IS NOT NULL)
SELECT f.cohort, date_diff('month', f.cohort, a.month) AS period, count(DISTINCT a.customer_id) AS customers,
  round(count(DISTINCT a.customer_id) / first_value(count(DISTINCT a.customer_id)) OVER (PARTITION BY f.cohort ORDER BY date_diff('month', f.cohort, a.month)), 4) AS retention
FROM firsts f JOIN act a USING (customer_id) GROUP BY f.cohort, period
;
-- name: cohort_window_min
SELECT cohort, month, count(DISTINCT customer_id) AS active FROM (SELECT customer_id, date_trunc('month', placed) AS month, date_trunc('month', min(placed) OVER (PARTITION BY customer_id)) AS cohort FROM orders WHERE placed IS NOT NULL) GROUP BY cohort, month
;
-- name: cohort_pivot_columns
WITH f AS (SELECT id, customer_id, total, date_diff('month', min(placed) OVER (PARTITION BY customer_id), placed) AS m, date_trunc('month', min(placed) OVER (PARTITION BY customer_id)) AS cohort FROM orders WHERE placed IS NOT NULL)
SELECT cohort, sum(total) FILTER (m = 0) AS m0, sum(total) FILTER (m = 1) AS m1, sum(total) FILTER (m = 2) AS m2, sum(total) FILTER (m >= 3) AS later FROM f GROUP BY cohort
;
-- name: funnel_steps
WITH s AS (SELECT customer_id, min("at") FILTER (kind = 'view') AS t1, min("at") FILTER (kind = 'add_to_cart') AS t2, min("at") FILTER (kind = 'purchase') AS t3 FROM events WHERE customer_id IS NOT NULL GROUP BY customer_id)
SELECT count(t1) AS viewed, count(CASE WHEN t2 > t1 THEN 1 END) AS carted, count(CASE WHEN t2 > t1 AND t3 > t2 THEN 1 END) AS purchased FROM s
;
-- name: funnel_window_next_kind
SELECT kind, next_kind, count(*) AS n FROM (SELECT kind, lead(kind) OVER (PARTITION BY customer_id ORDER BY ts, kind) AS next_kind FROM (SELECT DISTINCT customer_id, kind, "at" AS ts FROM events WHERE "at" IS NOT NULL AND customer_id IS NOT NULL) u) GROUP BY kind, next_kind
;
-- name: time_to_second_order
SELECT customer_id, placed - prev AS gap FROM (SELECT customer_id, placed, lag(placed) OVER (PARTITION BY customer_id ORDER BY placed, id) AS prev, row_number() OVER (PARTITION BY customer_id ORDER BY placed, id) AS rn FROM orders WHERE placed IS NOT NULL AND customer_id IS NOT NULL) WHERE rn = 2
;
-- name: event_partition_counts
SELECT id, kind, count(*) OVER (PARTITION BY kind) AS kind_n, count(*) OVER (PARTITION BY customer_id) AS cust_n, max(e.at) OVER (PARTITION BY customer_id) AS last_seen FROM events e
;
-- name: event_range_window
SELECT customer_id, kind, e.at AS ts, count(*) OVER (PARTITION BY customer_id ORDER BY e.at RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW) AS last_week FROM events e WHERE e.at IS NOT NULL
;
-- name: filter_window_aggregate
SELECT id, customer_id, count(*) FILTER (WHERE status = 'returned') OVER (PARTITION BY customer_id ORDER BY placed, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS prior_returns FROM orders
;
-- name: prior_spend_feature
SELECT id, customer_id, coalesce(sum(total) OVER (PARTITION BY customer_id ORDER BY placed, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS prior_spend, count(*) OVER (PARTITION BY customer_id ORDER BY placed, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS prior_orders FROM orders WHERE customer_id IS NOT NULL
;
-- name: rolling_min_max
SELECT product_id, valid_from, price, min(price) OVER w AS lo, max(price) OVER w AS hi FROM prices WINDOW w AS (PARTITION BY product_id ORDER BY valid_from ROWS BETWEEN 3 PRECEDING AND CURRENT ROW)
;
-- name: median_over
SELECT id, department, salary, median(salary) OVER (PARTITION BY department) AS med, salary - median(salary) OVER (PARTITION BY department) AS diff FROM employees
;
-- name: stddev_over_zscore
SELECT id, channel, round((total - avg(total) OVER (PARTITION BY channel)) / nullif(round(stddev_samp(total) OVER (PARTITION BY channel), 6), 0), 3) AS z FROM orders
;
-- name: list_over
SELECT id, customer_id, list(channel) OVER (PARTITION BY customer_id ORDER BY placed, id ROWS UNBOUNDED PRECEDING) AS path FROM orders WHERE placed IS NOT NULL
;
-- name: string_agg_over
SELECT order_id, line, string_agg(product_id::VARCHAR, '>') OVER (PARTITION BY order_id ORDER BY line) AS so_far FROM items
;
-- name: count_distinct_over
SELECT id, customer_id, count(DISTINCT channel) OVER (PARTITION BY customer_id) AS n_channels FROM orders
;
-- name: max_ignore_cancelled
SELECT id, max(CASE WHEN status <> 'cancelled' THEN total END) OVER (PARTITION BY customer_id) AS best_valid, bool_or(status = 'cancelled') OVER (PARTITION BY customer_id) AS ever_cancelled FROM orders
;
-- name: payroll_cumulative
SELECT id, hired, salary, sum(salary) OVER (PARTITION BY department ORDER BY hired, id ROWS UNBOUNDED PRECEDING) AS payroll_to_date, row_number() OVER (PARTITION BY department ORDER BY hired, id) AS seniority FROM employees
;
-- name: stock_rank_in_warehouse
SELECT warehouse, product_id, quantity, row_number() OVER (PARTITION BY warehouse ORDER BY quantity DESC NULLS LAST, product_id) AS rk, quantity - max(quantity) OVER (PARTITION BY warehouse) AS behind_top FROM stock
;
-- name: fifo_allocation
WITH demand AS (SELECT i.order_id, i.line, i.product_id, i.quantity, sum(i.quantity) OVER (PARTITION BY i.product_id ORDER BY i.order_id, i.line ROWS UNBOUNDED PRECEDING) AS cum FROM items i WHERE i.product_id IS NOT NULL AND i.quantity IS NOT NULL),
supply AS (SELECT product_id, sum(greatest(quantity, 0)) AS qty FROM stock GROUP BY product_id)
SELECT d.order_id, d.line, least(d.quantity, greatest(0, coalesce(s.qty, 0) - (d.cum - d.quantity))) AS allocated FROM demand d LEFT JOIN supply s USING (product_id)
;
-- name: payment_retry_number
SELECT id, order_id, ok, row_number() OVER (PARTITION BY order_id ORDER BY paid_at, id) AS attempt, count(*) OVER (PARTITION BY order_id) AS attempts, sum(CASE WHEN ok THEN amount ELSE 0 END) OVER (PARTITION BY order_id ORDER BY paid_at, id ROWS UNBOUNDED PRECEDING) AS paid_so_far FROM payments
;
-- name: first_success_payment
SELECT order_id, id AS payment_id, paid_at FROM payments WHERE ok QUALIFY row_number() OVER (PARTITION BY order_id ORDER BY paid_at NULLS LAST, id) = 1
;
-- name: rfm_ntiles
WITH b AS (SELECT customer_id, max(placed) AS r, count(*) AS f, sum(total) AS m FROM orders WHERE customer_id IS NOT NULL GROUP BY customer_id)
SELECT customer_id, ntile(3) OVER (ORDER BY r NULLS FIRST, customer_id) AS r_score, ntile(3) OVER (ORDER BY f, customer_id) AS f_score, ntile(3) OVER (ORDER BY m NULLS FIRST, customer_id) AS m_score FROM b
;
-- name: outlier_iqr
SELECT id, category, price FROM (SELECT id, category, price, quantile_cont(price, 0.25) OVER (PARTITION BY category) AS q1, quantile_cont(price, 0.75) OVER (PARTITION BY category) AS q3 FROM products) t WHERE price > q3 + 0.5 * (q3 - q1) OR price < q1
;
-- name: multiple_window_defs
SELECT id, row_number() OVER by_day AS day_seq, sum(total) OVER by_cust AS cust_total, count(*) OVER (by_cust ORDER BY id) AS cust_seq FROM orders WINDOW by_day AS (PARTITION BY placed::DATE ORDER BY placed, id), by_cust AS (PARTITION BY customer_id)
;
-- name: window_in_expression
SELECT id, CASE WHEN total = max(total) OVER (PARTITION BY customer_id) THEN 'best' WHEN total = min(total) OVER (PARTITION BY customer_id) THEN 'worst' ELSE '' END AS mark, coalesce(total - lag(total) OVER (ORDER BY id), 0) AS delta FROM orders
;
-- name: peak_concurrency
WITH x AS (SELECT placed AS t, 1 AS d FROM orders WHERE placed IS NOT NULL AND shipped IS NOT NULL UNION ALL SELECT shipped, -1 FROM orders WHERE placed IS NOT NULL AND shipped IS NOT NULL),
y AS (SELECT t, sum(d) AS d FROM x GROUP BY t)
SELECT t, sum(d) OVER (ORDER BY t) AS open_orders FROM y
;
-- name: lag_two_steps
SELECT currency, day, round(rate, 4) AS rate, round(lag(rate, 2) OVER w, 4) AS lag2, round(lead(rate, 1, -1.0) OVER w, 4) AS lead1 FROM rates WINDOW w AS (PARTITION BY currency ORDER BY day)
;
-- name: local_peaks
SELECT currency, day FROM rates QUALIFY rate > lag(rate) OVER (PARTITION BY currency ORDER BY day) AND rate > lead(rate) OVER (PARTITION BY currency ORDER BY day)
;
-- name: from_first_window
FROM employees SELECT id, department, salary, rank() OVER (PARTITION BY department ORDER BY salary DESC NULLS LAST, id) AS pos QUALIFY pos = 1
;
-- name: arg_max_window
SELECT id, customer_id, arg_max(status, (placed, id)) OVER (PARTITION BY customer_id) AS latest_status FROM orders WHERE placed IS NOT NULL AND status IS NOT NULL
;
-- name: union_people
SELECT name, 'customer' AS role FROM customers UNION SELECT name, 'employee' FROM employees
;
-- name: union_all_activity
SELECT customer_id, placed AS ts, 'order' AS what FROM orders UNION ALL SELECT customer_id, "at", kind FROM events
;
-- name: union_all_three
select id as ref, total as amount, 'order' as src from orders union all select id, amount, 'payment' from payments union all select order_id, quantity * price, 'item' from items
;
-- name: union_by_name
SELECT id, name, country FROM customers UNION ALL BY NAME SELECT id, name, department FROM employees
;
-- name: union_by_name_distinct
SELECT product_id, price FROM prices UNION BY NAME SELECT price, id AS product_id FROM products
;
-- name: intersect_products
SELECT product_id FROM items INTERSECT SELECT product_id FROM stock
;
-- name: intersect_all_pages
SELECT page FROM visits WHERE visitor = 'v1' INTERSECT ALL SELECT page FROM visits WHERE visitor = 'v2'
;
-- name: except_ordered
SELECT id FROM products EXCEPT SELECT product_id FROM items
;
-- name: except_all_pages
SELECT page, referrer FROM visits WHERE visitor = 'v1' EXCEPT ALL SELECT page, referrer FROM visits WHERE visitor = 'v3'
;
-- name: except_union_parenthesized
(SELECT customer_id FROM orders WHERE channel = 'web' EXCEPT SELECT customer_id FROM orders WHERE channel = 'app') UNION ALL (SELECT customer_id FROM events WHERE kind = 'refund')
;
-- name: symmetric_difference
(SELECT country FROM customers EXCEPT SELECT country FROM regions) UNION (SELECT country FROM regions EXCEPT SELECT country FROM customers)
;
-- name: union_then_group
SELECT src, count(*) AS n, sum(amount) AS amount FROM (SELECT 'order' AS src, total AS amount FROM orders UNION ALL SELECT 'payment', amount FROM payments) u GROUP BY src
;
-- name: union_type_widening
SELECT id, salary AS money FROM employees UNION ALL SELECT id, credit FROM customers UNION ALL SELECT 0, 1
;
-- name: except_then_join
SELECT p.id, p.name FROM products p JOIN (SELECT id FROM products EXCEPT SELECT product_id FROM stock WHERE quantity > 0) x ON x.id = p.id
;
-- name: total_row_union
SELECT channel, sum(total) AS revenue FROM orders WHERE channel IS NOT NULL GROUP BY channel UNION ALL SELECT 'TOTAL', sum(total) FROM orders WHERE channel IS NOT NULL
;
-- name: intersect_precedence
SELECT id FROM customers WHERE active UNION SELECT customer_id FROM orders INTERSECT SELECT customer_id FROM events
;
-- name: distinct_country_segment
SELECT DISTINCT country, segment FROM customers
;
-- name: distinct_pages
select distinct split_part(page, '?', 1) as path from visits
;
-- name: distinct_visits_rows
SELECT DISTINCT * FROM visits
;
-- name: distinct_expression_date
SELECT DISTINCT placed::DATE AS day, channel FROM orders WHERE placed IS NOT NULL
;
-- name: distinct_labels_lists
SELECT DISTINCT labels FROM events
;
-- name: distinct_on_customer
SELECT DISTINCT ON (customer_id) customer_id, id, placed, total FROM orders ORDER BY customer_id, placed DESC NULLS LAST, id
;
-- name: distinct_on_product_price
SELECT DISTINCT ON (product_id) product_id, price, valid_from FROM prices ORDER BY product_id, valid_from DESC
;
-- name: distinct_on_two
SELECT DISTINCT ON (category, brand) category, brand, id, name, price FROM products ORDER BY category, brand, price DESC NULLS LAST, id
;
-- name: distinct_on_join
SELECT DISTINCT ON (c.id) c.id, c.name, o.id AS last_order, o.total FROM customers c LEFT JOIN orders o ON o.customer_id = c.id ORDER BY c.id, o.placed DESC NULLS LAST, o.id DESC
;
-- name: top10_orders
SELECT id, customer_id, total FROM orders ORDER BY total DESC NULLS LAST, id LIMIT 10
;
-- name: latest5_orders
SELECT id, placed, status FROM orders WHERE placed IS NOT NULL ORDER BY placed DESC, id DESC LIMIT 5
;
-- name: page_two_customers
SELECT id, name FROM customers ORDER BY name NULLS LAST, id LIMIT 5 OFFSET 5
;
-- name: top3_customers_revenue
SELECT customer_id, sum(total) AS revenue FROM orders WHERE customer_id IS NOT NULL GROUP BY customer_id ORDER BY revenue DESC NULLS LAST, customer_id LIMIT 3
;
-- name: top_pages_limit
SELECT page, count(*) AS hits FROM visits GROUP BY page ORDER BY hits DESC, page NULLS LAST LIMIT 4
;
-- name: bottom_stock_limit
SELECT product_id, warehouse, quantity FROM stock ORDER BY quantity NULLS FIRST, product_id, warehouse LIMIT 8
;
-- name: limit_visits_all_columns
SELECT visitor, v.at AS ts, page, referrer, ms FROM visits v ORDER BY v.at DESC NULLS LAST, visitor, page, referrer, ms LIMIT 12
;
-- name: order_by_all_limit
SELECT country, city, id FROM customers ORDER BY ALL LIMIT 7
;
-- name: fetch_first_rows
SELECT id, salary FROM employees ORDER BY salary DESC NULLS LAST, id FETCH FIRST 3 ROWS ONLY
;
-- name: offset_only
SELECT id, hired FROM employees ORDER BY hired NULLS LAST, id OFFSET 10
;
-- name: limit_union_parts
(SELECT id, total, 'high' AS side FROM orders WHERE total IS NOT NULL ORDER BY total DESC, id LIMIT 3) UNION ALL (SELECT id, total, 'low' FROM orders WHERE total IS NOT NULL ORDER BY total, id LIMIT 3)
;
-- name: limit_percent_expression
SELECT id, price FROM products WHERE price IS NOT NULL ORDER BY price DESC, id LIMIT (SELECT count(*) // 4 FROM products)
;
-- name: order_no_limit
SELECT id, name, joined FROM customers ORDER BY joined DESC, id
;
-- name: limit_distinct_on_subquery
SELECT category, id, price FROM (SELECT DISTINCT ON (category) category, id, price FROM products WHERE price IS NOT NULL ORDER BY category, price DESC, id) ORDER BY price DESC, category LIMIT 2
;
-- name: cte_paid_orders
WITH paid AS (SELECT * FROM orders WHERE status = 'paid') SELECT id, total FROM paid WHERE total > 20
;
-- name: cte_two_step_revenue
WITH lines AS (SELECT order_id, sum(quantity * price * (1 - coalesce(discount, 0))) AS net FROM items GROUP BY order_id)
SELECT o.id, o.customer_id, l.net FROM orders o JOIN lines l ON l.order_id = o.id
;
-- name: cte_kpi_daily
WITH o AS (
    SELECT placed::DATE AS day, count(*) AS orders, sum(total) AS revenue, count(DISTINCT customer_id) AS buyers
    FROM orders WHERE placed IS NOT NULL AND status <> 'cancelled' GROUP BY 1
), v AS (
    SELECT v.at::DATE AS day, count(*) AS hits, count(DISTINCT visitor) AS visitors FROM visits v WHERE v.at IS NOT NULL GROUP BY 1
)
SELECT coalesce(o.day, v.day) AS day, coalesce(orders, 0) AS orders, coalesce(revenue, 0) AS revenue, coalesce(buyers, 0) AS buyers, coalesce(hits, 0) AS hits, visitors
FROM o FULL JOIN v ON o.day = v.day
;
-- name: cte_customer_360
WITH ord AS (SELECT customer_id, count(*) AS n_orders, sum(total) AS spent, max(placed) AS last_order FROM orders GROUP BY customer_id),
     ev AS (SELECT customer_id, count(*) AS n_events, count(DISTINCT kind) AS n_kinds, max(events.at) AS last_event FROM events GROUP BY customer_id),
     pay AS (SELECT o.customer_id, sum(p.amount) AS paid FROM payments p JOIN orders o ON o.id = p.order_id WHERE p.ok GROUP BY o.customer_id)
SELECT c.id, c.name, c.segment, r.region, coalesce(ord.n_orders, 0) AS n_orders, coalesce(ord.spent, 0) AS spent, ord.last_order, coalesce(ev.n_events, 0) AS n_events, ev.n_kinds, ev.last_event, coalesce(pay.paid, 0) AS paid
FROM customers c
LEFT JOIN ord ON ord.customer_id = c.id
LEFT JOIN ev ON ev.customer_id = c.id
LEFT JOIN pay ON pay.customer_id = c.id
LEFT JOIN regions r ON r.country = c.country
;
-- name: cte_rfm_segments
WITH base AS (SELECT customer_id, date_diff('day', max(placed), TIMESTAMP '2024-06-01') AS recency, count(*) AS freq, sum(total) AS monetary FROM orders WHERE customer_id IS NOT NULL AND status NOT IN ('cancelled', 'returned') GROUP BY customer_id),
scored AS (SELECT *, CASE WHEN recency <= 60 THEN 3 WHEN recency <= 120 THEN 2 ELSE 1 END AS r, CASE WHEN freq >= 4 THEN 3 WHEN freq >= 2 THEN 2 ELSE 1 END AS f, CASE WHEN monetary >= 500 THEN 3 WHEN monetary >= 100 THEN 2 ELSE 1 END AS m FROM base),
labelled AS (SELECT *, r::VARCHAR || f::VARCHAR || m::VARCHAR AS code, CASE WHEN r + f + m >= 8 THEN 'champion' WHEN r = 1 AND f >= 2 THEN 'at risk' WHEN f = 1 THEN 'new' ELSE 'regular' END AS label FROM scored)
SELECT label, count(*) AS customers, sum(monetary) AS monetary, avg(recency) AS avg_recency FROM labelled GROUP BY label
;
-- name: cte_churn_features
with last_seen as (
  select customer_id, max(ts) as ts from (
    select customer_id, placed as ts from orders
    union all
    select customer_id, "at" from events
  ) x group by customer_id
), returns as (
  select customer_id, count(*) as n from orders where status = 'returned' group by customer_id
)
select c.id as customer_id, c.segment, date_diff('day', ls.ts, timestamp '2024-07-01') as days_silent, coalesce(rt.n, 0) as returns_n, coalesce(len(c.tags), 0) as n_tags, coalesce(c.credit, 0) < 0 as in_debt
from customers c left join last_seen ls on ls.customer_id = c.id left join returns rt on rt.customer_id = c.id
;
-- name: cte_funnel_conversion
WITH steps AS (SELECT customer_id, max((kind = 'view')::INT) AS v, max((kind = 'add_to_cart')::INT) AS a, max((kind = 'purchase')::INT) AS p FROM events WHERE customer_id IS NOT NULL GROUP BY customer_id),
tot AS (SELECT sum(v) AS viewers, sum(v * a) AS carters, sum(v * a * p) AS buyers FROM steps)
SELECT viewers, carters, buyers, round(carters / viewers, 3) AS view_to_cart, round(buyers / nullif(carters, 0), 3) AS cart_to_buy FROM tot
;
-- name: cte_margin_leakage
WITH charged AS (SELECT i.order_id, i.product_id, i.price * (1 - coalesce(i.discount, 0)) AS unit_net, i.quantity FROM items i),
list AS (SELECT id AS product_id, price AS list_price, category FROM products WHERE price > 0),
cmp AS (SELECT l.category, c.order_id, c.quantity * (l.list_price - c.unit_net) AS leak FROM charged c JOIN list l USING (product_id))
SELECT category, count(*) AS n_lines, sum(leak) AS leakage, sum(leak) FILTER (leak > 0) AS undercharged FROM cmp GROUP BY category HAVING count(*) >= 2
;
-- name: cte_fx_revenue
WITH cust AS (SELECT c.id, r.currency FROM customers c JOIN regions r USING (country)),
ord AS (SELECT o.id, o.total, o.placed::DATE AS day, cust.currency FROM orders o JOIN cust ON cust.id = o.customer_id WHERE o.placed IS NOT NULL),
fx AS (SELECT ord.id, ord.currency, ord.total, rt.rate FROM ord ASOF LEFT JOIN rates rt ON rt.currency = ord.currency AND rt.day <= ord.day)
SELECT currency, count(*) AS n, sum(total) AS local_total, sum(TRY_CAST(total * coalesce(rate, 1.0) AS DECIMAL(18,4))) AS converted FROM fx GROUP BY currency
;
-- name: cte_stock_cover
WITH sold AS (SELECT i.product_id, sum(i.quantity) AS units, count(DISTINCT o.placed::DATE) AS days FROM items i JOIN orders o ON o.id = i.order_id WHERE o.status IN ('paid', 'shipped') GROUP BY i.product_id),
onhand AS (SELECT product_id, sum(quantity) AS qty FROM stock WHERE quantity > 0 GROUP BY product_id)
SELECT p.id, p.name, coalesce(h.qty, 0) AS on_hand, s.units, round(coalesce(h.qty, 0) / (s.units / s.days), 2) AS days_cover FROM products p LEFT JOIN sold s ON s.product_id = p.id LEFT JOIN onhand h ON h.product_id = p.id WHERE p.discontinued IS NULL
;
-- name: cte_reorder_list
WITH h AS (SELECT product_id, sum(quantity) AS qty FROM stock GROUP BY product_id), d AS (SELECT product_id, sum(quantity) AS demand FROM items GROUP BY product_id)
SELECT p.id, p.brand, greatest(coalesce(d.demand, 0) - coalesce(h.qty, 0), 0) AS to_order FROM products p LEFT JOIN h ON h.product_id = p.id LEFT JOIN d ON d.product_id = p.id WHERE coalesce(d.demand, 0) > coalesce(h.qty, 0)
;
-- name: cte_reused_twice
WITH t AS (SELECT customer_id, sum(total) AS s FROM orders GROUP BY customer_id) SELECT a.customer_id, a.s FROM t a WHERE a.s > (SELECT avg(b.s) FROM t b)
;
-- name: cte_reused_self_join
WITH m AS (SELECT date_trunc('month', placed) AS month, channel, sum(total) AS rev FROM orders WHERE placed IS NOT NULL GROUP BY ALL) SELECT a.month, a.channel, a.rev, b.rev AS prev_rev, a.rev - coalesce(b.rev, 0) AS diff FROM m a LEFT JOIN m b ON b.channel = a.channel AND b.month = a.month - INTERVAL 1 MONTH
;
-- name: cte_materialized
WITH big AS MATERIALIZED (SELECT id, customer_id, total FROM orders WHERE total > 50) SELECT c.country, count(*) AS n, sum(big.total) AS total FROM big JOIN customers c ON c.id = big.customer_id GROUP BY c.country
;
-- name: cte_not_materialized
WITH p AS NOT MATERIALIZED (SELECT * FROM payments WHERE ok) SELECT method, count(*) AS n FROM p GROUP BY method UNION ALL SELECT 'all', count(*) FROM p
;
-- name: cte_shadow_table_name
WITH orders AS (SELECT * FROM orders WHERE status = 'shipped') SELECT count(*) AS shipped_orders, sum(total) AS shipped_total FROM orders
;
-- name: cte_nested_with
SELECT * FROM (WITH inner_cte AS (SELECT department, avg(salary) AS a FROM employees GROUP BY department) SELECT e.id, e.department, e.salary - i.a AS diff FROM employees e JOIN inner_cte i USING (department)) q WHERE diff > 0
;
-- name: cte_column_list
WITH dept(d, n, pay) AS (SELECT department, count(*), sum(salary) FROM employees GROUP BY department) SELECT d AS department, n, pay, pay / n AS avg_pay FROM dept WHERE n > 2
;
-- name: cte_in_subquery_where
SELECT id, name FROM customers WHERE id IN (WITH vip AS (SELECT customer_id FROM orders GROUP BY customer_id HAVING sum(total) > 300) SELECT customer_id FROM vip)
;
-- name: cte_six_steps_product_dashboard
WITH sold AS (SELECT i.product_id, o.placed, i.quantity, i.quantity * i.price AS gross FROM items i JOIN orders o ON o.id = i.order_id WHERE o.status <> 'cancelled'),
monthly AS (SELECT product_id, date_trunc('month', placed) AS month, sum(quantity) AS units, sum(gross) AS gross FROM sold WHERE placed IS NOT NULL GROUP BY ALL),
ranked AS (SELECT *, row_number() OVER (PARTITION BY month ORDER BY gross DESC, product_id) AS rk FROM monthly),
named AS (SELECT r.month, r.rk, coalesce(p.name, 'unknown') AS name, r.units, r.gross FROM ranked r LEFT JOIN products p ON p.id = r.product_id),
tops AS (SELECT * FROM named WHERE rk <= 3),
final AS (SELECT month, string_agg(name, ' > ' ORDER BY rk) AS top3, sum(gross) AS top3_gross FROM tops GROUP BY month)
SELECT month, top3, top3_gross FROM final
;
-- name: cte_six_steps_marketing
WITH v AS (SELECT visitor, v.at AS ts, page, CASE WHEN referrer LIKE '%google%' THEN 'google' WHEN referrer LIKE '%bing%' THEN 'bing' WHEN referrer IS NULL OR referrer = 'direct' THEN 'direct' ELSE 'other' END AS src, ms FROM visits v WHERE visitor IS NOT NULL AND v.at IS NOT NULL),
d AS (SELECT visitor, ts, src, min(page) AS page, sum(ms) AS ms FROM v GROUP BY visitor, ts, src),
firsts AS (SELECT visitor, arg_min(src, (ts, src)) AS first_src, min(ts) AS first_ts FROM d GROUP BY visitor),
conv AS (SELECT DISTINCT visitor FROM v WHERE page = '/checkout'),
j AS (SELECT f.visitor, f.first_src, c.visitor IS NOT NULL AS converted FROM firsts f LEFT JOIN conv c ON c.visitor = f.visitor),
agg AS (SELECT first_src, count(*) AS visitors, count(*) FILTER (converted) AS conversions FROM j GROUP BY first_src)
SELECT first_src, visitors, conversions, round(conversions / visitors, 3) AS cr FROM agg
;
-- name: cte_payment_recon
WITH p AS (SELECT order_id, sum(amount) FILTER (ok) AS ok_amount, count(*) AS tries, count(*) FILTER (NOT ok) AS fails FROM payments WHERE order_id IS NOT NULL GROUP BY order_id),
r AS (SELECT o.id, o.status, o.total, p.ok_amount, coalesce(p.tries, 0) AS tries, coalesce(p.fails, 0) AS fails FROM orders o LEFT JOIN p ON p.order_id = o.id)
SELECT id, status, total, ok_amount, tries, fails, CASE WHEN ok_amount IS NULL THEN 'unpaid' WHEN ok_amount < total THEN 'partial' WHEN ok_amount = total THEN 'paid' ELSE 'overpaid' END AS state FROM r
;
-- name: cte_payment_recon_summary
WITH p AS (SELECT order_id, sum(amount) AS amt FROM payments WHERE ok GROUP BY 1), s AS (SELECT CASE WHEN p.amt IS NULL THEN 'unpaid' WHEN p.amt < o.total THEN 'partial' WHEN p.amt = o.total THEN 'exact' ELSE 'over' END AS state, o.total, p.amt FROM orders o LEFT JOIN p ON p.order_id = o.id)
SELECT state, count(*) AS n, sum(total) AS total, sum(amt) AS paid FROM s GROUP BY state
;
-- name: cte_org_stats
WITH mgr AS (SELECT manager_id AS id, count(*) AS reports, avg(salary) AS avg_report_salary FROM employees WHERE manager_id IS NOT NULL GROUP BY manager_id), dept AS (SELECT department, avg(salary) AS avg_salary FROM employees GROUP BY department)
SELECT e.id, e.name, m.reports, e.salary - d.avg_salary AS vs_dept, e.salary - m.avg_report_salary AS vs_team FROM employees e JOIN mgr m ON m.id = e.id LEFT JOIN dept d ON d.department IS NOT DISTINCT FROM e.department
;
-- name: cte_order_features_ml
WITH line AS (SELECT order_id, count(*) AS n_lines, sum(quantity) AS n_units, max(discount) AS max_disc, count(DISTINCT product_id) AS n_products FROM items GROUP BY order_id),
hist AS (SELECT id, count(*) OVER w AS prior_n, sum(total) OVER w AS prior_sum, max(placed) OVER w AS prior_last FROM orders WHERE customer_id IS NOT NULL AND placed IS NOT NULL WINDOW w AS (PARTITION BY customer_id ORDER BY placed, id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
SELECT o.id AS order_id, coalesce(l.n_lines, 0) AS n_lines, coalesce(l.n_units, 0) AS n_units, l.max_disc, l.n_products, coalesce(h.prior_n, 0) AS prior_n, coalesce(h.prior_sum, 0) AS prior_sum, date_diff('day', h.prior_last, o.placed) AS days_since, hour(o.placed) AS hr, isodow(o.placed) >= 6 AS weekend, (o.status = 'returned')::INT AS label
FROM orders o LEFT JOIN line l ON l.order_id = o.id LEFT JOIN hist h ON h.id = o.id
;
-- name: cte_one_hot
WITH t AS (SELECT id, coalesce(lower(segment), 'na') AS seg, coalesce(country, 'na') AS ctry, coalesce(active, false) AS act FROM customers)
SELECT id, (seg = 'vip')::INT AS seg_vip, (seg = 'business')::INT AS seg_business, (seg = 'consumer')::INT AS seg_consumer, (ctry = 'NL')::INT AS c_nl, (ctry = 'DE')::INT AS c_de, act::INT AS is_active FROM t
;
-- name: cte_target_encoding
WITH te AS (SELECT country, avg(total) AS enc, count(*) AS n FROM orders o JOIN customers c ON c.id = o.customer_id GROUP BY country), g AS (SELECT avg(total) AS overall FROM orders)
SELECT c.id, round((coalesce(te.n, 0) * coalesce(te.enc, 0) + 5 * g.overall) / (coalesce(te.n, 0) + 5), 4) AS country_enc FROM customers c LEFT JOIN te ON te.country = c.country CROSS JOIN g
;
-- name: cte_min_max_scaling
WITH s AS (SELECT min(price) AS lo, max(price) AS hi, avg(price) AS mu FROM products), n AS (SELECT p.id, p.category, round((coalesce(p.price, s.mu) - s.lo) / nullif(s.hi - s.lo, 0), 6) AS scaled FROM products p CROSS JOIN s) SELECT category, count(*) AS n, max(scaled) AS mx, min(scaled) AS mn FROM n GROUP BY category
;
-- name: cte_basket_association
WITH b AS (SELECT DISTINCT order_id, product_id FROM items WHERE product_id IS NOT NULL), n AS (SELECT count(DISTINCT order_id) AS total FROM b), f AS (SELECT product_id, count(*) AS cnt FROM b GROUP BY product_id), pr AS (SELECT x.product_id AS a, y.product_id AS b, count(*) AS both_cnt FROM b x JOIN b y ON x.order_id = y.order_id AND x.product_id < y.product_id GROUP BY 1, 2)
SELECT pr.a, pr.b, pr.both_cnt, round(pr.both_cnt / fa.cnt, 4) AS confidence, round(pr.both_cnt * n.total / (fa.cnt * fb.cnt), 4) AS lift FROM pr JOIN f fa ON fa.product_id = pr.a JOIN f fb ON fb.product_id = pr.b CROSS JOIN n WHERE pr.both_cnt >= 1
;
-- name: cte_interactions_matrix
WITH buys AS (SELECT o.customer_id, i.product_id, sum(i.quantity) AS q FROM orders o JOIN items i ON i.order_id = o.id WHERE o.customer_id IS NOT NULL AND i.product_id IS NOT NULL GROUP BY 1, 2), cust AS (SELECT customer_id, sum(q) AS tot FROM buys GROUP BY 1)
SELECT b.customer_id, b.product_id, b.q, round(b.q / c.tot, 4) AS weight FROM buys b JOIN cust c USING (customer_id)
;
-- name: cte_negative_samples
WITH pos AS (SELECT DISTINCT o.customer_id, i.product_id FROM orders o JOIN items i ON i.order_id = o.id), c AS (SELECT id FROM customers WHERE active), p AS (SELECT id FROM products WHERE category = 'electronics')
SELECT c.id AS customer_id, p.id AS product_id, (pos.product_id IS NOT NULL)::INT AS label FROM c CROSS JOIN p LEFT JOIN pos ON pos.customer_id = c.id AND pos.product_id = p.id
;
-- name: cte_train_test_split
WITH h AS (SELECT id, customer_id, total, ('0x' || substr(md5('salt' || id), 1, 6))::BIGINT % 100 AS bucket FROM orders) SELECT CASE WHEN bucket < 80 THEN 'train' WHEN bucket < 90 THEN 'valid' ELSE 'test' END AS split, count(*) AS n, sum(total) AS total FROM h GROUP BY split
;
-- name: cte_dedup_events
WITH d AS (SELECT id, kind, customer_id, "at" AS ts, payload::VARCHAR AS payload FROM events GROUP BY ALL), u AS (SELECT *, row_number() OVER (PARTITION BY id ORDER BY ts NULLS LAST, kind, customer_id, payload) AS rn FROM d WHERE id IS NOT NULL)
SELECT id, kind, customer_id, ts FROM u WHERE rn = 1
;
-- name: cte_dedup_count_quality
WITH g AS (SELECT visitor, v.at AS ts, page, referrer, ms, count(*) AS c FROM visits v GROUP BY ALL) SELECT count(*) AS distinct_rows, sum(c) AS all_rows, sum(c - 1) AS extra_rows, count(*) FILTER (c > 1) AS dup_groups FROM g
;
-- name: cte_data_quality_report
WITH checks AS (
  SELECT 'customers.email null' AS check_name, count(*) FILTER (email IS NULL) AS bad, count(*) AS total FROM customers
  UNION ALL SELECT 'orders.customer orphan', count(*) FILTER (NOT EXISTS (SELECT 1 FROM customers c WHERE c.id = o.customer_id)), count(*) FROM orders o
  UNION ALL SELECT 'orders.shipped before placed', count(*) FILTER (shipped < placed), count(*) FROM orders
  UNION ALL SELECT 'stock.negative', count(*) FILTER (quantity < 0), count(*) FROM stock
  UNION ALL SELECT 'payments.null ok', count(*) FILTER (ok IS NULL), count(*) FROM payments)
SELECT check_name, bad, total, round(100 * bad / total, 2) AS pct FROM checks
;
-- name: cte_sla_report
WITH t AS (SELECT channel, date_diff('hour', placed, shipped) AS h FROM orders WHERE placed IS NOT NULL AND status IN ('shipped', 'returned')), b AS (SELECT channel, CASE WHEN h IS NULL THEN 'missing' WHEN h <= 24 THEN '1d' WHEN h <= 72 THEN '3d' ELSE 'late' END AS bucket FROM t)
SELECT channel, bucket, count(*) AS n, round(count(*) / sum(count(*)) OVER (PARTITION BY channel), 3) AS share FROM b GROUP BY channel, bucket
;
-- name: cte_scd2_price_lines
WITH hist AS (SELECT product_id, price, valid_from, lead(valid_from) OVER (PARTITION BY product_id ORDER BY valid_from) AS valid_to FROM prices), l AS (SELECT o.id AS order_id, o.placed, i.line, i.product_id, i.quantity, i.price FROM orders o JOIN items i ON i.order_id = o.id)
SELECT l.order_id, l.line, l.price AS charged, h.price AS expected, l.quantity * (l.price - h.price) AS variance FROM l LEFT JOIN hist h ON h.product_id = l.product_id AND l.placed >= h.valid_from AND l.placed < coalesce(h.valid_to, TIMESTAMP '2999-01-01')
;
-- name: cte_snapshot_as_of
WITH asof_prices AS (SELECT product_id, max(valid_from) AS valid_from FROM prices WHERE valid_from <= TIMESTAMP '2024-01-15' GROUP BY product_id) SELECT p.product_id, p.price, p.valid_from FROM prices p JOIN asof_prices a ON a.product_id = p.product_id AND a.valid_from = p.valid_from
;
-- name: cte_new_vs_returning
WITH f AS (SELECT customer_id, min(placed) AS first_placed FROM orders WHERE customer_id IS NOT NULL GROUP BY customer_id), t AS (SELECT date_trunc('month', o.placed) AS month, CASE WHEN o.placed = f.first_placed THEN 'new' ELSE 'returning' END AS kind, o.total FROM orders o JOIN f USING (customer_id) WHERE o.placed IS NOT NULL)
SELECT month, kind, count(*) AS n, sum(total) AS revenue FROM t GROUP BY month, kind
;
-- name: cte_monthly_active_kinds
WITH a AS (SELECT date_trunc('week', e.at) AS wk, customer_id, kind FROM events e WHERE e.at IS NOT NULL AND customer_id IS NOT NULL GROUP BY ALL), w AS (SELECT wk, count(DISTINCT customer_id) AS wau, count(*) AS combos FROM a GROUP BY wk) SELECT wk, wau, combos, wau - lag(wau) OVER (ORDER BY wk) AS delta FROM w
;
-- name: cte_visit_transitions
WITH d AS (SELECT DISTINCT visitor, v.at AS ts, split_part(page, '?', 1) AS p FROM visits v WHERE v.at IS NOT NULL AND visitor IS NOT NULL AND page IS NOT NULL), t AS (SELECT visitor, p, lead(p) OVER (PARTITION BY visitor ORDER BY ts, p) AS nxt FROM d), c AS (SELECT p, coalesce(nxt, '(exit)') AS nxt, count(*) AS n FROM t GROUP BY 1, 2)
SELECT p, nxt, n, round(n / sum(n) OVER (PARTITION BY p), 4) AS prob FROM c
;
-- name: cte_attribution_last_touch
WITH touches AS (SELECT DISTINCT customer_id, e.at AS ts, payload->>'source' AS src FROM events e WHERE payload->>'source' IS NOT NULL AND e.at IS NOT NULL), t AS (SELECT customer_id, ts, min(src) AS src FROM touches GROUP BY 1, 2), o AS (SELECT id, customer_id, placed, total FROM orders WHERE placed IS NOT NULL)
SELECT coalesce(t.src, '(none)') AS src, count(*) AS orders, sum(o.total) AS revenue FROM o ASOF LEFT JOIN t ON t.customer_id = o.customer_id AND t.ts <= o.placed GROUP BY 1
;
-- name: cte_attribution_linear
WITH tch AS (SELECT o.id AS order_id, o.total, e.payload->>'source' AS src FROM orders o JOIN events e ON e.customer_id = o.customer_id AND e.at <= o.placed WHERE e.payload->>'source' IS NOT NULL), n AS (SELECT order_id, count(*) AS k FROM tch GROUP BY order_id)
SELECT tch.src, sum(TRY_CAST(tch.total / n.k AS DECIMAL(18,6))) AS credit FROM tch JOIN n USING (order_id) GROUP BY tch.src
;
-- name: cte_geo_rollup
WITH g AS (SELECT coalesce(r.region, 'unknown') AS region, coalesce(c.country, '??') AS country, o.total FROM orders o LEFT JOIN customers c ON c.id = o.customer_id LEFT JOIN regions r ON r.country = c.country), x AS (SELECT region, country, count(*) AS n, sum(total) AS rev, grouping(region, country) AS lvl FROM g GROUP BY ROLLUP (region, country))
SELECT coalesce(region, 'ALL') AS region, CASE WHEN lvl > 0 THEN 'ALL' ELSE country END AS country, n, rev, lvl FROM x
;
-- name: cte_tag_revenue
WITH t AS (SELECT DISTINCT id AS customer_id, unnest(tags) AS tag FROM customers), s AS (SELECT customer_id, sum(total) AS rev FROM orders GROUP BY customer_id) SELECT t.tag, count(*) AS customers, coalesce(sum(s.rev), 0) AS revenue FROM t LEFT JOIN s USING (customer_id) WHERE t.tag IS NOT NULL GROUP BY t.tag
;
-- name: cte_label_timeline
WITH l AS (SELECT customer_id, e.at::DATE AS day, unnest(labels) AS label FROM events e WHERE e.at IS NOT NULL), d AS (SELECT label, day, count(DISTINCT customer_id) AS people FROM l WHERE label IS NOT NULL GROUP BY ALL) SELECT label, day, people, max(people) OVER (PARTITION BY label ORDER BY day ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS max3 FROM d
;
-- name: cte_discount_bands
WITH b AS (SELECT order_id, line, quantity * price AS gross, quantity * price * coalesce(discount, 0) AS disc, CASE WHEN discount IS NULL THEN 'n/a' WHEN discount = 0 THEN 'none' WHEN discount < 0.2 THEN 'small' ELSE 'large' END AS band FROM items), a AS (SELECT band, count(*) AS n, sum(gross) AS gross, sum(disc) AS disc FROM b GROUP BY band) SELECT band, n, gross, disc, round(100 * disc / nullif(gross, 0), 2) AS pct FROM a
;
-- name: cte_order_status_ratio
WITH c AS (SELECT customer_id, count(*) AS n, count_if(status = 'returned') AS ret, count_if(status = 'cancelled') AS can FROM orders GROUP BY customer_id), d AS (SELECT c.*, round((ret + can) / n, 3) AS bad_rate FROM c WHERE n > 1) SELECT d.customer_id, cu.name, d.n, d.ret, d.can, d.bad_rate FROM d LEFT JOIN customers cu ON cu.id = d.customer_id WHERE bad_rate > 0.3
;
-- name: cte_vip_candidates
WITH spend AS (SELECT customer_id, sum(total) AS s FROM orders WHERE status IN ('paid', 'shipped') GROUP BY customer_id), thr AS (SELECT quantile_cont(s, 0.8) AS q FROM spend) SELECT c.id, c.name, c.segment, spend.s FROM customers c JOIN spend ON spend.customer_id = c.id, thr WHERE spend.s >= thr.q AND coalesce(c.segment, '') <> 'vip'
;
-- name: cte_inactive_products
WITH sold AS (SELECT DISTINCT product_id FROM items), stocked AS (SELECT product_id, sum(quantity) AS q FROM stock GROUP BY 1 HAVING sum(quantity) > 0) SELECT p.id, p.name, st.q * p.price AS tied_up FROM products p JOIN stocked st ON st.product_id = p.id ANTI JOIN sold ON sold.product_id = p.id
;
-- name: cte_price_volatility
WITH ch AS (SELECT product_id, price - lag(price) OVER (PARTITION BY product_id ORDER BY valid_from) AS d FROM prices), a AS (SELECT product_id, count(d) AS changes, sum(abs(d)) AS abs_change, count(*) FILTER (d < 0) AS cuts FROM ch GROUP BY product_id) SELECT p.category, sum(a.changes) AS changes, sum(a.abs_change) AS abs_change, sum(a.cuts) AS cuts FROM a JOIN products p ON p.id = a.product_id GROUP BY p.category
;
-- name: cte_warehouse_share
WITH w AS (SELECT warehouse, sum(greatest(quantity, 0)) AS q FROM stock GROUP BY warehouse), t AS (SELECT sum(q) AS q FROM w) SELECT w.warehouse, w.q, round(w.q / t.q, 4) AS share FROM w, t
;
-- name: cte_product_nearest_price
WITH pairs AS (SELECT a.id, b.id AS other, abs(a.price - b.price) AS gap FROM products a JOIN products b ON a.category = b.category AND a.id <> b.id), r AS (SELECT *, row_number() OVER (PARTITION BY id ORDER BY gap NULLS LAST, other) AS rn FROM pairs) SELECT id, other AS nearest, gap FROM r WHERE rn = 1
;
-- name: cte_customer_channel_mix
WITH c AS (SELECT customer_id, channel, count(*) AS n FROM orders WHERE channel IS NOT NULL AND customer_id IS NOT NULL GROUP BY ALL), t AS (SELECT customer_id, sum(n) AS tot, max(n) AS top FROM c GROUP BY customer_id) SELECT c.customer_id, list(c.channel ORDER BY c.n DESC, c.channel) AS channels, max(t.top) / max(t.tot) >= 0.5 AS loyal FROM c JOIN t USING (customer_id) GROUP BY c.customer_id
;
-- name: cte_unified_timeline
WITH t AS (SELECT customer_id, placed AS ts, 'order:' || coalesce(status, '?') AS what FROM orders UNION ALL SELECT o.customer_id, p.paid_at AT TIME ZONE 'UTC', 'payment:' || coalesce(p.method, '?') FROM payments p JOIN orders o ON o.id = p.order_id UNION ALL SELECT customer_id, events.at, 'event:' || kind FROM events), n AS (SELECT customer_id, ts, what, rank() OVER (PARTITION BY customer_id ORDER BY ts) AS step FROM t WHERE ts IS NOT NULL AND customer_id IS NOT NULL)
SELECT customer_id, step, ts, what FROM n WHERE step <= 5
;
-- name: cte_gap_alerts
WITH d AS (SELECT page, v.at::DATE AS day, count(*) AS n, quantile_disc(ms, 0.9) AS p90 FROM visits v WHERE v.at IS NOT NULL AND page IS NOT NULL GROUP BY ALL), w AS (SELECT *, avg(n) OVER (PARTITION BY page ORDER BY day ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS base FROM d) SELECT page, day, n, p90, base, n < base / 2 OR p90 > 10000 AS alert FROM w
;
-- name: cte_quarter_targets
WITH targets(q, target) AS (VALUES (1, 3000.00), (2, 2500.00), (3, 2000.00)), act AS (SELECT quarter(placed) AS q, sum(total) AS rev FROM orders WHERE year(placed) = 2024 GROUP BY 1) SELECT t.q, t.target, coalesce(a.rev, 0) AS actual, coalesce(a.rev, 0) >= t.target AS hit FROM targets t LEFT JOIN act a ON a.q = t.q
;
-- name: cte_calendar_fill_cumulative
WITH cal AS (SELECT d::DATE AS day FROM generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-01-31', INTERVAL 1 DAY) g(d)), o AS (SELECT placed::DATE AS day, sum(total) AS rev FROM orders WHERE placed IS NOT NULL GROUP BY 1) SELECT cal.day, coalesce(o.rev, 0) AS rev, sum(coalesce(o.rev, 0)) OVER (ORDER BY cal.day) AS cum FROM cal LEFT JOIN o ON o.day = cal.day
;
-- name: cte_salary_compression
WITH m AS (SELECT e.id, e.salary, b.id AS boss_id, b.salary AS boss_salary FROM employees e JOIN employees b ON b.id = e.manager_id), r AS (SELECT boss_id, max(salary) AS top_report, any_value(boss_salary) AS boss_salary FROM m GROUP BY boss_id) SELECT boss_id, top_report, boss_salary, round(top_report / boss_salary, 3) AS ratio FROM r WHERE top_report >= boss_salary * 0.8
;
-- name: cte_email_domains_top
WITH d AS (SELECT id, lower(split_part(email, '@', 2)) AS domain FROM customers WHERE email LIKE '%@%'), n AS (SELECT domain, count(*) AS n FROM d GROUP BY domain), r AS (SELECT domain, n, dense_rank() OVER (ORDER BY n DESC) AS rk FROM n) SELECT d.id, CASE WHEN r.rk <= 2 THEN d.domain ELSE 'other' END AS domain_group FROM d JOIN r ON r.domain = d.domain
;
-- name: cte_json_device_share
WITH e AS (SELECT coalesce(payload->'device'->>'os', 'none') AS os, TRY_CAST(payload->'device'->>'v' AS INTEGER) AS ver, TRY_CAST(payload->>'amount' AS DECIMAL(10,2)) AS amt FROM events WHERE payload IS NOT NULL), a AS (SELECT os, count(*) AS n, max(ver) AS max_ver, sum(amt) AS amt, count(amt) AS n_amt FROM e GROUP BY os) SELECT os, n, round(n / sum(n) OVER (), 3) AS share, max_ver, amt, n_amt FROM a
;
-- name: cte_struct_packing
WITH o AS (SELECT customer_id, list({'id': id, 'total': total} ORDER BY id) AS orders_list FROM orders WHERE customer_id IS NOT NULL GROUP BY customer_id), x AS (SELECT customer_id, orders_list, list_transform(orders_list, lambda s: s.total) AS totals FROM o) SELECT customer_id, len(orders_list) AS n, orders_list[1].id AS first_id, list_max(totals) AS best, totals FROM x
;
-- name: cte_histogram_equal_width
WITH s AS (SELECT min(total) AS lo, max(total) AS hi FROM orders), b AS (SELECT least(floor((o.total - s.lo) / nullif(s.hi - s.lo, 0) * 5)::INT, 4) AS bin FROM orders o, s WHERE o.total IS NOT NULL) SELECT bin, count(*) AS n FROM b GROUP BY bin
;
-- name: cte_second_order_same_channel
WITH n AS (SELECT id, customer_id, channel, row_number() OVER (PARTITION BY customer_id ORDER BY placed, id) AS k FROM orders WHERE customer_id IS NOT NULL AND placed IS NOT NULL), ab AS (SELECT a.customer_id, a.channel AS c1, b.channel AS c2 FROM n a JOIN n b ON b.customer_id = a.customer_id AND b.k = 2 WHERE a.k = 1) SELECT c1, c2, count(*) AS customers, c1 IS NOT DISTINCT FROM c2 AS same FROM ab GROUP BY c1, c2
;
-- name: cte_refund_matching
WITH neg AS (SELECT id, order_id, -amount AS amount, paid_at FROM payments WHERE amount < 0), pos AS (SELECT id, order_id, amount, paid_at FROM payments WHERE amount > 0 AND ok) SELECT neg.id AS refund_id, count(pos.id) AS candidates, min(pos.id) AS first_candidate, bool_or(pos.amount = neg.amount) AS exact FROM neg LEFT JOIN pos ON pos.order_id = neg.order_id AND pos.amount >= neg.amount GROUP BY neg.id
;
-- name: cte_category_affinity
WITH cc AS (SELECT o.customer_id, p.category, count(DISTINCT o.id) AS n FROM orders o JOIN items i ON i.order_id = o.id JOIN products p ON p.id = i.product_id WHERE o.customer_id IS NOT NULL AND p.category IS NOT NULL GROUP BY ALL), best AS (SELECT customer_id, category, n FROM cc QUALIFY row_number() OVER (PARTITION BY customer_id ORDER BY n DESC, category) = 1)
SELECT best.category, count(*) AS fans, sum(best.n) AS orders, string_agg(coalesce(c.name, '#' || best.customer_id), ', ' ORDER BY best.customer_id) AS names FROM best LEFT JOIN customers c ON c.id = best.customer_id GROUP BY best.category
;
-- name: cte_lifetime_by_join_year
WITH c AS (SELECT id, coalesce(year(joined)::VARCHAR, 'unknown') AS cohort FROM customers), o AS (SELECT customer_id, total, status FROM orders WHERE total IS NOT NULL), j AS (SELECT c.cohort, c.id, sum(CASE WHEN o.status IN ('cancelled', 'returned') THEN 0 ELSE o.total END) AS ltv FROM c LEFT JOIN o ON o.customer_id = c.id GROUP BY ALL) SELECT cohort, count(*) AS customers, count(ltv) AS buyers, coalesce(sum(ltv), 0) AS revenue, median(ltv) AS median_ltv FROM j GROUP BY cohort
;
-- name: cte_from_first_chain
WITH a AS (FROM orders SELECT customer_id, total WHERE total > 0), b AS (FROM a SELECT customer_id, sum(total) AS s, count(*) AS n GROUP BY ALL) FROM b SELECT customer_id, s, n, s / n AS aov WHERE n >= 2
;
-- name: cte_lateral_alias_reuse
WITH x AS (SELECT order_id, line, quantity * price AS gross, gross * coalesce(discount, 0) AS disc, gross - disc AS net FROM items) SELECT order_id, sum(gross) AS gross, sum(disc) AS disc, sum(net) AS net, sum(net) / nullif(sum(gross), 0) < 0.9 AS heavy_discount FROM x GROUP BY order_id
;
-- name: unnest_tags
SELECT id, unnest(tags) AS tag FROM customers
;
-- name: unnest_tags_count
SELECT tag, count(*) AS n, count(DISTINCT id) AS customers FROM (SELECT id, unnest(tags) AS tag FROM customers) GROUP BY tag
;
-- name: unnest_from_comma
SELECT c.id, t.tag FROM customers c, unnest(c.tags) AS t(tag)
;
-- name: unnest_left_lateral
SELECT c.id, t.tag FROM customers c LEFT JOIN LATERAL unnest(c.tags) AS t(tag) ON true
;
-- name: unnest_labels_kind_matrix
select kind, label, count(*) as n from events, unnest(labels) u(label) group by kind, label
;
-- name: unnest_with_index
SELECT c.id, i AS pos, c.tags[i] AS tag FROM customers c, range(1, len(c.tags) + 1) AS r(i)
;
-- name: unnest_generate_subscripts
SELECT id, generate_subscripts(tags, 1) AS pos, unnest(tags) AS tag FROM customers
;
-- name: unnest_json_array
SELECT p.id, t.tag FROM products p, unnest(TRY_CAST(p.attributes->'tags' AS VARCHAR[])) AS t(tag)
;
-- name: unnest_json_items
SELECT e.id, e.kind, item FROM (SELECT id, kind, unnest(TRY_CAST(payload->'items' AS INTEGER[])) AS item FROM events) e WHERE item > 1
;
-- name: unnest_json_keys
SELECT key, count(*) AS n FROM (SELECT unnest(json_keys(attributes)) AS key FROM products WHERE json_type(attributes) = 'OBJECT') GROUP BY key
;
-- name: unnest_words
SELECT lower(w.word) AS word, count(*) AS n FROM orders o, unnest(string_split(o.note, ' ')) AS w(word) WHERE length(w.word) > 2 GROUP BY 1
;
-- name: unnest_regexp_all
SELECT id, unnest(regexp_extract_all(note, '\d+')) AS num FROM orders WHERE note IS NOT NULL
;
-- name: unnest_struct_recursive
SELECT id, unnest({'street': address.street, 'zip': address.zip}) FROM customers WHERE address IS NOT NULL
;
-- name: unnest_tag_pairs
SELECT a.tag AS tag_a, b.tag AS tag_b, count(*) AS n FROM (SELECT DISTINCT id, unnest(tags) AS tag FROM customers) a JOIN (SELECT DISTINCT id, unnest(tags) AS tag FROM customers) b ON a.id = b.id AND a.tag < b.tag GROUP BY ALL
;
-- name: unnest_wide_to_long
SELECT id, k AS field, v AS value FROM (SELECT id, unnest(['country', 'city', 'segment']) AS k, unnest([country, city, segment]) AS v FROM customers)
;
-- name: explode_item_units
SELECT i.order_id, i.line, u.n FROM items i, generate_series(1, i.quantity) AS u(n) WHERE i.quantity <= 3
;
-- name: lateral_top2_orders
SELECT c.id, t.oid, t.total FROM customers c, LATERAL (SELECT o.id AS oid, o.total FROM orders o WHERE o.customer_id = c.id ORDER BY o.total DESC NULLS LAST, o.id LIMIT 2) t
;
-- name: lateral_left_latest_price
SELECT p.id, p.price AS catalog, x.price AS latest FROM products p LEFT JOIN LATERAL (SELECT pr.price FROM prices pr WHERE pr.product_id = p.id ORDER BY pr.valid_from DESC LIMIT 1) x ON true
;
-- name: lateral_aggregate
SELECT o.id, s.n, s.amount FROM orders o CROSS JOIN LATERAL (SELECT count(*) AS n, sum(i.quantity * i.price) AS amount FROM items i WHERE i.order_id = o.id) s
;
-- name: lateral_computed_columns
SELECT i.order_id, i.line, g.gross, n.net FROM items i, LATERAL (SELECT i.quantity * i.price AS gross) g, LATERAL (SELECT g.gross * (1 - coalesce(i.discount, 0)) AS net) n
;
-- name: values_mapping_join
SELECT o.id, m.label FROM orders o LEFT JOIN (VALUES ('new', 'Open'), ('paid', 'Open'), ('shipped', 'Closed'), ('cancelled', 'Lost')) AS m(status, label) ON m.status = o.status
;
-- name: values_standalone
SELECT v.code, v.pct FROM (VALUES ('SPRING10', 10), ('VIP-20', 20), ('WELCOME', 5)) AS v(code, pct) WHERE EXISTS (SELECT 1 FROM orders o WHERE upper(o.coupon) = v.code)
;
-- name: values_cte_weights
WITH w(kind, weight) AS (VALUES ('view', 1), ('add_to_cart', 3), ('purchase', 10)) SELECT e.customer_id, sum(coalesce(w.weight, 0)) AS score FROM events e LEFT JOIN w ON w.kind = e.kind GROUP BY e.customer_id
;
-- name: calendar_daily_orders
SELECT d.day::DATE AS day, count(o.id) AS orders, coalesce(sum(o.total), 0) AS revenue FROM generate_series(TIMESTAMP '2024-01-01', TIMESTAMP '2024-02-15', INTERVAL 1 DAY) AS d(day) LEFT JOIN orders o ON o.placed::DATE = d.day::DATE GROUP BY d.day
;
-- name: calendar_months_active
SELECT m.m::DATE AS month, count(DISTINCT c.id) AS customers FROM range(TIMESTAMP '2019-01-01', TIMESTAMP '2024-01-01', INTERVAL 1 MONTH) AS m(m) JOIN customers c ON c.joined <= m.m GROUP BY m.m
;
-- name: hours_series_visits
SELECT h.hr, count(v.visitor) AS hits FROM range(24) AS h(hr) LEFT JOIN visits v ON hour(v.at) = h.hr GROUP BY h.hr
;
-- name: bins_series
SELECT b.lo, b.lo + 100 AS hi, count(o.id) AS n FROM generate_series(0, 1200, 100) AS b(lo) LEFT JOIN orders o ON o.total >= b.lo AND o.total < b.lo + 100 GROUP BY b.lo
;
-- name: recursive_hierarchy
WITH RECURSIVE h AS (
  SELECT id, name, manager_id, 0 AS depth FROM employees WHERE manager_id IS NULL
  UNION ALL
  SELECT e.id, e.name, e.manager_id, h.depth + 1 FROM employees e JOIN h ON e.manager_id = h.id
)
SELECT id, name, manager_id, depth FROM h
;
-- name: recursive_path
WITH RECURSIVE tree(id, path) AS (SELECT id, id::VARCHAR FROM employees WHERE manager_id IS NULL UNION ALL SELECT e.id, t.path || '/' || e.id FROM employees e JOIN tree t ON e.manager_id = t.id) SELECT id, path, len(string_split(path, '/')) AS level FROM tree
;
-- name: recursive_subtree_payroll
WITH RECURSIVE sub AS (SELECT id AS boss, id, salary FROM employees UNION SELECT s.boss, e.id, e.salary FROM sub s JOIN employees e ON e.manager_id = s.id)
SELECT boss, count(*) - 1 AS reports, sum(salary) AS payroll FROM sub GROUP BY boss
;
-- name: recursive_chain_up
WITH RECURSIVE up AS (SELECT id AS emp, manager_id AS boss, 1 AS lvl FROM employees WHERE manager_id IS NOT NULL UNION ALL SELECT up.emp, e.manager_id, up.lvl + 1 FROM up JOIN employees e ON e.id = up.boss WHERE e.manager_id IS NOT NULL AND up.lvl < 10) SELECT emp, boss, lvl FROM up
;
-- name: recursive_list_path
WITH RECURSIVE t AS (SELECT id, [name] AS chain FROM employees WHERE manager_id IS NULL UNION ALL SELECT e.id, list_append(t.chain, e.name) FROM employees e JOIN t ON e.manager_id = t.id) SELECT id, chain, len(chain) AS depth FROM t
;
-- name: recursive_months
WITH RECURSIVE m(d) AS (SELECT DATE '2024-01-01' UNION ALL SELECT (d + INTERVAL 1 MONTH)::DATE FROM m WHERE d < DATE '2024-06-01') SELECT m.d AS month, count(o.id) AS n FROM m LEFT JOIN orders o ON date_trunc('month', o.placed) = m.d GROUP BY m.d
;
-- name: recursive_reach_copurchase
WITH RECURSIVE edges AS (SELECT DISTINCT a.product_id AS x, b.product_id AS y FROM items a JOIN items b ON a.order_id = b.order_id AND a.product_id <> b.product_id), reach AS (SELECT 1::BIGINT AS p UNION SELECT e.y FROM reach r JOIN edges e ON e.x = r.p) SELECT p AS product_id FROM reach
;
-- name: pivot_case_quarters
SELECT customer_id, sum(CASE WHEN quarter(placed) = 1 THEN total ELSE 0 END) AS q1, sum(CASE WHEN quarter(placed) = 2 THEN total ELSE 0 END) AS q2, sum(CASE WHEN placed IS NULL THEN total ELSE 0 END) AS undated FROM orders GROUP BY customer_id
;
-- name: pivot_case_methods
SELECT o.channel, max(CASE p.method WHEN 'card' THEN p.amount END) AS max_card, count(CASE p.method WHEN 'paypal' THEN 1 END) AS n_paypal, sum(CASE p.method WHEN 'giftcard' THEN p.amount ELSE 0 END) AS giftcard FROM orders o LEFT JOIN payments p ON p.order_id = o.id GROUP BY o.channel
;
-- name: pivot_in_fixed
SELECT * FROM (SELECT warehouse, product_id, quantity FROM stock) PIVOT (sum(quantity) FOR warehouse IN ('AMS', 'BER', 'NYC'))
;
-- name: unpivot_fixed
SELECT id, field, val FROM (SELECT id, country, city, segment FROM customers) UNPIVOT (val FOR field IN (country, city, segment))
;
-- name: pivot_event_flags
SELECT customer_id, max((kind = 'login')::INT) AS f_login, max((kind = 'view')::INT) AS f_view, max((kind = 'purchase')::INT) AS f_purchase, max((kind = 'refund')::INT) AS f_refund FROM events WHERE customer_id IS NOT NULL GROUP BY customer_id
;
-- name: exec_overview_long
/* weekly exec overview: one row per week and region, used by the BI tool */
WITH base AS (
    SELECT
        date_trunc('week', o.placed)               AS week,   -- monday
        coalesce(r.region, 'Other')                AS region,
        o.id                                       AS order_id,
        o.customer_id,
        o.total,
        o.status,
        row_number() OVER (PARTITION BY o.customer_id ORDER BY o.placed, o.id) = 1 AS is_first
    FROM orders AS o
    LEFT JOIN customers AS c ON c.id = o.customer_id
    LEFT JOIN regions   AS r ON r.country = c.country
    WHERE o.placed IS NOT NULL
),
agg AS (
    SELECT
        week, region,
        count(*)                                                   AS orders,
        count(DISTINCT customer_id)                                AS customers,
        count(*) FILTER (WHERE is_first)                           AS first_orders,
        sum(total) FILTER (WHERE status NOT IN ('cancelled', 'returned')) AS net_revenue,
        sum(total)                                                 AS gross_revenue
    FROM base
    GROUP BY week, region
)
SELECT
    week,
    region,
    orders,
    customers,
    first_orders,
    net_revenue,
    gross_revenue,
    coalesce(net_revenue, 0) - coalesce(lag(net_revenue) OVER (PARTITION BY region ORDER BY week), 0) AS wow_change
FROM agg
;
-- name: comment_heavy_filter
SELECT id -- the id
     , total /* gross */
FROM orders
WHERE 1 = 1
  -- AND status = 'new'
  AND total >= 0
  AND (channel = 'web' OR channel = 'app' OR (channel IS NULL AND coupon IS NOT NULL))
;
-- name: always_false
SELECT id, name FROM customers WHERE 1 = 0
;
-- name: where_null
SELECT id FROM orders WHERE NULL
;
-- name: constant_only
SELECT 1 AS one, 'x' AS letter, DATE '2024-01-01' AS d, 1.50::DECIMAL(4,2) AS amount
;
-- name: count_minus_count
SELECT (SELECT count(*) FROM orders) - (SELECT count(*) FROM payments) AS diff, (SELECT count(*) FROM visits) AS visits
;
-- name: three_valued_logic
SELECT id, active, credit > 0 AS pos, (active AND credit > 0) AS both_true, (active OR credit > 0) AS either_true, NOT active AS inactive, active IS UNKNOWN AS unk FROM customers
;
-- name: negated_or_nulls
SELECT id FROM customers WHERE NOT (segment = 'vip' OR credit < 0)
;
-- name: coalesce_chain_types
SELECT id, coalesce(shipped, placed, TIMESTAMP '1970-01-01') AS ts, coalesce(note, coupon, 'none') AS txt, coalesce(total, 0)::BIGINT AS whole FROM orders
;
-- name: nullif_empty_string
SELECT id, nullif(trim(city), '') AS city, coalesce(nullif(trim(city), ''), country, '?') AS place FROM customers
;
-- name: cast_mix
SELECT id, id::VARCHAR || '-' || coalesce(total::VARCHAR, 'NULL') AS k, TRY_CAST(note AS INTEGER) AS note_int, TRY_CAST(coupon AS DATE) AS coupon_date, total::DOUBLE > 99.5 AS gt FROM orders
;
-- name: unicode_names
SELECT id, name, strip_accents(name) AS ascii_name, length(name) AS chars, strlen(name) AS bytes, reverse(name) AS backwards FROM customers WHERE name IS NOT NULL
;
-- name: like_escape
SELECT id, coupon FROM orders WHERE coupon LIKE '%-2_' OR note LIKE '%#%' ESCAPE '!'
;
-- name: glob_match
SELECT id, name FROM products WHERE name GLOB '*M*' OR brand GLOB '[Aa]cme'
;
-- name: collate_nocase_group
SELECT brand COLLATE NOCASE = 'ACME' AS is_acme, count(*) AS n FROM products GROUP BY 1
;
-- name: chr_ascii_translate
SELECT id, ascii(name) AS first_code, translate(lower(coalesce(name, '')), 'aeiou', '43102') AS leet, position('a' IN lower(name)) AS pos_a FROM employees
;
-- name: timestamps_arith
SELECT id, placed + to_days(2) AS due, placed - INTERVAL '1 month' AS month_ago, date_part('epoch', placed)::BIGINT AS ep, dayname(placed) AS dn, monthname(placed) AS mn, date_add(placed, INTERVAL 90 MINUTE) AS soon FROM orders WHERE placed IS NOT NULL
;
-- name: overlaps_interval
SELECT a.id AS a_id, b.id AS b_id FROM orders a JOIN orders b ON a.customer_id = b.customer_id AND a.id < b.id AND a.placed < b.shipped AND b.placed < a.shipped
;
-- name: make_date_from_parts
SELECT id, make_date(2024, month(birthday)::INT, least(day(birthday), 28)::INT) AS birthday_2024, strptime(strftime(joined, '%d/%m/%Y'), '%d/%m/%Y') AS roundtrip FROM customers WHERE birthday IS NOT NULL
;
-- name: tz_conversions
SELECT id, paid_at, timezone('Asia/Tokyo', paid_at) AS tokyo, hour(timezone('Asia/Tokyo', paid_at)) AS tokyo_hour FROM payments WHERE paid_at >= TIMESTAMPTZ '2024-02-01 00:00:00+00'
;
-- name: tz_group_local_hour
SELECT date_trunc('hour', paid_at AT TIME ZONE 'America/New_York') AS hr, method, count(*) AS n FROM payments WHERE paid_at IS NOT NULL AND ok GROUP BY 1, 2 HAVING count(*) >= 1
;
-- name: json_build
SELECT id, json_object('id', id, 'name', name, 'price', price) AS doc FROM products
;
-- name: json_group
SELECT order_id, to_json(list(product_id ORDER BY line)) AS products FROM items GROUP BY order_id
;
-- name: to_json_struct
SELECT id, to_json(address) AS address_json, to_json(tags) AS tags_json FROM customers
;
-- name: json_array_first
SELECT id, payload->'items'->>0 AS first_item, json_array_length(payload->'items') AS n, payload->>'$.device.os' AS os FROM events
;
-- name: json_contains_filter
SELECT id, name FROM products WHERE json_contains(attributes, '{"color":"red"}')
;
-- name: list_aggregates_expr
SELECT order_id, list_sum(q) AS s, list_max(q) AS mx, list_sort(q) AS sorted_q FROM (SELECT order_id, list(quantity ORDER BY line) AS q FROM items GROUP BY order_id)
;
-- name: list_intersect_customers
SELECT a.id AS a_id, b.id AS b_id, list_sort(list_intersect(a.tags, b.tags)) AS common FROM customers a JOIN customers b ON a.id < b.id AND list_has_any(a.tags, b.tags)
;
-- name: flatten_tags_by_country
SELECT country, list_sort(list_distinct(flatten(list(coalesce(tags, []) ORDER BY id)))) AS all_tags FROM customers GROUP BY country
;
-- name: struct_compare
SELECT a.id AS x, b.id AS y FROM customers a JOIN customers b ON a.address = b.address AND a.id < b.id
;
-- name: struct_group
SELECT address.geo AS geo, count(*) AS n FROM customers WHERE address IS NOT NULL GROUP BY address.geo
;
-- name: group_by_rollup_dates
SELECT year(placed) AS y, quarter(placed) AS qtr, month(placed) AS m, count(*) AS n, sum(total) AS rev FROM orders WHERE placed IS NOT NULL GROUP BY ROLLUP (year(placed), quarter(placed), month(placed))
;
-- name: cube_three
SELECT c.country, o.channel, o.status, count(*) AS n FROM orders o JOIN customers c ON c.id = o.customer_id GROUP BY CUBE (c.country, o.channel, o.status) HAVING count(*) > 1
;
-- name: grouping_sets_mixed_rollup
SELECT p.category, s.warehouse, sum(s.quantity) AS q, grouping(p.category) AS gc, grouping(s.warehouse) AS gw FROM stock s LEFT JOIN products p ON p.id = s.product_id GROUP BY GROUPING SETS (ROLLUP (p.category), (s.warehouse), (p.category, s.warehouse))
;
-- name: distinct_aggregate_filter
SELECT kind, count(DISTINCT customer_id) FILTER (WHERE len(labels) > 0) AS labelled_people, count(DISTINCT payload->>'source') AS sources FROM events GROUP BY kind
;
-- name: distinct_aggregates_several_keys
SELECT o.channel, count(DISTINCT o.customer_id) AS customers, count(DISTINCT i.product_id) AS products, count(DISTINCT o.id) AS orders, sum(i.quantity) AS units FROM orders o LEFT JOIN items i ON i.order_id = o.id GROUP BY o.channel
;
-- name: aggregates_of_empty_left
SELECT p.id, count(pr.valid_from) AS n, min(pr.price) AS lo, max(pr.price) AS hi, list(pr.price ORDER BY pr.valid_from) FILTER (WHERE pr.price IS NOT NULL) AS hist FROM products p LEFT JOIN prices pr ON pr.product_id = p.id GROUP BY p.id
;
-- name: string_agg_nested_group
SELECT category, string_agg(brand || '(' || n || ')', ', ' ORDER BY n DESC, brand) AS brands FROM (SELECT category, brand, count(*) AS n FROM products WHERE brand IS NOT NULL GROUP BY category, brand) GROUP BY category
;
-- name: arg_min_with_nulls
SELECT order_id, arg_min(method, (paid_at, id)) AS first_method, arg_max(ok, (paid_at, id)) AS last_ok FROM payments WHERE paid_at IS NOT NULL GROUP BY order_id
;
-- name: having_only_filter_agg
SELECT visitor FROM visits GROUP BY visitor HAVING count(*) FILTER (page = '/checkout') = 0 AND count(*) FILTER (page = '/cart') > 0
;
-- name: having_bool_and
SELECT order_id FROM payments GROUP BY order_id HAVING bool_and(coalesce(ok, false)) AND count(*) > 1
;
-- name: nested_aggregate_max_of_sum
SELECT max(s) AS best_month, min(s) AS worst_month, avg(s) AS avg_month FROM (SELECT sum(total) AS s FROM orders WHERE placed IS NOT NULL GROUP BY date_trunc('month', placed))
;
-- name: join_on_aggregated_both_sides
SELECT w.wh, w.q, o.units FROM (SELECT warehouse AS wh, sum(quantity) AS q FROM stock GROUP BY warehouse) w LEFT JOIN (SELECT s.warehouse AS wh, sum(i.quantity) AS units FROM items i JOIN stock s ON s.product_id = i.product_id GROUP BY s.warehouse) o ON o.wh = w.wh
;
-- name: full_join_aggregates_three
SELECT coalesce(a.m, b.m, c.m) AS month, a.orders, b.paid, c.events FROM (SELECT date_trunc('month', placed) AS m, count(*) AS orders FROM orders WHERE placed IS NOT NULL GROUP BY 1) a FULL JOIN (SELECT date_trunc('month', paid_at AT TIME ZONE 'UTC') AS m, sum(amount) AS paid FROM payments WHERE paid_at IS NOT NULL GROUP BY 1) b ON a.m = b.m FULL JOIN (SELECT date_trunc('month', events.at) AS m, count(*) AS events FROM events WHERE events.at IS NOT NULL GROUP BY 1) c ON c.m = coalesce(a.m, b.m)
;
-- name: left_join_chain_coalesce_group
SELECT coalesce(m.name, '(top)') AS manager, coalesce(e.department, '(none)') AS dept, count(*) AS n, sum(e.salary) AS pay FROM employees e LEFT JOIN employees m ON m.id = e.manager_id GROUP BY ALL
;
-- name: outer_join_then_not_null
SELECT c.id, c.name, o.id AS oid, p.id AS pid FROM customers c LEFT JOIN orders o ON o.customer_id = c.id LEFT JOIN payments p ON p.order_id = o.id AND p.method = 'card' WHERE p.id IS NOT NULL OR o.id IS NULL
;
-- name: correlated_exists_with_outer_agg
SELECT c.country, count(*) AS n, count(*) FILTER (WHERE EXISTS (SELECT 1 FROM orders o WHERE o.customer_id = c.id)) AS with_orders FROM customers c GROUP BY c.country
;
-- name: deep_nested_in_not_exists
SELECT p.id, p.name FROM products p WHERE p.category IN (SELECT q.category FROM products q WHERE q.id IN (SELECT i.product_id FROM items i WHERE NOT EXISTS (SELECT 1 FROM payments pay WHERE pay.order_id = i.order_id AND pay.ok = false)) GROUP BY q.category HAVING count(*) >= 2) AND p.discontinued IS NULL
;
-- name: deep_nested_derived_five
SELECT region, tier, n FROM (SELECT region, tier, count(*) AS n FROM (SELECT d.id, d.region, CASE WHEN d.spent >= 500 THEN 'gold' WHEN d.spent > 0 THEN 'silver' ELSE 'none' END AS tier FROM (SELECT c.id, coalesce(r.region, '-') AS region, coalesce(s.spent, 0) AS spent FROM (SELECT id, country FROM customers WHERE name IS NOT NULL) c LEFT JOIN regions r ON r.country = c.country LEFT JOIN (SELECT customer_id, sum(total) AS spent FROM orders GROUP BY customer_id) s ON s.customer_id = c.id) d) e GROUP BY region, tier) f WHERE n > 0
;
-- name: window_over_join_group
SELECT c.country, c.id, sum(o.total) AS spent, dense_rank() OVER (PARTITION BY c.country ORDER BY sum(o.total) DESC NULLS LAST) AS rk, sum(sum(o.total)) OVER (PARTITION BY c.country) AS country_total FROM customers c JOIN orders o ON o.customer_id = c.id GROUP BY c.country, c.id
;
-- name: window_of_window
SELECT id, customer_id, gap, avg(gap) OVER (PARTITION BY customer_id) AS avg_gap FROM (SELECT id, customer_id, date_diff('hour', lag(placed) OVER (PARTITION BY customer_id ORDER BY placed, id), placed) AS gap FROM orders WHERE placed IS NOT NULL)
;
-- name: window_and_correlated
SELECT o.id, rank() OVER (PARTITION BY o.channel ORDER BY o.total DESC NULLS LAST) AS rk, (SELECT count(*) FROM items i WHERE i.order_id = o.id) AS n_lines FROM orders o
;
-- name: window_partition_expression
SELECT id, coalesce(upper(coupon), 'NONE') AS code, count(*) OVER (PARTITION BY coalesce(upper(coupon), 'NONE')) AS code_uses, rank() OVER (PARTITION BY coalesce(upper(coupon), 'NONE') ORDER BY total DESC NULLS LAST) AS rk FROM orders
;
-- name: window_rows_following
SELECT order_id, line, quantity, sum(quantity) OVER (PARTITION BY order_id ORDER BY line ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING) AS next_two, max(price) OVER (PARTITION BY order_id ORDER BY line ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS near_max FROM items
;
-- name: qualify_with_group_having
SELECT o.channel, o.status, count(*) AS n FROM orders o GROUP BY o.channel, o.status HAVING count(*) > 0 QUALIFY row_number() OVER (PARTITION BY o.channel ORDER BY count(*) DESC, o.status NULLS LAST) = 1
;
-- name: qualify_lag_change
SELECT product_id, valid_from, price FROM prices QUALIFY price IS DISTINCT FROM lag(price) OVER (PARTITION BY product_id ORDER BY valid_from)
;
-- name: gaps_in_line_numbers
SELECT order_id, line + 1 AS missing_from FROM items i WHERE NOT EXISTS (SELECT 1 FROM items j WHERE j.order_id = i.order_id AND j.line = i.line + 1) AND line < (SELECT max(k.line) FROM items k WHERE k.order_id = i.order_id)
;
-- name: order_id_gaps
SELECT id + 1 AS gap_start, nxt - 1 AS gap_end FROM (SELECT id, lead(id) OVER (ORDER BY id) AS nxt FROM customers) WHERE nxt - id > 1 UNION ALL SELECT max(id) + 1, NULL FROM customers
;
-- name: limit_inside_join
SELECT o.id, o.total, c.name FROM (SELECT * FROM orders WHERE total IS NOT NULL ORDER BY total DESC, id LIMIT 6) o LEFT JOIN customers c ON c.id = o.customer_id
;
-- name: limit_group_window
SELECT brand, n, share FROM (SELECT brand, count(*) AS n, round(count(*) / sum(count(*)) OVER (), 4) AS share FROM products GROUP BY brand) ORDER BY n DESC, brand NULLS LAST LIMIT 3
;
-- name: union_of_aggregates_rollup
SELECT 'orders' AS tbl, count(*) AS n FROM orders UNION ALL SELECT 'items', count(*) FROM items UNION ALL SELECT 'payments', count(*) FROM payments UNION ALL SELECT 'customers', count(*) FROM customers UNION ALL SELECT 'visits', count(*) FROM visits UNION ALL SELECT 'events', count(*) FROM events
;
-- name: union_all_same_table_filters
SELECT id, 'late' AS reason FROM orders WHERE shipped > placed + INTERVAL 5 DAY UNION ALL SELECT id, 'no date' FROM orders WHERE placed IS NULL UNION ALL SELECT id, 'zero' FROM orders WHERE total = 0
;
-- name: distinct_over_union_join
SELECT DISTINCT u.cid, c.country FROM (SELECT customer_id AS cid FROM orders UNION ALL SELECT customer_id FROM events) u LEFT JOIN customers c ON c.id = u.cid
;
-- name: except_all_items_products
SELECT product_id FROM items EXCEPT ALL SELECT product_id FROM stock
;
-- name: values_cross_join_thresholds
SELECT t.th AS threshold, count(*) FILTER (WHERE o.total >= t.th) AS n_over FROM orders o CROSS JOIN (VALUES (10), (100), (1000)) t(th) GROUP BY t.th
;
-- name: recursive_counter_join
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 6) SELECT n.i AS lines, count(x.order_id) AS orders FROM n LEFT JOIN (SELECT order_id, count(*) AS c FROM items GROUP BY order_id) x ON x.c = n.i GROUP BY n.i
;
-- name: recursive_dept_depth_stats
WITH RECURSIVE h(id, department, lvl) AS (SELECT id, department, 1 FROM employees WHERE manager_id IS NULL UNION ALL SELECT e.id, e.department, h.lvl + 1 FROM employees e, h WHERE e.manager_id = h.id) SELECT department, max(lvl) AS deepest, avg(lvl) AS avg_level, count(*) AS n FROM h GROUP BY department
;
-- name: recursive_management_pairs_skip
WITH RECURSIVE anc(emp, boss, d) AS (SELECT id, manager_id, 1 FROM employees WHERE manager_id IS NOT NULL UNION ALL SELECT a.emp, e.manager_id, a.d + 1 FROM anc a JOIN employees e ON e.id = a.boss WHERE e.manager_id IS NOT NULL) SELECT e.name AS employee, b.name AS ancestor, anc.d AS distance, e.id AS eid, b.id AS bid FROM anc JOIN employees e ON e.id = anc.emp JOIN employees b ON b.id = anc.boss WHERE anc.d >= 2
;
-- name: lateral_unnest_struct_list
SELECT b.order_id, x.u.p AS product_id, x.u.q AS quantity FROM (SELECT order_id, list({'p': product_id, 'q': quantity} ORDER BY line) AS basket FROM items GROUP BY order_id) b, unnest(b.basket) AS x(u)
;
-- name: lateral_prev_order
SELECT o.id, p.prev_id, p.prev_total FROM orders o LEFT JOIN LATERAL (SELECT x.id AS prev_id, x.total AS prev_total FROM orders x WHERE x.customer_id = o.customer_id AND x.placed < o.placed ORDER BY x.placed DESC, x.id DESC LIMIT 1) p ON true
;
-- name: asof_payment_to_price_event
SELECT p.id, p.amount, e.ts AS last_purchase_event FROM (SELECT p.id, p.amount, p.paid_at AT TIME ZONE 'UTC' AS paid, o.customer_id FROM payments p JOIN orders o ON o.id = p.order_id) p ASOF LEFT JOIN (SELECT customer_id, max("at") AS ts, "at" AS at_key FROM events WHERE kind = 'purchase' AND "at" IS NOT NULL GROUP BY customer_id, "at") e ON e.customer_id = p.customer_id AND p.paid >= e.at_key
;
-- name: asof_then_group
SELECT pr.product_id, count(*) AS counts_after, sum(s.quantity) AS qty, max(pr.valid_from) AS vf FROM stock s ASOF JOIN prices pr ON pr.product_id = s.product_id AND s.counted >= pr.valid_from GROUP BY pr.product_id
;
-- name: upper_style_report
SELECT C.SEGMENT, COUNT(DISTINCT O.ID) AS ORDER_COUNT, SUM(I.QUANTITY * I.PRICE) AS GROSS, SUM(CASE WHEN O.CHANNEL = 'store' THEN I.QUANTITY * I.PRICE ELSE 0 END) AS STORE_GROSS FROM CUSTOMERS C, ORDERS O, ITEMS I WHERE C.ID = O.CUSTOMER_ID AND O.ID = I.ORDER_ID AND O.STATUS <> 'cancelled' GROUP BY C.SEGMENT
;
-- name: quoted_output_names
SELECT c.country AS "Country", count(*) AS "Number of Orders", sum(o.total) AS "Revenue", avg(o.total) AS "Average Order" FROM orders o JOIN customers c ON c.id = o.customer_id GROUP BY "Country"
;
-- name: prefix_alias_style
FROM items i JOIN products p ON p.id = i.product_id SELECT cat: p.category, units: sum(i.quantity), gross: sum(i.quantity * i.price) GROUP BY p.category
;
-- name: select_columns_lambda
SELECT product_id, COLUMNS(lambda c: c LIKE 'pri%') FROM prices
;
-- name: simple_passthrough_visits
select * from visits
;
-- name: simple_passthrough_events_filter
SELECT * FROM events WHERE kind <> 'view' AND customer_id IS NOT NULL
;
-- name: visits_projection_no_key
SELECT page, ms FROM visits WHERE ms BETWEEN 100 AND 5000
;
-- name: payments_window_7d_customer
SELECT p.id, o.customer_id, sum(p.amount) OVER (PARTITION BY o.customer_id ORDER BY p.paid_at RANGE BETWEEN INTERVAL 7 DAYS PRECEDING AND CURRENT ROW) AS amt_7d FROM payments p JOIN orders o ON o.id = p.order_id WHERE p.paid_at IS NOT NULL AND p.ok
;
-- name: fraud_rules
WITH f AS (SELECT o.customer_id, count(*) FILTER (WHERE NOT p.ok) AS fails, count(DISTINCT p.method) AS methods, sum(p.amount) FILTER (WHERE p.ok) AS paid FROM payments p JOIN orders o ON o.id = p.order_id GROUP BY o.customer_id) SELECT f.customer_id, c.name, f.fails, f.methods, f.paid, (f.fails >= 2)::INT + (f.methods >= 3)::INT + (c.email IS NULL)::INT + (c.id IS NULL)::INT AS risk FROM f LEFT JOIN customers c ON c.id = f.customer_id WHERE f.fails > 0 OR f.methods > 1
;
-- name: weekly_cohort_activity
WITH c AS (SELECT customer_id, date_trunc('week', min(events.at)) AS cw FROM events WHERE events.at IS NOT NULL AND customer_id IS NOT NULL GROUP BY customer_id), a AS (SELECT DISTINCT customer_id, date_trunc('week', events.at) AS w FROM events WHERE events.at IS NOT NULL), n AS (SELECT cw, count(*) AS size FROM c GROUP BY cw) SELECT c.cw AS cohort_week, date_diff('week', c.cw, a.w) AS wk, count(*) AS active, round(100 * count(*) / any_value(n.size), 1) AS pct FROM c JOIN a USING (customer_id) JOIN n ON n.cw = c.cw GROUP BY c.cw, wk
;
