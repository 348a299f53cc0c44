-- name: three parts in every name, unnest
-- reads: hive.raw.orders, pg.public.customers
-- writes: hive.mart.daily
CREATE TABLE IF NOT EXISTS hive.mart.daily WITH (format = 'ORC', partitioned_by = ARRAY['ds']) AS
SELECT c.country, approx_distinct(o.id) AS n, o.ds FROM hive.raw.orders AS o
JOIN pg.public.customers AS c ON c.id = o.customer_id CROSS JOIN UNNEST(o.lines) WITH ORDINALITY AS t (line, n) GROUP BY 1, 3;

-- name: refresh
-- reads:
-- writes: mart.daily_mv
REFRESH MATERIALIZED VIEW mart.daily_mv;

-- name: materialized view
-- reads: raw.orders
-- writes: mart.daily_mv
CREATE OR REPLACE MATERIALIZED VIEW mart.daily_mv GRACE PERIOD INTERVAL '1' DAY COMMENT 'x' WITH (format = 'PARQUET') AS SELECT ds, count(*) AS n FROM raw.orders GROUP BY ds;

-- name: catalog and schema of the session
-- reads: lake.sales.orders
-- writes: lake.sales.revenue
USE lake.sales;
INSERT INTO revenue SELECT * FROM orders;

-- name: partitions and properties of a table
-- reads: lake.raw.orders
-- writes:
SELECT * FROM lake.raw."orders$partitions" WHERE ds > '2026-01-01';

-- name: time travel
-- reads: lake.raw.orders
-- writes: lake.mart.diff
INSERT INTO lake.mart.diff SELECT * FROM lake.raw.orders FOR VERSION AS OF 123 EXCEPT SELECT * FROM lake.raw.orders FOR TIMESTAMP AS OF TIMESTAMP '2026-01-01 00:00:00 UTC';

-- name: maintenance of Iceberg
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o SELECT * FROM raw.o;
ALTER TABLE mart.o EXECUTE optimize(file_size_threshold => '100MB') WHERE ds = '2026-01-01';
ALTER TABLE mart.o EXECUTE expire_snapshots(retention_threshold => '7d');
ANALYZE mart.o WITH (columns = ARRAY['id']);

-- name: query passed through to another database
-- reads: mart.dim
-- writes: mart.o
INSERT INTO mart.o SELECT q.* FROM TABLE(pg.system.query(query => 'SELECT * FROM public.hidden')) q JOIN mart.dim d ON d.id = q.id;

-- name: table function that takes a table
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o AS SELECT * FROM TABLE(exclude_columns(input => TABLE(raw.o), columns => DESCRIPTOR(secret)));

-- name: insert from a table
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o TABLE raw.o;

-- name: merge
-- reads: stage.o
-- writes: mart.o
MERGE INTO mart.o t USING stage.o s ON t.id = s.id
WHEN MATCHED AND s.op = 'D' THEN DELETE
WHEN MATCHED THEN UPDATE SET v = s.v
WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v);

-- name: update and delete with subqueries
-- reads: raw.gone, raw.v
-- writes: mart.a, mart.b
DELETE FROM mart.a WHERE id IN (SELECT id FROM raw.gone);
UPDATE mart.b SET v = (SELECT max(v) FROM raw.v) WHERE id = 1;

-- name: text that is run
-- reads: raw.o
-- writes: mart.o
EXECUTE IMMEDIATE 'INSERT INTO mart.o SELECT * FROM raw.o WHERE ds = ?' USING '2026-01-01';

-- name: prepared
-- reads: raw.o
-- writes: mart.o
PREPARE load_o FROM INSERT INTO mart.o SELECT * FROM raw.o WHERE ds = ?;
EXECUTE load_o USING '2026-01-01';
DEALLOCATE PREPARE load_o;

-- name: procedures of a connector
-- reads: raw.o
-- writes: mart.o
CALL hive.system.sync_partition_metadata('raw', 'o', 'FULL');
INSERT INTO mart.o SELECT * FROM raw.o;

-- name: rename in its schema
-- reads: raw.o
-- writes: hive.mart.o
CREATE TABLE hive.mart.o_new AS SELECT * FROM raw.o;
DROP TABLE IF EXISTS hive.mart.o;
ALTER TABLE hive.mart.o_new RENAME TO o;

-- name: inline function
-- reads: raw.o
-- writes:
WITH FUNCTION half(x double) RETURNS double RETURN x / 2
SELECT half(v) FROM raw.o;

-- name: match recognize
-- reads: raw.ticks
-- writes: mart.patterns
INSERT INTO mart.patterns
SELECT * FROM raw.ticks MATCH_RECOGNIZE (PARTITION BY s ORDER BY ts MEASURES A.ts AS begun ONE ROW PER MATCH PATTERN (A B+) DEFINE B AS price < PREV(price));

-- name: recursive WITH
-- reads: raw.nodes
-- writes:
WITH RECURSIVE t(id, parent) AS (SELECT id, parent FROM raw.nodes WHERE parent IS NULL UNION ALL SELECT n.id, n.parent FROM raw.nodes n JOIN t ON t.id = n.parent)
SELECT * FROM t;

-- name: lateral, values, sample
-- reads: raw.a, raw.b
-- writes: mart.c
INSERT INTO mart.c
SELECT a.id, x.v, v.k FROM raw.a a TABLESAMPLE BERNOULLI (10)
CROSS JOIN LATERAL (SELECT max(v) AS v FROM raw.b WHERE b.id = a.id) x
JOIN (VALUES (1, 'a')) AS v (id, k) ON v.id = a.id;

-- name: JSON table
-- reads: raw.docs
-- writes:
SELECT j.* FROM raw.docs, JSON_TABLE(body, 'lax $.items[*]' COLUMNS (sku varchar PATH 'lax $.sku')) AS j;

-- name: system catalog
-- reads:
-- writes: ops.queries
INSERT INTO ops.queries SELECT query_id, state FROM system.runtime.queries;

-- name: session settings
-- reads: raw.o
-- writes: mart.o
SET SESSION query_max_run_time = '2h';
SET ROLE admin IN hive;
INSERT INTO mart.o SELECT * FROM raw.o;
RESET SESSION query_max_run_time;

-- name: view with a security mode
-- reads: mart.users
-- writes: share.users
CREATE OR REPLACE VIEW share.users COMMENT 'x' SECURITY INVOKER AS SELECT id FROM mart.users;

-- name: like and truncate
-- reads: mart.o
-- writes: test.o
CREATE TABLE test.o (LIKE mart.o INCLUDING PROPERTIES, extra varchar) WITH (format = 'ORC');
TRUNCATE TABLE test.o;

-- name: unload of Athena
-- reads: mart.o
-- writes:
UNLOAD (SELECT * FROM mart.o WHERE ds = '2026-01-01') TO 's3://out/o/' WITH (format = 'PARQUET');

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a CROSS JOIN UNNEST(map_entries(m
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a CROSS JOIN UNNEST(map_entries(m)) AS t (k, v);

-- name: in short: CREATE TABLE mart.a AS (WITH x AS (SELECT * FROM raw.a) SELECT * FROM
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a AS (WITH x AS (SELECT * FROM raw.a) SELECT * FROM x) WITH NO DATA;

-- name: in short: DELETE FROM mart.a WHERE (x, y) IN (SELECT x, y FROM raw.b)
-- reads: raw.b
-- writes: mart.a
DELETE FROM mart.a WHERE (x, y) IN (SELECT x, y FROM raw.b);

-- name: in short: CREATE SCHEMA IF NOT EXISTS mart WITH (location = 's3://x'); CREATE TA
-- reads: raw.a
-- writes: mart.a
CREATE SCHEMA IF NOT EXISTS mart WITH (location = 's3://x'); CREATE TABLE mart.a AS SELECT * FROM raw.a;

-- name: in short: COMMENT ON TABLE mart.a IS 'x'; SHOW CREATE TABLE mart.a; DESCRIBE mar
-- reads:
-- writes:
COMMENT ON TABLE mart.a IS 'x'; SHOW CREATE TABLE mart.a; DESCRIBE mart.a;

-- name: in short: START TRANSACTION ISOLATION LEVEL REPEATABLE READ; INSERT INTO mart.a
-- reads:
-- writes: mart.a
START TRANSACTION ISOLATION LEVEL REPEATABLE READ; INSERT INTO mart.a SELECT 1; COMMIT;

-- name: in short: SELECT * FROM TABLE(sequence(start => 1, stop => 3))
-- reads:
-- writes:
SELECT * FROM TABLE(sequence(start => 1, stop => 3));

-- name: in short: CALL iceberg.system.register_table(schema_name => 'mart', table_name =
-- reads:
-- writes:
CALL iceberg.system.register_table(schema_name => 'mart', table_name => 'a', table_location => 's3://x');

-- name: in short: GRANT SELECT ON mart.a TO ROLE x; DENY DELETE ON mart.a TO USER y
-- reads:
-- writes:
GRANT SELECT ON mart.a TO ROLE x; DENY DELETE ON mart.a TO USER y;

-- name: in short: CREATE TABLE mart.a WITH (external_location='s3://x', format='CSV') AS
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a WITH (external_location='s3://x', format='CSV') AS SELECT CAST(x AS varchar) FROM raw.a;

-- name: in short: ALTER VIEW mart.v RENAME TO mart.w
-- reads: mart.v
-- writes: mart.w
ALTER VIEW mart.v RENAME TO mart.w;

-- name: in short: ALTER MATERIALIZED VIEW mart.v RENAME TO w
-- reads: mart.v
-- writes: mart.w
ALTER MATERIALIZED VIEW mart.v RENAME TO w;

-- name: in short: SELECT a.x FROM raw.a AS a (x, y) JOIN (raw.b JOIN raw.c USING (id)) O
-- reads: raw.a, raw.b, raw.c
-- writes:
SELECT a.x FROM raw.a AS a (x, y) JOIN (raw.b JOIN raw.c USING (id)) ON true;

-- name: in short: INSERT INTO hive.mart.a (id) WITH x AS (SELECT * FROM hive.raw.a), y A
-- reads: hive.raw.a
-- writes: hive.mart.a
INSERT INTO hive.mart.a (id) WITH x AS (SELECT * FROM hive.raw.a), y AS (SELECT * FROM x) SELECT * FROM y;

-- name: in short: CREATE OR REPLACE TABLE iceberg.mart.a COMMENT 'x' WITH (partitioning
-- reads: iceberg.raw.a
-- writes: iceberg.mart.a
CREATE OR REPLACE TABLE iceberg.mart.a COMMENT 'x' WITH (partitioning = ARRAY['day(ts)']) AS SELECT * FROM iceberg.raw.a;

-- name: in short: CREATE VIEW hive.mart.v AS SELECT * FROM hive.raw."a-b" JOIN "hive"."r
-- reads: hive.raw."a-b", hive.raw.c
-- writes: hive.mart.v
CREATE VIEW hive.mart.v AS SELECT * FROM hive.raw."a-b" JOIN "hive"."raw"."c" USING (id);

-- name: in short: USE hive.mart; DROP TABLE IF EXISTS a; CREATE TABLE a AS SELECT * FROM
-- reads: hive.raw.b
-- writes: hive.mart.a
USE hive.mart; DROP TABLE IF EXISTS a; CREATE TABLE a AS SELECT * FROM raw.b;

-- name: in short: DELETE FROM mart.a WHERE ds = '{{ ds }}'; INSERT INTO mart.a SELECT *
-- reads: raw.a
-- writes: mart.a
DELETE FROM mart.a WHERE ds = '{{ ds }}'; INSERT INTO mart.a SELECT *, '{{ ds }}' FROM raw.a WHERE ds = DATE('{{ ds }}') - INTERVAL '1' DAY;

-- name: in short: SELECT transform(xs, x -> x + 1), try_cast(y AS bigint) FROM raw.a TAB
-- reads: raw.a
-- writes:
SELECT transform(xs, x -> x + 1), try_cast(y AS bigint) FROM raw.a TABLESAMPLE SYSTEM (1) WHERE any_match(xs, x -> x > 1);

-- name: in short: MERGE INTO mart.a USING (VALUES (1)) AS s(id) ON a.id = s.id WHEN NOT
-- reads:
-- writes: mart.a
MERGE INTO mart.a USING (VALUES (1)) AS s(id) ON a.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id);

-- name: in short: INSERT INTO hive.mart.a SELECT * FROM mysql.raw.b
-- reads: mysql.raw.b
-- writes: hive.mart.a
INSERT INTO hive.mart.a SELECT * FROM mysql.raw.b;

-- name: in short: USE mart; INSERT INTO a SELECT * FROM b
-- reads: mart.b
-- writes: mart.a
USE mart; INSERT INTO a SELECT * FROM b;

-- name: in short: CREATE TABLE mart.a AS SELECT 1 x; ALTER TABLE mart.a SET PROPERTIES f
-- reads:
-- writes: mart.a
CREATE TABLE mart.a AS SELECT 1 x; ALTER TABLE mart.a SET PROPERTIES format_version = 2; CALL system.runtime.kill_query(query_id => 'x');

-- name: in short: CREATE MATERIALIZED VIEW mart.m AS SELECT * FROM raw.a; DROP MATERIALI
-- reads: raw.a
-- writes: mart.m
CREATE MATERIALIZED VIEW mart.m AS SELECT * FROM raw.a; DROP MATERIALIZED VIEW IF EXISTS mart.old; REFRESH MATERIALIZED VIEW mart.m;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a FOR TIMESTAMP AS OF TIMESTAMP '
-- reads: raw.a, raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a FOR TIMESTAMP AS OF TIMESTAMP '2026-01-01 00:00:00' x JOIN raw.b y ON x.id = y.id;

-- name: in short: SELECT listagg(x, ',') WITHIN GROUP (ORDER BY y) FROM raw.a WHERE ROW
-- reads: raw.a, raw.b
-- writes:
SELECT listagg(x, ',') WITHIN GROUP (ORDER BY y) FROM raw.a WHERE ROW(a, b) IN (SELECT a, b FROM raw.b);

-- name: in short: WITH a AS (SELECT * FROM hive.raw.a) SELECT * FROM a; INSERT INTO hive
-- reads: hive.raw.a, hive.raw.b
-- writes: hive.mart.b
WITH a AS (SELECT * FROM hive.raw.a) SELECT * FROM a; INSERT INTO hive.mart.b SELECT * FROM hive.raw.b WHERE NOT EXISTS (SELECT 1 FROM hive.mart.b x WHERE x.id = b.id);
