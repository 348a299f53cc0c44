CREATE TABLE IF NOT EXISTS customer_report (what TEXT PRIMARY KEY, eur REAL);
INSERT OR REPLACE INTO customer_report
SELECT 'quarter ' || quarter, eur FROM customer_segments
UNION ALL SELECT 'top twenty', sum(eur) FROM top_customers
UNION ALL SELECT 'retained', sum(customers) FROM cohort_retention;
