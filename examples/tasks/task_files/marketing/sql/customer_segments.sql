DROP TABLE IF EXISTS customer_segments;
CREATE TABLE customer_segments AS
SELECT quarter, count(*) AS customers, round(sum(eur), 2) AS eur FROM customer_value GROUP BY quarter;
