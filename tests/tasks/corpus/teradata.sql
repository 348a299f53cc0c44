-- name: volatile table
-- reads: raw.orders
-- writes: mart.orders
CREATE MULTISET VOLATILE TABLE vt_orders, NO FALLBACK, NO LOG AS (SEL id, v FROM raw.orders) WITH DATA PRIMARY INDEX (id) ON COMMIT PRESERVE ROWS;
INSERT INTO mart.orders SELECT * FROM vt_orders;

-- name: volatile table of the name of a real one
-- reads: sales.orders
-- writes: sales.revenue
-- schema: sales
CREATE VOLATILE TABLE orders AS (SELECT * FROM sales.orders) WITH DATA ON COMMIT PRESERVE ROWS;
INS INTO sales.revenue SEL SUM(v) FROM orders;

-- name: global temporary table
-- reads: raw.o
-- writes: mart.o
CREATE GLOBAL TEMPORARY TABLE gt_o (id INTEGER, v FLOAT) ON COMMIT PRESERVE ROWS;
INSERT INTO gt_o SELECT id, v FROM raw.o;
INSERT INTO mart.o SELECT * FROM gt_o;

-- name: locking modifiers
-- reads: raw.o
-- writes: mart.o
LOCKING TABLE raw.o FOR ACCESS
INSERT INTO mart.o SELECT * FROM raw.o;

-- name: locking of rows before a select
-- reads: raw.o
-- writes:
LOCKING ROW FOR ACCESS SELECT id FROM raw.o;

-- name: short verbs
-- reads: raw.o
-- writes: mart.a, mart.b
DEL FROM mart.a ALL;
INS INTO mart.a SEL * FROM raw.o;
UPD mart.b SET v = 0;

-- name: update with from before set
-- reads: stage.p
-- writes: mart.p
UPDATE p FROM mart.p AS p, stage.p AS s SET price = s.price WHERE s.sku = p.sku;

-- name: delete with a second table
-- reads: stage.gone
-- writes: mart.u
DELETE FROM mart.u WHERE id IN (SELECT id FROM stage.gone);

-- name: merge
-- reads: stage.u
-- writes: mart.u
MERGE INTO mart.u AS t USING stage.u AS s ON t.id = s.id
WHEN MATCHED THEN UPDATE SET name = s.name
WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name);

-- name: database of the session
-- reads: sales.orders
-- writes: sales.revenue
DATABASE sales;
INSERT INTO revenue SELECT * FROM orders;

-- name: table as another, with statistics
-- reads: mart.o
-- writes: test.o
CREATE TABLE test.o AS mart.o WITH DATA AND STATISTICS;

-- name: set table as select
-- reads: raw.o
-- writes: mart.o
CREATE SET TABLE mart.o, NO BEFORE JOURNAL, CHECKSUM = DEFAULT AS (SELECT id, v FROM raw.o) WITH DATA UNIQUE PRIMARY INDEX (id);

-- name: rename
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o_new AS (SELECT * FROM raw.o) WITH DATA;
RENAME TABLE mart.o TO mart.o_old;
RENAME TABLE mart.o_new AS mart.o;
DROP TABLE mart.o_old;

-- name: statistics and help
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o SELECT * FROM raw.o;
COLLECT STATISTICS COLUMN (id), INDEX (day) ON mart.o;
HELP TABLE mart.o;

-- name: views are replaced
-- reads: mart.o
-- writes: share.o
REPLACE VIEW share.o AS LOCKING ROW FOR ACCESS SELECT * FROM mart.o;

-- name: macro only writes down
-- reads:
-- writes:
REPLACE MACRO ops.load (d DATE) AS (INSERT INTO mart.o SELECT * FROM raw.o WHERE day = :d;);

-- name: qualify, top, sample, old dates
-- reads: raw.o
-- writes: mart.o
INSERT INTO mart.o
SELECT TOP 10 id, CAST(day AS DATE FORMAT 'YYYY-MM-DD'), v FROM raw.o
QUALIFY ROW_NUMBER() OVER (PARTITION BY id ORDER BY day DESC) = 1;

-- name: recursive WITH
-- reads: raw.n
-- writes:
WITH RECURSIVE t (id, parent) AS (SELECT id, parent FROM raw.n WHERE parent IS NULL UNION ALL SELECT n.id, n.parent FROM raw.n n JOIN t ON t.id = n.parent)
SELECT * FROM t;

-- name: client of batches
-- reads: raw.o
-- writes: mart.o
.LOGON tdp/user,secret;
.SET WIDTH 200
INSERT INTO mart.o SELECT * FROM raw.o;
.IF ERRORCODE <> 0 THEN .QUIT 8
.LOGOFF;

-- name: transaction of Teradata
-- reads: raw.o
-- writes: mart.o
BT;
DELETE FROM mart.o;
INSERT INTO mart.o SELECT * FROM raw.o;
ET;

-- name: insert with values and one without INTO
-- reads: raw.o
-- writes: mart.a, mart.b
INSERT INTO mart.a VALUES (1, 'a');
INSERT mart.b SELECT * FROM raw.o;

-- name: normalize and period functions
-- reads: raw.p
-- writes: mart.p
INSERT INTO mart.p SELECT id, BEGIN(span), END(span) FROM raw.p WHERE span OVERLAPS PERIOD(DATE '2026-01-01', DATE '2026-02-01');

-- name: derived tables and implicit joins
-- reads: raw.a, raw.b
-- writes: mart.c
INSERT INTO mart.c SELECT a.id, x.n FROM raw.a a, (SELECT id, COUNT(*) AS n FROM raw.b GROUP BY 1) x WHERE x.id = a.id;

-- name: catalog
-- reads:
-- writes: ops.t
INSERT INTO ops.t SELECT TableName FROM dbc.TablesV WHERE DatabaseName = 'mart';
