-- name: files by functions and by path
-- reads: raw.dim
-- writes: mart.pq
INSTALL httpfs;
LOAD httpfs;
CREATE OR REPLACE TABLE mart.pq AS
SELECT * EXCLUDE (x) FROM read_parquet('s3://b/*.parquet') AS p JOIN raw.dim USING (id) JOIN 'local.csv' AS c USING (id);

-- name: FROM first
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o AS FROM raw.o SELECT id, v WHERE v > 0;

-- name: FROM alone
-- reads: raw.o
-- writes:
FROM raw.o LIMIT 10;

-- name: insert by name, or replace
-- reads: raw.o
-- writes: mart.a, mart.b
INSERT INTO mart.a BY NAME SELECT * FROM raw.o;
INSERT OR REPLACE INTO mart.b FROM raw.o;

-- name: pivot as a statement
-- reads: raw.sales
-- writes: mart.wide
CREATE OR REPLACE TABLE mart.wide AS PIVOT raw.sales ON quarter USING sum(amount) GROUP BY shop;

-- name: unpivot as a statement
-- reads: mart.wide
-- writes:
UNPIVOT mart.wide ON q1, q2 INTO NAME quarter VALUE amount;

-- name: copy out
-- reads: mart.o
-- writes:
COPY (SELECT * FROM mart.o ORDER BY id) TO 'out.parquet' (FORMAT parquet, COMPRESSION zstd, PARTITION_BY (day));

-- name: copy of a table out and in
-- reads: mart.o
-- writes: raw.p
COPY mart.o TO 'o.csv' (HEADER, DELIMITER ',');
COPY raw.p FROM 'p.csv' (AUTO_DETECT true);

-- name: attached databases
-- reads: lake.raw.o
-- writes: out.main.o
ATTACH 'lake.db' AS lake (READ_ONLY);
ATTACH 'out.db' AS out;
CREATE TABLE out.main.o AS SELECT * FROM lake.raw.o;
DETACH lake;

-- name: use
-- reads: sales.o
-- writes: sales.p
USE sales;
CREATE TABLE p AS SELECT * FROM o;

-- name: temporary table and view
-- reads: raw.o
-- writes: mart.o
CREATE TEMP TABLE held AS SELECT * FROM raw.o;
CREATE TEMP VIEW seen AS SELECT * FROM held;
INSERT INTO mart.o SELECT * FROM seen;

-- name: temporary name of a real table
-- reads: main.orders
-- writes: main.revenue
-- schema: main
CREATE TEMP TABLE orders AS SELECT * FROM main.orders;
INSERT INTO revenue SELECT sum(amount) FROM orders;

-- name: asof and positional joins, lists
-- reads: raw.trades, raw.quotes, raw.x
-- writes: mart.t
INSERT INTO mart.t
SELECT t.id, q.price, [x * 2 FOR x IN t.vs IF x > 0] FROM raw.trades t ASOF JOIN raw.quotes q USING (symbol, ts) POSITIONAL JOIN raw.x;

-- name: macro only writes down
-- reads: raw.o
-- writes: mart.o
CREATE MACRO half(x) AS x / 2;
CREATE OR REPLACE MACRO top_n(n) AS TABLE SELECT * FROM raw.hidden LIMIT n;
CREATE TABLE mart.o AS SELECT half(v) FROM raw.o;

-- name: settings and pragmas
-- reads: raw.o
-- writes: mart.o
SET memory_limit = '4GB';
PRAGMA threads = 4;
CREATE TABLE mart.o AS SELECT * FROM raw.o;
CHECKPOINT;

-- name: secrets and exports
-- reads:
-- writes:
CREATE SECRET (TYPE s3, KEY_ID 'a', SECRET 'b');
EXPORT DATABASE 'backup' (FORMAT parquet);

-- name: summarize
-- reads: raw.o
-- writes:
SUMMARIZE raw.o;

-- name: conflict and returning
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o SELECT * FROM raw.o ON CONFLICT (id) DO UPDATE SET v = EXCLUDED.v RETURNING id;

-- name: update from
-- reads: raw.o
-- writes: mart.o
UPDATE mart.o AS m SET v = r.v FROM raw.o AS r WHERE r.id = m.id;

-- name: delete using
-- reads: raw.gone
-- writes: mart.o
DELETE FROM mart.o USING raw.gone WHERE raw.gone.id = mart.o.id;

-- name: columns, qualify, sample, group by all
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o AS
SELECT COLUMNS('v_.*'), id FROM raw.o USING SAMPLE 10% QUALIFY row_number() OVER (PARTITION BY id ORDER BY ts) = 1;

-- name: recursive with a key, materialized
-- reads: raw.n
-- writes:
WITH RECURSIVE t AS (SELECT id FROM raw.n UNION ALL SELECT n.id FROM raw.n JOIN t ON t.id = n.parent), m AS MATERIALIZED (SELECT * FROM t)
SELECT * FROM m;

-- name: struct and map literals
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o SELECT {'a': v, 'b': {'c': 1}}, MAP {'k': v} FROM raw.o;

-- name: rename
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o_new AS SELECT * FROM raw.o;
DROP TABLE IF EXISTS mart.o;
ALTER TABLE mart.o_new RENAME TO o;

-- name: query by a name as text
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o AS SELECT * FROM query_table('raw.o');

-- name: merge
-- reads: stage.o
-- writes: mart.o
MERGE INTO mart.o USING stage.o AS s ON mart.o.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v);

-- name: in short: CREATE TABLE a AS SELECT * FROM read_csv_auto('x.csv') UNION BY NAME S
-- reads: b
-- writes: a
CREATE TABLE a AS SELECT * FROM read_csv_auto('x.csv') UNION BY NAME SELECT * FROM b;

-- name: in short: INSERT INTO a SELECT * FROM 's3://x/*.parquet'
-- reads:
-- writes: a
INSERT INTO a SELECT * FROM 's3://x/*.parquet';

-- name: in short: FROM raw.a SELECT x WHERE y > 1 ORDER BY ALL
-- reads: raw.a
-- writes:
FROM raw.a SELECT x WHERE y > 1 ORDER BY ALL;

-- name: in short: COPY (FROM raw.a) TO 'x.parquet'
-- reads: raw.a
-- writes:
COPY (FROM raw.a) TO 'x.parquet';

-- name: in short: COPY FROM DATABASE a TO b
-- reads:
-- writes:
COPY FROM DATABASE a TO b;

-- name: in short: WITH x AS (FROM raw.a) INSERT INTO mart.a FROM x
-- reads: raw.a
-- writes: mart.a
WITH x AS (FROM raw.a) INSERT INTO mart.a FROM x;

-- name: in short: CREATE OR REPLACE VIEW v AS SELECT * REPLACE (x + 1 AS x) FROM raw.a
-- reads: raw.a
-- writes: v
CREATE OR REPLACE VIEW v AS SELECT * REPLACE (x + 1 AS x) FROM raw.a;

-- name: in short: SELECT * FROM raw.a SEMI JOIN raw.b USING (id) ANTI JOIN raw.c USING
-- reads: raw.a, raw.b, raw.c
-- writes:
SELECT * FROM raw.a SEMI JOIN raw.b USING (id) ANTI JOIN raw.c USING (id);

-- name: in short: CREATE SCHEMA s; USE s; CREATE TABLE t AS SELECT * FROM main.a
-- reads: main.a
-- writes: s.t
CREATE SCHEMA s; USE s; CREATE TABLE t AS SELECT * FROM main.a;

-- name: in short: INSERT INTO t BY POSITION SELECT * FROM a
-- reads: a
-- writes: t
INSERT INTO t BY POSITION SELECT * FROM a;

-- name: in short: DESCRIBE SELECT * FROM a; EXPLAIN ANALYZE SELECT * FROM b
-- reads: b
-- writes:
DESCRIBE SELECT * FROM a; EXPLAIN ANALYZE SELECT * FROM b;

-- name: in short: CREATE INDEX i ON t (x); DROP INDEX i; VACUUM; ANALYZE
-- reads:
-- writes:
CREATE INDEX i ON t (x); DROP INDEX i; VACUUM; ANALYZE;

-- name: in short: SELECT unnest(xs) FROM a, LATERAL (SELECT a.y) t
-- reads: a
-- writes:
SELECT unnest(xs) FROM a, LATERAL (SELECT a.y) t;

-- name: in short: EXECUTE p(1); PREPARE q AS SELECT * FROM a
-- reads: a
-- writes:
EXECUTE p(1); PREPARE q AS SELECT * FROM a;

-- name: in short: SELECT * FROM sqlite_scan('x.db', 't') JOIN postgres_scan('x', 'public
-- reads:
-- writes:
SELECT * FROM sqlite_scan('x.db', 't') JOIN postgres_scan('x', 'public', 't') ON true;

-- name: in short: LOAD spatial; INSTALL x FROM community; UPDATE EXTENSIONS
-- reads:
-- writes:
LOAD spatial; INSTALL x FROM community; UPDATE EXTENSIONS;

-- name: in short: CREATE OR REPLACE TABLE mart.a AS WITH x AS (SELECT * FROM read_json_a
-- reads: raw.y
-- writes: mart.a
CREATE OR REPLACE TABLE mart.a AS WITH x AS (SELECT * FROM read_json_auto('x.json')) SELECT x.*, y.* FROM x JOIN raw.y ON x.id = y.id;

-- name: in short: COPY mart.a (id, v) FROM 's3://x/*.csv' (FORMAT csv)
-- reads:
-- writes: mart.a
COPY mart.a (id, v) FROM 's3://x/*.csv' (FORMAT csv);

-- name: in short: CREATE TABLE a AS SELECT * FROM glob('*.csv'), delta_scan('s3://x'), i
-- reads:
-- writes: a
CREATE TABLE a AS SELECT * FROM glob('*.csv'), delta_scan('s3://x'), iceberg_scan('s3://y');

-- name: in short: UPDATE a SET x = 1; DELETE FROM a WHERE x IN (FROM b SELECT id)
-- reads: b
-- writes: a
UPDATE a SET x = 1; DELETE FROM a WHERE x IN (FROM b SELECT id);

-- name: in short: SELECT * FROM (PIVOT a ON x USING sum(y)) p JOIN b ON true
-- reads: a, b
-- writes:
SELECT * FROM (PIVOT a ON x USING sum(y)) p JOIN b ON true;

-- name: in short: CREATE SEQUENCE s; INSERT INTO a SELECT nextval('s'), * FROM b
-- reads: b
-- writes: a
CREATE SEQUENCE s; INSERT INTO a SELECT nextval('s'), * FROM b;

-- name: in short: SET schema = 'mart'; INSERT INTO a SELECT * FROM raw.b
-- reads: raw.b
-- writes: mart.a
SET schema = 'mart'; INSERT INTO a SELECT * FROM raw.b;

-- name: in short: INSERT INTO a SELECT * FROM b WHERE x = ANY (SELECT y FROM c); CREATE
-- reads: b, c
-- writes: a
INSERT INTO a SELECT * FROM b WHERE x = ANY (SELECT y FROM c); CREATE OR REPLACE TEMP TABLE t AS FROM a; FROM t;

-- name: in short: CREATE TABLE IF NOT EXISTS a AS SELECT * FROM b LIMIT 0; COPY a FROM '
-- reads: b
-- writes: a
CREATE TABLE IF NOT EXISTS a AS SELECT * FROM b LIMIT 0; COPY a FROM 's3://x' (FORMAT parquet);

-- name: in short: ATTACH 'x.db' AS x; USE x.main; CREATE TABLE t AS SELECT * FROM a; DET
-- reads: x.main.a
-- writes: x.main.t
ATTACH 'x.db' AS x; USE x.main; CREATE TABLE t AS SELECT * FROM a; DETACH x;
