DROP TABLE IF EXISTS revenue_by_country;
CREATE TABLE revenue_by_country AS
SELECT c.name, c.region, round(sum(o.eur), 2) AS eur
FROM orders AS o
JOIN countries AS c ON c.country = o.country
GROUP BY c.country;
