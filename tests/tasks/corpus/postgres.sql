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
