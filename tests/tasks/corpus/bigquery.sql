-- name: merge from a subquery with an array
-- reads: raw.orders, raw.fx
-- writes: mart.order_lines
MERGE `mart.order_lines` AS t
USING (
  SELECT o.id, line.sku, line.price * f.rate AS eur
  FROM `raw.orders` AS o, UNNEST(o.lines) AS line
  LEFT JOIN raw.fx AS f ON f.currency = o.currency
) AS s
ON t.id = s.id AND t.sku = s.sku
WHEN MATCHED THEN UPDATE SET eur = s.eur
WHEN NOT MATCHED THEN INSERT ROW
WHEN NOT MATCHED BY SOURCE AND t.day < DATE_SUB(CURRENT_DATE(), INTERVAL 30 DAY) THEN DELETE;

-- name: an array of the row in FROM is no table
-- reads: shop.orders
-- writes: mart.items
CREATE OR REPLACE TABLE mart.items PARTITION BY day CLUSTER BY sku AS
SELECT o.day, i.sku FROM shop.orders AS o, o.items AS i;

-- name: an array of the row in a correlated subquery is no table
-- reads: shop.orders
-- writes:
SELECT id, (SELECT SUM(i.price) FROM o.items AS i) AS total FROM shop.orders AS o;

-- name: a left join with an array of the row
-- reads: shop.orders
-- writes: mart.items
INSERT INTO mart.items (day, sku)
SELECT o.day, i.sku FROM shop.orders AS o LEFT JOIN o.items AS i;

-- name: project with dashes and a backtick around everything
-- reads: acme-prod.raw.events
-- writes: acme-prod.mart.daily_events
INSERT INTO `acme-prod`.mart.daily_events SELECT DATE(ts), COUNT(*) FROM `acme-prod.raw.events` GROUP BY 1;

-- name: wildcard table
-- reads: raw.events_*
-- writes: mart.week
CREATE TABLE mart.week AS
SELECT * FROM `raw.events_*` WHERE _TABLE_SUFFIX BETWEEN '20260101' AND '20260107';

-- name: script with a variable, a temporary table and a condition
-- reads: raw.runs, raw.orders
-- writes: mart.orders
DECLARE last_day DATE DEFAULT (SELECT MAX(day) FROM raw.runs);
DECLARE n INT64;
CREATE TEMP TABLE todays AS SELECT * FROM raw.orders WHERE day > last_day;
SET n = (SELECT COUNT(*) FROM todays);
IF n > 0 THEN
  INSERT INTO mart.orders SELECT * FROM todays;
ELSE
  SELECT ERROR('no orders');
END IF;

-- name: loop over rows
-- reads: raw.shops, raw.orders
-- writes: mart.per_shop
FOR shop IN (SELECT id FROM raw.shops) DO
  INSERT INTO mart.per_shop SELECT shop.id, COUNT(*) FROM raw.orders WHERE shop_id = shop.id;
END FOR;

-- name: block with an exception handler
-- reads: raw.orders
-- writes: mart.orders, ops.errors
BEGIN
  INSERT INTO mart.orders SELECT * FROM raw.orders;
EXCEPTION WHEN ERROR THEN
  INSERT INTO ops.errors VALUES (@@error.message, CURRENT_TIMESTAMP());
END;

-- name: load from a bucket
-- reads:
-- writes: raw.visits
LOAD DATA OVERWRITE raw.visits (day DATE, n INT64)
FROM FILES (format = 'CSV', uris = ['gs://landing/visits/*.csv'], skip_leading_rows = 1);

-- name: load into a temporary table, then into a real one
-- reads:
-- writes: raw.visits
LOAD DATA INTO TEMP TABLE landing (n INT64) FROM FILES (format = 'CSV', uris = ['gs://landing/v.csv']);
INSERT INTO raw.visits SELECT * FROM landing;

-- name: export to a bucket
-- reads: mart.daily
-- writes:
EXPORT DATA OPTIONS (uri = 'gs://out/daily-*.parquet', format = 'PARQUET', overwrite = true) AS
SELECT * FROM mart.daily WHERE day = CURRENT_DATE();

-- name: train a model
-- reads: mart.features
-- writes: ml.churn
CREATE OR REPLACE MODEL ml.churn
OPTIONS (model_type = 'LOGISTIC_REG', input_label_cols = ['churned']) AS
SELECT * EXCEPT (id) FROM mart.features;

-- name: predict with a model and a query
-- reads: ml.churn, mart.features
-- writes: mart.scores
CREATE OR REPLACE TABLE mart.scores AS
SELECT id, predicted_churned FROM ML.PREDICT(MODEL ml.churn, (SELECT * FROM mart.features WHERE active));

-- name: evaluate a model on a table
-- reads: ml.churn, mart.features
-- writes:
SELECT * FROM ML.EVALUATE(MODEL `ml.churn`, TABLE mart.features);

-- name: snapshot
-- reads: mart.orders
-- writes: backup.orders
CREATE SNAPSHOT TABLE backup.orders CLONE mart.orders
FOR SYSTEM_TIME AS OF TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR)
OPTIONS (expiration_timestamp = TIMESTAMP '2027-01-01 00:00:00 UTC');

-- name: copy of a table
-- reads: mart.orders
-- writes: test.orders
CREATE TABLE test.orders COPY mart.orders;

-- name: time travel
-- reads: mart.orders
-- writes:
SELECT * FROM mart.orders FOR SYSTEM_TIME AS OF TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 DAY);

-- name: temporary function that looks a table up
-- reads: ref.rates, raw.orders
-- writes: mart.eur
CREATE TEMP FUNCTION rate(c STRING) AS ((SELECT ANY_VALUE(r.rate) FROM ref.rates AS r WHERE r.currency = c));
CREATE OR REPLACE TABLE mart.eur AS SELECT id, amount * rate(currency) AS eur FROM raw.orders;

-- name: temporary function in JavaScript
-- reads: raw.logs
-- writes:
CREATE TEMPORARY FUNCTION parse(x STRING) RETURNS STRING LANGUAGE js AS r"""
  // FROM raw.nothing; INSERT INTO raw.nothing
  return x.split(';')[0];
""";
SELECT parse(line) FROM raw.logs;

-- name: creating a permanent function or procedure runs nothing
-- reads:
-- writes:
CREATE OR REPLACE PROCEDURE ops.refresh(day DATE)
BEGIN
  DELETE FROM mart.orders WHERE d = day;
  INSERT INTO mart.orders SELECT * FROM raw.orders WHERE d = day;
END;

-- name: dynamic SQL given as text
-- reads: raw.orders
-- writes: mart.orders
EXECUTE IMMEDIATE "INSERT INTO mart.orders SELECT * FROM raw.orders WHERE day = ?" USING CURRENT_DATE();

-- name: dynamic SQL that is put together is not known
-- reads:
-- writes:
-- unknown: 1
EXECUTE IMMEDIATE FORMAT("INSERT INTO %s SELECT 1", table_name);

-- name: pipe syntax
-- reads: raw.orders, raw.users
-- writes: mart.big
CREATE OR REPLACE TABLE mart.big AS
FROM raw.orders
|> WHERE amount > 100
|> JOIN raw.users USING (user_id)
|> AGGREGATE SUM(amount) AS total GROUP BY country;

-- name: rename to put a new table into place
-- reads: raw.orders
-- writes: mart.orders
CREATE TABLE mart.orders_new AS SELECT * FROM raw.orders;
DROP TABLE IF EXISTS mart.orders;
ALTER TABLE mart.orders_new RENAME TO orders;

-- name: WITH that has the name of the table that it reads
-- reads: raw.orders
-- writes: mart.orders
INSERT INTO mart.orders
WITH orders AS (SELECT * FROM raw.orders QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY ts DESC) = 1)
SELECT * FROM orders;

-- name: recursive WITH
-- reads: raw.nodes
-- writes:
WITH RECURSIVE tree AS (
  SELECT id, parent FROM raw.nodes WHERE parent IS NULL
  UNION ALL
  SELECT n.id, n.parent FROM raw.nodes AS n JOIN tree ON n.parent = tree.id)
SELECT * FROM tree;

-- name: temporary table of the name of a real one, default dataset
-- reads: shop.orders
-- writes: shop.revenue
-- schema: shop
CREATE TEMP TABLE orders AS SELECT * FROM shop.orders WHERE day = CURRENT_DATE();
INSERT INTO revenue SELECT SUM(amount) FROM orders;

-- name: changes of a table
-- reads: raw.orders
-- writes: mart.changes
INSERT INTO mart.changes SELECT * FROM APPENDS(TABLE raw.orders, NULL, NULL);

-- name: truncate and insert, with an assertion
-- reads: raw.fx
-- writes: mart.fx
TRUNCATE TABLE mart.fx;
INSERT mart.fx (currency, rate) SELECT currency, rate FROM raw.fx;
ASSERT (SELECT COUNT(*) FROM mart.fx) > 0 AS 'fx is empty';

-- name: update from a join
-- reads: raw.prices
-- writes: mart.products
UPDATE mart.products p SET price = n.price FROM raw.prices n WHERE n.sku = p.sku;

-- name: delete with a subquery
-- reads: raw.deleted_users
-- writes: mart.users
DELETE mart.users WHERE id IN (SELECT id FROM raw.deleted_users);

-- name: materialized view
-- reads: mart.orders
-- writes: mart.by_day
CREATE MATERIALIZED VIEW IF NOT EXISTS mart.by_day OPTIONS (enable_refresh = true) AS
SELECT day, SUM(amount) AS amount FROM mart.orders GROUP BY day;

-- name: pivot and unpivot
-- reads: mart.sales
-- writes: mart.wide
CREATE OR REPLACE TABLE mart.wide AS
SELECT * FROM mart.sales PIVOT (SUM(amount) FOR quarter IN ('Q1', 'Q2')) ORDER BY 1;
