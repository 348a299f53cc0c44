DROP TABLE IF EXISTS monthly_report;
CREATE TABLE monthly_report AS
SELECT m.month, m.orders, m.eur, g.growth, n.customers AS new_customers
FROM revenue_monthly AS m
JOIN revenue_growth AS g ON g.month = m.month
LEFT JOIN new_customers AS n ON n.cohort = m.month;
