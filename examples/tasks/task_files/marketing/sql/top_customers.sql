DROP TABLE IF EXISTS top_customers;
CREATE TABLE top_customers AS
SELECT v.customer, v.eur
FROM customer_value AS v
JOIN repeat_customers AS r ON r.customer = v.customer
ORDER BY v.eur DESC, v.customer
LIMIT 20;
