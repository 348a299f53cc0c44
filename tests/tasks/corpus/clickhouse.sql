-- name: final, prewhere, any join, settings
-- reads: raw.hits, raw.users
-- writes: mart.funnel
INSERT INTO mart.funnel
WITH (SELECT max(day) FROM raw.hits) AS last_day
SELECT u.country, windowFunnel(3600)(h.ts, h.kind = 'a', h.kind = 'b') AS level
FROM raw.hits AS h FINAL ANY LEFT JOIN raw.users AS u USING (user_id)
PREWHERE h.day = last_day GROUP BY u.country, h.user_id SETTINGS max_threads = 2

-- name: view that fills a table
-- reads: raw.visits
-- writes: mart.daily_mv, mart.daily
CREATE MATERIALIZED VIEW IF NOT EXISTS mart.daily_mv TO mart.daily AS SELECT day, count() AS n FROM raw.visits GROUP BY day;

-- name: view with an engine of its own
-- reads: raw.visits
-- writes: mart.daily
CREATE MATERIALIZED VIEW mart.daily ENGINE = SummingMergeTree ORDER BY day POPULATE AS SELECT day, count() AS n FROM raw.visits GROUP BY day;

-- name: refreshable view
-- reads: raw.visits
-- writes: mart.hourly
CREATE MATERIALIZED VIEW mart.hourly REFRESH EVERY 1 HOUR ENGINE = MergeTree ORDER BY h AS SELECT toStartOfHour(ts) AS h, count() AS n FROM raw.visits GROUP BY h;

-- name: partition of another table
-- reads: stage.visits
-- writes: mart.visits
ALTER TABLE mart.visits REPLACE PARTITION '2026-01-01' FROM stage.visits;

-- name: partition that is attached
-- reads: stage.visits
-- writes: mart.visits
ALTER TABLE mart.visits ON CLUSTER c ATTACH PARTITION ID '202601' FROM stage.visits;

-- name: partition that is moved
-- reads: stage.visits
-- writes: mart.visits
ALTER TABLE stage.visits MOVE PARTITION '2026-01-01' TO TABLE mart.visits;

-- name: exchange
-- reads: raw.visits
-- writes: mart.visits
CREATE TABLE mart.visits_new AS mart.visits;
INSERT INTO mart.visits_new SELECT * FROM raw.visits;
EXCHANGE TABLES mart.visits_new AND mart.visits;
DROP TABLE mart.visits_new SYNC;

-- name: rename of several
-- reads: raw.visits
-- writes: mart.visits
CREATE TABLE mart.visits_new ENGINE = MergeTree ORDER BY id AS SELECT * FROM raw.visits;
RENAME TABLE mart.visits TO mart.visits_old, mart.visits_new TO mart.visits ON CLUSTER c;
DROP TABLE mart.visits_old;

-- name: mutations
-- reads: raw.gone
-- writes: mart.a, mart.b
ALTER TABLE mart.a DELETE WHERE id IN (SELECT id FROM raw.gone);
ALTER TABLE mart.b UPDATE v = 0 WHERE id IN (SELECT id FROM raw.gone) SETTINGS mutations_sync = 1;

-- name: lightweight delete
-- reads:
-- writes: mart.a
DELETE FROM mart.a WHERE day < today() - 30;

-- name: table as a set
-- reads: raw.hits, ref.bots
-- writes:
SELECT count() FROM raw.hits WHERE ip NOT IN ref.bots;

-- name: an alias as a set is no table
-- reads: raw.hits
-- writes:
WITH ('a', 'b') AS kinds SELECT count() FROM raw.hits WHERE kind IN kinds;

-- name: global in and distributed join
-- reads: raw.hits, raw.users
-- writes:
SELECT * FROM raw.hits WHERE user_id GLOBAL IN (SELECT id FROM raw.users WHERE vip);

-- name: array join
-- reads: raw.hits
-- writes: mart.tags
INSERT INTO mart.tags SELECT id, tag FROM raw.hits LEFT ARRAY JOIN tags AS tag;

-- name: table functions
-- reads: ref.countries
-- writes: mart.x
INSERT INTO mart.x SELECT s.*, c.name FROM s3('https://b/*.parquet', 'Parquet') AS s LEFT JOIN ref.countries AS c ON c.code = s.code
UNION ALL SELECT number, '' FROM numbers(10);

-- name: to a bucket
-- reads: mart.x
-- writes:
INSERT INTO FUNCTION s3('https://out/x.parquet', 'Parquet') SELECT * FROM mart.x;

-- name: from a file of the client
-- reads:
-- writes: raw.x
INSERT INTO raw.x FROM INFILE 'x.csv.gz' COMPRESSION 'gzip' FORMAT CSV;

-- name: into a file of the client
-- reads: mart.x
-- writes:
SELECT * FROM mart.x INTO OUTFILE 'x.csv' FORMAT CSVWithNames;

-- name: inline data
-- reads:
-- writes: raw.x
INSERT INTO raw.x (id, v) VALUES (1, 'a'), (2, 'b');

-- name: dictionary
-- reads:
-- writes: ref.codes
CREATE DICTIONARY ref.codes (id UInt64, name String) PRIMARY KEY id
SOURCE(HTTP(url 'http://x/codes.csv' format 'CSV')) LAYOUT(HASHED()) LIFETIME(MIN 300 MAX 600);

-- name: use and a temporary table
-- reads: sales.orders
-- writes: sales.revenue
USE sales;
CREATE TEMPORARY TABLE held AS SELECT * FROM orders;
INSERT INTO revenue SELECT * FROM held;

-- name: maintenance
-- reads: raw.x
-- writes: mart.x
SYSTEM RELOAD DICTIONARIES;
INSERT INTO mart.x SELECT * FROM raw.x;
OPTIMIZE TABLE mart.x FINAL DEDUPLICATE BY id;
SYSTEM STOP MERGES mart.x;
ALTER TABLE mart.x DROP PARTITION '2020-01';

-- name: parameters
-- reads: raw.x
-- writes: mart.x
INSERT INTO mart.x SELECT * FROM raw.x WHERE day = {day:Date} AND id IN {ids:Array(UInt32)};

-- name: lambda, limit by, with totals, sample
-- reads: raw.x
-- writes: mart.x
INSERT INTO mart.x SELECT kind, arrayMap(x -> x + 1, vs), sum(v) FROM raw.x SAMPLE 0.1 GROUP BY kind, vs WITH TOTALS ORDER BY kind LIMIT 3 BY kind;

-- name: table like a query of another
-- reads: raw.x
-- writes: mart.x
CREATE TABLE mart.x ENGINE = ReplacingMergeTree(version) PARTITION BY toYYYYMM(day) ORDER BY (id) SETTINGS index_granularity = 8192 AS SELECT * FROM raw.x;

-- name: create or replace, comment
-- reads: raw.x
-- writes: mart.x
CREATE OR REPLACE TABLE mart.x ENGINE = Memory COMMENT 'x' AS SELECT * FROM raw.x;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a ARRAY JOIN xs AS x GLOBAL LEFT
-- reads: raw.a, raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a ARRAY JOIN xs AS x GLOBAL LEFT JOIN raw.b USING id;

-- name: in short: INSERT INTO mart.a SELECT * FROM merge('raw', '^a')
-- reads:
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM merge('raw', '^a');

-- name: in short: SELECT * FROM raw.a FINAL AS x ASOF JOIN raw.b AS y ON x.id = y.id AND
-- reads: raw.a, raw.b
-- writes:
SELECT * FROM raw.a FINAL AS x ASOF JOIN raw.b AS y ON x.id = y.id AND x.t >= y.t;

-- name: in short: CREATE VIEW mart.v AS SELECT * FROM raw.a WHERE x = {p:UInt8}
-- reads: raw.a
-- writes: mart.v
CREATE VIEW mart.v AS SELECT * FROM raw.a WHERE x = {p:UInt8};

-- name: in short: CREATE TABLE mart.a ON CLUSTER '{cluster}' (id UInt64) ENGINE = Replic
-- reads:
-- writes: mart.a
CREATE TABLE mart.a ON CLUSTER '{cluster}' (id UInt64) ENGINE = ReplicatedMergeTree('/x', '{replica}') ORDER BY id;

-- name: in short: CREATE TABLE mart.d AS mart.a ENGINE = Distributed(c, mart, a, rand())
-- reads: mart.a
-- writes: mart.d
CREATE TABLE mart.d AS mart.a ENGINE = Distributed(c, mart, a, rand());

-- name: in short: CREATE LIVE VIEW mart.l AS SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.l
CREATE LIVE VIEW mart.l AS SELECT * FROM raw.a;

-- name: in short: TRUNCATE TABLE IF EXISTS mart.a; INSERT INTO mart.a FORMAT JSONEachRow
-- reads:
-- writes: mart.a
TRUNCATE TABLE IF EXISTS mart.a; INSERT INTO mart.a FORMAT JSONEachRow;

-- name: in short: ALTER TABLE mart.a MOVE PARTITION '1' TO DISK 'x'; ALTER TABLE mart.a
-- reads:
-- writes:
ALTER TABLE mart.a MOVE PARTITION '1' TO DISK 'x'; ALTER TABLE mart.a FREEZE;

-- name: in short: ALTER TABLE mart.a ADD COLUMN x Int8, MODIFY TTL d + INTERVAL 1 DAY
-- reads:
-- writes:
ALTER TABLE mart.a ADD COLUMN x Int8, MODIFY TTL d + INTERVAL 1 DAY;

-- name: in short: WITH x AS (SELECT * FROM raw.a) INSERT INTO mart.a SELECT * FROM x
-- reads: raw.a
-- writes: mart.a
WITH x AS (SELECT * FROM raw.a) INSERT INTO mart.a SELECT * FROM x;

-- name: in short: INSERT INTO mart.a SETTINGS async_insert=1 SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SETTINGS async_insert=1 SELECT * FROM raw.a;

-- name: in short: INSERT INTO mart.a (* EXCEPT(x)) SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a (* EXCEPT(x)) SELECT * FROM raw.a;

-- name: in short: SELECT (SELECT max(x) FROM raw.b) AS m, * FROM raw.a WHERE tuple(x) IN
-- reads: raw.a, raw.b, raw.c
-- writes:
SELECT (SELECT max(x) FROM raw.b) AS m, * FROM raw.a WHERE tuple(x) IN (SELECT y FROM raw.c);

-- name: in short: CREATE MATERIALIZED VIEW mart.mv ON CLUSTER c TO mart.t (a Int8) AS WI
-- reads: raw.a
-- writes: mart.mv, mart.t
CREATE MATERIALIZED VIEW mart.mv ON CLUSTER c TO mart.t (a Int8) AS WITH q AS (SELECT * FROM raw.a) SELECT * FROM q;

-- name: in short: DETACH TABLE mart.a; ATTACH TABLE mart.a; KILL MUTATION WHERE 1; CHECK
-- reads:
-- writes:
DETACH TABLE mart.a; ATTACH TABLE mart.a; KILL MUTATION WHERE 1; CHECK TABLE mart.a;

-- name: in short: INSERT INTO mart.a SELECT toDate(ts) AS d, uniqExact(id) FROM raw.a WH
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT toDate(ts) AS d, uniqExact(id) FROM raw.a WHERE d = toDate('2026-01-01') GROUP BY d WITH ROLLUP FORMAT Null;

-- name: in short: INSERT INTO mart.a WITH x AS (SELECT * FROM raw.a) SELECT * FROM x JOI
-- reads: raw.a, raw.b
-- writes: mart.a
INSERT INTO mart.a WITH x AS (SELECT * FROM raw.a) SELECT * FROM x JOIN raw.b ON x.id = b.id;

-- name: in short: CREATE TABLE IF NOT EXISTS mart.a (d Date, s AggregateFunction(sum, UI
-- reads:
-- writes: mart.a
CREATE TABLE IF NOT EXISTS mart.a (d Date, s AggregateFunction(sum, UInt64), INDEX i d TYPE minmax GRANULARITY 1) ENGINE = AggregatingMergeTree() PARTITION BY d ORDER BY d TTL d + INTERVAL 30 DAY;

-- name: in short: SELECT a.*, dictGet('ref.d', 'x', a.id) FROM raw.a a INNER ANY JOIN (S
-- reads: raw.a, raw.b
-- writes:
SELECT a.*, dictGet('ref.d', 'x', a.id) FROM raw.a a INNER ANY JOIN (SELECT * FROM raw.b LIMIT 1 BY id) b USING (id);

-- name: in short: CREATE TEMPORARY TABLE t ENGINE=Memory AS SELECT * FROM raw.a; INSERT
-- reads: raw.a
-- writes: mart.a
CREATE TEMPORARY TABLE t ENGINE=Memory AS SELECT * FROM raw.a; INSERT INTO mart.a SELECT * FROM t;

-- name: in short: ALTER TABLE mart.a DROP PARTITION 202601; ALTER TABLE mart.a ATTACH PA
-- reads: stage.a
-- writes: mart.a
ALTER TABLE mart.a DROP PARTITION 202601; ALTER TABLE mart.a ATTACH PARTITION 202601 FROM stage.a; DROP TABLE stage.a;

-- name: in short: RENAME TABLE mart.a TO mart.a_bak, stage.a TO mart.a
-- reads: mart.a, stage.a
-- writes: mart.a_bak, mart.a
RENAME TABLE mart.a TO mart.a_bak, stage.a TO mart.a;

-- name: in short: INSERT INTO mart.a SELECT * FROM url('http://x', CSV, 'a Int8') UNION
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM url('http://x', CSV, 'a Int8') UNION DISTINCT SELECT * FROM file('x.csv') INTERSECT SELECT * FROM raw.b;

-- name: in short: SELECT * FROM raw.a PREWHERE x = 1 WHERE y IN (1, 2) SETTINGS max_thre
-- reads: raw.a
-- writes:
SELECT * FROM raw.a PREWHERE x = 1 WHERE y IN (1, 2) SETTINGS max_threads=1 FORMAT JSON;

-- name: in short: USE mart; INSERT INTO a SELECT * FROM b
-- reads: mart.b
-- writes: mart.a
USE mart; INSERT INTO a SELECT * FROM b;

-- name: in short: ALTER TABLE mart.a REPLACE PARTITION tuple() FROM stage.a; ALTER TABLE
-- reads: stage.a
-- writes: mart.a
ALTER TABLE mart.a REPLACE PARTITION tuple() FROM stage.a; ALTER TABLE mart.a FETCH PARTITION 1 FROM '/x';

-- name: in short: CREATE TABLE mart.a EMPTY AS SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a EMPTY AS SELECT * FROM raw.a;

-- name: in short: CREATE OR REPLACE DICTIONARY ref.d (id UInt64) PRIMARY KEY id SOURCE(N
-- reads:
-- writes: ref.d
CREATE OR REPLACE DICTIONARY ref.d (id UInt64) PRIMARY KEY id SOURCE(NULL()) LAYOUT(FLAT()) LIFETIME(0);

-- name: in short: SELECT * FROM raw.a WHERE (x, y) NOT IN (SELECT x, y FROM raw.b) UNION
-- reads: raw.a, raw.b, raw.c
-- writes:
SELECT * FROM raw.a WHERE (x, y) NOT IN (SELECT x, y FROM raw.b) UNION ALL SELECT * FROM (SELECT * FROM raw.c FINAL);

-- name: in short: INSERT INTO TABLE mart.a (x) SELECT sum(x) OVER (PARTITION BY y) FROM
-- reads: raw.a
-- writes: mart.a
INSERT INTO TABLE mart.a (x) SELECT sum(x) OVER (PARTITION BY y) FROM raw.a LIMIT 5 BY y OFFSET 1;

-- name: in short: CREATE TABLE mart.n AS mart.a; INSERT INTO mart.n SELECT * FROM raw.b
-- reads: raw.b
-- writes: mart.a
CREATE TABLE mart.n AS mart.a; INSERT INTO mart.n SELECT * FROM raw.b; ALTER TABLE mart.a REPLACE PARTITION 1 FROM mart.n; DROP TABLE mart.n;
