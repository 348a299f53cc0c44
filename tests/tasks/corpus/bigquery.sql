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

-- name: in short: INSERT INTO mart.a (x) (SELECT x FROM raw.b)
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a (x) (SELECT x FROM raw.b);

-- name: in short: ((SELECT * FROM raw.a) UNION ALL (SELECT * FROM raw.b))
-- reads: raw.a, raw.b
-- writes:
((SELECT * FROM raw.a) UNION ALL (SELECT * FROM raw.b));

-- name: in short: CREATE OR REPLACE EXTERNAL TABLE raw.ext OPTIONS (format='CSV', uris=[
-- reads:
-- writes: raw.ext
CREATE OR REPLACE EXTERNAL TABLE raw.ext OPTIONS (format='CSV', uris=['gs://a/*.csv']);

-- name: in short: CREATE TABLE mart.a LIKE raw.b AS SELECT * FROM raw.c
-- reads: raw.b, raw.c
-- writes: mart.a
CREATE TABLE mart.a LIKE raw.b AS SELECT * FROM raw.c;

-- name: in short: CREATE TEMP TABLE _SESSION.t AS SELECT * FROM raw.a; SELECT * FROM _SE
-- reads: raw.a
-- writes:
CREATE TEMP TABLE _SESSION.t AS SELECT * FROM raw.a; SELECT * FROM _SESSION.t;

-- name: in short: MERGE mart.a USING UNNEST([1,2]) AS x ON a.id = x WHEN NOT MATCHED THE
-- reads:
-- writes: mart.a
MERGE mart.a USING UNNEST([1,2]) AS x ON a.id = x WHEN NOT MATCHED THEN INSERT (id) VALUES (x);

-- name: in short: BEGIN TRANSACTION; DELETE FROM mart.a WHERE TRUE; INSERT mart.a SELECT
-- reads: raw.a
-- writes: mart.a
BEGIN TRANSACTION; DELETE FROM mart.a WHERE TRUE; INSERT mart.a SELECT * FROM raw.a; COMMIT TRANSACTION;

-- name: in short: WHILE x < 10 DO SET x = x + 1; INSERT INTO mart.a SELECT x; END WHILE
-- reads:
-- writes: mart.a
WHILE x < 10 DO SET x = x + 1; INSERT INTO mart.a SELECT x; END WHILE;

-- name: in short: CASE WHEN EXISTS (SELECT 1 FROM raw.a) THEN INSERT INTO mart.a SELECT
-- reads: raw.a
-- writes: mart.a
CASE WHEN EXISTS (SELECT 1 FROM raw.a) THEN INSERT INTO mart.a SELECT 1; ELSE SELECT 2; END CASE;

-- name: in short: LOOP INSERT INTO mart.a SELECT 1; BREAK; END LOOP
-- reads:
-- writes: mart.a
LOOP INSERT INTO mart.a SELECT 1; BREAK; END LOOP;

-- name: in short: REPEAT SET x = x+1; INSERT INTO mart.a SELECT x; UNTIL x > 3 END REPEA
-- reads:
-- writes: mart.a
REPEAT SET x = x+1; INSERT INTO mart.a SELECT x; UNTIL x > 3 END REPEAT;

-- name: in short: SELECT * FROM raw.a, UNNEST(GENERATE_DATE_ARRAY('2026-01-01', CURRENT_
-- reads: raw.a
-- writes:
SELECT * FROM raw.a, UNNEST(GENERATE_DATE_ARRAY('2026-01-01', CURRENT_DATE())) d;

-- name: in short: CREATE OR REPLACE TABLE mart.a AS WITH a AS (SELECT * FROM raw.a), b A
-- reads: raw.a, raw.b
-- writes: mart.a
CREATE OR REPLACE TABLE mart.a AS WITH a AS (SELECT * FROM raw.a), b AS (SELECT * FROM a JOIN raw.b USING (id)) SELECT * FROM b;

-- name: in short: SELECT * FROM mart.fn(DATE '2026-01-01')
-- reads:
-- writes:
SELECT * FROM mart.fn(DATE '2026-01-01');

-- name: in short: CREATE VIEW IF NOT EXISTS mart.v(a, b) OPTIONS(description='x') AS SEL
-- reads: raw.a
-- writes: mart.v
CREATE VIEW IF NOT EXISTS mart.v(a, b) OPTIONS(description='x') AS SELECT 1, x FROM raw.a;

-- name: in short: ALTER TABLE mart.a ADD COLUMN IF NOT EXISTS x INT64; INSERT INTO mart.
-- reads: raw.a
-- writes: mart.a
ALTER TABLE mart.a ADD COLUMN IF NOT EXISTS x INT64; INSERT INTO mart.a SELECT * FROM raw.a;

-- name: in short: SELECT * FROM ML.FORECAST(MODEL mart.m, STRUCT(30 AS horizon))
-- reads: mart.m
-- writes:
SELECT * FROM ML.FORECAST(MODEL mart.m, STRUCT(30 AS horizon));

-- name: in short: CREATE OR REPLACE MODEL mart.m OPTIONS(model_type='kmeans') AS WITH x
-- reads: raw.a
-- writes: mart.m
CREATE OR REPLACE MODEL mart.m OPTIONS(model_type='kmeans') AS WITH x AS (SELECT * FROM raw.a) SELECT * FROM x;

-- name: in short: CREATE SEARCH INDEX i ON mart.a(ALL COLUMNS)
-- reads:
-- writes:
CREATE SEARCH INDEX i ON mart.a(ALL COLUMNS);

-- name: in short: EXPORT DATA WITH CONNECTION x.y OPTIONS(uri='gs://x') AS (SELECT * FRO
-- reads: mart.a
-- writes:
EXPORT DATA WITH CONNECTION x.y OPTIONS(uri='gs://x') AS (SELECT * FROM mart.a);

-- name: in short: UPDATE mart.a SET x = (SELECT MAX(y) FROM raw.b WHERE b.id = a.id) WHE
-- reads: raw.b
-- writes: mart.a
UPDATE mart.a SET x = (SELECT MAX(y) FROM raw.b WHERE b.id = a.id) WHERE TRUE;

-- name: in short: DROP SNAPSHOT TABLE IF EXISTS backup.a; CREATE SNAPSHOT TABLE backup.a
-- reads: mart.a
-- writes: backup.a
DROP SNAPSHOT TABLE IF EXISTS backup.a; CREATE SNAPSHOT TABLE backup.a CLONE mart.a;

-- name: in short: INSERT INTO `{{ params.project }}.mart.a` SELECT * FROM `{{ params.pro
-- reads: ref.c
-- writes:
INSERT INTO `{{ params.project }}.mart.a` SELECT * FROM `{{ params.project }}.raw.b` JOIN ref.c USING (id);

-- name: in short: MERGE `mart.a` T USING (SELECT * EXCEPT(rn) FROM (SELECT *, ROW_NUMBER
-- reads: raw.b
-- writes: mart.a
MERGE `mart.a` T USING (SELECT * EXCEPT(rn) FROM (SELECT *, ROW_NUMBER() OVER(PARTITION BY id ORDER BY ts DESC) rn FROM `raw.b` WHERE _PARTITIONDATE = @run_date) WHERE rn = 1) S ON T.id = S.id WHEN MATCHED THEN UPDATE SET v = S.v WHEN NOT MATCHED THEN INSERT (id, v) VALUES (id, v);

-- name: in short: CREATE OR REPLACE TABLE mart.a AS SELECT AS STRUCT * FROM raw.a; CREAT
-- reads: raw.a, raw.c
-- writes: mart.a, mart.b
CREATE OR REPLACE TABLE mart.a AS SELECT AS STRUCT * FROM raw.a; CREATE OR REPLACE TABLE mart.b AS SELECT * FROM mart.a, raw.c;

-- name: in short: DECLARE d DATE; SET d = CURRENT_DATE(); BEGIN CREATE TEMP TABLE t AS S
-- reads: raw.a
-- writes: mart.a
DECLARE d DATE; SET d = CURRENT_DATE(); BEGIN CREATE TEMP TABLE t AS SELECT * FROM raw.a WHERE day = d; INSERT INTO mart.a SELECT * FROM t; DROP TABLE t; END;

-- name: in short: EXECUTE IMMEDIATE """CREATE OR REPLACE TABLE mart.a AS SELECT * FROM r
-- reads: raw.a
-- writes: mart.a
EXECUTE IMMEDIATE """CREATE OR REPLACE TABLE mart.a AS SELECT * FROM raw.a""";

-- name: in short: SELECT * FROM raw.a TABLESAMPLE SYSTEM (10 PERCENT), raw.b FOR SYSTEM_
-- reads: raw.a, raw.b
-- writes:
SELECT * FROM raw.a TABLESAMPLE SYSTEM (10 PERCENT), raw.b FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP();

-- name: in short: CREATE TABLE mart.`select` AS SELECT `from` FROM raw.`table`
-- reads: raw.`table`
-- writes: mart.`select`
CREATE TABLE mart.`select` AS SELECT `from` FROM raw.`table`;

-- name: in short: CREATE OR REPLACE TABLE mart.a (id INT64 OPTIONS(description="x"), PRI
-- reads:
-- writes: mart.a
CREATE OR REPLACE TABLE mart.a (id INT64 OPTIONS(description="x"), PRIMARY KEY (id) NOT ENFORCED, FOREIGN KEY (x) REFERENCES ref.b(x) NOT ENFORCED);

-- name: in short: SELECT * FROM raw.a JOIN (raw.b CROSS JOIN raw.c) ON TRUE
-- reads: raw.a, raw.b, raw.c
-- writes:
SELECT * FROM raw.a JOIN (raw.b CROSS JOIN raw.c) ON TRUE;

-- name: in short: INSERT INTO mart.a SELECT ARRAY(SELECT x FROM UNNEST(t.xs) AS x), (SEL
-- reads: raw.b, raw.t
-- writes: mart.a
INSERT INTO mart.a SELECT ARRAY(SELECT x FROM UNNEST(t.xs) AS x), (SELECT COUNT(*) FROM t.items), EXISTS(SELECT 1 FROM raw.b) FROM raw.t AS t;

-- name: in short: SELECT * FROM mart.a QUALIFY RANK() OVER w = 1 WINDOW w AS (PARTITION
-- reads: mart.a
-- writes:
SELECT * FROM mart.a QUALIFY RANK() OVER w = 1 WINDOW w AS (PARTITION BY x);

-- name: in short: CALL mart.load('x'); SELECT @@row_count; RETURN
-- reads:
-- writes:
CALL mart.load('x'); SELECT @@row_count; RETURN;

-- name: in short: INSERT INTO mart.a SELECT * FROM `${project}.raw.x` JOIN raw.b USING
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM `${project}.raw.x` JOIN raw.b USING (id) WHERE d = @day;

-- name: in short: CREATE TEMP TABLE t_{{ ds_nodash }} AS SELECT * FROM raw.a; INSERT INT
-- reads: raw.a
-- writes: mart.a
CREATE TEMP TABLE t_{{ ds_nodash }} AS SELECT * FROM raw.a; INSERT INTO mart.a SELECT * FROM t_{{ ds_nodash }};

-- name: in short: SET @@dataset_id = 'mart'; INSERT INTO a SELECT * FROM raw.b
-- reads: raw.b
-- writes: mart.a
SET @@dataset_id = 'mart'; INSERT INTO a SELECT * FROM raw.b;

-- name: in short: MERGE INTO mart.a t USING (SELECT * FROM raw.b) s ON t.id = s.id AND t
-- reads: raw.b, raw.c, raw.d
-- writes: mart.a
MERGE INTO mart.a t USING (SELECT * FROM raw.b) s ON t.id = s.id AND t.d IN (SELECT d FROM raw.c) WHEN MATCHED THEN UPDATE SET x = (SELECT MAX(y) FROM raw.d);

-- name: in short: LOAD DATA INTO mart.a PARTITIONS(_PARTITIONTIME = TIMESTAMP '2026-01-0
-- reads:
-- writes: mart.a
LOAD DATA INTO mart.a PARTITIONS(_PARTITIONTIME = TIMESTAMP '2026-01-01') FROM FILES(format='PARQUET', uris=['gs://x']);

-- name: in short: CREATE EXTERNAL TABLE raw.e WITH PARTITION COLUMNS (d DATE) OPTIONS(fo
-- reads:
-- writes: raw.e
CREATE EXTERNAL TABLE raw.e WITH PARTITION COLUMNS (d DATE) OPTIONS(format='PARQUET', uris=['gs://x/*'], hive_partition_uri_prefix='gs://x');

-- name: in short: SELECT * FROM raw.a, UNNEST(xs) AS x WITH OFFSET AS o, UNNEST(x.ys) y
-- reads: raw.a
-- writes:
SELECT * FROM raw.a, UNNEST(xs) AS x WITH OFFSET AS o, UNNEST(x.ys) y;

-- name: in short: CREATE OR REPLACE VIEW mart.v AS SELECT * FROM raw.a WHERE d = (SELECT
-- reads: raw.a
-- writes: mart.v
CREATE OR REPLACE VIEW mart.v AS SELECT * FROM raw.a WHERE d = (SELECT MAX(d) FROM raw.a) AND x IN UNNEST(['a']);

-- name: in short: ALTER MATERIALIZED VIEW mart.m SET OPTIONS (enable_refresh=true); ALTE
-- reads:
-- writes:
ALTER MATERIALIZED VIEW mart.m SET OPTIONS (enable_refresh=true); ALTER TABLE mart.a SET OPTIONS (description='x');

-- name: in short: INSERT INTO mart.a SELECT EXTRACT(YEAR FROM d), SAFE_CAST(x AS INT64)
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT EXTRACT(YEAR FROM d), SAFE_CAST(x AS INT64), IF(a, b, c) FROM raw.a;

-- name: in short: DELETE FROM mart.a WHERE d < DATE_SUB(CURRENT_DATE(), INTERVAL 30 DAY)
-- reads: raw.a
-- writes: mart.a
DELETE FROM mart.a WHERE d < DATE_SUB(CURRENT_DATE(), INTERVAL 30 DAY); INSERT INTO mart.a SELECT * FROM raw.a FOR SYSTEM_TIME AS OF '2026-01-01';

-- name: in short: DECLARE tables ARRAY<STRING>; SET tables = ARRAY(SELECT table_name FRO
-- reads: raw.a
-- writes: mart.a
DECLARE tables ARRAY<STRING>; SET tables = ARRAY(SELECT table_name FROM raw.INFORMATION_SCHEMA.TABLES); INSERT INTO mart.a SELECT * FROM raw.a;

-- name: in short: CREATE TEMP FUNCTION f(x ANY TYPE) AS (x + 1); CREATE OR REPLACE TABLE
-- reads: raw.a
-- writes: mart.a
CREATE TEMP FUNCTION f(x ANY TYPE) AS (x + 1); CREATE OR REPLACE TABLE mart.a AS SELECT f(y) FROM raw.a;

-- name: in short: CREATE TEMP TABLE a AS SELECT * FROM mart.a; MERGE mart.a t USING a s
-- reads:
-- writes: mart.a
CREATE TEMP TABLE a AS SELECT * FROM mart.a; MERGE mart.a t USING a s ON t.id = s.id WHEN MATCHED THEN DELETE;

-- name: in short: IF (SELECT COUNT(*) FROM raw.a) = 0 THEN RAISE USING MESSAGE = 'x'; EL
-- reads: raw.a
-- writes: mart.b
IF (SELECT COUNT(*) FROM raw.a) = 0 THEN RAISE USING MESSAGE = 'x'; ELSEIF TRUE THEN DELETE FROM mart.b WHERE TRUE; END IF;

-- name: conditions and values that calculate with queries
-- reads: raw.orders, stage.orders, ref.vat, ref.duty
-- writes: mart.orders
DECLARE rate NUMERIC DEFAULT 0;
SET rate = ((SELECT MAX(rate) FROM ref.vat) + 1);
SET rate = (((SELECT rate FROM ref.vat)) UNION ALL SELECT rate FROM ref.duty);
IF ((SELECT COUNT(*) FROM stage.orders) > 0) THEN
  INSERT INTO mart.orders SELECT * FROM raw.orders;
END IF;
