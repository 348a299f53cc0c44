-- name: staged upsert with a temporary table like another
-- reads: raw.users
-- writes: mart.users
BEGIN TRANSACTION;
CREATE TEMP TABLE stage (LIKE mart.users);
INSERT INTO stage SELECT * FROM raw.users WHERE day = CURRENT_DATE;
DELETE FROM mart.users USING stage WHERE mart.users.id = stage.id;
INSERT INTO mart.users SELECT * FROM stage;
END TRANSACTION;

-- name: hash names are temporary
-- reads: raw.users
-- writes: mart.users
SELECT id, name INTO #fresh FROM raw.users;
CREATE TABLE #more AS SELECT * FROM #fresh;
INSERT INTO mart.users SELECT * FROM #more;

-- name: temporary table of the name of a real one
-- reads: public.orders
-- writes: public.revenue
-- schema: public
CREATE TEMPORARY TABLE orders DISTKEY(id) AS SELECT * FROM public.orders;
INSERT INTO revenue SELECT SUM(amount) FROM orders;

-- name: copy from a bucket
-- reads:
-- writes: raw.orders
COPY raw.orders (id, amount) FROM 's3://landing/orders/' IAM_ROLE 'arn:aws:iam::1:role/load' FORMAT AS PARQUET;

-- name: copy of JSON with options
-- reads:
-- writes: raw.events
copy raw.events from 's3://landing/events/manifest' iam_role default json 'auto' gzip manifest timeformat 'auto' maxerror 10;

-- name: unload
-- reads: mart.orders, mart.users
-- writes:
UNLOAD ('SELECT o.*, u.name FROM mart.orders o JOIN mart.users u ON u.id = o.user_id WHERE o.day = ''2026-01-01''')
TO 's3://out/orders_' IAM_ROLE 'arn:aws:iam::1:role/unload' PARALLEL OFF ALLOWOVERWRITE FORMAT PARQUET;

-- name: unload between dollar signs
-- reads: mart.orders
-- writes:
UNLOAD ($$ SELECT * FROM mart.orders WHERE kind = 'a' $$) TO 's3://out/' IAM_ROLE default;

-- name: append moves rows
-- reads: stage.orders
-- writes: mart.orders
ALTER TABLE mart.orders APPEND FROM stage.orders FILLTARGET;

-- name: rename into place
-- reads: raw.orders
-- writes: mart.orders
CREATE TABLE mart.orders_new DISTSTYLE ALL SORTKEY (day) AS SELECT * FROM raw.orders;
ALTER TABLE mart.orders RENAME TO orders_old;
ALTER TABLE mart.orders_new RENAME TO orders;
DROP TABLE mart.orders_old;

-- name: arrays of a row
-- reads: raw.customers
-- writes: mart.orders
INSERT INTO mart.orders SELECT c.id, o.total FROM raw.customers c, c.orders o WHERE o.total > 10;

-- name: arrays in arrays
-- reads: raw.customers
-- writes:
SELECT c.id, l.sku FROM raw.customers AS c, c.orders AS o, o.lines AS l;

-- name: external schema
-- reads: spectrum.clicks, mart.users
-- writes: mart.clicks
INSERT INTO mart.clicks SELECT c.* FROM spectrum.clicks c JOIN mart.users u ON u.id = c.user_id;

-- name: external table
-- reads:
-- writes: spectrum.clicks
CREATE EXTERNAL TABLE spectrum.clicks (id BIGINT, ts TIMESTAMP) PARTITIONED BY (day DATE)
ROW FORMAT DELIMITED FIELDS TERMINATED BY '\t' STORED AS TEXTFILE LOCATION 's3://lake/clicks/';

-- name: search path
-- reads: sales.orders
-- writes: sales.daily
SET search_path TO sales, public;
INSERT INTO daily SELECT day, COUNT(*) FROM orders GROUP BY day;

-- name: materialized view
-- reads: raw.events
-- writes: mart.events_mv
CREATE MATERIALIZED VIEW mart.events_mv BACKUP NO DISTSTYLE KEY DISTKEY (id) AUTO REFRESH YES AS SELECT id, COUNT(*) AS n FROM raw.events GROUP BY id;

-- name: refresh
-- reads:
-- writes: mart.events_mv
REFRESH MATERIALIZED VIEW mart.events_mv;

-- name: merge
-- reads: stage.users
-- writes: mart.users
MERGE INTO mart.users USING stage.users s ON mart.users.id = s.id
WHEN MATCHED THEN UPDATE SET name = s.name
WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.name);

-- name: merge that removes duplicates
-- reads: stage.users
-- writes: mart.users
MERGE INTO mart.users USING stage.users ON mart.users.id = stage.users.id REMOVE DUPLICATES;

-- name: model
-- reads: mart.features
-- writes: ml.churn
CREATE MODEL ml.churn FROM (SELECT age, spend, churned FROM mart.features WHERE day < '2026-01-01')
TARGET churned FUNCTION predict_churn IAM_ROLE default SETTINGS (S3_BUCKET 'models');

-- name: late binding view
-- reads: spectrum.clicks
-- writes: mart.clicks_v
CREATE OR REPLACE VIEW mart.clicks_v AS SELECT * FROM spectrum.clicks WITH NO SCHEMA BINDING;

-- name: maintenance around an insert
-- reads: raw.a
-- writes: mart.a
SET query_group TO 'etl';
LOCK mart.a;
INSERT INTO mart.a SELECT * FROM raw.a;
VACUUM FULL mart.a TO 99 PERCENT;
ANALYZE mart.a PREDICATE COLUMNS;
RESET query_group;

-- name: update with a join
-- reads: raw.prices
-- writes: mart.products
UPDATE mart.products SET price = p.price FROM mart.products m JOIN raw.prices p ON p.sku = m.sku WHERE m.sku = mart.products.sku;

-- name: system tables are nobody's
-- reads:
-- writes: ops.queries
INSERT INTO ops.queries SELECT query, starttime FROM stl_query JOIN pg_user ON usesysid = userid;

-- name: another database
-- reads: lake.raw.orders
-- writes: mart.orders
INSERT INTO mart.orders SELECT * FROM lake.raw.orders;

-- name: pivot
-- reads: mart.sales
-- writes: mart.wide
CREATE TABLE mart.wide AS SELECT * FROM (SELECT shop, quarter, amount FROM mart.sales) PIVOT (SUM(amount) FOR quarter IN ('q1', 'q2'));

-- name: a procedure only writes down
-- reads:
-- writes:
CREATE OR REPLACE PROCEDURE ops.load(day date) AS $$
BEGIN
  INSERT INTO mart.orders SELECT * FROM raw.orders WHERE d = day;
END;
$$ LANGUAGE plpgsql;
