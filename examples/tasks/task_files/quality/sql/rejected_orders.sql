DROP TABLE IF EXISTS rejected_orders;
CREATE TABLE rejected_orders AS
SELECT order_id, amount FROM raw_orders WHERE amount NOT GLOB '[0-9]*';
