DROP TABLE IF EXISTS revenue_cumulative;
CREATE TABLE revenue_cumulative AS
SELECT day, round(sum(eur) OVER (ORDER BY day), 2) AS eur FROM revenue_daily;
