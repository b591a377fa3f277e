"""The queries of Nexmark as views in plain SQL.

As in the published ones, but: where several rows could be the first, further columns decide; q6 takes the winning bids
of q9; q10 gives a file's day and minute as columns; q12 takes event time, and q13 looks bids up in a table.
"""

from __future__ import annotations

_WINNING = """
    SELECT *, row_number() OVER (PARTITION BY id ORDER BY price DESC, bid_date_time, bidder, bid_extra) AS place
    FROM (SELECT a.*, b.auction, b.bidder, b.price, b.date_time AS bid_date_time, b.extra AS bid_extra
        FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires)"""
_RANKS = """
    count(*) FILTER (WHERE price < 10000) AS rank1_bids,
    count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
    count(*) FILTER (WHERE price >= 1000000) AS rank3_bids"""
_DISTINCT = f"""
    count(*) AS total_bids,{_RANKS},
    count(DISTINCT bidder) AS total_bidders,
    count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
    count(DISTINCT bidder) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bidders,
    count(DISTINCT bidder) FILTER (WHERE price >= 1000000) AS rank3_bidders,
    count(DISTINCT auction) AS total_auctions,
    count(DISTINCT auction) FILTER (WHERE price < 10000) AS rank1_auctions,
    count(DISTINCT auction) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_auctions,
    count(DISTINCT auction) FILTER (WHERE price >= 1000000) AS rank3_auctions"""

QUERIES = {
    "q0": "SELECT auction, bidder, price, date_time, extra FROM bid",
    "q1": "SELECT auction, bidder, 0.908 * price AS price, date_time, extra FROM bid",
    "q2": "SELECT auction, price FROM bid WHERE auction % 123 = 0",
    "q3": """
        SELECT p.name, p.city, p.state, a.id
        FROM auction a JOIN person p ON a.seller = p.id
        WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')""",
    "q4": """
        SELECT category, avg(final) AS final
        FROM (SELECT max(b.price) AS final, a.category
            FROM auction a JOIN bid b ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.expires
            GROUP BY a.id, a.category)
        GROUP BY category""",
    "q5": """
        WITH counted AS (
            SELECT auction, count(*) AS num, window_start, window_end
            FROM HOP(bid, date_time, INTERVAL 2 seconds, INTERVAL 10 seconds)
            GROUP BY auction, window_start, window_end)
        SELECT c.auction, c.num
        FROM counted c JOIN (SELECT max(num) AS num, window_start, window_end FROM counted
            GROUP BY window_start, window_end) m
        ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.num >= m.num""",
    "q6": f"""
        SELECT seller, id, avg(price) OVER (PARTITION BY seller ORDER BY bid_date_time, id
            ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS final
        FROM (SELECT seller, id, price, bid_date_time FROM ({_WINNING}) WHERE place = 1)""",
    "q7": """
        SELECT b.auction, b.price, b.bidder, b.date_time, b.extra
        FROM bid b JOIN (SELECT max(price) AS price, window_end AS date_time
            FROM TUMBLE(bid, date_time, INTERVAL 10 seconds) GROUP BY window_start, window_end) m
        ON b.price = m.price
        WHERE b.date_time BETWEEN m.date_time - INTERVAL 10 seconds AND m.date_time""",
    "q8": """
        SELECT p.id, p.name, p.window_start
        FROM (SELECT id, name, window_start, window_end FROM TUMBLE(person, date_time, INTERVAL 10 seconds)
            GROUP BY ALL) p
        JOIN (SELECT seller, window_start, window_end FROM TUMBLE(auction, date_time, INTERVAL 10 seconds)
            GROUP BY ALL) a
        ON p.id = a.seller AND p.window_start = a.window_start AND p.window_end = a.window_end""",
    "q9": f"SELECT * EXCLUDE (place) FROM ({_WINNING}) WHERE place = 1",
    "q10": """
        SELECT auction, bidder, price, date_time, extra, strftime(date_time, '%Y-%m-%d') AS day,
            strftime(date_time, '%H:%M') AS minute
        FROM bid""",
    "q11": """
        SELECT bidder, count(*) AS bid_count, window_start, window_end
        FROM SESSION(bid, date_time, INTERVAL 10 seconds, bidder)
        GROUP BY bidder, window_start, window_end""",
    "q12": """
        SELECT bidder, count(*) AS bid_count, window_start, window_end
        FROM TUMBLE(bid, date_time, INTERVAL 10 seconds)
        GROUP BY bidder, window_start, window_end""",
    "q13": """
        SELECT b.auction, b.bidder, b.price, b.date_time, s.value
        FROM bid b JOIN side_input s ON b.auction % 10000 = s.key""",
    "q14": """
        SELECT auction, bidder, 0.908 * price AS price,
            CASE WHEN hour(date_time) BETWEEN 8 AND 18 THEN 'dayTime'
                WHEN hour(date_time) <= 6 OR hour(date_time) >= 20 THEN 'nightTime' ELSE 'otherTime' END AS time_type,
            date_time, extra, length(extra) - length(replace(extra, 'c', '')) AS c_counts
        FROM bid
        WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000""",
    "q15": f"SELECT strftime(date_time, '%Y-%m-%d') AS day,{_DISTINCT} FROM bid GROUP BY day",
    "q16": f"""
        SELECT channel, strftime(date_time, '%Y-%m-%d') AS day, max(strftime(date_time, '%H:%M')) AS minute,{_DISTINCT}
        FROM bid
        GROUP BY channel, day""",
    "q17": f"""
        SELECT auction, strftime(date_time, '%Y-%m-%d') AS day, count(*) AS total_bids,{_RANKS},
            min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price
        FROM bid
        GROUP BY auction, day""",
    "q18": """
        SELECT auction, bidder, price, channel, url, date_time, extra
        FROM bid
        QUALIFY row_number() OVER (PARTITION BY bidder, auction ORDER BY date_time DESC, price, url, extra) = 1""",
    "q19": """
        SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, date_time, bidder, url, extra) AS place
        FROM bid
        QUALIFY place <= 10""",
    "q20": """
        SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.date_time, b.extra, a.item_name, a.description,
            a.initial_bid, a.reserve, a.date_time AS auction_date_time, a.expires, a.seller, a.category,
            a.extra AS auction_extra
        FROM bid b JOIN auction a ON b.auction = a.id
        WHERE a.category = 10""",
    "q21": r"""
        SELECT auction, bidder, price, channel, CASE lower(channel) WHEN 'apple' THEN '0' WHEN 'google' THEN '1'
            WHEN 'facebook' THEN '2' WHEN 'baidu' THEN '3'
            ELSE regexp_extract(url, '(&|^)channel_id=([^&]*)', 2) END AS channel_id
        FROM bid
        WHERE channel_id <> ''""",
    "q22": """
        SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2,
            split_part(url, '/', 6) AS dir3
        FROM bid""",
    "q23": """
        SELECT b.auction, b.bidder, b.price, b.date_time, p.name, p.state, a.id, a.item_name, a.category
        FROM bid b JOIN person p ON p.id = b.bidder JOIN auction a ON a.seller = b.bidder""",
}
