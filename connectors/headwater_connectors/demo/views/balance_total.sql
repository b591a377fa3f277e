-- The sum of all balances: transfers never change it, so neither does this view, at any commit.
CREATE MATERIALIZED VIEW balance_total AS
SELECT sum(balance) AS total, count(*) AS accounts
FROM accounts;
