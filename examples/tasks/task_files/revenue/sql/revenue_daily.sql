DROP TABLE IF EXISTS revenue_daily;
CREATE TABLE revenue_daily AS
SELECT c.day, count(o.order_id) AS orders, coalesce(round(sum(o.eur), 2), 0) AS eur
FROM calendar AS c
LEFT JOIN orders AS o ON o.day = c.day
GROUP BY c.day;
