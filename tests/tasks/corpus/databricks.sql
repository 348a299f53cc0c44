-- name: catalog and schema
-- reads: prod.sales.orders, prod.raw.fx
-- writes: prod.sales.revenue
USE CATALOG prod;
USE SCHEMA sales;
CREATE OR REPLACE TABLE revenue AS SELECT * FROM orders JOIN raw.fx USING (currency);

-- name: copy into
-- reads:
-- writes: raw.orders
COPY INTO raw.orders FROM (SELECT id::bigint, _metadata.file_path FROM 's3://landing/orders/') FILEFORMAT = JSON FORMAT_OPTIONS ('mergeSchema' = 'true') COPY_OPTIONS ('force' = 'false');

-- name: clones
-- reads: mart.a, mart.b
-- writes: test.a, test.b
CREATE OR REPLACE TABLE test.a SHALLOW CLONE mart.a VERSION AS OF 3;
CREATE TABLE IF NOT EXISTS test.b DEEP CLONE mart.b;

-- name: streaming table and files
-- reads: raw.orders
-- writes: mart.landing, mart.orders
CREATE OR REFRESH STREAMING TABLE mart.landing AS SELECT * FROM STREAM read_files('/landing', format => 'json');
CREATE OR REFRESH STREAMING TABLE mart.orders AS SELECT * FROM STREAM(raw.orders);

-- name: merge with schema evolution
-- reads: stage.o
-- writes: mart.o
MERGE WITH SCHEMA EVOLUTION INTO mart.o AS t USING stage.o AS s ON t.id = s.id WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *;

-- name: restore and maintenance
-- reads:
-- writes: mart.o
RESTORE TABLE mart.o TO VERSION AS OF 7;
VACUUM mart.o RETAIN 168 HOURS;
OPTIMIZE mart.o WHERE ds > '2026-01-01';
ALTER TABLE mart.o SET TBLPROPERTIES ('delta.enableChangeDataFeed' = 'true');

-- name: change feed
-- reads: mart.o
-- writes: mart.changes
INSERT INTO mart.changes SELECT * FROM table_changes('mart.o', 2);

-- name: name given as text
-- reads: raw.o
-- writes: mart.o
INSERT INTO IDENTIFIER('mart.o') SELECT * FROM IDENTIFIER('raw.' || 'o');

-- name: materialized view, refresh
-- reads: mart.o
-- writes: mart.mv
CREATE MATERIALIZED VIEW mart.mv SCHEDULE EVERY 1 HOUR AS SELECT COUNT(*) AS n FROM mart.o;
REFRESH MATERIALIZED VIEW mart.mv;

-- name: script
-- reads: ops.runs, raw.o
-- writes: mart.o
BEGIN
  DECLARE last TIMESTAMP DEFAULT (SELECT MAX(ts) FROM ops.runs);
  IF last IS NOT NULL THEN
    INSERT INTO mart.o SELECT * FROM raw.o WHERE ts > last;
  END IF;
END;

-- name: delta by path
-- reads: ref.c
-- writes: mart.o
INSERT INTO mart.o SELECT * FROM delta.`abfss://x@y.dfs.core.windows.net/o` o JOIN ref.c c ON c.id = o.id;

-- name: temporary view, qualify, lateral alias
-- reads: raw.o
-- writes: mart.o
CREATE OR REPLACE TEMP VIEW o AS SELECT *, v * 2 AS w, w + 1 AS x FROM raw.o QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY ts DESC) = 1;
INSERT OVERWRITE TABLE mart.o SELECT * FROM o;

-- name: in short: CREATE OR REPLACE TEMPORARY VIEW v AS SELECT * FROM raw.a; MERGE INTO
-- reads: raw.a
-- writes: mart.a
CREATE OR REPLACE TEMPORARY VIEW v AS SELECT * FROM raw.a; MERGE INTO mart.a t USING v ON t.id=v.id WHEN MATCHED THEN DELETE;

-- name: in short: INSERT INTO mart.a REPLACE USING (id) SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a REPLACE USING (id) SELECT * FROM raw.a;

-- name: in short: SELECT * FROM read_files('/x', format => 'csv'), LATERAL explode(a) AS
-- reads:
-- writes:
SELECT * FROM read_files('/x', format => 'csv'), LATERAL explode(a) AS t(x);

-- name: in short: CREATE TABLE mart.a CLUSTER BY AUTO AS SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a CLUSTER BY AUTO AS SELECT * FROM raw.a;

-- name: in short: APPLY CHANGES INTO live.a FROM STREAM(raw.b) KEYS (id) SEQUENCE BY ts
-- reads: raw.b
-- writes: live.a
APPLY CHANGES INTO live.a FROM STREAM(raw.b) KEYS (id) SEQUENCE BY ts;

-- name: in short: DESCRIBE HISTORY mart.a; FSCK REPAIR TABLE mart.a; REORG TABLE mart.a
-- reads:
-- writes:
DESCRIBE HISTORY mart.a; FSCK REPAIR TABLE mart.a; REORG TABLE mart.a APPLY (PURGE); SYNC SCHEMA a FROM b;

-- name: in short: EXECUTE IMMEDIATE 'SELECT * FROM raw.a WHERE x = ?' USING 1
-- reads: raw.a
-- writes:
EXECUTE IMMEDIATE 'SELECT * FROM raw.a WHERE x = ?' USING 1;

-- name: in short: DECLARE OR REPLACE VARIABLE x INT DEFAULT (SELECT max(y) FROM raw.a)
-- reads: raw.a, raw.b
-- writes:
DECLARE OR REPLACE VARIABLE x INT DEFAULT (SELECT max(y) FROM raw.a); SET VAR x = (SELECT 1 FROM raw.b);

-- name: in short: CREATE OR REPLACE FUNCTION f(x INT) RETURNS TABLE(a INT) RETURN SELECT
-- reads:
-- writes:
CREATE OR REPLACE FUNCTION f(x INT) RETURNS TABLE(a INT) RETURN SELECT * FROM raw.a;

-- name: in short: CREATE TABLE a (x INT) USING DELTA TBLPROPERTIES (delta.appendOnly = t
-- reads:
-- writes: a
CREATE TABLE a (x INT) USING DELTA TBLPROPERTIES (delta.appendOnly = true); COMMENT ON TABLE a IS 'x';

-- name: in short: COPY INTO delta.`/x` FROM '/y' FILEFORMAT = PARQUET
-- reads:
-- writes:
COPY INTO delta.`/x` FROM '/y' FILEFORMAT = PARQUET;

-- name: in short: INSERT OVERWRITE mart.a SELECT a.* FROM raw.a TABLESAMPLE (5 ROWS) a
-- reads: raw.a
-- writes: mart.a
INSERT OVERWRITE mart.a SELECT a.* FROM raw.a TABLESAMPLE (5 ROWS) a;

-- name: in short: CREATE TABLE IF NOT EXISTS mart.a USING DELTA AS SELECT *, current_tim
-- reads: raw.a
-- writes: mart.a
CREATE TABLE IF NOT EXISTS mart.a USING DELTA AS SELECT *, current_timestamp() FROM raw.a; OPTIMIZE mart.a ZORDER BY (id); ANALYZE TABLE mart.a COMPUTE DELTA STATISTICS;

-- name: in short: USE CATALOG main; USE mart; INSERT INTO a SELECT * FROM b
-- reads: main.mart.b
-- writes: main.mart.a
USE CATALOG main; USE mart; INSERT INTO a SELECT * FROM b;

-- name: in short: INSERT INTO mart.a SELECT * FROM json.`/mnt/x/*.json`
-- reads:
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM json.`/mnt/x/*.json`;

-- name: in short: CREATE OR REPLACE TABLE mart.a AS SELECT id, explode(split(x, ',')) y
-- reads: raw.a
-- writes: mart.a
CREATE OR REPLACE TABLE mart.a AS SELECT id, explode(split(x, ',')) y, x:z::int FROM raw.a LATERAL VIEW explode(xs) AS q;

-- name: in short: COPY INTO mart.a FROM '/mnt/x' FILEFORMAT = CSV PATTERN = '*.csv' COPY
-- reads:
-- writes: mart.a
COPY INTO mart.a FROM '/mnt/x' FILEFORMAT = CSV PATTERN = '*.csv' COPY_OPTIONS ('mergeSchema'='true');

-- name: in short: DELETE FROM mart.a AS t WHERE EXISTS (SELECT 1 FROM raw.b s WHERE s.id
-- reads: raw.b, raw.d
-- writes: mart.a, mart.c
DELETE FROM mart.a AS t WHERE EXISTS (SELECT 1 FROM raw.b s WHERE s.id = t.id); UPDATE mart.c AS t SET x = 1 WHERE t.id IN (SELECT id FROM raw.d);

-- name: in short: CREATE MATERIALIZED VIEW mart.mv AS SELECT * FROM raw.a; CREATE STREAM
-- reads: raw.a, raw.b
-- writes: mart.mv, mart.st
CREATE MATERIALIZED VIEW mart.mv AS SELECT * FROM raw.a; CREATE STREAMING TABLE mart.st SCHEDULE CRON '0 0 * * * ?' AS SELECT * FROM STREAM raw.b;

-- name: in short: INSERT INTO mart.a SELECT * FROM IDENTIFIER(:src) JOIN raw.b USING (id
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM IDENTIFIER(:src) JOIN raw.b USING (id);

-- name: in short: INSERT INTO mart.a SELECT * FROM ${catalog}.raw.x JOIN raw.b USING (id
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM ${catalog}.raw.x JOIN raw.b USING (id) WHERE d = :day;

-- name: in short: CREATE OR REPLACE TEMP VIEW u AS SELECT * FROM raw.a; MERGE INTO mart.
-- reads: raw.a
-- writes: mart.a
CREATE OR REPLACE TEMP VIEW u AS SELECT * FROM raw.a; MERGE INTO mart.a t USING u s ON t.id = s.id WHEN NOT MATCHED BY SOURCE THEN DELETE WHEN MATCHED THEN UPDATE SET t.x = s.x; OPTIMIZE mart.a; VACUUM mart.a;

-- name: loops over a query
-- reads: raw.orders, raw.users
-- writes: ops.log
BEGIN
  FOR r AS SELECT * FROM raw.orders DO
    INSERT INTO ops.log VALUES (r.id);
  END FOR;
  FOR SELECT * FROM raw.users DO
    INSERT INTO ops.log VALUES (1);
  END FOR;
END;
