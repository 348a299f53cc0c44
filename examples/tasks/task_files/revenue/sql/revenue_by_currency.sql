DROP TABLE IF EXISTS revenue_by_currency;
CREATE TABLE revenue_by_currency AS
SELECT currency, count(*) AS orders, round(sum(eur), 2) AS eur FROM orders GROUP BY currency;
