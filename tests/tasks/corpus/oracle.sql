-- name: hints and a row limit
-- reads: raw.orders
-- writes: mart.rev
INSERT /*+ APPEND PARALLEL(8) */ INTO mart.rev SELECT /*+ FULL(o) */ o.id, NVL(o.v, 0) FROM raw.orders o WHERE ROWNUM <= 10

-- name: merge with a delete clause and logged errors
-- reads: stage.users
-- writes: mart.users
MERGE INTO mart.users t USING (SELECT id, name, gone FROM stage.users) s ON (t.id = s.id)
WHEN MATCHED THEN UPDATE SET t.name = s.name WHERE t.name <> s.name DELETE WHERE s.gone = 1
WHEN NOT MATCHED THEN INSERT (id, name) VALUES (s.id, s.name) WHERE s.gone = 0
LOG ERRORS INTO mart.err$_users ('nightly') REJECT LIMIT UNLIMITED;

-- name: insert all
-- reads: raw.orders
-- writes: mart.big, mart.all_orders
INSERT ALL
  WHEN amount > 1000 THEN INTO mart.big (id, amount) VALUES (id, amount)
  WHEN 1 = 1 THEN INTO mart.all_orders
SELECT id, amount FROM raw.orders;

-- name: insert all without conditions from dual
-- reads:
-- writes: mart.a, mart.b
INSERT ALL INTO mart.a (id) VALUES (1) INTO mart.b (id) VALUES (2) SELECT * FROM dual;

-- name: update of a join
-- reads: stage.prices, ref.vat
-- writes: mart.products
UPDATE (SELECT p.price, s.price AS new_price FROM mart.products p JOIN stage.prices s ON s.sku = p.sku)
SET price = new_price * (SELECT rate FROM ref.vat);

-- name: correlated update of several columns
-- reads: stage.users
-- writes: mart.users
UPDATE mart.users u SET (name, country) = (SELECT s.name, s.country FROM stage.users s WHERE s.id = u.id)
WHERE EXISTS (SELECT 1 FROM stage.users s WHERE s.id = u.id);

-- name: delete of an inline view
-- reads:
-- writes: mart.users
DELETE FROM (SELECT * FROM mart.users WHERE gone = 1);

-- name: global temporary table keeps its rows to the session
-- reads: raw.orders
-- writes: mart.orders
CREATE GLOBAL TEMPORARY TABLE gtt_orders (id NUMBER, v NUMBER) ON COMMIT PRESERVE ROWS;
INSERT INTO gtt_orders SELECT id, v FROM raw.orders;
INSERT INTO mart.orders SELECT * FROM gtt_orders;

-- name: private temporary table
-- reads: raw.orders
-- writes: mart.orders
CREATE PRIVATE TEMPORARY TABLE ora$ptt_orders ON COMMIT DROP DEFINITION AS SELECT * FROM raw.orders;
INSERT INTO mart.orders SELECT * FROM ora$ptt_orders;

-- name: schema of the session
-- reads: sales.orders
-- writes: sales.revenue
ALTER SESSION SET CURRENT_SCHEMA = sales;
ALTER SESSION SET NLS_DATE_FORMAT = 'YYYY-MM-DD';
INSERT INTO revenue SELECT * FROM orders;

-- name: anonymous block
-- reads: ops.runs, raw.orders
-- writes: mart.orders, ops.runs_log
DECLARE
  v_last DATE;
  v_count PLS_INTEGER := 0;
BEGIN
  SELECT MAX(ts) INTO v_last FROM ops.runs;
  INSERT INTO mart.orders SELECT * FROM raw.orders WHERE ts > v_last;
  v_count := SQL%ROWCOUNT;
  INSERT INTO ops.runs_log (n) VALUES (v_count);
  COMMIT;
EXCEPTION
  WHEN NO_DATA_FOUND THEN
    NULL;
  WHEN OTHERS THEN
    ROLLBACK;
    RAISE;
END;
/

-- name: loop over a cursor
-- reads: raw.shops, raw.orders
-- writes: mart.per_shop
BEGIN
  FOR r IN (SELECT id FROM raw.shops) LOOP
    INSERT INTO mart.per_shop SELECT r.id, COUNT(*) FROM raw.orders WHERE shop_id = r.id;
  END LOOP;
END;
/

-- name: text that is run
-- reads: raw.orders
-- writes: mart.orders
BEGIN
  EXECUTE IMMEDIATE 'TRUNCATE TABLE mart.orders';
  EXECUTE IMMEDIATE q'[INSERT INTO mart.orders SELECT * FROM raw.orders WHERE kind = 'a']';
END;
/

-- name: text that is put together
-- reads:
-- writes:
-- unknown: 2
BEGIN
  EXECUTE IMMEDIATE 'INSERT INTO ' || v_table || ' SELECT 1 FROM dual';
END;
/

-- name: statistics by a package
-- reads: raw.orders
-- writes: mart.orders
INSERT INTO mart.orders SELECT * FROM raw.orders;
BEGIN
  DBMS_STATS.GATHER_TABLE_STATS(ownname => 'MART', tabname => 'ORDERS');
END;
/

-- name: a procedure only writes down
-- reads: raw.orders
-- writes: mart.orders
CREATE OR REPLACE PROCEDURE ops.load (p_day DATE) IS
  v_n NUMBER;
  CURSOR c IS SELECT id FROM raw.unused;
BEGIN
  INSERT INTO mart.unused SELECT * FROM raw.unused;
  IF v_n > 0 THEN
    NULL;
  END IF;
END load;
/
INSERT INTO mart.orders SELECT * FROM raw.orders;

-- name: old outer joins and hierarchies
-- reads: raw.a, raw.b
-- writes: mart.c
INSERT INTO mart.c SELECT a.id, b.v, LEVEL FROM raw.a a, raw.b b WHERE a.id = b.id (+) START WITH a.parent IS NULL CONNECT BY PRIOR a.id = a.parent;

-- name: partitions, flashback, samples
-- reads: raw.a, raw.b, raw.c
-- writes: mart.d
INSERT INTO mart.d
SELECT * FROM raw.a PARTITION (p202601)
UNION ALL SELECT * FROM raw.b AS OF TIMESTAMP SYSTIMESTAMP - INTERVAL '1' HOUR
UNION ALL SELECT * FROM raw.c SAMPLE (5);

-- name: partition exchange
-- reads: stage.orders
-- writes: mart.orders
ALTER TABLE mart.orders EXCHANGE PARTITION p202601 WITH TABLE stage.orders INCLUDING INDEXES WITHOUT VALIDATION;

-- name: build and rename
-- reads: raw.orders
-- writes: orders
CREATE TABLE orders_new NOLOGGING PARALLEL 4 COMPRESS AS SELECT * FROM raw.orders;
DROP TABLE orders PURGE;
RENAME orders_new TO orders;

-- name: materialized view
-- reads: mart.orders
-- writes: mart.by_day
CREATE MATERIALIZED VIEW mart.by_day BUILD IMMEDIATE REFRESH FAST ON COMMIT ENABLE QUERY REWRITE AS SELECT day, COUNT(*) n FROM mart.orders GROUP BY day;

-- name: another database by link
-- reads: raw.orders@lake
-- writes: mart.orders
INSERT INTO mart.orders SELECT * FROM raw.orders@lake;

-- name: recursive WITH with columns
-- reads: raw.nodes
-- writes: mart.tree
INSERT INTO mart.tree
WITH t (id, parent) AS (
  SELECT id, parent FROM raw.nodes WHERE parent IS NULL
  UNION ALL SELECT n.id, n.parent FROM raw.nodes n JOIN t ON n.parent = t.id)
SELECT id, parent FROM t;

-- name: table functions, XML, JSON, pivot
-- reads: raw.docs, mart.sales
-- writes: mart.flat
INSERT INTO mart.flat
SELECT d.id, j.tag FROM raw.docs d, JSON_TABLE(d.body, '$.tags[*]' COLUMNS (tag VARCHAR2(50) PATH '$')) j
UNION ALL SELECT id, q1 FROM mart.sales PIVOT (SUM(v) FOR q IN ('1' AS q1))
UNION ALL SELECT 1, COLUMN_VALUE FROM TABLE(split('a,b'));

-- name: client settings and substitution
-- reads: raw.orders
-- writes: mart.orders
SET SERVEROUTPUT ON
WHENEVER SQLERROR EXIT FAILURE
INSERT INTO mart.orders SELECT * FROM raw.orders WHERE day = '&1' AND region = &region;
PROMPT done
COMMIT;

-- name: synonym and comment, grant, lock
-- reads: mart.orders
-- writes: app.orders
CREATE OR REPLACE SYNONYM app.orders FOR mart.orders;
COMMENT ON TABLE mart.orders IS 'all';
GRANT SELECT ON mart.orders TO app;
LOCK TABLE mart.orders IN EXCLUSIVE MODE;

-- name: case in quotes
-- reads: raw."Mixed Case"
-- writes: mart.plain
INSERT INTO mart.plain SELECT * FROM raw."Mixed Case";

-- name: in short: INSERT INTO mart.a (x) VALUES ((SELECT MAX(y) FROM raw.b))
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a (x) VALUES ((SELECT MAX(y) FROM raw.b));

-- name: in short: CREATE TABLE mart.a AS (SELECT * FROM raw.b MINUS SELECT * FROM raw.c)
-- reads: raw.b, raw.c
-- writes: mart.a
CREATE TABLE mart.a AS (SELECT * FROM raw.b MINUS SELECT * FROM raw.c);

-- name: in short: CREATE OR REPLACE FORCE EDITIONABLE VIEW mart.v AS SELECT * FROM raw.a
-- reads: raw.a
-- writes: mart.v
CREATE OR REPLACE FORCE EDITIONABLE VIEW mart.v AS SELECT * FROM raw.a WITH READ ONLY;

-- name: in short: DELETE mart.a WHERE id IN (SELECT id FROM raw.b)
-- reads: raw.b
-- writes: mart.a
DELETE mart.a WHERE id IN (SELECT id FROM raw.b);

-- name: in short: UPDATE mart.a SET x = 1 WHERE id = 5 RETURNING y INTO :z
-- reads:
-- writes: mart.a
UPDATE mart.a SET x = 1 WHERE id = 5 RETURNING y INTO :z;

-- name: in short: SELECT * FROM raw.a, LATERAL (SELECT * FROM raw.b WHERE b.id = a.id)
-- reads: raw.a, raw.b
-- writes:
SELECT * FROM raw.a, LATERAL (SELECT * FROM raw.b WHERE b.id = a.id);

-- name: in short: SELECT * FROM raw.a UNPIVOT (v FOR k IN (a, b))
-- reads: raw.a
-- writes:
SELECT * FROM raw.a UNPIVOT (v FOR k IN (a, b));

-- name: in short: SELECT XMLAGG(XMLELEMENT("x", y)) FROM raw.a
-- reads: raw.a
-- writes:
SELECT XMLAGG(XMLELEMENT("x", y)) FROM raw.a;

-- name: in short: SELECT * FROM raw.a MODEL DIMENSION BY (x) MEASURES (y) RULES (y[1] =
-- reads: raw.a
-- writes:
SELECT * FROM raw.a MODEL DIMENSION BY (x) MEASURES (y) RULES (y[1] = 2);

-- name: in short: DECLARE CURSOR c IS SELECT * FROM raw.a; r c%ROWTYPE; BEGIN OPEN c; LO
-- reads: raw.a
-- writes: mart.a
DECLARE CURSOR c IS SELECT * FROM raw.a; r c%ROWTYPE; BEGIN OPEN c; LOOP FETCH c INTO r; EXIT WHEN c%NOTFOUND; INSERT INTO mart.a VALUES r; END LOOP; CLOSE c; END;

-- name: in short: BEGIN FORALL i IN 1..v.COUNT INSERT INTO mart.a VALUES v(i); END
-- reads:
-- writes: mart.a
BEGIN FORALL i IN 1..v.COUNT INSERT INTO mart.a VALUES v(i); END;

-- name: in short: BEGIN mart_pkg.load(SYSDATE); END
-- reads:
-- writes:
BEGIN mart_pkg.load(SYSDATE); END;

-- name: in short: EXEC DBMS_MVIEW.REFRESH('MART.A', 'C')
-- reads:
-- writes:
EXEC DBMS_MVIEW.REFRESH('MART.A', 'C');

-- name: in short: TRUNCATE TABLE mart.a DROP STORAGE; INSERT /*+ APPEND */ INTO mart.a S
-- reads: raw.a
-- writes: mart.a
TRUNCATE TABLE mart.a DROP STORAGE; INSERT /*+ APPEND */ INTO mart.a SELECT * FROM raw.a; COMMIT;

-- name: in short: ALTER TABLE mart.a RENAME TO b
-- reads: mart.a
-- writes: mart.b
ALTER TABLE mart.a RENAME TO b;

-- name: in short: MERGE INTO mart.a t USING dual ON (t.id = 1) WHEN NOT MATCHED THEN INS
-- reads:
-- writes: mart.a
MERGE INTO mart.a t USING dual ON (t.id = 1) WHEN NOT MATCHED THEN INSERT (id) VALUES (1);

-- name: in short: INSERT INTO mart.a SELECT * FROM (SELECT x.*, ROWNUM rn FROM (SELECT *
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM (SELECT x.*, ROWNUM rn FROM (SELECT * FROM raw.a ORDER BY id) x) WHERE rn < 5;

-- name: in short: ALTER SESSION ENABLE PARALLEL DML; INSERT INTO mart.a SELECT * FROM ra
-- reads: raw.a
-- writes: mart.a
ALTER SESSION ENABLE PARALLEL DML; INSERT INTO mart.a SELECT * FROM raw.a;

-- name: in short: CREATE TABLE mart.a TABLESPACE x PCTFREE 0 AS SELECT /*+ PARALLEL */ *
-- reads: raw.a@db1.world
-- writes: mart.a
CREATE TABLE mart.a TABLESPACE x PCTFREE 0 AS SELECT /*+ PARALLEL */ * FROM raw.a@db1.world;

-- name: in short: INSERT INTO mart.a SELECT LISTAGG(x, ',') WITHIN GROUP (ORDER BY y) OV
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT LISTAGG(x, ',') WITHIN GROUP (ORDER BY y) OVER (PARTITION BY z), DECODE(a, 1, 'x') FROM raw.a;

-- name: in short: BEGIN EXECUTE IMMEDIATE 'DROP TABLE mart.t'; EXCEPTION WHEN OTHERS THE
-- reads: raw.a
-- writes: mart.t
BEGIN EXECUTE IMMEDIATE 'DROP TABLE mart.t'; EXCEPTION WHEN OTHERS THEN IF SQLCODE != -942 THEN RAISE; END IF; END;
/
CREATE TABLE mart.t AS SELECT * FROM raw.a;

-- name: in short: SELECT * FROM raw.a a JOIN raw.b b USING (id) WHERE a.d BETWEEN DATE '
-- reads: raw.a, raw.b
-- writes:
SELECT * FROM raw.a a JOIN raw.b b USING (id) WHERE a.d BETWEEN DATE '2026-01-01' AND SYSDATE - 1 AND REGEXP_LIKE(x, '^a');

-- name: in short: INSERT INTO mart.a (id) SELECT seq.NEXTVAL FROM raw.a
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a (id) SELECT seq.NEXTVAL FROM raw.a;

-- name: in short: UPDATE mart.a a SET a.x = (SELECT MAX(b.x) FROM raw.b b WHERE b.id = a
-- reads: raw.b, raw.c
-- writes: mart.a
UPDATE mart.a a SET a.x = (SELECT MAX(b.x) FROM raw.b b WHERE b.id = a.id), a.y = SYSDATE WHERE a.id IN (SELECT id FROM raw.c);

-- name: in short: DELETE FROM mart.a a WHERE ROWID NOT IN (SELECT MIN(ROWID) FROM mart.a
-- reads:
-- writes: mart.a
DELETE FROM mart.a a WHERE ROWID NOT IN (SELECT MIN(ROWID) FROM mart.a GROUP BY id);

-- name: in short: MERGE /*+ PARALLEL(4) */ INTO mart.a d USING raw.b s ON (d.id = s.id)
-- reads: raw.b
-- writes: mart.a
MERGE /*+ PARALLEL(4) */ INTO mart.a d USING raw.b s ON (d.id = s.id) WHEN MATCHED THEN UPDATE SET d.v = s.v WHERE d.v != s.v;

-- name: in short: CREATE MATERIALIZED VIEW LOG ON mart.a WITH ROWID; CREATE UNIQUE INDEX
-- reads:
-- writes:
CREATE MATERIALIZED VIEW LOG ON mart.a WITH ROWID; CREATE UNIQUE INDEX i ON mart.a (x) PARALLEL; ALTER INDEX i REBUILD;

-- name: in short: DECLARE n NUMBER; BEGIN SELECT COUNT(*) INTO n FROM raw.a; IF n > 0 TH
-- reads: raw.a
-- writes: mart.a, mart.b, mart.c
DECLARE n NUMBER; BEGIN SELECT COUNT(*) INTO n FROM raw.a; IF n > 0 THEN INSERT INTO mart.a SELECT * FROM raw.a; ELSIF n = 0 THEN DELETE FROM mart.b; ELSE NULL; END IF; WHILE n > 0 LOOP n := n - 1; UPDATE mart.c SET x = n; END LOOP; END;

-- name: in short: CREATE OR REPLACE PACKAGE BODY p IS PROCEDURE a IS BEGIN INSERT INTO x
-- reads:
-- writes:
CREATE OR REPLACE PACKAGE BODY p IS PROCEDURE a IS BEGIN INSERT INTO x SELECT * FROM y; END a; PROCEDURE b IS BEGIN NULL; END b; END p;
/
SELECT 1 FROM dual;

-- name: in short: INSERT INTO mart.a SELECT * FROM &schema..x JOIN raw.b USING (id)
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM &schema..x JOIN raw.b USING (id);

-- name: in short: ALTER SESSION SET CURRENT_SCHEMA = "Mart"; INSERT INTO a SELECT * FROM
-- reads: raw.b
-- writes: "Mart".a
ALTER SESSION SET CURRENT_SCHEMA = "Mart"; INSERT INTO a SELECT * FROM raw.b;

-- name: in short: EXECUTE IMMEDIATE 'INSERT INTO mart.a SELECT * FROM raw.b'
-- reads: raw.b
-- writes: mart.a
EXECUTE IMMEDIATE 'INSERT INTO mart.a SELECT * FROM raw.b';

-- name: in short: INSERT INTO mart.a SELECT /*+ USE_HASH(b) */ * FROM raw.a a, raw.b b
-- reads: raw.a, raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT /*+ USE_HASH(b) */ * FROM raw.a a, raw.b b, TABLE(a.items) i WHERE a.id = b.id (+);

-- name: in short: CREATE TABLE mart.a PARTITION BY RANGE (d) INTERVAL (NUMTODSINTERVAL(1
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a PARTITION BY RANGE (d) INTERVAL (NUMTODSINTERVAL(1,'DAY')) (PARTITION p0 VALUES LESS THAN (DATE '2020-01-01')) AS SELECT * FROM raw.a;

-- name: in short: INSERT INTO (SELECT id, v FROM mart.a WHERE v > 0 WITH CHECK OPTION) S
-- reads: raw.b
-- writes: mart.a
INSERT INTO (SELECT id, v FROM mart.a WHERE v > 0 WITH CHECK OPTION) SELECT id, v FROM raw.b;

-- name: in short: ALTER TABLE mart.a MOVE PARTITION p1 COMPRESS; ALTER TABLE mart.a TRUN
-- reads:
-- writes:
ALTER TABLE mart.a MOVE PARTITION p1 COMPRESS; ALTER TABLE mart.a TRUNCATE PARTITION p0; ALTER TABLE mart.a SPLIT PARTITION p AT (1) INTO (PARTITION a, PARTITION b);

-- name: in short: FLASHBACK TABLE mart.a TO BEFORE DROP; PURGE RECYCLEBIN
-- reads:
-- writes: mart.a
FLASHBACK TABLE mart.a TO BEFORE DROP; PURGE RECYCLEBIN;

-- name: in short: DECLARE TYPE t IS TABLE OF raw.a%ROWTYPE; v t; BEGIN SELECT * BULK COL
-- reads: raw.a
-- writes: mart.a
DECLARE TYPE t IS TABLE OF raw.a%ROWTYPE; v t; BEGIN SELECT * BULK COLLECT INTO v FROM raw.a; FORALL i IN 1..v.COUNT INSERT INTO mart.a VALUES v(i); COMMIT; END;

-- name: in short: BEGIN INSERT INTO mart.a SELECT * FROM raw.a; IF SQL%ROWCOUNT = 0 THEN
-- reads: raw.a
-- writes: mart.a
BEGIN INSERT INTO mart.a SELECT * FROM raw.a; IF SQL%ROWCOUNT = 0 THEN RAISE_APPLICATION_ERROR(-20001, 'x'); END IF; DBMS_OUTPUT.PUT_LINE('y'); END;

-- name: calls without parentheses
-- reads: raw.orders
-- writes: mart.orders
BEGIN
  etl.begin_load;
  INSERT INTO mart.orders SELECT * FROM raw.orders;
  refresh_all;
EXCEPTION
  WHEN OTHERS THEN log_error;
END;
/

-- name: statements after types
-- reads: raw.orders
-- writes: mart.orders
CREATE TYPE t_order AS OBJECT (id NUMBER, v NUMBER);
CREATE OR REPLACE TYPE t_list IS VARRAY(10) OF NUMBER;
/
INSERT INTO mart.orders SELECT * FROM raw.orders;

-- name: cursor of a literal
-- reads: raw.orders
-- writes: mart.orders
DECLARE
  c SYS_REFCURSOR;
BEGIN
  OPEN c FOR 'SELECT * FROM raw.orders WHERE day = :d' USING SYSDATE;
  INSERT INTO mart.orders VALUES (1);
END;
