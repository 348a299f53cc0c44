-- name: recursive WITH before an insert with conflict
-- reads: raw.nodes
-- writes: mart.tree
WITH RECURSIVE t AS (
  SELECT id, parent, 1 AS depth FROM raw.nodes WHERE parent IS NULL
  UNION ALL SELECT n.id, n.parent, t.depth + 1 FROM raw.nodes n JOIN t ON n.parent = t.id)
INSERT INTO mart.tree AS x (id, depth) SELECT id, depth FROM t
ON CONFLICT (id) DO UPDATE SET depth = EXCLUDED.depth WHERE x.depth <> EXCLUDED.depth RETURNING id;

-- name: rows moved by a WITH that deletes
-- reads:
-- writes: stage.events, mart.events
WITH moved AS (DELETE FROM stage.events WHERE ts < now() - interval '1 day' RETURNING *)
INSERT INTO mart.events SELECT * FROM moved;

-- name: update in a WITH
-- reads: raw.prices
-- writes: mart.products, mart.price_log
WITH changed AS (
  UPDATE mart.products p SET price = r.price FROM raw.prices r WHERE r.sku = p.sku RETURNING p.sku, p.price)
INSERT INTO mart.price_log SELECT sku, price, now() FROM changed;

-- name: build beside and rename
-- reads: raw.orders
-- writes: mart.revenue
BEGIN;
CREATE TABLE mart.revenue_new AS SELECT day, SUM(amount) AS amount FROM raw.orders GROUP BY day;
DROP TABLE IF EXISTS mart.revenue;
ALTER TABLE mart.revenue_new RENAME TO revenue;
CREATE INDEX ON mart.revenue (day);
COMMIT;

-- name: move to another schema
-- reads: raw.orders
-- writes: mart.revenue
CREATE TABLE stage.revenue AS SELECT * FROM raw.orders;
ALTER TABLE stage.revenue SET SCHEMA mart;

-- name: staging table of another task is read, then dropped
-- reads: stage.orders_load
-- writes: mart.orders
INSERT INTO mart.orders SELECT * FROM stage.orders_load;
DROP TABLE stage.orders_load;

-- name: temporary table of the name of a real one
-- reads: public.orders
-- writes: public.revenue
-- schema: public
CREATE TEMP TABLE orders ON COMMIT DROP AS SELECT * FROM public.orders WHERE amount > 0;
INSERT INTO public.revenue SELECT SUM(amount) FROM orders;

-- name: pg_temp
-- reads: raw.a
-- writes: mart.b
CREATE TABLE pg_temp.a AS SELECT * FROM raw.a;
INSERT INTO mart.b SELECT * FROM pg_temp.a;

-- name: select into
-- reads: raw.orders
-- writes: mart.copy
SELECT * INTO mart.copy FROM raw.orders;

-- name: select into a temporary table
-- reads: raw.orders
-- writes: mart.copy
SELECT * INTO TEMP fresh FROM raw.orders;
INSERT INTO mart.copy TABLE fresh;

-- name: block of PL/pgSQL
-- reads: raw.shops, raw.orders
-- writes: mart.orders
DO $$
DECLARE
  r record;
  n integer := 0;
BEGIN
  FOR r IN SELECT id FROM raw.shops LOOP
    INSERT INTO mart.orders SELECT * FROM raw.orders WHERE shop_id = r.id;
    GET DIAGNOSTICS n = ROW_COUNT;
    RAISE NOTICE 'shop % has %', r.id, n;
  END LOOP;
  IF n = 0 THEN
    RAISE EXCEPTION 'no orders';
  END IF;
END
$$ LANGUAGE plpgsql;

-- name: select into a variable in PL/pgSQL
-- reads: ops.runs, raw.orders
-- writes: mart.orders
DO LANGUAGE plpgsql $body$
DECLARE last_run timestamptz;
BEGIN
  SELECT max(ts) INTO last_run FROM ops.runs;
  INSERT INTO mart.orders SELECT * FROM raw.orders WHERE ts > last_run;
END;
$body$;

-- name: dynamic SQL in PL/pgSQL, as text and put together
-- reads: raw.a
-- writes: mart.a
-- unknown: 4
DO $$
BEGIN
  EXECUTE 'INSERT INTO mart.a SELECT * FROM raw.a';
  EXECUTE format('ANALYZE %I', 'x');
END $$;

-- name: a function only writes down
-- reads:
-- writes:
CREATE OR REPLACE FUNCTION ops.load() RETURNS void AS $$
  INSERT INTO mart.orders SELECT * FROM raw.orders;
$$ LANGUAGE sql;

-- name: a function in standard SQL only writes down
-- reads:
-- writes:
CREATE FUNCTION ops.load(d date) RETURNS void LANGUAGE sql
BEGIN ATOMIC
  DELETE FROM mart.orders WHERE day = d;
  INSERT INTO mart.orders SELECT * FROM raw.orders WHERE day = d;
END;

-- name: trigger
-- reads:
-- writes:
CREATE TRIGGER touched BEFORE UPDATE ON mart.orders FOR EACH ROW EXECUTE FUNCTION ops.touch();

-- name: copy in and out
-- reads: mart.a
-- writes: raw.a
COPY raw.a (id, v) FROM '/landing/a.csv' WITH (FORMAT csv, HEADER true);
COPY (SELECT id FROM mart.a WHERE v > 0) TO PROGRAM 'gzip > /out/a.gz';

-- name: search path with the user's own schema first
-- reads: sales.orders
-- writes: sales.daily
SET LOCAL search_path = "$user", sales, public;
INSERT INTO daily SELECT day, count(*) FROM orders GROUP BY day;

-- name: refresh of a materialized view
-- reads:
-- writes: mart.by_day
REFRESH MATERIALIZED VIEW CONCURRENTLY mart.by_day WITH DATA;

-- name: partitions
-- reads: raw.orders
-- writes: mart.orders_2026_01, mart.orders
CREATE TABLE mart.orders_2026_01 (LIKE raw.orders INCLUDING DEFAULTS);
INSERT INTO mart.orders_2026_01 SELECT * FROM raw.orders WHERE day < '2026-02-01';
ALTER TABLE mart.orders ATTACH PARTITION mart.orders_2026_01 FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');

-- name: keys to other tables are no reads
-- reads:
-- writes: mart.lines
CREATE TABLE mart.lines (id bigint PRIMARY KEY, order_id bigint REFERENCES mart.orders (id),
  sku text, CONSTRAINT sku_known FOREIGN KEY (sku) REFERENCES mart.products (sku));

-- name: lateral, functions and values
-- reads: raw.users, raw.orders
-- writes: mart.latest
INSERT INTO mart.latest
SELECT u.id, o.amount, g.n, v.label FROM raw.users u
CROSS JOIN LATERAL (SELECT amount FROM raw.orders WHERE user_id = u.id ORDER BY ts DESC LIMIT 3) o
CROSS JOIN generate_series(1, 3) AS g(n)
JOIN (VALUES (1, 'a'), (2, 'b')) AS v(n, label) USING (n);

-- name: names in quotes
-- reads: "Raw"."Order Lines", raw."select"
-- writes: mart.lines
INSERT INTO mart.lines SELECT * FROM "Raw"."Order Lines" JOIN raw."select" USING (id);

-- name: truncate with cascade, lock, analyze, vacuum
-- reads: raw.a
-- writes: mart.a
LOCK TABLE mart.a IN ACCESS EXCLUSIVE MODE NOWAIT;
TRUNCATE mart.a RESTART IDENTITY CASCADE;
INSERT INTO mart.a SELECT * FROM raw.a;
CLUSTER mart.a USING a_pkey;
ANALYZE VERBOSE mart.a;

-- name: merge
-- reads: raw.a
-- writes: mart.a
MERGE INTO ONLY mart.a AS t USING raw.a AS s ON t.id = s.id
WHEN MATCHED AND s.gone THEN DELETE
WHEN MATCHED THEN UPDATE SET v = s.v
WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, s.v);

-- name: prepared statement
-- reads: raw.a
-- writes: mart.a
PREPARE load (date) AS INSERT INTO mart.a SELECT * FROM raw.a WHERE day = $1;
EXECUTE load('2026-01-01');
DEALLOCATE load;

-- name: values of the driver
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a WHERE day = %(day)s AND kind IN %(kinds)s AND x = %s LIMIT %(n)s;

-- name: table sample, window, grouping sets, filter
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a
SELECT kind, day, count(*) FILTER (WHERE v > 0), sum(v) OVER w FROM raw.a TABLESAMPLE SYSTEM (10)
GROUP BY GROUPING SETS ((kind), (day), ()) WINDOW w AS (PARTITION BY kind);

-- name: nested WITH of the same name
-- reads: raw.a, raw.b
-- writes:
WITH x AS (SELECT * FROM raw.a)
SELECT * FROM (WITH x AS (SELECT * FROM raw.b) SELECT * FROM x) y JOIN x ON true;

-- name: a table built, used and dropped belongs to the query
-- reads: raw.a
-- writes: mart.a
CREATE UNLOGGED TABLE stage.a AS SELECT * FROM raw.a;
INSERT INTO mart.a SELECT * FROM stage.a;
DROP TABLE stage.a;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a WHERE NOT EXISTS (SELECT 1 FROM
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a WHERE NOT EXISTS (SELECT 1 FROM mart.a x WHERE x.id = raw.a.id);

-- name: in short: UPDATE mart.a AS t SET (x, y) = (SELECT x, y FROM raw.b b WHERE b.id =
-- reads: raw.b
-- writes: mart.a
UPDATE mart.a AS t SET (x, y) = (SELECT x, y FROM raw.b b WHERE b.id = t.id);

-- name: in short: DELETE FROM mart.a USING (SELECT id FROM raw.b) s WHERE s.id = mart.a.
-- reads: raw.b
-- writes: mart.a
DELETE FROM mart.a USING (SELECT id FROM raw.b) s WHERE s.id = mart.a.id;

-- name: in short: WITH ins AS (INSERT INTO mart.a SELECT * FROM raw.a RETURNING id) SELE
-- reads: raw.a
-- writes: mart.a
WITH ins AS (INSERT INTO mart.a SELECT * FROM raw.a RETURNING id) SELECT count(*) FROM ins;

-- name: in short: WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT 1 UNION SELECT * F
-- reads: raw.x
-- writes:
WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT 1 UNION SELECT * FROM raw.x) SELECT * FROM a;

-- name: in short: CREATE TABLE IF NOT EXISTS mart.a AS TABLE raw.b WITH NO DATA
-- reads: raw.b
-- writes: mart.a
CREATE TABLE IF NOT EXISTS mart.a AS TABLE raw.b WITH NO DATA;

-- name: in short: CREATE VIEW mart.v WITH (security_barrier) AS SELECT * FROM raw.a WITH
-- reads: raw.a
-- writes: mart.v
CREATE VIEW mart.v WITH (security_barrier) AS SELECT * FROM raw.a WITH CHECK OPTION;

-- name: in short: CREATE MATERIALIZED VIEW mart.m TABLESPACE x AS SELECT * FROM raw.a WI
-- reads: raw.a
-- writes: mart.m
CREATE MATERIALIZED VIEW mart.m TABLESPACE x AS SELECT * FROM raw.a WITH NO DATA;

-- name: in short: CREATE FOREIGN TABLE raw.f (id int) SERVER s OPTIONS (schema_name 'x')
-- reads:
-- writes: raw.f
CREATE FOREIGN TABLE raw.f (id int) SERVER s OPTIONS (schema_name 'x');

-- name: in short: ALTER TABLE mart.a DETACH PARTITION mart.b; INSERT INTO mart.b SELECT
-- reads: raw.a
-- writes: mart.b
ALTER TABLE mart.a DETACH PARTITION mart.b; INSERT INTO mart.b SELECT * FROM raw.a;

-- name: in short: SET search_path TO DEFAULT; SELECT * FROM a
-- reads: a
-- writes:
SET search_path TO DEFAULT; SELECT * FROM a;

-- name: in short: SELECT set_config('search_path', 'x', false); SELECT * FROM raw.a
-- reads: raw.a
-- writes:
SELECT set_config('search_path', 'x', false); SELECT * FROM raw.a;

-- name: in short: CREATE RULE r AS ON INSERT TO mart.a DO INSTEAD NOTHING
-- reads:
-- writes:
CREATE RULE r AS ON INSERT TO mart.a DO INSTEAD NOTHING;

-- name: in short: CREATE EXTENSION IF NOT EXISTS postgis; CREATE SEQUENCE s; INSERT INTO
-- reads: raw.a
-- writes: mart.a
CREATE EXTENSION IF NOT EXISTS postgis; CREATE SEQUENCE s; INSERT INTO mart.a SELECT nextval('s') FROM raw.a;

-- name: in short: VACUUM (ANALYZE, VERBOSE) mart.a; REINDEX TABLE CONCURRENTLY mart.a
-- reads:
-- writes:
VACUUM (ANALYZE, VERBOSE) mart.a; REINDEX TABLE CONCURRENTLY mart.a;

-- name: in short: DECLARE c CURSOR FOR SELECT * FROM raw.a; FETCH 10 FROM c; CLOSE c
-- reads: raw.a
-- writes:
DECLARE c CURSOR FOR SELECT * FROM raw.a; FETCH 10 FROM c; CLOSE c;

-- name: in short: EXPLAIN ANALYZE INSERT INTO mart.a SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.a
EXPLAIN ANALYZE INSERT INTO mart.a SELECT * FROM raw.a;

-- name: in short: EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM raw.a
-- reads: raw.a
-- writes:
EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM raw.a;

-- name: in short: INSERT INTO mart.a DEFAULT VALUES
-- reads:
-- writes: mart.a
INSERT INTO mart.a DEFAULT VALUES;

-- name: in short: SELECT * FROM raw.a CROSS JOIN unnest(a.tags) WITH ORDINALITY t(tag, n
-- reads: raw.a
-- writes:
SELECT * FROM raw.a CROSS JOIN unnest(a.tags) WITH ORDINALITY t(tag, n);

-- name: in short: SELECT * FROM jsonb_to_recordset('[]') AS x(a int), raw.b
-- reads: raw.b
-- writes:
SELECT * FROM jsonb_to_recordset('[]') AS x(a int), raw.b;

-- name: in short: SELECT * FROM dblink('dbname=x', 'select 1') AS t(a int)
-- reads:
-- writes:
SELECT * FROM dblink('dbname=x', 'select 1') AS t(a int);

-- name: in short: SELECT * FROM ((raw.a JOIN raw.b USING (id)) LEFT JOIN raw.c USING (id
-- reads: raw.a, raw.b, raw.c
-- writes:
SELECT * FROM ((raw.a JOIN raw.b USING (id)) LEFT JOIN raw.c USING (id));

-- name: in short: CREATE TEMP VIEW v AS SELECT * FROM raw.a; INSERT INTO mart.a SELECT *
-- reads: raw.a
-- writes: mart.a
CREATE TEMP VIEW v AS SELECT * FROM raw.a; INSERT INTO mart.a SELECT * FROM v;

-- name: in short: CREATE TABLE a AS SELECT 1; ALTER TABLE a RENAME TO b; ALTER TABLE b R
-- reads:
-- writes: c
CREATE TABLE a AS SELECT 1; ALTER TABLE a RENAME TO b; ALTER TABLE b RENAME TO c; SELECT * FROM c;

-- name: in short: ALTER TABLE mart.a ADD COLUMN x int, DROP COLUMN y; ALTER TABLE mart.a
-- reads:
-- writes:
ALTER TABLE mart.a ADD COLUMN x int, DROP COLUMN y; ALTER TABLE mart.a RENAME COLUMN p TO q;

-- name: in short: BEGIN; ALTER TABLE mart.a RENAME TO a_old; ALTER TABLE mart.a_new RENA
-- reads: mart.a_new
-- writes: mart.a, mart.a_new
BEGIN; ALTER TABLE mart.a RENAME TO a_old; ALTER TABLE mart.a_new RENAME TO a; ALTER TABLE mart.a_old RENAME TO a_new; COMMIT;

-- name: in short: MERGE INTO mart.a USING (VALUES (1)) AS s(id) ON a.id = s.id WHEN NOT
-- reads:
-- writes: mart.a
MERGE INTO mart.a USING (VALUES (1)) AS s(id) ON a.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id);

-- name: in short: COPY raw.a FROM STDIN WITH CSV
-- reads:
-- writes: raw.a
COPY raw.a FROM STDIN WITH CSV;

-- name: in short: \copy raw.a FROM 'x.csv' CSV
-- reads:
-- writes: raw.a
\copy raw.a FROM 'x.csv' CSV;

-- name: in short: CREATE TABLE mart.a PARTITION OF mart.p FOR VALUES FROM (1) TO (2); IN
-- reads: mart.p, raw.a
-- writes: mart.a
CREATE TABLE mart.a PARTITION OF mart.p FOR VALUES FROM (1) TO (2); INSERT INTO mart.a SELECT * FROM raw.a;

-- name: in short: -- a; b INSERT INTO mart.a /* from raw.x; */ SELECT ';' AS s, * FROM r
-- reads: raw.a
-- writes: mart.a
-- a; b
INSERT INTO mart.a /* from raw.x; */ SELECT ';' AS s, * FROM raw.a -- trailing; FROM raw.z
;
/* last */;

-- name: in short: INSERT INTO "mart"."A b" ("x") SELECT "y" FROM "raw" . "b"
-- reads: "raw".b
-- writes: mart."A b"
INSERT INTO "mart"."A b" ("x") SELECT "y" FROM "raw" . "b";

-- name: in short: {% if var == 'full' %}TRUNCATE mart.a; {% endif %}INSERT INTO mart.a S
-- reads: raw.a
-- writes: mart.a
{% if var == 'full' %}TRUNCATE mart.a; {% endif %}INSERT INTO mart.a SELECT * FROM raw.a {% if var != 'full' %} WHERE d = '{{ ds }}' {% endif %};

-- name: in short: {%- set src = {'full': 'raw.all', 'inc': 'raw.new'} -%}INSERT INTO mar
-- reads: raw.new
-- writes: mart.a
{%- set src = {'full': 'raw.all', 'inc': 'raw.new'} -%}INSERT INTO mart.a SELECT * FROM {{ src['inc'] }};

-- name: in short: {% for t in ['a','b','c'] %}INSERT INTO mart.all_t SELECT '{{ t }}', *
-- reads: raw.a, raw.b, raw.c
-- writes: mart.all_t
{% for t in ['a','b','c'] %}INSERT INTO mart.all_t SELECT '{{ t }}', * FROM raw.{{ t }};{% endfor %};

-- name: in short: {% macro cols() %}id, v{% endmacro %}INSERT INTO mart.a SELECT {{ cols
-- reads: raw.a
-- writes: mart.a
{% macro cols() %}id, v{% endmacro %}INSERT INTO mart.a SELECT {{ cols() }} FROM raw.a;

-- name: in short: INSERT INTO mart.a SELECT {% for c in params.cols %}sum({{ c }}) AS s_
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT {% for c in params.cols %}sum({{ c }}) AS s_{{ c }}{{ ", " if not loop.last }}{% endfor %} FROM raw.a;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a WHERE ts >= '{{ data_interval_s
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a WHERE ts >= '{{ data_interval_start }}'::timestamp AND ts < {{ macros.ds_add(ds, 1) }};

-- name: in short: WITH base AS (SELECT * FROM raw.a {{ "WHERE x" if params.x else "" }})
-- reads: raw.a, raw.b
-- writes: mart.a
WITH base AS (SELECT * FROM raw.a {{ "WHERE x" if params.x else "" }}) INSERT INTO mart.a SELECT * FROM base {% if params.y %}JOIN raw.b USING (id){% endif %};

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a WHERE id IN ({{ params.ids | jo
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a WHERE id IN ({{ params.ids | join(', ') }}) {% raw %} AND x = '{{ not }}' {% endraw %};

-- name: in short: INSERT INTO mart.a_{{ ds_nodash }} SELECT * FROM raw.a; CREATE VIEW ma
-- reads: raw.a
-- writes: mart.v
INSERT INTO mart.a_{{ ds_nodash }} SELECT * FROM raw.a; CREATE VIEW mart.v AS SELECT * FROM mart.a_{{ ds_nodash }};

-- name: in short: INSERT INTO mart.a SELECT * FROM :"schema".orders JOIN raw.b USING (id
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM :"schema".orders JOIN raw.b USING (id);

-- name: in short: INSERT INTO mart.a SELECT * FROM {schema}.orders JOIN raw.b USING (id)
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM {schema}.orders JOIN raw.b USING (id) WHERE d = '{day}';

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.b WHERE x LIKE 'a%' AND y % 2 = 0
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.b WHERE x LIKE 'a%' AND y % 2 = 0 AND z = ANY(%(ids)s);

-- name: in short: {{ config(materialized='table') }} INSERT INTO mart.a SELECT * FROM ra
-- reads: raw.b
-- writes: mart.a
{{ config(materialized='table') }} INSERT INTO mart.a SELECT * FROM raw.b;

-- name: in short: INSERT INTO mart.a SELECT a, {{ cols }} FROM raw.b GROUP BY {{ cols }}
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT a, {{ cols }} FROM raw.b GROUP BY {{ cols }};

-- name: in short: SELECT * FROM raw.a {{ joins }} WHERE x ORDER BY 1
-- reads: raw.a
-- writes:
SELECT * FROM raw.a {{ joins }} WHERE x ORDER BY 1;

-- name: in short: SELECT * FROM raw.a WHERE {{ cond }} AND d >= {{ ds }} LIMIT {{ n }}
-- reads: raw.a
-- writes:
SELECT * FROM raw.a WHERE {{ cond }} AND d >= {{ ds }} LIMIT {{ n }};

-- name: in short: SELECT * FROM raw.a WHERE d > now() - interval '{{ n }} days' AND x::{
-- reads: raw.a
-- writes:
SELECT * FROM raw.a WHERE d > now() - interval '{{ n }} days' AND x::{{ t }} = 1;

-- name: in short: {% if x %}INSERT INTO mart.a SELECT * FROM raw.a{% else %}INSERT INTO
-- reads: raw.a, raw.b
-- writes: mart.a
{% if x %}INSERT INTO mart.a SELECT * FROM raw.a{% else %}INSERT INTO mart.a SELECT * FROM raw.b{% endif %};

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a WHERE TRUE {% for k, v in param
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a WHERE TRUE {% for k, v in params.items() %} AND {{ k }} = '{{ v }}' {% endfor %};

-- name: in short: {% set tables = ['raw.a', 'raw.b'] %}INSERT INTO mart.a {% for t in ta
-- reads: raw.a, raw.b
-- writes: mart.a
{% set tables = ['raw.a', 'raw.b'] %}INSERT INTO mart.a {% for t in tables %}{% if not loop.first %}UNION ALL {% endif %}SELECT * FROM {{ t }} {% endfor %};

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a; {# INSERT INTO mart.z SELECT 1
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a; {# INSERT INTO mart.z SELECT 1; #};

-- name: in short: INSERT INTO mart.{{ params.t }} SELECT * FROM raw.a; SELECT * FROM mar
-- reads: raw.a
-- writes:
INSERT INTO mart.{{ params.t }} SELECT * FROM raw.a; SELECT * FROM mart.{{ params.t }};

-- name: in short: SET SCHEMA 'mart'; INSERT INTO a SELECT * FROM raw.b
-- reads: raw.b
-- writes: mart.a
SET SCHEMA 'mart'; INSERT INTO a SELECT * FROM raw.b;

-- name: in short: CREATE TEMPORARY TABLE a AS SELECT * FROM public.a; DROP TABLE a; SELE
-- reads: public.a, a
-- writes:
CREATE TEMPORARY TABLE a AS SELECT * FROM public.a; DROP TABLE a; SELECT * FROM a;

-- name: in short: CREATE TEMP TABLE x AS SELECT 1; INSERT INTO x SELECT * FROM raw.a; UP
-- reads: raw.a, raw.b
-- writes:
CREATE TEMP TABLE x AS SELECT 1; INSERT INTO x SELECT * FROM raw.a; UPDATE x SET y = 1; DELETE FROM x; MERGE INTO x USING raw.b ON true WHEN MATCHED THEN DELETE; TRUNCATE x;

-- name: in short: CREATE TABLE stage.x AS SELECT * FROM raw.a; INSERT INTO mart.a SELECT
-- reads: raw.a
-- writes: stage.x, mart.a
CREATE TABLE stage.x AS SELECT * FROM raw.a; INSERT INTO mart.a SELECT * FROM stage.x; TRUNCATE stage.x;

-- name: in short: DROP TABLE IF EXISTS mart.a, mart.b CASCADE; CREATE TABLE mart.a AS SE
-- reads: raw.a
-- writes: mart.a
DROP TABLE IF EXISTS mart.a, mart.b CASCADE; CREATE TABLE mart.a AS SELECT * FROM raw.a;

-- name: in short: UPDATE mart.a SET x = s.x FROM raw.s AS s WHERE s.id = a.id RETURNING
-- reads: raw.s
-- writes: mart.a
UPDATE mart.a SET x = s.x FROM raw.s AS s WHERE s.id = a.id RETURNING *;

-- name: in short: LISTEN x; NOTIFY x, 'y'; CHECKPOINT; SET ROLE etl; RESET ROLE; SELECT
-- reads: raw.a
-- writes: mart.b
LISTEN x; NOTIFY x, 'y'; CHECKPOINT; SET ROLE etl; RESET ROLE; SELECT pg_sleep(1); INSERT INTO mart.b SELECT * FROM raw.a;

-- name: in short: CREATE STATISTICS s ON x, y FROM mart.a; CREATE POLICY p ON mart.a USI
-- reads:
-- writes: mart.b
CREATE STATISTICS s ON x, y FROM mart.a; CREATE POLICY p ON mart.a USING (id IN (SELECT id FROM raw.x)); INSERT INTO mart.b SELECT 1;

-- name: in short: WITH a AS (SELECT id FROM raw.x) DELETE FROM a USING raw.y WHERE a.id
-- reads: raw.x, raw.y
-- writes: a
WITH a AS (SELECT id FROM raw.x) DELETE FROM a USING raw.y WHERE a.id = y.id;

-- name: in short: ALTER INDEX mart.i RENAME TO j; ALTER SEQUENCE s RENAME TO t; ALTER SC
-- reads:
-- writes:
ALTER INDEX mart.i RENAME TO j; ALTER SEQUENCE s RENAME TO t; ALTER SCHEMA a RENAME TO b; ALTER TYPE x RENAME TO y; ALTER TABLE mart.a RENAME CONSTRAINT p TO q;

-- name: in short: DROP SCHEMA x CASCADE; DROP INDEX i; DROP FUNCTION f(int); DROP SEQUEN
-- reads:
-- writes:
DROP SCHEMA x CASCADE; DROP INDEX i; DROP FUNCTION f(int); DROP SEQUENCE s;

-- name: in short: COPY raw.a (id, v) FROM '/x.csv' WITH (FORMAT csv) WHERE id > 1
-- reads:
-- writes: raw.a
COPY raw.a (id, v) FROM '/x.csv' WITH (FORMAT csv) WHERE id > 1;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a ORDER BY id FOR UPDATE SKIP LOC
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a ORDER BY id FOR UPDATE SKIP LOCKED;

-- name: in short: CREATE TABLE mart.a USING heap AS SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a USING heap AS SELECT * FROM raw.a;

-- name: in short: MERGE INTO mart.a USING raw.b ON a.id = b.id WHEN MATCHED THEN UPDATE
-- reads: raw.b
-- writes: mart.a
MERGE INTO mart.a USING raw.b ON a.id = b.id WHEN MATCHED THEN UPDATE SET x = 1 RETURNING merge_action();

-- name: in short: ALTER TABLE IF EXISTS ONLY mart.a RENAME TO b
-- reads: mart.a
-- writes: mart.b
ALTER TABLE IF EXISTS ONLY mart.a RENAME TO b;

-- name: in short: ALTER MATERIALIZED VIEW mart.m RENAME TO n; ALTER VIEW mart.v SET SCHE
-- reads: mart.m, mart.v
-- writes: mart.n, pub.v
ALTER MATERIALIZED VIEW mart.m RENAME TO n; ALTER VIEW mart.v SET SCHEMA pub;

-- name: in short: CREATE TABLE x AS SELECT 1 AS a; INSERT INTO y SELECT * FROM public.x
-- reads: public.x
-- writes: x, y
CREATE TABLE x AS SELECT 1 AS a; INSERT INTO y SELECT * FROM public.x;

-- name: in short: SELECT count(*) FROM raw.a WHERE EXISTS (TABLE raw.b)
-- reads: raw.a, raw.b
-- writes:
SELECT count(*) FROM raw.a WHERE EXISTS (TABLE raw.b);

-- name: in short: INSERT INTO mart.a (x) SELECT extract(epoch FROM ts), trim(both ' ' FR
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a (x) SELECT extract(epoch FROM ts), trim(both ' ' FROM n), substring(n FROM 2 FOR 3), a IS DISTINCT FROM b FROM raw.a;

-- name: in short: BEGIN; CREATE TEMP TABLE t (LIKE mart.a) ON COMMIT DROP; COPY t FROM '
-- reads:
-- writes: mart.a
BEGIN; CREATE TEMP TABLE t (LIKE mart.a) ON COMMIT DROP; COPY t FROM '/x'; INSERT INTO mart.a SELECT * FROM t ON CONFLICT DO NOTHING; COMMIT;

-- name: in short: DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_tables WHERE tablename = '
-- reads: raw.a
-- writes: mart.x
DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_tables WHERE tablename = 'x') THEN CREATE TABLE mart.x AS SELECT * FROM raw.a; END IF; PERFORM mart.f(); END $$;

-- name: in short: DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM raw.a WHERE x LOO
-- reads: raw.a
-- writes: mart.b
DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM raw.a WHERE x LOOP UPDATE mart.b SET y = r.y WHERE id = r.id; END LOOP; WHILE true LOOP EXIT; END LOOP; END $$;

-- name: in short: WITH a AS (SELECT * FROM raw.a), b AS (INSERT INTO mart.b SELECT * FRO
-- reads: raw.a
-- writes: mart.b, mart.c
WITH a AS (SELECT * FROM raw.a), b AS (INSERT INTO mart.b SELECT * FROM a RETURNING *), c AS (UPDATE mart.c SET x = 1 FROM b WHERE b.id = c.id RETURNING 1) SELECT count(*) FROM c;

-- name: condition that calculates with a query, and assignments
-- reads: raw.orders, stage.orders, ref.vat
-- writes: mart.orders
DO $$
DECLARE rate numeric; row record;
BEGIN
  rate = (SELECT max(rate) FROM ref.vat);
  row.n = 1;
  IF ((SELECT count(*) FROM stage.orders) > 0) THEN
    INSERT INTO mart.orders SELECT * FROM raw.orders;
  END IF;
END $$;

-- name: expressions of a block that read tables
-- reads: raw.orders, raw.returns, stage.keys, ref.vat, ref.limits
-- writes:
DO $$
DECLARE
  total int := count(*) FROM raw.orders;
BEGIN
  PERFORM ops.check(id) FROM raw.returns;
  total := count(*) FROM stage.keys;
  total = max(rate) FROM ref.vat;
  IF total IS DISTINCT FROM 1 AND total > min(n) FROM ref.limits THEN
    RAISE NOTICE '%', total;
  END IF;
END $$;

-- name: rows that come back into variables
-- reads: raw.orders, raw.users
-- writes: mart.orders, mart.users
DO $$
DECLARE v_id int; v_day date;
BEGIN
  INSERT INTO mart.orders SELECT * FROM raw.orders RETURNING id INTO v_id;
  UPDATE mart.users SET seen = true RETURNING id, day INTO STRICT v_id, v_day;
  SELECT id, day INTO v_id, v_day FROM raw.users LIMIT 1;
END $$;

-- name: loops over other statements than queries
-- reads: raw.orders, raw.gone
-- writes: mart.orders, ops.log
DO $$
BEGIN
  FOR r IN EXECUTE 'SELECT * FROM raw.orders WHERE day = $1' USING current_date LOOP
    INSERT INTO ops.log VALUES (r.id);
  END LOOP;
  FOR r IN DELETE FROM mart.orders USING raw.gone RETURNING * LOOP
    INSERT INTO ops.log VALUES (r.id);
  END LOOP;
  FOREACH i IN ARRAY ids LOOP
    INSERT INTO ops.log VALUES (i);
  END LOOP;
END $$;
