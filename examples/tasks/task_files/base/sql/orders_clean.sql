DROP TABLE IF EXISTS orders_clean;
CREATE TABLE orders_clean AS
SELECT order_id, min(ordered_at) AS ordered_at, customer, country, currency, CAST(amount AS REAL) AS amount
FROM raw_orders
WHERE amount GLOB '[0-9]*'
GROUP BY order_id;
