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

-- name: in short: CREATE TABLE IF NOT EXISTS mart.a (id INT ENCODE zstd) DISTKEY(id) SOR
-- reads: raw.a
-- writes: mart.a
CREATE TABLE IF NOT EXISTS mart.a (id INT ENCODE zstd) DISTKEY(id) SORTKEY(id); INSERT INTO mart.a SELECT * FROM raw.a;

-- name: in short: INSERT INTO mart.a (SELECT * FROM raw.a MINUS SELECT * FROM raw.b)
-- reads: raw.a, raw.b
-- writes: mart.a
INSERT INTO mart.a (SELECT * FROM raw.a MINUS SELECT * FROM raw.b);

-- name: in short: CREATE EXTERNAL TABLE spectrum.x STORED AS PARQUET LOCATION 's3://x' A
-- reads: mart.a
-- writes: spectrum.x
CREATE EXTERNAL TABLE spectrum.x STORED AS PARQUET LOCATION 's3://x' AS SELECT * FROM mart.a;

-- name: in short: CALL ops.p(); SELECT * FROM raw.a
-- reads: raw.a
-- writes:
CALL ops.p(); SELECT * FROM raw.a;

-- name: in short: TRUNCATE mart.a; COPY mart.a FROM 's3://x' CREDENTIALS 'aws_iam_role=x
-- reads:
-- writes: mart.a
TRUNCATE mart.a; COPY mart.a FROM 's3://x' CREDENTIALS 'aws_iam_role=x' DELIMITER '|' REGION 'eu-west-1';

-- name: in short: DROP TABLE IF EXISTS stage; CREATE TEMP TABLE stage AS SELECT * FROM r
-- reads: raw.a
-- writes:
DROP TABLE IF EXISTS stage; CREATE TEMP TABLE stage AS SELECT * FROM raw.a; DROP TABLE IF EXISTS stage;

-- name: in short: CREATE LOCAL TEMPORARY TABLE t (id INT); INSERT INTO t SELECT id FROM
-- reads: raw.a
-- writes:
CREATE LOCAL TEMPORARY TABLE t (id INT); INSERT INTO t SELECT id FROM raw.a;

-- name: in short: ALTER TABLE mart.a ALTER SORTKEY (x); INSERT INTO mart.a SELECT 1
-- reads:
-- writes: mart.a
ALTER TABLE mart.a ALTER SORTKEY (x); INSERT INTO mart.a SELECT 1;

-- name: in short: SELECT a.x INTO TEMPORARY TABLE t FROM raw.a a; SELECT * FROM t
-- reads: raw.a
-- writes:
SELECT a.x INTO TEMPORARY TABLE t FROM raw.a a; SELECT * FROM t;

-- name: in short: unload ($q$select * from mart.a$q$) to 's3://x' iam_role 'y' format cs
-- reads: mart.a
-- writes:
unload ($q$select * from mart.a$q$) to 's3://x' iam_role 'y' format csv header;

-- name: in short: copy mart.a from 's3://x' iam_role 'y' format as orc; analyze mart.a
-- reads:
-- writes: mart.a
copy mart.a from 's3://x' iam_role 'y' format as orc; analyze mart.a; vacuum delete only mart.a to 95 percent;

-- name: in short: create table mart.a (like raw.b); insert into mart.a (select * from ra
-- reads: raw.b
-- writes: mart.a
create table mart.a (like raw.b); insert into mart.a (select * from raw.b); grant select on mart.a to group x;

-- name: in short: begin; lock table mart.a; delete from mart.a using raw.b b where a.id
-- reads: raw.b
-- writes: mart.a
begin; lock table mart.a; delete from mart.a using raw.b b where a.id = b.id; insert into mart.a select * from raw.b; end;

-- name: in short: drop table if exists #t; create table #t as select * from raw.a; updat
-- reads: raw.a
-- writes: mart.a
drop table if exists #t; create table #t as select * from raw.a; update #t set x = 1; insert into mart.a select * from #t;

-- name: in short: create temp table t as (select * from raw.a); alter table mart.a appen
-- reads: raw.a
-- writes: mart.a
create temp table t as (select * from raw.a); alter table mart.a append from t;

-- name: in short: alter table mart.a rename column x to y; alter schema s rename to t; a
-- reads:
-- writes:
alter table mart.a rename column x to y; alter schema s rename to t; alter table mart.b add column z int;

-- name: in short: create or replace view mart.v as select * from (select *, row_number()
-- reads: raw.a
-- writes: mart.v
create or replace view mart.v as select * from (select *, row_number() over (partition by id) rn from raw.a) where rn = 1;

-- name: in short: with x as (select * from raw.a) select * into mart.b from x
-- reads: raw.a
-- writes: mart.b
with x as (select * from raw.a) select * into mart.b from x;

-- name: in short: set search_path to 'mart'; insert into a select * from b
-- reads: mart.b
-- writes: mart.a
set search_path to 'mart'; insert into a select * from b;

-- name: in short: COPY mart.a FROM 'dynamodb://x' IAM_ROLE default READRATIO 50; COPY ma
-- reads:
-- writes: mart.a, mart.b
COPY mart.a FROM 'dynamodb://x' IAM_ROLE default READRATIO 50; COPY mart.b FROM 's3://x' IAM_ROLE default FORMAT JSON 's3://jsonpath';

-- name: in short: UNLOAD ('SELECT * FROM (SELECT a.*, b.x FROM mart.a a LEFT JOIN mart.b
-- reads: mart.a, mart.b
-- writes:
UNLOAD ('SELECT * FROM (SELECT a.*, b.x FROM mart.a a LEFT JOIN mart.b b ON a.id = b.id) t') TO 's3://x' IAM_ROLE default;

-- name: in short: CREATE EXTERNAL SCHEMA s FROM DATA CATALOG DATABASE 'x' IAM_ROLE 'y'
-- reads:
-- writes: mart.m
CREATE EXTERNAL SCHEMA s FROM DATA CATALOG DATABASE 'x' IAM_ROLE 'y'; REFRESH MATERIALIZED VIEW mart.m RESTRICT;

-- name: in short: CREATE TABLE mart.a BACKUP NO DISTSTYLE EVEN AS SELECT * FROM raw.a; A
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a BACKUP NO DISTSTYLE EVEN AS SELECT * FROM raw.a; ALTER TABLE mart.a OWNER TO x;

-- name: in short: BEGIN; CREATE TEMP TABLE s (LIKE mart.a); COPY s FROM 's3://x' IAM_ROL
-- reads:
-- writes: mart.a
BEGIN; CREATE TEMP TABLE s (LIKE mart.a); COPY s FROM 's3://x' IAM_ROLE default; MERGE INTO mart.a USING s ON a.id = s.id WHEN MATCHED THEN UPDATE SET x = s.x WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.x); END;
