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
