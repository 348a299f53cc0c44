DROP TABLE IF EXISTS customer_value;
CREATE TABLE customer_value AS
SELECT customer, eur, ntile(4) OVER (ORDER BY eur DESC, customer) AS quarter FROM customers;
