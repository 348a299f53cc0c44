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
