-- name: temporary view of the name of a real table
-- reads: sales.orders
-- writes: sales.revenue
-- schema: sales
CREATE OR REPLACE TEMP VIEW orders AS SELECT * FROM sales.orders WHERE ds = '2026-01-01';
INSERT INTO sales.revenue SELECT SUM(amount) FROM orders;

-- name: merge with a star
-- reads: raw.customers
-- writes: mart.customers
CREATE OR REPLACE TEMPORARY VIEW changes AS SELECT * FROM raw.customers;
MERGE INTO mart.customers AS t USING changes AS s ON t.id = s.id
WHEN MATCHED AND s.deleted THEN DELETE
WHEN MATCHED THEN UPDATE SET *
WHEN NOT MATCHED THEN INSERT *
WHEN NOT MATCHED BY SOURCE THEN UPDATE SET t.active = false;
OPTIMIZE mart.customers ZORDER BY (id);

-- name: cache with a query makes a view of the session
-- reads: raw.orders
-- writes: mart.a, mart.b
CACHE LAZY TABLE hot OPTIONS ('storageLevel' = 'MEMORY_ONLY') AS SELECT * FROM raw.orders WHERE day > '2026-01-01';
INSERT INTO mart.a SELECT * FROM hot;
INSERT INTO mart.b SELECT COUNT(*) FROM hot;
UNCACHE TABLE IF EXISTS hot;

-- name: global temporary view
-- reads: raw.users
-- writes: mart.users
CREATE GLOBAL TEMPORARY VIEW fresh AS SELECT * FROM raw.users;
INSERT OVERWRITE mart.users SELECT * FROM global_temp.fresh;

-- name: overwrite of a partition
-- reads: raw.orders
-- writes: mart.orders
INSERT OVERWRITE TABLE mart.orders PARTITION (ds = '2026-01-01', hour) SELECT /*+ BROADCAST(o) */ id, hour FROM raw.orders o;

-- name: insert by name, replace where
-- reads: raw.orders
-- writes: mart.a, mart.b
INSERT INTO mart.a BY NAME SELECT * FROM raw.orders;
INSERT INTO mart.b REPLACE WHERE ds = '2026-01-01' SELECT * FROM raw.orders;

-- name: FROM first, several inserts
-- reads: raw.orders
-- writes: mart.a, mart.b
FROM raw.orders
INSERT OVERWRITE TABLE mart.a SELECT id WHERE kind = 'a'
INSERT INTO TABLE mart.b SELECT id WHERE kind = 'b';

-- name: files as tables
-- reads: ref.countries
-- writes: raw.visits
INSERT INTO raw.visits
SELECT v.*, c.name FROM parquet.`s3://lake/visits/` v JOIN ref.countries c ON c.code = v.country
UNION ALL SELECT * FROM csv.`/landing/visits.csv`;

-- name: to a directory
-- reads: mart.daily
-- writes:
INSERT OVERWRITE LOCAL DIRECTORY '/out/daily' USING parquet OPTIONS (compression 'zstd') SELECT * FROM mart.daily;

-- name: use a catalog and a schema
-- reads: lake.sales.orders, lake.raw.fx
-- writes: lake.sales.revenue
USE lake.sales;
INSERT INTO revenue SELECT * FROM orders JOIN raw.fx USING (currency);

-- name: use a namespace
-- reads: sales.orders
-- writes: sales.revenue
USE NAMESPACE sales;
CREATE TABLE revenue USING iceberg PARTITIONED BY (days(ts)) AS SELECT * FROM orders;

-- name: explode and lateral views
-- reads: raw.orders
-- writes: mart.items
INSERT INTO mart.items
SELECT o.id, item.sku FROM raw.orders o LATERAL VIEW OUTER explode(o.items) t AS item LATERAL VIEW posexplode(item.tags) u AS pos, tag;

-- name: pivot with a subquery
-- reads: mart.sales
-- writes:
SELECT * FROM (SELECT shop, quarter, amount FROM mart.sales) PIVOT (SUM(amount) FOR quarter IN ('q1' AS first, 'q2'));

-- name: jars, settings, partitions, statistics
-- reads: raw.o
-- writes: mart.o
ADD JAR s3://libs/udf.jar;
SET spark.sql.shuffle.partitions = 200;
CREATE TEMPORARY FUNCTION clean AS 'com.acme.Clean' USING JAR 's3://libs/udf.jar';
INSERT INTO mart.o SELECT clean(v) FROM raw.o;
MSCK REPAIR TABLE mart.o;
ANALYZE TABLE mart.o COMPUTE STATISTICS FOR ALL COLUMNS;
REFRESH TABLE mart.o;

-- name: calls of Iceberg
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o SELECT * FROM raw.o;
CALL lake.system.rewrite_data_files(table => 'mart.o');

-- name: time travel
-- reads: mart.o
-- writes: mart.diff
INSERT INTO mart.diff SELECT * FROM mart.o EXCEPT SELECT * FROM mart.o VERSION AS OF 12;

-- name: rename
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o_new AS SELECT * FROM raw.o;
DROP TABLE IF EXISTS mart.o PURGE;
ALTER TABLE mart.o_new RENAME TO mart.o;

-- name: WITH before an insert
-- reads: raw.o
-- writes: mart.o
WITH o AS (SELECT * FROM raw.o), p AS (SELECT * FROM o)
INSERT INTO mart.o SELECT * FROM p;

-- name: insert from a table
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o TABLE raw.o;

-- name: a variable of Hive in a value and in a name
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o SELECT * FROM raw.o WHERE ds = '${ds}' AND n > ${n};
INSERT INTO ${env}_mart.o SELECT * FROM raw_${env}.x;

-- name: views of two kinds
-- reads: raw.o, mart.v
-- writes: mart.v, mart.w
CREATE OR REPLACE VIEW mart.v (id COMMENT 'key') TBLPROPERTIES ('a' = 'b') AS SELECT id FROM raw.o;
CREATE VIEW IF NOT EXISTS mart.w AS SELECT * FROM mart.v;

-- name: like another table
-- reads: mart.o
-- writes: test.o
CREATE TABLE IF NOT EXISTS test.o LIKE mart.o USING parquet;

-- name: table functions and values
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o SELECT o.id, r.id FROM raw.o CROSS JOIN range(10) r JOIN (VALUES (1), (2)) AS v(id) ON v.id = r.id JOIN raw.o o;

-- name: update and delete
-- reads: raw.gone
-- writes: mart.a, mart.b
UPDATE mart.a SET gone = true WHERE id IN (SELECT id FROM raw.gone);
DELETE FROM mart.b WHERE EXISTS (SELECT 1 FROM raw.gone g WHERE g.id = mart.b.id);

-- name: load data
-- reads:
-- writes: raw.o
LOAD DATA LOCAL INPATH '/landing/o' OVERWRITE INTO TABLE raw.o PARTITION (ds = '2026-01-01');

-- name: semi, anti and sampled joins
-- reads: raw.a, raw.b, raw.c
-- writes:
SELECT a.* FROM raw.a a LEFT SEMI JOIN raw.b b ON a.id = b.id LEFT ANTI JOIN raw.c TABLESAMPLE (10 PERCENT) c ON a.id = c.id;

-- name: in short: CREATE TABLE mart.a USING DELTA LOCATION '/x' AS SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a USING DELTA LOCATION '/x' AS SELECT * FROM raw.a;

-- name: in short: CREATE TABLE mart.a USING csv OPTIONS (path '/x', header 'true')
-- reads:
-- writes: mart.a
CREATE TABLE mart.a USING csv OPTIONS (path '/x', header 'true');

-- name: in short: CREATE TEMPORARY VIEW v USING parquet OPTIONS (path '/x'); INSERT INTO
-- reads:
-- writes: mart.a
CREATE TEMPORARY VIEW v USING parquet OPTIONS (path '/x'); INSERT INTO mart.a SELECT * FROM v;

-- name: in short: CACHE TABLE raw.a; INSERT INTO mart.a SELECT * FROM raw.a; CLEAR CACHE
-- reads: raw.a
-- writes: mart.a
CACHE TABLE raw.a; INSERT INTO mart.a SELECT * FROM raw.a; CLEAR CACHE;

-- name: in short: INSERT INTO mart.a PARTITION (ds='x') (id, v) SELECT id, v FROM raw.a
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a PARTITION (ds='x') (id, v) SELECT id, v FROM raw.a;

-- name: in short: INSERT OVERWRITE TABLE mart.a PARTITION (ds='x') IF NOT EXISTS SELECT
-- reads: raw.a
-- writes: mart.a
INSERT OVERWRITE TABLE mart.a PARTITION (ds='x') IF NOT EXISTS SELECT * FROM raw.a;

-- name: in short: DESCRIBE TABLE EXTENDED raw.a; SHOW TBLPROPERTIES raw.a; REFRESH '/x'
-- reads:
-- writes:
DESCRIBE TABLE EXTENDED raw.a; SHOW TBLPROPERTIES raw.a; REFRESH '/x';

-- name: in short: SELECT TRANSFORM(id) USING 'cat' AS (x) FROM raw.a
-- reads: raw.a
-- writes:
SELECT TRANSFORM(id) USING 'cat' AS (x) FROM raw.a;

-- name: in short: SELECT * FROM (SELECT * FROM raw.a) LATERAL VIEW INLINE(xs) AS p, q
-- reads: raw.a
-- writes:
SELECT * FROM (SELECT * FROM raw.a) LATERAL VIEW INLINE(xs) AS p, q;

-- name: in short: ALTER TABLE mart.a ADD IF NOT EXISTS PARTITION (ds='x') LOCATION '/y'
-- reads:
-- writes:
ALTER TABLE mart.a ADD IF NOT EXISTS PARTITION (ds='x') LOCATION '/y'; ALTER TABLE mart.a RECOVER PARTITIONS;

-- name: in short: CREATE FUNCTION f AS 'c' USING JAR '/x'; SELECT f(x) FROM raw.a
-- reads: raw.a
-- writes:
CREATE FUNCTION f AS 'c' USING JAR '/x'; SELECT f(x) FROM raw.a;

-- name: in short: SET x.y=1; RESET; SET; SELECT 1
-- reads:
-- writes:
SET x.y=1; RESET; SET; SELECT 1;

-- name: in short: WITH a AS (SELECT * FROM raw.a) MERGE INTO mart.b USING a ON a.id=b.id
-- reads: raw.a
-- writes: mart.b
WITH a AS (SELECT * FROM raw.a) MERGE INTO mart.b USING a ON a.id=b.id WHEN MATCHED THEN UPDATE SET *;

-- name: in short: MERGE INTO mart.a USING (SELECT * FROM raw.b) s ON a.id = s.id WHEN NO
-- reads: raw.b
-- writes: mart.a
MERGE INTO mart.a USING (SELECT * FROM raw.b) s ON a.id = s.id WHEN NOT MATCHED BY TARGET THEN INSERT *;

-- name: in short: TRUNCATE TABLE mart.a PARTITION (ds='x'); INSERT INTO mart.a VALUES (1
-- reads:
-- writes: mart.a
TRUNCATE TABLE mart.a PARTITION (ds='x'); INSERT INTO mart.a VALUES (1);

-- name: in short: SELECT /*+ MAPJOIN(b) */ * FROM raw.a a JOIN raw.b b
-- reads: raw.a, raw.b
-- writes:
SELECT /*+ MAPJOIN(b) */ * FROM raw.a a JOIN raw.b b;

-- name: in short: create or replace temporary view a as select * from raw.a; create or r
-- reads: raw.a, raw.b
-- writes: mart.c
create or replace temporary view a as select * from raw.a; create or replace temporary view b as select * from a join raw.b using (id); insert overwrite table mart.c partition (dt) select * from b;

-- name: in short: MERGE INTO mart.a t USING (SELECT s.* FROM raw.a s LEFT ANTI JOIN raw.
-- reads: raw.a, raw.b
-- writes: mart.a
MERGE INTO mart.a t USING (SELECT s.* FROM raw.a s LEFT ANTI JOIN raw.b USING (id)) s ON t.id <=> s.id WHEN MATCHED AND t.h <> s.h THEN UPDATE SET t.v = s.v WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id);

-- name: in short: CREATE TABLE IF NOT EXISTS mart.a (id BIGINT COMMENT 'x', m MAP<STRING
-- reads: raw.a
-- writes: mart.a
CREATE TABLE IF NOT EXISTS mart.a (id BIGINT COMMENT 'x', m MAP<STRING, ARRAY<INT>>) USING iceberg PARTITIONED BY (bucket(16, id)) TBLPROPERTIES ('format-version'='2'); INSERT INTO mart.a SELECT * FROM raw.a;

-- name: in short: INSERT INTO mart.a SELECT stack(2, 'a', x, 'b', y) AS (k, v) FROM raw.
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT stack(2, 'a', x, 'b', y) AS (k, v) FROM raw.a;

-- name: in short: FROM raw.a a JOIN raw.b b ON a.id = b.id INSERT INTO mart.c SELECT a.i
-- reads: raw.a, raw.b
-- writes: mart.c, mart.d
FROM raw.a a JOIN raw.b b ON a.id = b.id INSERT INTO mart.c SELECT a.id INSERT INTO mart.d SELECT b.id;

-- name: in short: INSERT OVERWRITE mart.a SELECT * FROM VALUES (1, 'a'), (2, 'b') AS t(i
-- reads:
-- writes: mart.a
INSERT OVERWRITE mart.a SELECT * FROM VALUES (1, 'a'), (2, 'b') AS t(id, v);

-- name: in short: WITH a AS (SELECT * FROM raw.a) FROM a INSERT INTO mart.b SELECT * INS
-- reads: raw.a
-- writes: mart.b, mart.c
WITH a AS (SELECT * FROM raw.a) FROM a INSERT INTO mart.b SELECT * INSERT INTO mart.c SELECT *;

-- name: in short: CREATE OR REPLACE VIEW mart.v AS WITH x AS (SELECT * FROM raw.a) SELEC
-- reads: raw.a, raw.b
-- writes: mart.v
CREATE OR REPLACE VIEW mart.v AS WITH x AS (SELECT * FROM raw.a) SELECT x.*, y.n FROM x, (SELECT count(*) n FROM raw.b) y;

-- name: in short: DROP VIEW IF EXISTS v; CREATE TEMP VIEW v AS TABLE raw.a; SELECT * FRO
-- reads: raw.a
-- writes:
DROP VIEW IF EXISTS v; CREATE TEMP VIEW v AS TABLE raw.a; SELECT * FROM v;

-- name: in short: INSERT INTO mart.a_${env} SELECT * FROM raw.b
-- reads: raw.b
-- writes:
INSERT INTO mart.a_${env} SELECT * FROM raw.b;

-- name: in short: SET CATALOG lake; USE mart; INSERT INTO a SELECT * FROM b
-- reads: lake.mart.b
-- writes: lake.mart.a
SET CATALOG lake; USE mart; INSERT INTO a SELECT * FROM b;

-- name: in short: CREATE OR REPLACE TEMP VIEW x AS SELECT * FROM raw.a; CREATE OR REPLAC
-- reads: raw.a, raw.b
-- writes: mart.a
CREATE OR REPLACE TEMP VIEW x AS SELECT * FROM raw.a; CREATE OR REPLACE TEMP VIEW x AS SELECT * FROM x JOIN raw.b USING (id); INSERT INTO mart.a SELECT * FROM x;

-- name: in short: CACHE TABLE c AS SELECT * FROM raw.a; CREATE TEMP VIEW v AS SELECT * F
-- reads: raw.a
-- writes:
CACHE TABLE c AS SELECT * FROM raw.a; CREATE TEMP VIEW v AS SELECT * FROM c; SELECT * FROM v; UNCACHE TABLE c; DROP VIEW v;

-- name: in short: ADD FILE /x.py; ADD ARCHIVE /y.zip; LIST JARS; INSERT INTO mart.b SELE
-- reads: raw.a
-- writes: mart.b
ADD FILE /x.py; ADD ARCHIVE /y.zip; LIST JARS; INSERT INTO mart.b SELECT * FROM raw.a;

-- name: in short: WITH a AS (SELECT * FROM raw.a) INSERT INTO a SELECT * FROM a
-- reads: raw.a
-- writes: a
WITH a AS (SELECT * FROM raw.a) INSERT INTO a SELECT * FROM a;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a DISTRIBUTE BY x SORT BY y; INSE
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a DISTRIBUTE BY x SORT BY y; INSERT INTO mart.a (id) VALUES (1);

-- name: in short: SELECT * FROM raw.a ANTI JOIN raw.b USING (id) NATURAL JOIN raw.c
-- reads: raw.a, raw.b, raw.c
-- writes:
SELECT * FROM raw.a ANTI JOIN raw.b USING (id) NATURAL JOIN raw.c;

-- name: in short: DELETE FROM mart.a WHERE id IN (SELECT id FROM v); CREATE TEMP VIEW v
-- reads: v, raw.a
-- writes: mart.a
DELETE FROM mart.a WHERE id IN (SELECT id FROM v); CREATE TEMP VIEW v AS SELECT * FROM raw.a;

-- name: in short: CREATE TABLE mart.s USING iceberg AS SELECT * FROM raw.a; ALTER TABLE
-- reads: raw.a
-- writes: mart.s
CREATE TABLE mart.s USING iceberg AS SELECT * FROM raw.a; ALTER TABLE mart.s WRITE ORDERED BY id; CALL cat.system.expire_snapshots('mart.s'); DROP TABLE IF EXISTS mart.old PURGE;
