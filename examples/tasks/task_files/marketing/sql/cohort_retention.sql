DROP TABLE IF EXISTS cohort_retention;
CREATE TABLE cohort_retention AS
SELECT c.cohort, substr(o.day, 1, 7) AS month, count(DISTINCT o.customer) AS customers
FROM customer_cohorts AS c
JOIN orders AS o ON o.customer = c.customer
GROUP BY c.cohort, month;
