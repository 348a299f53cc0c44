-- name: insert with hints, an index and duplicates
-- reads: raw.orders
-- writes: mart.totals
# totals, every night
INSERT INTO mart.totals (day, amount)
SELECT STRAIGHT_JOIN day, SUM(amount) FROM raw.orders FORCE INDEX (by_day) WHERE day = CURDATE()
GROUP BY day ON DUPLICATE KEY UPDATE amount = VALUES(amount);

-- name: replace after a comment
-- reads: raw.o
-- writes: mart.o
-- every morning
REPLACE INTO mart.o SELECT * FROM raw.o;

-- name: replace in its other forms
-- reads: raw.o
-- writes: mart.a, mart.b, mart.c
/* one */ REPLACE LOW_PRIORITY INTO mart.a SELECT * FROM raw.o;
REPLACE mart.b (id) VALUES (1), (2);
REPLACE INTO mart.c SET id = 1, v = 'x';

-- name: insert ignore and delayed
-- reads: raw.o
-- writes: mart.a, mart.b
INSERT IGNORE INTO mart.a SELECT * FROM raw.o;
INSERT HIGH_PRIORITY INTO mart.b TABLE raw.o;

-- name: update of two tables
-- reads: raw.prices
-- writes: mart.products
UPDATE mart.products p JOIN raw.prices r ON r.sku = p.sku SET p.price = r.price WHERE r.day = CURDATE();

-- name: update that changes both tables of a join
-- reads:
-- writes: mart.a, mart.b
UPDATE mart.a, mart.b SET mart.a.v = 1, mart.b.v = 2 WHERE mart.a.id = mart.b.id;

-- name: delete by alias
-- reads: raw.gone
-- writes: mart.users
DELETE u FROM mart.users AS u INNER JOIN raw.gone AS g ON g.id = u.id;

-- name: delete from two tables
-- reads: raw.gone
-- writes: mart.users, mart.logins
DELETE u, l FROM mart.users u JOIN mart.logins l ON l.user_id = u.id JOIN raw.gone g ON g.id = u.id;

-- name: delete with using
-- reads: raw.gone
-- writes: mart.users
DELETE FROM mart.users USING mart.users JOIN raw.gone ON raw.gone.id = mart.users.id;

-- name: several renames at once
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o_new LIKE mart.o;
INSERT INTO mart.o_new SELECT * FROM raw.o;
RENAME TABLE mart.o TO mart.o_old, mart.o_new TO mart.o;
DROP TABLE mart.o_old;

-- name: rename by alter
-- reads: raw.o
-- writes: mart.o
CREATE TABLE mart.o_new SELECT * FROM raw.o;
ALTER TABLE mart.o_new RENAME TO mart.o;

-- name: load from a file
-- reads:
-- writes: raw.o
LOAD DATA LOCAL INFILE '/landing/o.csv' REPLACE INTO TABLE raw.o CHARACTER SET utf8mb4
FIELDS TERMINATED BY ',' ENCLOSED BY '"' LINES TERMINATED BY '\n' IGNORE 1 LINES (id, @v) SET v = NULLIF(@v, '');

-- name: load of XML
-- reads:
-- writes: raw.o
LOAD XML INFILE '/landing/o.xml' INTO TABLE raw.o ROWS IDENTIFIED BY '<row>';

-- name: to a file
-- reads: mart.o
-- writes:
SELECT * FROM mart.o WHERE v > 0 INTO OUTFILE '/out/o.csv' FIELDS TERMINATED BY ',';

-- name: to a file, the clause before FROM
-- reads: mart.o
-- writes:
SELECT id, v INTO OUTFILE '/out/o.csv' FIELDS TERMINATED BY ',' FROM mart.o;

-- name: use sets the schema
-- reads: sales.orders, raw.fx
-- writes: sales.revenue
USE sales;
INSERT INTO revenue SELECT o.id, o.amount * f.rate FROM orders o JOIN raw.fx f ON f.currency = o.currency;

-- name: use with backticks, twice
-- reads: a.x
-- writes: b.y
USE `a`;
CREATE TEMPORARY TABLE held AS SELECT * FROM x;
USE `b`;
INSERT INTO y SELECT * FROM a.held;

-- name: temporary table hides a real one
-- reads: shop.orders
-- writes: shop.revenue
-- schema: shop
CREATE TEMPORARY TABLE orders SELECT * FROM shop.orders;
INSERT INTO revenue SELECT SUM(amount) FROM shop.orders;

-- name: locks and variables
-- reads: raw.o, ops.runs
-- writes: mart.o
SET @last = (SELECT MAX(ts) FROM ops.runs);
SET SESSION sql_mode = 'ANSI_QUOTES', @@session.group_concat_max_len = 100000;
LOCK TABLES mart.o WRITE, raw.o READ;
INSERT INTO mart.o SELECT * FROM raw.o WHERE ts > @last;
UNLOCK TABLES;
OPTIMIZE TABLE mart.o;

-- name: prepared from a text
-- reads: raw.o
-- writes: mart.o
PREPARE load_o FROM 'INSERT INTO mart.o SELECT * FROM raw.o WHERE day = ?';
EXECUTE load_o USING @day;
DEALLOCATE PREPARE load_o;

-- name: prepared from a variable is not known
-- reads:
-- writes:
-- unknown: 2
SET @sql = CONCAT('INSERT INTO ', @t, ' SELECT 1');
PREPARE load_o FROM @sql;

-- name: partition exchange
-- reads: stage.o
-- writes: mart.o
ALTER TABLE mart.o EXCHANGE PARTITION p202601 WITH TABLE stage.o WITHOUT VALIDATION;

-- name: a procedure with a delimiter
-- reads:
-- writes:
DELIMITER //
CREATE PROCEDURE ops.load(IN d DATE)
BEGIN
  DECLARE n INT DEFAULT 0;
  IF d IS NOT NULL THEN
    INSERT INTO mart.o SELECT * FROM raw.o WHERE day = d;
  END IF;
END
//
DELIMITER ;
CALL ops.load('2026-01-01');

-- name: a row from nothing
-- reads:
-- writes: ops.runs
INSERT INTO ops.runs SELECT NOW(), CONNECTION_ID() FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_name = 'x');

-- name: JSON table and windows
-- reads: raw.events
-- writes: mart.tags
INSERT INTO mart.tags
SELECT e.id, j.tag, ROW_NUMBER() OVER (PARTITION BY e.id ORDER BY j.tag)
FROM raw.events e, JSON_TABLE(e.body, '$.tags[*]' COLUMNS (tag VARCHAR(50) PATH '$')) AS j;

-- name: versioned comments
-- reads: raw.o
-- writes: mart.o
/*!40101 SET NAMES utf8mb4 */;
INSERT INTO mart.o SELECT * FROM raw.o;

-- name: in short: INSERT INTO mart.a (x) VALUES ROW(1), ROW(2)
-- reads:
-- writes: mart.a
INSERT INTO mart.a (x) VALUES ROW(1), ROW(2);

-- name: in short: INSERT INTO mart.a SET x = 1, y = (SELECT MAX(y) FROM raw.b)
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SET x = 1, y = (SELECT MAX(y) FROM raw.b);

-- name: in short: CREATE TABLE mart.a (id INT) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 SEL
-- reads: raw.b
-- writes: mart.a
CREATE TABLE mart.a (id INT) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 SELECT * FROM raw.b;

-- name: in short: CREATE OR REPLACE ALGORITHM=MERGE DEFINER=`root`@`localhost` SQL SECUR
-- reads: raw.a
-- writes: mart.v
CREATE OR REPLACE ALGORITHM=MERGE DEFINER=`root`@`localhost` SQL SECURITY DEFINER VIEW mart.v AS SELECT * FROM raw.a;

-- name: in short: UPDATE mart.a, (SELECT id FROM raw.b) s SET mart.a.x = 1 WHERE mart.a.
-- reads: raw.b
-- writes: mart.a
UPDATE mart.a, (SELECT id FROM raw.b) s SET mart.a.x = 1 WHERE mart.a.id = s.id;

-- name: in short: UPDATE mart.a LEFT JOIN raw.b ON a.id = b.id SET x = 1
-- reads: raw.b
-- writes: mart.a
UPDATE mart.a LEFT JOIN raw.b ON a.id = b.id SET x = 1;

-- name: in short: DELETE a.* FROM mart.a a LEFT JOIN raw.b b ON a.id = b.id WHERE b.id I
-- reads: raw.b
-- writes: mart.a
DELETE a.* FROM mart.a a LEFT JOIN raw.b b ON a.id = b.id WHERE b.id IS NULL;

-- name: in short: DELETE QUICK IGNORE FROM mart.a WHERE id IN (SELECT id FROM raw.b) LIM
-- reads: raw.b
-- writes: mart.a
DELETE QUICK IGNORE FROM mart.a WHERE id IN (SELECT id FROM raw.b) LIMIT 10;

-- name: in short: DROP TEMPORARY TABLE IF EXISTS t; CREATE TEMPORARY TABLE IF NOT EXISTS
-- reads: raw.a
-- writes: mart.a
DROP TEMPORARY TABLE IF EXISTS t; CREATE TEMPORARY TABLE IF NOT EXISTS t (INDEX(id)) AS (SELECT id FROM raw.a); INSERT INTO mart.a SELECT * FROM t;

-- name: in short: SELECT a.id INTO @x FROM raw.a LIMIT 1; INSERT INTO mart.a VALUES (@x)
-- reads: raw.a
-- writes: mart.a
SELECT a.id INTO @x FROM raw.a LIMIT 1; INSERT INTO mart.a VALUES (@x);

-- name: in short: START TRANSACTION; INSERT INTO mart.a SELECT * FROM raw.a FOR UPDATE
-- reads: raw.a
-- writes: mart.a
START TRANSACTION; INSERT INTO mart.a SELECT * FROM raw.a FOR UPDATE; COMMIT;

-- name: in short: SELECT SQL_NO_CACHE * FROM raw.a USE INDEX (x) IGNORE INDEX FOR JOIN
-- reads: raw.a, raw.b
-- writes:
SELECT SQL_NO_CACHE * FROM raw.a USE INDEX (x) IGNORE INDEX FOR JOIN (y), raw.b;

-- name: in short: ALTER TABLE mart.a ADD COLUMN x INT, RENAME TO mart.b
-- reads: mart.a
-- writes: mart.b
ALTER TABLE mart.a ADD COLUMN x INT, RENAME TO mart.b;

-- name: in short: TRUNCATE TABLE mart.a; INSERT INTO mart.a SELECT * FROM raw.a PARTITIO
-- reads: raw.a
-- writes: mart.a
TRUNCATE TABLE mart.a; INSERT INTO mart.a SELECT * FROM raw.a PARTITION (p0, p1);

-- name: in short: CALL p(1); ANALYZE TABLE mart.a; FLUSH TABLES; CHECK TABLE mart.a
-- reads:
-- writes:
CALL p(1); ANALYZE TABLE mart.a; FLUSH TABLES; CHECK TABLE mart.a;

-- name: in short: CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO INSERT INTO mart.a SELECT *
-- reads:
-- writes:
CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO INSERT INTO mart.a SELECT * FROM raw.a;

-- name: in short: DO SLEEP(1); SELECT * FROM raw.a
-- reads: raw.a
-- writes:
DO SLEEP(1); SELECT * FROM raw.a;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a AS new ON DUPLICATE KEY UPDATE
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a AS new ON DUPLICATE KEY UPDATE x = new.x;

-- name: in short: WITH c AS (SELECT * FROM raw.a) UPDATE mart.a JOIN c ON c.id = a.id SE
-- reads: raw.a
-- writes: mart.a
WITH c AS (SELECT * FROM raw.a) UPDATE mart.a JOIN c ON c.id = a.id SET a.x = c.x;

-- name: in short: WITH c AS (SELECT id FROM raw.a) DELETE FROM mart.a WHERE id IN (SELEC
-- reads: raw.a
-- writes: mart.a
WITH c AS (SELECT id FROM raw.a) DELETE FROM mart.a WHERE id IN (SELECT id FROM c);

-- name: in short: insert into mart.a select * from raw.a where `date` = '2026-01-01' and
-- reads: raw.a
-- writes: mart.a
insert into mart.a select * from raw.a where `date` = '2026-01-01' and name = "x;y";

-- name: in short: SET FOREIGN_KEY_CHECKS=0; DROP TABLE IF EXISTS mart.a_old; CREATE TABL
-- reads: raw.a
-- writes: mart.a_old, mart.a
SET FOREIGN_KEY_CHECKS=0; DROP TABLE IF EXISTS mart.a_old; CREATE TABLE mart.a_new LIKE mart.a; INSERT INTO mart.a_new SELECT * FROM raw.a; RENAME TABLE mart.a TO mart.a_old, mart.a_new TO mart.a; SET FOREIGN_KEY_CHECKS=1;

-- name: in short: INSERT INTO mart.a (SELECT * FROM raw.a) UNION (SELECT * FROM raw.b)
-- reads: raw.a, raw.b
-- writes: mart.a
INSERT INTO mart.a (SELECT * FROM raw.a) UNION (SELECT * FROM raw.b);

-- name: in short: SELECT @rn := @rn + 1, a.* FROM raw.a a, (SELECT @rn := 0) r
-- reads: raw.a
-- writes:
SELECT @rn := @rn + 1, a.* FROM raw.a a, (SELECT @rn := 0) r;

-- name: in short: INSERT INTO mart.a SELECT GROUP_CONCAT(x ORDER BY y SEPARATOR ', ') FR
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT GROUP_CONCAT(x ORDER BY y SEPARATOR ', ') FROM raw.a GROUP BY z WITH ROLLUP;

-- name: in short: UPDATE mart.a SET x = (SELECT y FROM raw.b WHERE b.id = a.id ORDER BY
-- reads: raw.b
-- writes: mart.a
UPDATE mart.a SET x = (SELECT y FROM raw.b WHERE b.id = a.id ORDER BY ts DESC LIMIT 1);

-- name: in short: create temporary table tmp (id int); insert into tmp select id from ra
-- reads: raw.a
-- writes: mart.a
create temporary table tmp (id int); insert into tmp select id from raw.a; delete from mart.a where id in (select id from tmp); drop temporary table tmp;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a LOCK IN SHARE MODE
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a LOCK IN SHARE MODE;

-- name: in short: replace into mart.a (id, v) select id, v from raw.a on duplicate key u
-- reads: raw.a
-- writes: mart.a
replace into mart.a (id, v) select id, v from raw.a on duplicate key update v = 1;

-- name: in short: CREATE TABLE mart.a PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10)) AS SELECT * FROM raw.a;

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.b WHERE d = %(d)s AND x IN (%s, %
-- reads: raw.b
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.b WHERE d = %(d)s AND x IN (%s, %s);

-- name: in short: use `mart`; create temporary table a select * from raw.x; insert into
-- reads: raw.x
-- writes: mart.b
use `mart`; create temporary table a select * from raw.x; insert into b select * from a;

-- name: in short: UPDATE t JOIN s ON t.id = s.id JOIN r ON r.id = s.id SET t.x = s.x, t.
-- reads: r, s
-- writes: t
UPDATE t JOIN s ON t.id = s.id JOIN r ON r.id = s.id SET t.x = s.x, t.y = r.y;

-- name: in short: DELETE t1, t2 FROM t1 INNER JOIN t2 INNER JOIN t3 WHERE t1.id = t2.id
-- reads: t3
-- writes: t1, t2
DELETE t1, t2 FROM t1 INNER JOIN t2 INNER JOIN t3 WHERE t1.id = t2.id AND t2.id = t3.id;

-- name: in short: LOAD DATA INFILE 'x' IGNORE INTO TABLE `mart`.`a` PARTITION (p0) FIELD
-- reads:
-- writes: mart.a
LOAD DATA INFILE 'x' IGNORE INTO TABLE `mart`.`a` PARTITION (p0) FIELDS TERMINATED BY ';';

-- name: in short: INSERT INTO mart.a SELECT * FROM raw.a WHERE id > (SELECT IFNULL(MAX(i
-- reads: raw.a
-- writes: mart.a
INSERT INTO mart.a SELECT * FROM raw.a WHERE id > (SELECT IFNULL(MAX(id), 0) FROM mart.a);

-- name: in short: CREATE TABLE mart.a AS SELECT * FROM raw.a PARTITION (p1) AS x JOIN ra
-- reads: raw.a, raw.b
-- writes: mart.a
CREATE TABLE mart.a AS SELECT * FROM raw.a PARTITION (p1) AS x JOIN raw.b AS y FORCE INDEX FOR JOIN (i) ON x.id = y.id;

-- name: in short: CREATE TABLE mart.n LIKE mart.a; ALTER TABLE mart.n ADD INDEX (x); INS
-- reads: raw.b
-- writes: mart.a
CREATE TABLE mart.n LIKE mart.a; ALTER TABLE mart.n ADD INDEX (x); INSERT INTO mart.n SELECT * FROM raw.b; RENAME TABLE mart.a TO mart.o, mart.n TO mart.a; DROP TABLE mart.o;

-- name: statements after a procedure that ends with the delimiter
-- reads: raw.o
-- writes: mart.o
DELIMITER $$
CREATE PROCEDURE ops.load()
BEGIN
  INSERT INTO ops.runs SELECT * FROM ops.plan;
END$$
DELIMITER ;
INSERT INTO mart.o SELECT * FROM raw.o;
