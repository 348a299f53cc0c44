DROP TABLE IF EXISTS customers;
CREATE TABLE customers AS
SELECT customer, min(day) AS first_day, count(*) AS orders, round(sum(eur), 2) AS eur
FROM orders
GROUP BY customer;
