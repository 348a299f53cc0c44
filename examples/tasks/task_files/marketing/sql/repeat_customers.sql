DROP TABLE IF EXISTS repeat_customers;
CREATE TABLE repeat_customers AS
SELECT customer, orders, eur FROM customers WHERE orders > 1;
