DROP TABLE IF EXISTS revenue_monthly;
CREATE TABLE revenue_monthly AS
SELECT substr(day, 1, 7) AS month, sum(orders) AS orders, round(sum(eur), 2) AS eur
FROM revenue_daily
GROUP BY month;
