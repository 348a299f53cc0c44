DROP TABLE IF EXISTS customer_countries;
CREATE TABLE customer_countries AS
SELECT c.region, count(DISTINCT o.customer) AS customers
FROM orders AS o
JOIN countries AS c ON c.country = o.country
GROUP BY c.region;
