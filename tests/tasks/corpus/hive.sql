-- name: dynamic partitions and a lateral view
-- reads: raw.visits
-- writes: mart.visits_by_tag
SET hive.exec.dynamic.partition.mode=nonstrict;
INSERT OVERWRITE TABLE mart.visits_by_tag PARTITION (ds)
SELECT tag, COUNT(*), ds FROM raw.visits LATERAL VIEW OUTER explode(tags) t AS tag
WHERE ds = '${hiveconf:ds}' GROUP BY tag, ds DISTRIBUTE BY ds SORT BY tag;

-- name: FROM with several inserts
-- reads: raw.visits, raw.users
-- writes: mart.a, mart.b
FROM (SELECT v.*, u.country FROM raw.visits v JOIN raw.users u ON u.id = v.user_id) x
INSERT OVERWRITE TABLE mart.a PARTITION (ds='2026-01-01') SELECT x.id WHERE x.country = 'DE'
INSERT INTO TABLE mart.b SELECT x.id, x.country;

-- name: load data
-- reads:
-- writes: raw.visits
LOAD DATA INPATH '/landing/visits' OVERWRITE INTO TABLE raw.visits PARTITION (ds='2026-01-01');

-- name: use
-- reads: sales.orders
-- writes: sales.revenue
USE sales;
INSERT INTO TABLE revenue SELECT * FROM orders;

-- name: partition exchange
-- reads: stage.visits
-- writes: mart.visits
ALTER TABLE mart.visits EXCHANGE PARTITION (ds='2026-01-01') WITH TABLE stage.visits;

-- name: export and import
-- reads: mart.visits
-- writes: raw.visits_copy
EXPORT TABLE mart.visits PARTITION (ds='2026-01-01') TO '/out/visits';
IMPORT TABLE raw.visits_copy FROM '/out/visits';

-- name: directory
-- reads: mart.visits
-- writes:
INSERT OVERWRITE LOCAL DIRECTORY '/tmp/out' ROW FORMAT DELIMITED FIELDS TERMINATED BY ',' SELECT * FROM mart.visits;

-- name: jars, temporary functions, repair
-- reads: raw.o
-- writes: mart.o
ADD JAR s3://libs/udf.jar;
ADD FILE s3://libs/map.py;
CREATE TEMPORARY FUNCTION f AS 'com.acme.F';
INSERT OVERWRITE TABLE mart.o PARTITION (ds) SELECT f(v), ds FROM raw.o;
MSCK REPAIR TABLE mart.o;

-- name: transform by a script
-- reads: raw.o
-- writes: mart.o
FROM (SELECT TRANSFORM (id, v) USING 'python map.py' AS (id, w) FROM raw.o) t
INSERT OVERWRITE TABLE mart.o SELECT t.id, t.w;

-- name: temporary table
-- reads: raw.o
-- writes: mart.o
CREATE TEMPORARY TABLE held STORED AS ORC AS SELECT * FROM raw.o;
INSERT INTO TABLE mart.o SELECT * FROM held;
DROP TABLE held;

-- name: external table with a storage handler
-- reads:
-- writes: raw.hb
CREATE EXTERNAL TABLE IF NOT EXISTS raw.hb (key STRING, v INT)
STORED BY 'org.apache.hadoop.hive.hbase.HBaseStorageHandler' WITH SERDEPROPERTIES ('hbase.columns.mapping' = ':key,cf:v')
TBLPROPERTIES ('hbase.table.name' = 'hb');

-- name: like another table
-- reads: mart.o
-- writes: test.o
CREATE EXTERNAL TABLE test.o LIKE mart.o LOCATION '/test/o';

-- name: WITH and FROM first
-- reads: raw.o
-- writes: mart.o
WITH q AS (SELECT * FROM raw.o WHERE v > 0)
FROM q INSERT OVERWRITE TABLE mart.o SELECT q.*;

-- name: table as select with buckets
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o STORED AS PARQUET TBLPROPERTIES ('parquet.compression'='SNAPPY') AS SELECT id, v FROM raw.o CLUSTER BY id;

-- name: values and a struct
-- reads:
-- writes: mart.o
INSERT INTO TABLE mart.o PARTITION (ds = '2026-01-01') VALUES (1, 'a'), (2, 'b');

-- name: merge
-- reads: stage.o
-- writes: mart.o
MERGE INTO mart.o AS t USING stage.o AS s ON t.id = s.id
WHEN MATCHED AND s.op = 'D' THEN DELETE
WHEN MATCHED THEN UPDATE SET v = s.v
WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v);

-- name: semi join and a sampled table
-- reads: raw.a, raw.b
-- writes: mart.c
INSERT INTO mart.c SELECT a.* FROM raw.a TABLESAMPLE (BUCKET 1 OUT OF 10 ON id) a LEFT SEMI JOIN raw.b b ON a.id = b.id;

-- name: materialized view
-- reads: mart.o
-- writes: mart.mv
CREATE MATERIALIZED VIEW mart.mv STORED AS ORC AS SELECT ds, COUNT(*) AS n FROM mart.o GROUP BY ds;
ALTER MATERIALIZED VIEW mart.mv REBUILD;

-- name: rename
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o_new AS SELECT * FROM raw.o;
DROP TABLE IF EXISTS mart.o;
ALTER TABLE mart.o_new RENAME TO mart.o;

-- name: partitions are added and dropped
-- reads: raw.o
-- writes: mart.o
ALTER TABLE mart.o DROP IF EXISTS PARTITION (ds < '2025-01-01') PURGE;
INSERT INTO TABLE mart.o PARTITION (ds = '2026-01-01') SELECT id FROM raw.o;
ANALYZE TABLE mart.o PARTITION (ds = '2026-01-01') COMPUTE STATISTICS;

-- name: a variable makes up the database
-- reads: raw.o
-- writes:
INSERT INTO TABLE ${hivevar:db}.o SELECT * FROM raw.o JOIN ${hivevar:db}.dim USING (id);

-- name: union in a subquery, windows
-- reads: raw.a, raw.b
-- writes: mart.c
INSERT OVERWRITE TABLE mart.c
SELECT id, ROW_NUMBER() OVER (PARTITION BY id ORDER BY ts DESC) AS rn
FROM (SELECT id, ts FROM raw.a UNION ALL SELECT id, ts FROM raw.b) u;

-- name: macro and a view with columns
-- reads: raw.o
-- writes: mart.v
CREATE TEMPORARY MACRO half(x DOUBLE) x / 2;
CREATE VIEW IF NOT EXISTS mart.v (id COMMENT 'key', h) PARTITIONED ON (ds) AS SELECT id, half(v), ds FROM raw.o;

-- name: explain reads nothing
-- reads:
-- writes:
EXPLAIN EXTENDED SELECT * FROM raw.o;
DESCRIBE FORMATTED raw.o;
SHOW PARTITIONS raw.o;

-- name: in short: INSERT OVERWRITE TABLE mart.a SELECT * FROM raw.a LATERAL VIEW json_tu
-- reads: raw.a
-- writes: mart.a
INSERT OVERWRITE TABLE mart.a SELECT * FROM raw.a LATERAL VIEW json_tuple(x, 'a', 'b') t AS a, b;

-- name: in short: FROM (FROM raw.a SELECT TRANSFORM(x) USING 'm' AS y) t INSERT OVERWRIT
-- reads: raw.a
-- writes: mart.a
FROM (FROM raw.a SELECT TRANSFORM(x) USING 'm' AS y) t INSERT OVERWRITE TABLE mart.a SELECT y;

-- name: in short: INSERT OVERWRITE DIRECTORY 's3://x' STORED AS ORC SELECT * FROM raw.a
-- reads: raw.a
-- writes:
INSERT OVERWRITE DIRECTORY 's3://x' STORED AS ORC SELECT * FROM raw.a;

-- name: in short: CREATE TABLE mart.a ROW FORMAT SERDE 'x' STORED AS INPUTFORMAT 'a' OUT
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a ROW FORMAT SERDE 'x' STORED AS INPUTFORMAT 'a' OUTPUTFORMAT 'b' AS SELECT * FROM raw.a;

-- name: in short: ALTER TABLE mart.a PARTITION (ds='x') CONCATENATE; ALTER TABLE mart.a
-- reads:
-- writes:
ALTER TABLE mart.a PARTITION (ds='x') CONCATENATE; ALTER TABLE mart.a TOUCH;

-- name: in short: SELECT * FROM raw.a a JOIN raw.b b ON (a.id = b.id) WHERE a.x IN (SELE
-- reads: raw.a, raw.b, raw.c
-- writes:
SELECT * FROM raw.a a JOIN raw.b b ON (a.id = b.id) WHERE a.x IN (SELECT x FROM raw.c);

-- name: in short: WITH a AS (SELECT * FROM raw.a) INSERT OVERWRITE TABLE mart.b PARTITIO
-- reads: raw.a
-- writes: mart.b
WITH a AS (SELECT * FROM raw.a) INSERT OVERWRITE TABLE mart.b PARTITION (ds) SELECT * FROM a;

-- name: in short: UPDATE mart.a SET x = 1 WHERE id = 2; DELETE FROM mart.b WHERE id = 3
-- reads:
-- writes: mart.a, mart.b
UPDATE mart.a SET x = 1 WHERE id = 2; DELETE FROM mart.b WHERE id = 3;

-- name: in short: CREATE TABLE mart.a (x STRUCT<a:INT,b:ARRAY<STRING>>) PARTITIONED BY
-- reads:
-- writes: mart.a
CREATE TABLE mart.a (x STRUCT<a:INT,b:ARRAY<STRING>>) PARTITIONED BY (ds STRING) CLUSTERED BY (x) INTO 4 BUCKETS;

-- name: in short: RELOAD FUNCTION; SHOW FUNCTIONS; INSERT INTO mart.a SELECT 1
-- reads:
-- writes: mart.a
RELOAD FUNCTION; SHOW FUNCTIONS; INSERT INTO mart.a SELECT 1;

-- name: in short: EXPLAIN INSERT INTO mart.a SELECT * FROM raw.a
-- reads:
-- writes:
EXPLAIN INSERT INTO mart.a SELECT * FROM raw.a;

-- name: in short: TRUNCATE TABLE mart.a; LOCK TABLE mart.a EXCLUSIVE; UNLOCK TABLE mart.
-- reads:
-- writes:
TRUNCATE TABLE mart.a; LOCK TABLE mart.a EXCLUSIVE; UNLOCK TABLE mart.a;

-- name: in short: set hive.execution.engine=tez; set mapreduce.job.queuename=etl; drop t
-- reads: raw.a, raw.b
-- writes: stage.t, mart.t
set hive.execution.engine=tez;
set mapreduce.job.queuename=etl;
drop table if exists stage.t;
create table stage.t stored as orc as
select a.id, b.v from raw.a a left outer join raw.b b on (a.id = b.id and b.dt = '${dt}') where a.dt = '${dt}';
insert overwrite table mart.t partition (dt='${dt}') select * from stage.t;

-- name: in short: insert into table mart.a partition(dt) select id, dt from (select id
-- reads: raw.a
-- writes: mart.a
insert into table mart.a partition(dt) select id, dt from (select id, dt, row_number() over (partition by id order by ts desc) rn from raw.a) t where rn = 1;

-- name: in short: alter table mart.a add if not exists partition (dt='x'); load data inp
-- reads:
-- writes: mart.a
alter table mart.a add if not exists partition (dt='x'); load data inpath '/x' into table mart.a partition (dt='x');

-- name: in short: create temporary function f as 'x.Y' using jar 'hdfs:///x.jar'; select
-- reads: raw.a
-- writes:
create temporary function f as 'x.Y' using jar 'hdfs:///x.jar'; select f(a) from raw.a;

-- name: in short: insert overwrite table mart.a select /*+ MAPJOIN(b) */ a.* from raw.a
-- reads: raw.a, raw.b
-- writes: mart.a
insert overwrite table mart.a select /*+ MAPJOIN(b) */ a.* from raw.a a join raw.b b on a.id=b.id;

-- name: in short: create view mart.v as select * from raw.a; alter view mart.v as select
-- reads: raw.a, raw.b
-- writes: mart.v
create view mart.v as select * from raw.a; alter view mart.v as select * from raw.b;

-- name: in short: insert overwrite table mart.a select * from raw.a where dt in ('${hive
-- reads: raw.a, raw.b
-- writes: mart.a
insert overwrite table mart.a select * from raw.a where dt in ('${hiveconf:d1}', '${hiveconf:d2}') union all select * from raw.b;

-- name: in short: use mart; insert overwrite table a select * from raw.x; use default; i
-- reads: raw.x
-- writes: mart.a, default.z
use mart; insert overwrite table a select * from raw.x; use default; insert into table z select * from mart.a;

-- name: in short: from raw.a a lateral view explode(xs) t as x insert overwrite table ma
-- reads: raw.a
-- writes: mart.b
from raw.a a lateral view explode(xs) t as x insert overwrite table mart.b select x;

-- name: in short: select * from raw.a cross join raw.b full outer join raw.c on true
-- reads: raw.a, raw.b, raw.c
-- writes:
select * from raw.a cross join raw.b full outer join raw.c on true;

-- name: in short: drop database if exists x cascade; create database y; alter database y
-- reads:
-- writes:
drop database if exists x cascade; create database y; alter database y set dbproperties ('a'='b');

-- name: in short: INSERT INTO TABLE ${db}.a SELECT * FROM raw.b
-- reads: raw.b
-- writes:
INSERT INTO TABLE ${db}.a SELECT * FROM raw.b;

-- name: in short: MSCK REPAIR TABLE raw.a SYNC PARTITIONS; ANALYZE TABLE raw.a COMPUTE S
-- reads: raw.a
-- writes: mart.b
MSCK REPAIR TABLE raw.a SYNC PARTITIONS; ANALYZE TABLE raw.a COMPUTE STATISTICS; INSERT INTO mart.b SELECT * FROM raw.a;

-- name: in short: INSERT INTO TABLE mart.a PARTITION (y=2026, m) SELECT x, m FROM raw.a
-- reads: raw.a
-- writes: mart.a
INSERT INTO TABLE mart.a PARTITION (y=2026, m) SELECT x, m FROM raw.a WHERE y = 2026 SORT BY x LIMIT 5;

-- name: in short: CREATE TABLE mart.a LIKE raw.a STORED AS PARQUET; INSERT OVERWRITE TAB
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a LIKE raw.a STORED AS PARQUET; INSERT OVERWRITE TABLE mart.a SELECT * FROM raw.a;

-- name: in short: ALTER TABLE mart.a RENAME TO mart.b; ALTER TABLE mart.c PARTITION (d='
-- reads: mart.a
-- writes: mart.b
ALTER TABLE mart.a RENAME TO mart.b; ALTER TABLE mart.c PARTITION (d='x') RENAME TO PARTITION (d='y');

-- name: in short: FROM raw.a t INSERT OVERWRITE TABLE mart.a PARTITION (d='x') SELECT t.
-- reads: raw.a
-- writes: mart.a
FROM raw.a t INSERT OVERWRITE TABLE mart.a PARTITION (d='x') SELECT t.id WHERE t.k = 1 INSERT OVERWRITE DIRECTORY '/x' SELECT t.id;
