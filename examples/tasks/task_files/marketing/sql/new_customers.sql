DROP TABLE IF EXISTS new_customers;
CREATE TABLE new_customers AS
SELECT cohort, count(*) AS customers FROM customer_cohorts GROUP BY cohort;
