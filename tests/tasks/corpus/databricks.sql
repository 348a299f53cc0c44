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
