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

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a a INNER JOIN raw.b b ON a.id =
-- reads: raw.a, raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a a INNER JOIN raw.b b ON a.id = b.id WHERE a.d = DATE '2026-01-01';

-- name: in short: CREATE VOLATILE TABLE t, NO LOG (id INT) PRIMARY INDEX (id) ON COMMIT
-- reads: raw.a
-- writes: mart.a
CREATE VOLATILE TABLE t, NO LOG (id INT) PRIMARY INDEX (id) ON COMMIT PRESERVE ROWS; INSERT INTO t SELECT id FROM raw.a; INSERT INTO mart.a SELECT * FROM t;

-- name: in short: CREATE TABLE mart.a AS (SELECT * FROM raw.a) WITH NO DATA NO PRIMARY I
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a AS (SELECT * FROM raw.a) WITH NO DATA NO PRIMARY INDEX;

-- name: in short: UPDATE mart.a FROM (SELECT id, x FROM raw.b) s SET x = s.x WHERE mart.
-- reads: raw.b
-- writes: mart.a
UPDATE mart.a FROM (SELECT id, x FROM raw.b) s SET x = s.x WHERE mart.a.id = s.id;

-- name: in short: DELETE t FROM mart.a t, raw.b b WHERE t.id = b.id
-- reads: raw.b
-- writes: mart.a
DELETE t FROM mart.a t, raw.b b WHERE t.id = b.id;

-- name: in short: CREATE TABLE mart.a, FALLBACK, MAP = TD_MAP1 (id INTEGER NOT NULL, d D
-- reads:
-- writes: mart.a
CREATE TABLE mart.a, FALLBACK, MAP = TD_MAP1 (id INTEGER NOT NULL, d DATE FORMAT 'YYYY-MM-DD') PRIMARY INDEX (id) PARTITION BY RANGE_N(d BETWEEN DATE '2020-01-01' AND DATE '2026-01-01' EACH INTERVAL '1' DAY);

-- name: in short: SELECT * FROM raw.a SAMPLE 10
-- reads: raw.a
-- writes:
SELECT * FROM raw.a SAMPLE 10;

-- name: in short: CALL SYSLIB.x(); EXEC mart.m (1)
-- reads:
-- writes:
CALL SYSLIB.x(); EXEC mart.m (1);

-- name: in short: LOCK TABLE raw.a FOR ACCESS LOCK TABLE raw.b FOR ACCESS SELECT * FROM
-- reads: raw.a, raw.b
-- writes:
LOCK TABLE raw.a FOR ACCESS LOCK TABLE raw.b FOR ACCESS SELECT * FROM raw.a, raw.b;

-- name: in short: COLLECT STATS ON mart.a COLUMN (x); DROP STATISTICS ON mart.a; COMMENT
-- reads:
-- writes:
COLLECT STATS ON mart.a COLUMN (x); DROP STATISTICS ON mart.a; COMMENT ON TABLE mart.a 'x';

-- name: in short: INSERT INTO mart.a (x, y) SELECT x, COUNT(*) (INTEGER) FROM raw.a GROU
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a (x, y) SELECT x, COUNT(*) (INTEGER) FROM raw.a GROUP BY 1;

-- name: in short: MERGE INTO mart.a USING VALUES (1, 'x') AS s (id, v) ON a.id = s.id WH
-- reads:
-- writes: mart.a
MERGE INTO mart.a USING VALUES (1, 'x') AS s (id, v) ON a.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v);

-- name: in short: SET QUERY_BAND = 'a=b;' FOR SESSION; SELECT * FROM raw.a
-- reads: raw.a
-- writes:
SET QUERY_BAND = 'a=b;' FOR SESSION; SELECT * FROM raw.a;

-- name: in short: SET SESSION DATABASE sales; SELECT * FROM a
-- reads: sales.a
-- writes:
SET SESSION DATABASE sales; SELECT * FROM a;

-- name: in short: REPLACE VIEW mart.v AS SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.v
REPLACE VIEW mart.v AS SELECT * FROM raw.a;

-- name: in short: CREATE MULTISET TABLE mart.a, NO FALLBACK AS (SELECT a.* FROM raw.a AS
-- reads: raw.a
-- writes: mart.a
CREATE MULTISET TABLE mart.a, NO FALLBACK AS (SELECT a.* FROM raw.a AS a QUALIFY RANK() OVER (PARTITION BY id ORDER BY ts DESC) = 1) WITH DATA PRIMARY INDEX (id);

-- name: in short: DELETE FROM mart.a ALL; INSERT INTO mart.a SELECT * FROM raw.a; COLLEC
-- reads: raw.a
-- writes: mart.a
DELETE FROM mart.a ALL; INSERT INTO mart.a SELECT * FROM raw.a; COLLECT STATISTICS ON mart.a INDEX (id);

-- name: in short: UPDATE tgt FROM mart.a tgt, (SELECT id, MAX(v) v FROM raw.b GROUP BY 1
-- reads: raw.b
-- writes: mart.a
UPDATE tgt FROM mart.a tgt, (SELECT id, MAX(v) v FROM raw.b GROUP BY 1) src SET v = src.v WHERE tgt.id = src.id;

-- name: in short: CREATE VOLATILE MULTISET TABLE vt AS (SELECT * FROM raw.a) WITH DATA O
-- reads: raw.a
-- writes: mart.a
CREATE VOLATILE MULTISET TABLE vt AS (SELECT * FROM raw.a) WITH DATA ON COMMIT PRESERVE ROWS; INSERT INTO mart.a SELECT * FROM vt; DROP TABLE vt;

-- name: in short: INSERT INTO mart.a SELECT id, CAST(ts AS DATE FORMAT 'YYYYMMDD'), ZERO
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT id, CAST(ts AS DATE FORMAT 'YYYYMMDD'), ZEROIFNULL(v), x (FORMAT '999') FROM raw.a WHERE d BETWEEN 1260101 AND 1260131;

-- name: in short: LOCKING raw.a FOR ACCESS SELECT * FROM raw.a
-- reads: raw.a
-- writes:
LOCKING raw.a FOR ACCESS SELECT * FROM raw.a;

-- name: in short: SEL TOP 5 * FROM raw.a ORDER BY 1
-- reads: raw.a
-- writes:
SEL TOP 5 * FROM raw.a ORDER BY 1;

-- name: in short: CREATE TABLE mart.b AS mart.a WITH NO DATA; INSERT INTO mart.b SELECT
-- reads: mart.a, raw.a, raw.c
-- writes: mart.b
CREATE TABLE mart.b AS mart.a WITH NO DATA; INSERT INTO mart.b SELECT * FROM raw.a MINUS SELECT * FROM raw.c;

-- name: in short: MERGE INTO mart.a USING (SELECT id, v FROM raw.b) s (id, v) ON a.id =
-- reads: raw.b
-- writes: mart.a
MERGE INTO mart.a USING (SELECT id, v FROM raw.b) s (id, v) ON a.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT (s.id, s.v);

-- name: in short: DATABASE mart; DELETE FROM a; INSERT INTO a SELECT * FROM raw.b
-- reads: raw.b
-- writes: mart.a
DATABASE mart; DELETE FROM a; INSERT INTO a SELECT * FROM raw.b;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a WHERE (x, y) IN (SELECT x, y FR
-- reads: raw.a, raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a WHERE (x, y) IN (SELECT x, y FROM raw.b) GROUP BY 1, 2 HAVING COUNT(*) > 1;

-- name: in short: CREATE VOLATILE TABLE v AS (WITH c AS (SELECT * FROM raw.a) SELECT * F
-- reads: raw.a
-- writes: mart.a
CREATE VOLATILE TABLE v AS (WITH c AS (SELECT * FROM raw.a) SELECT * FROM c) WITH DATA NO PRIMARY INDEX ON COMMIT PRESERVE ROWS; MERGE INTO mart.a USING v ON a.id = v.id WHEN MATCHED THEN UPDATE SET x = v.x;

-- name: in short: EXEC mart.macro1; CALL mart.p('x', y); END TRANSACTION; BEGIN TRANSACT
-- reads: raw.a
-- writes: mart.a
EXEC mart.macro1; CALL mart.p('x', y); END TRANSACTION; BEGIN TRANSACTION; INSERT INTO mart.a SELECT * FROM raw.a; END TRANSACTION;

-- name: in short: CREATE VOLATILE TABLE a AS (SELECT * FROM db.a) WITH DATA ON COMMIT PR
-- reads: db.a
-- writes: db.b
CREATE VOLATILE TABLE a AS (SELECT * FROM db.a) WITH DATA ON COMMIT PRESERVE ROWS; UPDATE b FROM db.b b, a SET x = a.x WHERE b.id = a.id; DROP TABLE a;

-- name: loop over a named cursor
-- reads: raw.orders
-- writes: ops.log
FOR r AS c CURSOR FOR SELECT id FROM raw.orders DO
  INSERT INTO ops.log VALUES (r.id);
END FOR;
