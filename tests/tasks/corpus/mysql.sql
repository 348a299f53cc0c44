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
