DROP TABLE IF EXISTS revenue_weekly;
CREATE TABLE revenue_weekly AS
SELECT strftime('%W', day) AS week, sum(orders) AS orders, round(sum(eur), 2) AS eur
FROM revenue_daily
GROUP BY week;
