DROP TABLE IF EXISTS doubled_orders;
CREATE TABLE doubled_orders AS
SELECT order_id, count(*) AS times FROM raw_orders GROUP BY order_id HAVING times > 1;
