DROP TABLE IF EXISTS revenue_weekend;
CREATE TABLE revenue_weekend AS
SELECT c.weekend, round(avg(r.eur), 2) AS eur
FROM revenue_daily AS r
JOIN calendar AS c ON c.day = r.day
GROUP BY c.weekend;
