-- What the shop holds when it opens. Drawn from random() after setseed(), so the same seed gives the same shop.

INSERT INTO customers (ref, name, email, country, interests, profile, created_at)
SELECT md5('customer' || i)::uuid,
       (ARRAY['Ada','Grace','Edsger','Barbara','Donald','Radia','Leslie','Tony','Margaret','Ken'])[1 + floor(random() * 10)::int]
           || ' ' || (ARRAY['Meier','Rossi','Dubois','Nguyen','García','Søren','Kowalski','Ōno'])[1 + floor(random() * 8)::int],
       'customer' || i || '@example.com',
       (ARRAY['DE','US','FR','IT','JP','BR','IN','GB','CH','SE','PL','ES'])[1 + floor(power(random(), 2) * 12)::int],
       CASE WHEN random() < 0.2 THEN '{}'
            ELSE ARRAY[(ARRAY['books','music','garden','tools'])[1 + floor(random() * 4)::int], 'news, "daily"'] END,
       jsonb_build_object('visits', floor(random() * 100)::int, 'vip', random() < 0.05, 'nick', 'c' || i),
       timestamptz '2026-01-01 00:00:00Z' + random() * interval '300 days'
FROM generate_series(1, 2000) AS i;

INSERT INTO products (sku, title, category, price, stock, labels, description)
SELECT 'SKU-' || lpad(i::text, 5, '0'),
       (ARRAY['Quiet','Bright','Sturdy','Folding','Tiny'])[1 + floor(random() * 5)::int] || ' '
           || (ARRAY['lamp','desk','kettle','radio','spade','notebook'])[1 + floor(random() * 6)::int] || ' ' || i,
       (ARRAY['home','garden','office','kitchen','audio'])[1 + floor(random() * 5)::int],
       round((1 + random() * 199)::numeric, 2),
       1000 + floor(random() * 9000)::int,
       CASE WHEN random() < 0.3 THEN NULL ELSE ARRAY['new', NULL, 'sale'] END,
       CASE WHEN i % 2 = 0 THEN repeat(md5(i::text), 100) ELSE 'A short description of product ' || i END
FROM generate_series(1, 500) AS i;

INSERT INTO accounts (id, customer_id, balance, updated_at)
SELECT i, i, round((random() * 1000)::numeric, 2), timestamptz '2026-11-01 00:00:00Z'
FROM generate_series(1, 1000) AS i;

INSERT INTO orders (customer_id, status, total, note, placed_at, deliver_on)
SELECT 1 + floor(power(random(), 3) * 2000)::int, 'shipped', 0, CASE WHEN random() < 0.1 THEN '' END,
       timestamptz '2026-10-01 00:00:00Z' + i * interval '10 minutes', date '2026-10-05' + i / 144
FROM generate_series(1, 4000) AS i;

INSERT INTO order_items (order_id, line, product_id, quantity, price)
SELECT o.id, line, product.id, 1 + (o.id + line) % 3, product.price
FROM orders AS o CROSS JOIN LATERAL generate_series(1, 1 + (o.id % 4)::int) AS line
JOIN products AS product ON product.id = 1 + (o.id * 7 + line * line * 13) % 500;

UPDATE orders SET total = (SELECT sum(quantity * price) FROM order_items WHERE order_id = orders.id);

INSERT INTO payments (id, order_id, amount, method, paid_at)
SELECT md5('payment' || id)::uuid, id, total, (ARRAY['card','invoice','wallet'])[1 + (id % 3)::int],
       placed_at + interval '3 minutes'
FROM orders;

INSERT INTO page_views (customer_id, product_id, path, took_ms, at)
SELECT CASE WHEN random() < 0.7 THEN 1 + floor(random() * 2000)::int END, product, '/products/' || product,
       (random() * 300)::real, timestamptz '2026-11-01 00:00:00Z' + i * interval '1 second'
FROM (SELECT i, 1 + floor(power(random(), 3) * 500)::int AS product FROM generate_series(1, 10000) AS i) AS drawn;

INSERT INTO wishes SELECT 1 + i % 300, 1 + i % 50, date '2026-11-01' + i % 5 FROM generate_series(1, 1000) AS i;

INSERT INTO audit_log VALUES ('2026-11-01 00:00:00Z', 'shop', 'opened', '{"seeded": true}');
