-- name: transient table with a lateral flatten
-- reads: raw.events, raw.users
-- writes: mart.sessions
create or replace transient table mart.sessions cluster by (day) copy grants as
with e as (select e.*, f.value:name::string as item from raw.events e, lateral flatten(input => e.payload:items) f)
select u.id, date_trunc('day', e.ts) as day, count(distinct iff(e.kind = 'buy', e.id, null)) as buys
from e join raw.users u on u.id = e.user_id
group by 1, 2
qualify row_number() over (partition by u.id order by day desc) = 1;

-- name: swap into place
-- reads: raw.orders
-- writes: mart.revenue
CREATE OR REPLACE TABLE mart.revenue_tmp AS SELECT day, SUM(amount) AS amount FROM raw.orders GROUP BY day;
ALTER TABLE mart.revenue SWAP WITH mart.revenue_tmp;
DROP TABLE mart.revenue_tmp;

-- name: warehouse, role, database and schema of the session
-- reads: analytics.marts.base, analytics.raw.orders
-- writes: analytics.marts.revenue
USE ROLE transformer;
USE WAREHOUSE etl_wh;
USE DATABASE analytics;
USE SCHEMA marts;
USE SECONDARY ROLES ALL;
CREATE OR REPLACE TABLE revenue AS SELECT * FROM base JOIN raw.orders USING (id);

-- name: database and schema at once
-- reads: prod.core.a
-- writes: prod.core.b
USE prod.core;
INSERT INTO b SELECT * FROM a;

-- name: copy from a stage
-- reads:
-- writes: raw.orders
COPY INTO raw.orders (id, amount) FROM (SELECT $1:id, $1:amount FROM @landing/orders/ t)
FILE_FORMAT = (TYPE = JSON) PATTERN = '.*[.]json' ON_ERROR = CONTINUE;

-- name: copy from a stage by name
-- reads:
-- writes: raw.orders
copy into raw.orders from @raw.landing/orders/2026/ file_format = (format_name = 'raw.csv') force = true;

-- name: copy to a stage
-- reads: mart.revenue
-- writes:
COPY INTO @exports/revenue_ FROM (SELECT * FROM mart.revenue WHERE day = CURRENT_DATE) FILE_FORMAT = (TYPE = PARQUET) OVERWRITE = TRUE;

-- name: copy of a table to a bucket
-- reads: mart.revenue
-- writes:
COPY INTO 's3://exports/revenue/' FROM mart.revenue STORAGE_INTEGRATION = s3 FILE_FORMAT = (TYPE = CSV);

-- name: insert into several tables
-- reads: raw.orders
-- writes: mart.big, mart.small
INSERT ALL
  WHEN amount > 1000 THEN INTO mart.big (id, amount) VALUES (id, amount)
  WHEN amount <= 1000 THEN INTO mart.small
SELECT id, amount FROM raw.orders;

-- name: insert overwrite
-- reads: raw.orders
-- writes: mart.orders
INSERT OVERWRITE INTO mart.orders SELECT * FROM raw.orders;

-- name: merge with a stream and its metadata
-- reads: raw.orders_stream
-- writes: mart.orders
MERGE INTO mart.orders t USING (SELECT * FROM raw.orders_stream WHERE METADATA$ACTION = 'INSERT') s ON t.id = s.id
WHEN MATCHED AND s.deleted THEN DELETE
WHEN MATCHED THEN UPDATE SET t.amount = s.amount
WHEN NOT MATCHED THEN INSERT (id, amount) VALUES (s.id, s.amount);

-- name: zero-copy clone
-- reads: mart.orders
-- writes: test.orders
CREATE OR REPLACE TABLE test.orders CLONE mart.orders AT (OFFSET => -3600);

-- name: dynamic table
-- reads: raw.orders
-- writes: mart.live
CREATE OR REPLACE DYNAMIC TABLE mart.live TARGET_LAG = '5 minutes' WAREHOUSE = etl AS
SELECT id, SUM(amount) AS amount FROM raw.orders GROUP BY id;

-- name: stream on a table
-- reads: raw.orders
-- writes: raw.orders_stream
CREATE OR REPLACE STREAM raw.orders_stream ON TABLE raw.orders APPEND_ONLY = TRUE;

-- name: temporary table that hides a real one of the same name
-- reads: sales.orders
-- writes: sales.revenue
-- schema: sales
CREATE TEMPORARY TABLE orders AS SELECT * FROM sales.orders WHERE amount > 0;
INSERT INTO revenue SELECT SUM(amount) FROM sales.orders;

-- name: scripting block with a cursor and a variable
-- reads: ops.runs, raw.orders
-- writes: mart.orders
DECLARE
  last_run TIMESTAMP DEFAULT (SELECT MAX(ts) FROM ops.runs);
  n INTEGER;
BEGIN
  LET batch RESULTSET := (SELECT id FROM raw.orders WHERE ts > :last_run);
  INSERT INTO mart.orders SELECT * FROM raw.orders WHERE ts > :last_run;
  n := SQLROWCOUNT;
  RETURN n;
END;

-- name: anonymous block as text
-- reads: raw.orders
-- writes: mart.orders
EXECUTE IMMEDIATE $$
BEGIN
  DELETE FROM mart.orders;
  INSERT INTO mart.orders SELECT * FROM raw.orders;
  RETURN 'ok';
END;
$$;

-- name: a procedure or a task only writes down
-- reads:
-- writes:
CREATE OR REPLACE PROCEDURE ops.load() RETURNS VARCHAR LANGUAGE SQL AS
$$
BEGIN
  INSERT INTO mart.orders SELECT * FROM raw.orders;
  RETURN 'done';
END;
$$;
CREATE OR REPLACE TASK ops.nightly WAREHOUSE = etl SCHEDULE = 'USING CRON 0 2 * * * UTC' AS CALL ops.load();
ALTER TASK ops.nightly RESUME;

-- name: session variables and parameters
-- reads: raw.orders
-- writes: mart.orders
SET cutoff = (SELECT '2026-01-01');
ALTER SESSION SET TIMEZONE = 'UTC';
INSERT INTO mart.orders SELECT * FROM raw.orders WHERE day >= $cutoff;
UNSET cutoff;

-- name: results of the query before
-- reads: raw.orders
-- writes: mart.orders
SELECT * FROM raw.orders;
INSERT INTO mart.orders SELECT * FROM TABLE(RESULT_SCAN(LAST_QUERY_ID()));

-- name: name given as text
-- reads: raw.orders
-- writes: mart.orders
INSERT INTO IDENTIFIER('mart.orders') SELECT * FROM IDENTIFIER('raw.orders');

-- name: match recognize and pivot
-- reads: raw.ticks
-- writes: mart.patterns
CREATE TABLE mart.patterns AS
SELECT * FROM raw.ticks MATCH_RECOGNIZE (
  PARTITION BY symbol ORDER BY ts MEASURES FIRST(ts) AS begun
  ONE ROW PER MATCH PATTERN (down+ up+) DEFINE down AS price < LAG(price), up AS price > LAG(price));

-- name: asof join and generator
-- reads: raw.trades, raw.quotes
-- writes: mart.marked
INSERT INTO mart.marked
SELECT t.id, q.price FROM raw.trades t ASOF JOIN raw.quotes q MATCH_CONDITION (t.ts >= q.ts) ON t.symbol = q.symbol
UNION ALL SELECT SEQ4(), 0 FROM TABLE(GENERATOR(ROWCOUNT => 10));

-- name: delete with using
-- reads: raw.deleted
-- writes: mart.users
DELETE FROM mart.users USING raw.deleted d WHERE mart.users.id = d.id;

-- name: files of a stage as a table
-- reads:
-- writes: raw.lines
INSERT INTO raw.lines SELECT t.$1, METADATA$FILENAME FROM @landing/lines (FILE_FORMAT => 'csv', PATTERN => '.*csv') t;

-- name: view with a policy and a comment
-- reads: mart.users
-- writes: share.users
CREATE OR REPLACE SECURE VIEW share.users COMMENT = 'for partners' AS SELECT id, country FROM mart.users;

-- name: rename to another schema
-- reads: raw.orders
-- writes: archive.orders_2026
CREATE TABLE mart.orders_2026 AS SELECT * FROM raw.orders;
ALTER TABLE mart.orders_2026 RENAME TO archive.orders_2026;

-- name: refresh of a dynamic table
-- reads:
-- writes: mart.live
ALTER DYNAMIC TABLE mart.live REFRESH;

-- name: two database names with the default schema between
-- reads: raw.public.orders
-- writes: mart.public.orders
INSERT INTO mart..orders SELECT * FROM raw..orders;

-- name: files to a stage and maintenance
-- reads: raw.a
-- writes: mart.a
PUT file:///tmp/a.csv @landing;
ALTER WAREHOUSE etl SET WAREHOUSE_SIZE = 'LARGE';
INSERT INTO mart.a SELECT * FROM raw.a;
GRANT SELECT ON TABLE mart.a TO ROLE analyst;
COMMENT ON TABLE mart.a IS 'every night';

-- name: in short: INSERT INTO mart.a (x) SELECT PARSE_JSON($1):x FROM VALUES ('{}')
-- reads:
-- writes: mart.a
INSERT INTO mart.a (x) SELECT PARSE_JSON($1):x FROM VALUES ('{}');

-- name: in short: CREATE OR REPLACE TEMPORARY VIEW v AS SELECT * FROM raw.a; CREATE TABL
-- reads: raw.a
-- writes: mart.b
CREATE OR REPLACE TEMPORARY VIEW v AS SELECT * FROM raw.a; CREATE TABLE mart.b AS SELECT * FROM v;

-- name: in short: CREATE OR REPLACE MATERIALIZED VIEW mart.mv AS SELECT x, COUNT(*) c FR
-- reads: raw.a
-- writes: mart.mv
CREATE OR REPLACE MATERIALIZED VIEW mart.mv AS SELECT x, COUNT(*) c FROM raw.a GROUP BY x;

-- name: in short: CREATE EXTERNAL TABLE raw.e (x VARCHAR AS (value:c1::varchar)) LOCATIO
-- reads:
-- writes: raw.e
CREATE EXTERNAL TABLE raw.e (x VARCHAR AS (value:c1::varchar)) LOCATION=@s/x FILE_FORMAT=(TYPE=CSV);

-- name: in short: ALTER EXTERNAL TABLE raw.e REFRESH
-- reads:
-- writes: raw.e
ALTER EXTERNAL TABLE raw.e REFRESH;

-- name: in short: EXECUTE TASK ops.t
-- reads:
-- writes:
EXECUTE TASK ops.t;

-- name: in short: UPDATE mart.a SET x = b.x FROM raw.b b WHERE a.id = b.id
-- reads: raw.b
-- writes: mart.a
UPDATE mart.a SET x = b.x FROM raw.b b WHERE a.id = b.id;

-- name: in short: UPDATE mart.a t SET t.x = s.x FROM (SELECT * FROM raw.b) s WHERE t.id
-- reads: raw.b
-- writes: mart.a
UPDATE mart.a t SET t.x = s.x FROM (SELECT * FROM raw.b) s WHERE t.id = s.id;

-- name: in short: INSERT FIRST WHEN a > 1 THEN INTO mart.x ELSE INTO mart.y SELECT a FRO
-- reads: raw.z
-- writes: mart.x, mart.y
INSERT FIRST WHEN a > 1 THEN INTO mart.x ELSE INTO mart.y SELECT a FROM (SELECT * FROM raw.z);

-- name: in short: CREATE TABLE mart.a AS SELECT * FROM raw.b BEFORE (STATEMENT => 'x')
-- reads: raw.b
-- writes: mart.a
CREATE TABLE mart.a AS SELECT * FROM raw.b BEFORE (STATEMENT => 'x');

-- name: in short: WITH a AS (SELECT * FROM raw.b) SELECT * FROM a, LATERAL FLATTEN(input
-- reads: raw.b
-- writes:
WITH a AS (SELECT * FROM raw.b) SELECT * FROM a, LATERAL FLATTEN(input => a.x) f, TABLE(SPLIT_TO_TABLE(a.y, ',')) s;

-- name: in short: CREATE TABLE mart.a LIKE raw.b
-- reads: raw.b
-- writes: mart.a
CREATE TABLE mart.a LIKE raw.b;

-- name: in short: CREATE OR REPLACE TABLE mart.a USING TEMPLATE (SELECT ARRAY_AGG(OBJECT
-- reads:
-- writes: mart.a
CREATE OR REPLACE TABLE mart.a USING TEMPLATE (SELECT ARRAY_AGG(OBJECT_CONSTRUCT(*)) FROM TABLE(INFER_SCHEMA(LOCATION=>'@s', FILE_FORMAT=>'f')));

-- name: in short: UNDROP TABLE mart.a
-- reads:
-- writes: mart.a
UNDROP TABLE mart.a;

-- name: in short: CALL ops.p(1)
-- reads:
-- writes:
CALL ops.p(1);

-- name: in short: SHOW TABLES; SELECT "name" FROM TABLE(RESULT_SCAN(LAST_QUERY_ID()))
-- reads:
-- writes:
SHOW TABLES; SELECT "name" FROM TABLE(RESULT_SCAN(LAST_QUERY_ID()));

-- name: in short: DELETE FROM mart.a WHERE id IN (SELECT id FROM raw.b)
-- reads: raw.b
-- writes: mart.a
DELETE FROM mart.a WHERE id IN (SELECT id FROM raw.b);

-- name: in short: REMOVE @s/x; LIST @s; GET @s file:///tmp
-- reads:
-- writes:
REMOVE @s/x; LIST @s; GET @s file:///tmp;

-- name: in short: CREATE OR REPLACE HYBRID TABLE mart.h (id INT PRIMARY KEY)
-- reads:
-- writes: mart.h
CREATE OR REPLACE HYBRID TABLE mart.h (id INT PRIMARY KEY);

-- name: in short: CREATE ICEBERG TABLE mart.i CATALOG='SNOWFLAKE' EXTERNAL_VOLUME='v' BA
-- reads: raw.a
-- writes: mart.i
CREATE ICEBERG TABLE mart.i CATALOG='SNOWFLAKE' EXTERNAL_VOLUME='v' BASE_LOCATION='x' AS SELECT * FROM raw.a;

-- name: in short: ALTER TABLE mart.a ADD SEARCH OPTIMIZATION; ALTER TABLE mart.a CLUSTER
-- reads:
-- writes:
ALTER TABLE mart.a ADD SEARCH OPTIMIZATION; ALTER TABLE mart.a CLUSTER BY (x);

-- name: in short: MERGE INTO mart.a USING (WITH c AS (SELECT * FROM raw.b) SELECT * FROM
-- reads: raw.b
-- writes: mart.a
MERGE INTO mart.a USING (WITH c AS (SELECT * FROM raw.b) SELECT * FROM c) s ON a.id=s.id WHEN MATCHED THEN UPDATE SET a.x=s.x WHEN NOT MATCHED THEN INSERT ALL BY NAME;

-- name: in short: MERGE INTO MART.A USING RAW.B ON A.ID = B.ID WHEN NOT MATCHED THEN INS
-- reads: raw.b
-- writes: mart.a
MERGE INTO MART.A USING RAW.B ON A.ID = B.ID WHEN NOT MATCHED THEN INSERT (ID) VALUES (B.ID);

-- name: in short: BEGIN; DELETE FROM mart.a; INSERT INTO mart.a SELECT * FROM raw.a; COM
-- reads: raw.a
-- writes: mart.a
BEGIN; DELETE FROM mart.a; INSERT INTO mart.a SELECT * FROM raw.a; COMMIT;

-- name: in short: create table if not exists mart.a as select parse_json(x):y[0].z::int
-- reads: raw.a
-- writes: mart.a
create table if not exists mart.a as select parse_json(x):y[0].z::int from raw.a sample (10) where rlike(x, 'a;b');

-- name: in short: set t = 'mart.a'; insert into identifier($t) select * from raw.a
-- reads: raw.a
-- writes:
set t = 'mart.a'; insert into identifier($t) select * from raw.a;

-- name: in short: select * from table(mart.fn(1)), table(flatten(parse_json('[]'))), raw
-- reads: raw.a
-- writes:
select * from table(mart.fn(1)), table(flatten(parse_json('[]'))), raw.a;

-- name: in short: create or replace table mart.a as select * from raw.a at (timestamp =>
-- reads: raw.a, raw.b
-- writes: mart.a
create or replace table mart.a as select * from raw.a at (timestamp => 'x'::timestamp) left join raw.b changes (information => default) at (offset => -60) using (id);

-- name: in short: copy into mart.a from (select $1, $2 from 's3://x/y') file_format=(typ
-- reads:
-- writes: mart.a
copy into mart.a from (select $1, $2 from 's3://x/y') file_format=(type=csv);

-- name: in short: copy into mart.a from 's3://x/y' credentials=(aws_key_id='a' aws_secre
-- reads:
-- writes: mart.a
copy into mart.a from 's3://x/y' credentials=(aws_key_id='a' aws_secret_key='b') files=('x.csv') match_by_column_name=case_insensitive;

-- name: in short: create pipe p auto_ingest=true as copy into mart.a from @s
-- reads:
-- writes:
create pipe p auto_ingest=true as copy into mart.a from @s;

-- name: in short: insert overwrite all into mart.a into mart.b select * from raw.c
-- reads: raw.c
-- writes: mart.a, mart.b
insert overwrite all into mart.a into mart.b select * from raw.c;

-- name: in short: use schema "Mixed"; create table t as select * from other.x
-- reads: other.x
-- writes: "Mixed".t
use schema "Mixed"; create table t as select * from other.x;

-- name: in short: use warehouse identifier('x'); alter session set query_tag = 'a;b'; se
-- reads: raw.a
-- writes:
use warehouse identifier('x'); alter session set query_tag = 'a;b'; select * from raw.a;

-- name: in short: execute immediate 'insert into mart.a select * from raw.a'
-- reads: raw.a
-- writes: mart.a
execute immediate 'insert into mart.a select * from raw.a';

-- name: in short: begin let x := 1; for r in (select * from raw.a) do insert into mart.b
-- reads: raw.a
-- writes: mart.b, mart.err
begin let x := 1; for r in (select * from raw.a) do insert into mart.b values (1); end for; exception when other then insert into mart.err values (:sqlerrm); end;

-- name: in short: declare c cursor for select id from raw.a; begin open c; for r in c do
-- reads: raw.a
-- writes: mart.b
declare c cursor for select id from raw.a; begin open c; for r in c do insert into mart.b values (r.id); end for; close c; end;

-- name: in short: if (exists (select 1 from raw.a)) then insert into mart.a select 1; en
-- reads: raw.a
-- writes: mart.a
if (exists (select 1 from raw.a)) then insert into mart.a select 1; end if;

-- name: in short: create or replace temp table x clone mart.a; insert into mart.b select
-- reads: mart.a
-- writes: mart.b
create or replace temp table x clone mart.a; insert into mart.b select * from x;

-- name: in short: select a.* from mart.a a, lateral (select * from raw.b b where b.id =
-- reads: mart.a, raw.b
-- writes:
select a.* from mart.a a, lateral (select * from raw.b b where b.id = a.id);

-- name: in short: create database link; drop stage x; truncate table if exists mart.a; d
-- reads:
-- writes:
create database link; drop stage x; truncate table if exists mart.a; describe table mart.a;

-- name: in short: insert into mart.a select * from (values (1, 'a')) as v (id, x) union
-- reads: raw.b
-- writes: mart.a
insert into mart.a select * from (values (1, 'a')) as v (id, x) union select * from raw.b;

-- name: in short: update mart.a set x = null where exists (select 1 from raw.b where a.i
-- reads: raw.b
-- writes: mart.a
update mart.a set x = null where exists (select 1 from raw.b where a.id = b.id);

-- name: in short: INSERT INTO mart.a SELECT * FROM <% db %>.raw.x JOIN raw.b USING (id)
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM <% db %>.raw.x JOIN raw.b USING (id);

-- name: in short: INSERT INTO mart.a SELECT * FROM &{db}.raw.x JOIN raw.b USING (id)
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM &{db}.raw.x JOIN raw.b USING (id);

-- name: in short: INSERT INTO mart.a SELECT * FROM &db..x JOIN raw.b USING (id)
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM &db..x JOIN raw.b USING (id);

-- name: in short: BEGIN TRANSACTION; TRUNCATE TABLE mart.a; INSERT INTO mart.a SELECT *
-- reads: raw.a
-- writes: mart.a
BEGIN TRANSACTION; TRUNCATE TABLE mart.a; INSERT INTO mart.a SELECT * FROM raw.a; COMMIT;

-- name: in short: CREATE OR REPLACE TRANSIENT TABLE mart.a_new AS SELECT * FROM raw.a; A
-- reads: raw.a
-- writes: mart.a
CREATE OR REPLACE TRANSIENT TABLE mart.a_new AS SELECT * FROM raw.a; ALTER TABLE IF EXISTS mart.a SWAP WITH mart.a_new; DROP TABLE IF EXISTS mart.a_new;

-- name: in short: ALTER TABLE mart.a RENAME TO mart.a_bak; ALTER TABLE mart.a_new RENAME
-- reads: mart.a, mart.a_new
-- writes: mart.a_bak, mart.a
ALTER TABLE mart.a RENAME TO mart.a_bak; ALTER TABLE mart.a_new RENAME TO mart.a;

-- name: in short: USE DATABASE dw; SELECT * FROM stg.a; SELECT * FROM other.stg.b
-- reads: dw.stg.a, other.stg.b
-- writes:
USE DATABASE dw; SELECT * FROM stg.a; SELECT * FROM other.stg.b;

-- name: in short: USE SCHEMA dw.mart; INSERT INTO a SELECT * FROM b
-- reads: dw.mart.b
-- writes: dw.mart.a
USE SCHEMA dw.mart; INSERT INTO a SELECT * FROM b;

-- name: in short: MERGE INTO mart.a AS a USING mart.a AS b ON a.id = b.parent WHEN MATCH
-- reads:
-- writes: mart.a
MERGE INTO mart.a AS a USING mart.a AS b ON a.id = b.parent WHEN MATCHED THEN UPDATE SET x = b.x;

-- name: in short: COPY INTO mart.a FROM @%a; COPY INTO mart.b FROM @~/x.csv
-- reads:
-- writes: mart.a, mart.b
COPY INTO mart.a FROM @%a; COPY INTO mart.b FROM @~/x.csv;

-- name: in short: SELECT * FROM DIRECTORY(@s.stage) d JOIN raw.a ON 1=1
-- reads: raw.a
-- writes:
SELECT * FROM DIRECTORY(@s.stage) d JOIN raw.a ON 1=1;

-- name: in short: MERGE INTO IDENTIFIER('mart.a') t USING raw.b s ON t.id = s.id WHEN MA
-- reads: raw.b
-- writes: mart.a
MERGE INTO IDENTIFIER('mart.a') t USING raw.b s ON t.id = s.id WHEN MATCHED THEN DELETE;

-- name: in short: ALTER TABLE "Mart"."A" SWAP WITH "Mart"."B"
-- reads: "Mart"."A", "Mart"."B"
-- writes: "Mart"."A", "Mart"."B"
ALTER TABLE "Mart"."A" SWAP WITH "Mart"."B";

-- name: in short: CREATE OR REPLACE EVENT TABLE ops.e; CREATE OR REPLACE STAGE s URL='s3
-- reads:
-- writes: ops.e
CREATE OR REPLACE EVENT TABLE ops.e; CREATE OR REPLACE STAGE s URL='s3://x'; CREATE FILE FORMAT f TYPE=CSV;

-- name: in short: CREATE OR REPLACE TABLE mart.a AS SELECT * FROM raw.a, (SELECT MAX(x)
-- reads: raw.a, raw.b
-- writes: mart.a
CREATE OR REPLACE TABLE mart.a AS SELECT * FROM raw.a, (SELECT MAX(x) m FROM raw.b) b WHERE a.x > b.m;

-- name: in short: INSERT INTO mart.a SELECT SYSTEM$STREAM_HAS_DATA('x'), CURRENT_USER()
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT SYSTEM$STREAM_HAS_DATA('x'), CURRENT_USER() FROM raw.a GROUP BY ALL;

-- name: in short: CREATE TEMPORARY TABLE stg.t LIKE raw.a; INSERT INTO stg.t SELECT * FR
-- reads: raw.a, raw.b
-- writes: mart.a
CREATE TEMPORARY TABLE stg.t LIKE raw.a; INSERT INTO stg.t SELECT * FROM raw.b; MERGE INTO mart.a USING stg.t ON a.id = t.id WHEN MATCHED THEN UPDATE SET x = t.x;

-- name: in short: CREATE OR REPLACE TABLE mart.a AS SELECT * FROM raw.a; CREATE OR REPLA
-- reads: raw.a
-- writes: mart.a, mart.v, mart.b
CREATE OR REPLACE TABLE mart.a AS SELECT * FROM raw.a; CREATE OR REPLACE VIEW mart.v AS SELECT * FROM mart.a; CREATE OR REPLACE TABLE mart.b AS SELECT * FROM mart.v;

-- name: in short: EXECUTE IMMEDIATE $$ DECLARE x INT; BEGIN SELECT COUNT(*) INTO :x FROM
-- reads: raw.a
-- writes: mart.a, mart.b
EXECUTE IMMEDIATE $$ DECLARE x INT; BEGIN SELECT COUNT(*) INTO :x FROM raw.a; IF (x > 0) THEN DELETE FROM mart.a; END IF; FOR i IN 1 TO 3 DO INSERT INTO mart.b VALUES (:i); END FOR; RETURN x; END; $$;

-- name: in short: CREATE OR REPLACE FUNCTION f() RETURNS TABLE (a INT) AS 'SELECT * FROM
-- reads: raw.b
-- writes:
CREATE OR REPLACE FUNCTION f() RETURNS TABLE (a INT) AS 'SELECT * FROM raw.a'; SELECT * FROM TABLE(f()) JOIN raw.b ON 1=1;

-- name: in short: SHOW TABLES LIKE 'x' IN SCHEMA y; DESC TABLE z; INSERT INTO mart.a SEL
-- reads: raw.a
-- writes: mart.a
SHOW TABLES LIKE 'x' IN SCHEMA y; DESC TABLE z; INSERT INTO mart.a SELECT * FROM raw.a TABLESAMPLE BERNOULLI (3);

-- name: condition that calculates with a query
-- reads: raw.orders, stage.orders
-- writes: mart.orders
BEGIN
  IF ((SELECT COUNT(*) FROM stage.orders) > 0) THEN
    INSERT INTO mart.orders SELECT * FROM raw.orders;
  END IF;
END;
