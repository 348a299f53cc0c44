DROP TABLE IF EXISTS country_report;
CREATE TABLE country_report AS
SELECT r.name, r.eur, c.customers AS customers_of_region
FROM revenue_by_country AS r
JOIN customer_countries AS c ON c.region = r.region;
