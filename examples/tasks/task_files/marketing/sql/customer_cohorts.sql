DROP TABLE IF EXISTS customer_cohorts;
CREATE TABLE customer_cohorts AS
SELECT customer, substr(first_day, 1, 7) AS cohort FROM customers;
