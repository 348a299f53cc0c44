DROP TABLE IF EXISTS revenue_growth;
CREATE TABLE revenue_growth AS
SELECT month, eur, round(100 * eur / lag(eur) OVER (ORDER BY month) - 100, 1) AS growth
FROM revenue_monthly;
