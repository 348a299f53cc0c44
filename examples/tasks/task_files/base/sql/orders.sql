DROP TABLE IF EXISTS orders;
CREATE TABLE orders AS
SELECT o.order_id, substr(o.ordered_at, 1, 10) AS day, o.customer, o.country, o.currency, round(o.amount * c.rate, 2) AS eur
FROM orders_clean AS o
JOIN currencies AS c ON c.currency = o.currency;
