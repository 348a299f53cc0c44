-- name: select into a temporary table of the name of a real one
-- reads: dbo.orders
-- writes: dbo.revenue
-- schema: dbo
SELECT id, amount INTO #orders FROM dbo.orders WHERE amount > 0;
INSERT INTO dbo.revenue SELECT SUM(amount) FROM #orders;

-- name: statements without semicolons
-- reads: dbo.Orders, dbo.Customers
-- writes: dbo.DailySales
SET NOCOUNT ON
DECLARE @day date = CAST(GETDATE() AS date)
SELECT o.Id, o.Amount
INTO #today
FROM [dbo].[Orders] AS o WITH (NOLOCK)
WHERE o.Day = @day
DELETE FROM dbo.DailySales
WHERE Day = @day
INSERT INTO [dbo].[DailySales] ([Country], [Amount])
SELECT c.Country, SUM(t.Amount)
FROM #today AS t
CROSS APPLY (SELECT TOP 1 Country FROM dbo.Customers AS c WHERE c.Id = t.Id) AS c
GROUP BY c.Country
OPTION (MAXDOP 4)
DROP TABLE #today

-- name: update by alias
-- reads: stage.prices
-- writes: dbo.products
UPDATE p SET p.price = s.price FROM dbo.products AS p INNER JOIN stage.prices AS s ON s.sku = p.sku WHERE s.price <> p.price;

-- name: delete by alias
-- reads: stage.gone
-- writes: dbo.users
DELETE u FROM dbo.users u JOIN stage.gone g ON g.id = u.id;

-- name: delete through WITH
-- reads:
-- writes: dbo.users
WITH d AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY id ORDER BY ts DESC) AS rn FROM dbo.users)
DELETE FROM d WHERE rn > 1;

-- name: update through WITH that joins
-- reads: stage.prices
-- writes: dbo.products
WITH p AS (SELECT t.price, s.price AS new_price FROM dbo.products t JOIN stage.prices s ON s.sku = t.sku)
UPDATE p SET price = new_price;

-- name: rows that go into a second table
-- reads:
-- writes: dbo.events, archive.events
DELETE FROM dbo.events OUTPUT deleted.id, deleted.body INTO archive.events (id, body) WHERE ts < '2025-01-01';

-- name: merge with output
-- reads: stage.users
-- writes: dbo.users, dbo.user_log
MERGE dbo.users WITH (HOLDLOCK) AS t
USING stage.users AS s ON t.id = s.id
WHEN MATCHED AND t.name <> s.name THEN
    UPDATE SET name = s.name
WHEN NOT MATCHED BY TARGET THEN
    INSERT (id, name) VALUES (s.id, s.name)
WHEN NOT MATCHED BY SOURCE THEN
    DELETE
OUTPUT $action, inserted.id INTO dbo.user_log;

-- name: batches
-- reads: other.dbo.z
-- writes: other.dbo.x, other.dbo.y
USE Warehouse
GO
SET ANSI_NULLS ON
GO
INSERT INTO Other.dbo.x SELECT 1
GO 5
-- schema-less below
INSERT INTO Other.dbo.y SELECT * FROM Other.dbo.z
GO

-- name: a database for the session
-- reads: sales.dbo.orders
-- writes: sales.dbo.revenue
-- schema: dbo
USE Sales;
INSERT INTO revenue SELECT * FROM dbo.orders;

-- name: switch of a partition
-- reads: stage.orders
-- writes: dbo.orders
ALTER TABLE stage.orders SWITCH TO dbo.orders PARTITION 5 WITH (WAIT_AT_LOW_PRIORITY (MAX_DURATION = 1 MINUTES, ABORT_AFTER_WAIT = NONE));

-- name: rename by procedure
-- reads: raw.orders
-- writes: dbo.orders
SELECT * INTO dbo.orders_new FROM raw.orders;
DROP TABLE IF EXISTS dbo.orders;
EXEC sp_rename 'dbo.orders_new', 'orders';

-- name: move to a schema
-- reads: raw.orders
-- writes: mart.orders
SELECT * INTO stage.orders FROM raw.orders;
ALTER SCHEMA mart TRANSFER stage.orders;

-- name: bulk insert
-- reads:
-- writes: stage.orders
BULK INSERT stage.orders FROM 'D:\landing\orders.csv' WITH (FIRSTROW = 2, FIELDTERMINATOR = ',', FORMAT = 'CSV');

-- name: files by OPENROWSET
-- reads:
-- writes: stage.orders
INSERT INTO stage.orders SELECT r.* FROM OPENROWSET(BULK 'https://x/y.parquet', FORMAT = 'PARQUET') WITH (id INT, v FLOAT) AS r;

-- name: table variable
-- reads: dbo.a
-- writes: dbo.b
DECLARE @t TABLE (id INT, v FLOAT);
INSERT INTO @t SELECT id, v FROM dbo.a;
INSERT INTO dbo.b SELECT * FROM @t;

-- name: conditions and blocks
-- reads: dbo.runs, dbo.a
-- writes: dbo.b, dbo.log
IF EXISTS (SELECT 1 FROM dbo.runs WHERE day = CAST(GETDATE() AS date))
BEGIN
    PRINT 'again'
    DELETE FROM dbo.b
    INSERT INTO dbo.b SELECT * FROM dbo.a
END
ELSE
    INSERT INTO dbo.log VALUES ('first')

-- name: try, catch, transaction
-- reads: dbo.a
-- writes: dbo.b, dbo.errors
BEGIN TRY
    BEGIN TRANSACTION
    INSERT INTO dbo.b SELECT * FROM dbo.a
    COMMIT TRANSACTION
END TRY
BEGIN CATCH
    IF @@TRANCOUNT > 0 ROLLBACK TRANSACTION
    INSERT INTO dbo.errors VALUES (ERROR_MESSAGE())
    ;THROW
END CATCH

-- name: cursor and loop
-- reads: dbo.shops, dbo.orders
-- writes: dbo.per_shop
DECLARE @id INT
DECLARE c CURSOR LOCAL FAST_FORWARD FOR SELECT id FROM dbo.shops
OPEN c
FETCH NEXT FROM c INTO @id
WHILE @@FETCH_STATUS = 0
BEGIN
    INSERT INTO dbo.per_shop SELECT @id, COUNT(*) FROM dbo.orders WHERE shop = @id
    FETCH NEXT FROM c INTO @id
END
CLOSE c
DEALLOCATE c

-- name: dynamic SQL as text
-- reads: dbo.a
-- writes: dbo.b
EXEC sp_executesql N'INSERT INTO dbo.b SELECT * FROM dbo.a WHERE v = @v', N'@v INT', @v = 1;

-- name: dynamic SQL from a variable is not known
-- reads:
-- writes:
-- unknown: 2
DECLARE @sql NVARCHAR(MAX) = N'INSERT INTO dbo.' + @t + N' SELECT 1';
EXEC (@sql);

-- name: rows of a procedure
-- reads:
-- writes: dbo.b
INSERT INTO dbo.b (id, v)
EXEC ops.get_rows @day = '2026-01-01';

-- name: a procedure only writes down, to the end of its batch
-- reads: dbo.a
-- writes: dbo.b
CREATE OR ALTER PROCEDURE ops.load @day date AS
SET NOCOUNT ON;
DELETE FROM dbo.x WHERE day = @day;
INSERT INTO dbo.x SELECT * FROM dbo.y WHERE day = @day;
GO
INSERT INTO dbo.b SELECT * FROM dbo.a;

-- name: another server and a database without schema
-- reads: srv.lake.dbo.orders, lake.dbo.users
-- writes: dbo.b
INSERT INTO dbo.b SELECT * FROM srv.lake.dbo.orders o JOIN lake..users u ON u.id = o.user_id;

-- name: variable, XML, JSON, strings
-- reads: dbo.a, dbo.tags
-- writes: dbo.b
DECLARE @max INT;
SELECT @max = MAX(id) FROM dbo.a;
INSERT INTO dbo.b
SELECT a.id, STUFF((SELECT ',' + t.name FROM dbo.tags t WHERE t.id = a.id FOR XML PATH('')), 1, 1, ''), j.value
FROM dbo.a a CROSS APPLY OPENJSON(a.body) AS j WHERE a.id > @max;

-- name: recursive WITH without the word
-- reads: dbo.nodes
-- writes: dbo.tree
WITH tree AS (
    SELECT id, parent FROM dbo.nodes WHERE parent IS NULL
    UNION ALL
    SELECT n.id, n.parent FROM dbo.nodes n JOIN tree ON tree.id = n.parent)
INSERT INTO dbo.tree SELECT id, parent FROM tree OPTION (MAXRECURSION 100);

-- name: create table as select of Synapse, rename of Synapse
-- reads: stage.orders
-- writes: dbo.orders
CREATE TABLE dbo.orders_new WITH (DISTRIBUTION = HASH(id), CLUSTERED COLUMNSTORE INDEX) AS SELECT * FROM stage.orders;
RENAME OBJECT dbo.orders TO orders_old;
RENAME OBJECT dbo.orders_new TO orders;
DROP TABLE dbo.orders_old;

-- name: copy of Synapse
-- reads:
-- writes: stage.orders
COPY INTO stage.orders FROM 'https://x.blob.core.windows.net/landing/*.csv' WITH (FILE_TYPE = 'CSV', FIRSTROW = 2);

-- name: global temporary table, tempdb
-- reads: dbo.a
-- writes: dbo.b
IF OBJECT_ID('tempdb..##held') IS NOT NULL DROP TABLE ##held;
SELECT * INTO ##held FROM dbo.a;
INSERT INTO dbo.b SELECT * FROM tempdb..##held;

-- name: in short: WITH t AS (SELECT * FROM dbo.a) MERGE dbo.b AS x USING t ON x.id = t.i
-- reads: dbo.a
-- writes: dbo.b
WITH t AS (SELECT * FROM dbo.a) MERGE dbo.b AS x USING t ON x.id = t.id WHEN MATCHED THEN UPDATE SET x.v = t.v;

-- name: in short: UPDATE dbo.a SET x = b.x FROM dbo.a INNER JOIN dbo.b b ON a.id = b.id
-- reads: dbo.b
-- writes: dbo.a
UPDATE dbo.a SET x = b.x FROM dbo.a INNER JOIN dbo.b b ON a.id = b.id;

-- name: in short: UPDATE TOP (10) dbo.a SET x = 1 OUTPUT inserted.id INTO #t WHERE y = 2
-- reads:
-- writes: dbo.a
UPDATE TOP (10) dbo.a SET x = 1 OUTPUT inserted.id INTO #t WHERE y = 2;

-- name: in short: DELETE TOP (100) FROM dbo.a WHERE id IN (SELECT id FROM dbo.b)
-- reads: dbo.b
-- writes: dbo.a
DELETE TOP (100) FROM dbo.a WHERE id IN (SELECT id FROM dbo.b);

-- name: in short: INSERT dbo.a WITH (TABLOCK) SELECT * FROM dbo.b
-- reads: dbo.b
-- writes: dbo.a
INSERT dbo.a WITH (TABLOCK) SELECT * FROM dbo.b;

-- name: in short: SELECT * INTO [my db].[dbo].[my table] FROM dbo.a
-- reads: dbo.a
-- writes: [my db].[dbo].[my table]
SELECT * INTO [my db].[dbo].[my table] FROM dbo.a;

-- name: in short: DECLARE @i INT = 0 WHILE @i < 10 BEGIN INSERT INTO dbo.a VALUES (@i) S
-- reads:
-- writes: dbo.a
DECLARE @i INT = 0
WHILE @i < 10
BEGIN
  INSERT INTO dbo.a VALUES (@i)
  SET @i += 1
END;

-- name: in short: IF OBJECT_ID('dbo.a') IS NOT NULL DROP TABLE dbo.a SELECT * INTO dbo.a
-- reads: dbo.b
-- writes: dbo.a
IF OBJECT_ID('dbo.a') IS NOT NULL
  DROP TABLE dbo.a
SELECT * INTO dbo.a FROM dbo.b;

-- name: in short: IF (SELECT COUNT(*) FROM dbo.a) > 0 INSERT INTO dbo.b SELECT * FROM db
-- reads: dbo.a, dbo.c
-- writes: dbo.b, dbo.d
IF (SELECT COUNT(*) FROM dbo.a) > 0 INSERT INTO dbo.b SELECT * FROM dbo.c ELSE INSERT INTO dbo.d SELECT 1;

-- name: in short: TRUNCATE TABLE dbo.a INSERT INTO dbo.a SELECT * FROM dbo.b UNION ALL S
-- reads: dbo.b, dbo.c
-- writes: dbo.a
TRUNCATE TABLE dbo.a
INSERT INTO dbo.a
SELECT * FROM dbo.b
UNION ALL
SELECT * FROM dbo.c;

-- name: in short: CREATE TABLE #t (id INT PRIMARY KEY, v VARCHAR(10)) INSERT INTO #t EXE
-- reads:
-- writes: dbo.a
CREATE TABLE #t (id INT PRIMARY KEY, v VARCHAR(10))
INSERT INTO #t
EXEC dbo.p
INSERT INTO dbo.a SELECT * FROM #t;

-- name: in short: CREATE VIEW dbo.v AS SELECT * FROM dbo.a
-- reads: dbo.a
-- writes: dbo.v
CREATE VIEW dbo.v AS
SELECT * FROM dbo.a;

-- name: in short: CREATE OR ALTER VIEW dbo.v WITH SCHEMABINDING AS SELECT id FROM dbo.a
-- reads: dbo.a
-- writes: dbo.v
CREATE OR ALTER VIEW dbo.v WITH SCHEMABINDING AS SELECT id FROM dbo.a;

-- name: in short: ALTER VIEW dbo.v AS SELECT id FROM dbo.a
-- reads: dbo.a
-- writes: dbo.v
ALTER VIEW dbo.v AS SELECT id FROM dbo.a;

-- name: in short: CREATE EXTERNAL TABLE ext.a WITH (LOCATION='/x', DATA_SOURCE=d, FILE_F
-- reads: dbo.b
-- writes: ext.a
CREATE EXTERNAL TABLE ext.a WITH (LOCATION='/x', DATA_SOURCE=d, FILE_FORMAT=f) AS SELECT * FROM dbo.b;

-- name: in short: SELECT * FROM dbo.a PIVOT (SUM(x) FOR y IN ([1],[2])) p
-- reads: dbo.a
-- writes:
SELECT * FROM dbo.a PIVOT (SUM(x) FOR y IN ([1],[2])) p;

-- name: in short: SELECT * FROM OPENQUERY(srv, 'select * from x') q JOIN dbo.a ON 1=1
-- reads: dbo.a
-- writes:
SELECT * FROM OPENQUERY(srv, 'select * from x') q JOIN dbo.a ON 1=1;

-- name: in short: INSERT INTO dbo.a SELECT * FROM dbo.f(1) CROSS APPLY STRING_SPLIT('a,b
-- reads:
-- writes: dbo.a
INSERT INTO dbo.a SELECT * FROM dbo.f(1) CROSS APPLY STRING_SPLIT('a,b', ',');

-- name: in short: WITH x (id) AS (SELECT id FROM dbo.a), y AS (SELECT * FROM x) SELECT *
-- reads: dbo.a
-- writes: dbo.b
WITH x (id) AS (SELECT id FROM dbo.a), y AS (SELECT * FROM x) SELECT * INTO dbo.b FROM y;

-- name: in short: EXECUTE dbo.p; EXEC @rc = dbo.p 1; PRINT 'x'; WAITFOR DELAY '00:00:01'
-- reads:
-- writes:
EXECUTE dbo.p; EXEC @rc = dbo.p 1; PRINT 'x'; WAITFOR DELAY '00:00:01';

-- name: in short: SET IDENTITY_INSERT dbo.a ON INSERT INTO dbo.a (id) SELECT id FROM dbo
-- reads: dbo.b
-- writes: dbo.a
SET IDENTITY_INSERT dbo.a ON
INSERT INTO dbo.a (id) SELECT id FROM dbo.b
SET IDENTITY_INSERT dbo.a OFF;

-- name: in short: BEGIN TRAN DELETE a FROM dbo.a a WHERE NOT EXISTS (SELECT 1 FROM dbo.b
-- reads: dbo.b
-- writes: dbo.a
BEGIN TRAN
DELETE a
FROM dbo.a a
WHERE NOT EXISTS (SELECT 1 FROM dbo.b b WHERE b.id = a.id)
COMMIT;

-- name: in short: DBCC CHECKIDENT ('dbo.a', RESEED, 0) UPDATE STATISTICS dbo.a ALTER IND
-- reads:
-- writes:
DBCC CHECKIDENT ('dbo.a', RESEED, 0)
UPDATE STATISTICS dbo.a
ALTER INDEX ALL ON dbo.a REBUILD;

-- name: in short: INSERT INTO dbo.a (x) OUTPUT inserted.id INTO dbo.log (id) SELECT x FR
-- reads: dbo.b
-- writes: dbo.a, dbo.log
INSERT INTO dbo.a (x)
OUTPUT inserted.id INTO dbo.log (id)
SELECT x FROM dbo.b;

-- name: in short: INSERT INTO dbo.hist SELECT * FROM (MERGE dbo.a t USING dbo.b s ON t.i
-- reads: dbo.b
-- writes: dbo.a, dbo.hist
INSERT INTO dbo.hist SELECT * FROM (MERGE dbo.a t USING dbo.b s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v OUTPUT $action, inserted.id) AS c (act, id);

-- name: in short: ;WITH c AS (SELECT * FROM dbo.a) INSERT INTO dbo.b SELECT * FROM c
-- reads: dbo.a
-- writes: dbo.b
;WITH c AS (SELECT * FROM dbo.a)
INSERT INTO dbo.b
SELECT * FROM c;

-- name: in short: INSERT INTO dbo.b ( id, v ) SELECT id, CASE WHEN v > 1 THEN 'x' ELSE '
-- reads: dbo.a, dbo.c
-- writes: dbo.b
INSERT INTO dbo.b
(
  id,
  v
)
SELECT
  id,
  CASE WHEN v > 1
    THEN 'x'
    ELSE 'y'
  END
FROM dbo.a
WHERE id NOT IN
(
  SELECT id FROM dbo.c
);

-- name: in short: UPDATE t SET t.x = s.x FROM dbo.a t INNER JOIN ( SELECT id, MAX(x) x F
-- reads: dbo.b
-- writes: dbo.a
UPDATE t
SET t.x = s.x
FROM dbo.a t
INNER JOIN (
  SELECT id, MAX(x) x FROM dbo.b GROUP BY id
) s ON s.id = t.id;

-- name: in short: DECLARE @d DATE; SET @d = (SELECT MAX(d) FROM dbo.ctl); DELETE FROM db
-- reads: dbo.ctl, stg.f
-- writes: dbo.f
DECLARE @d DATE;
SET @d = (SELECT MAX(d) FROM dbo.ctl);
DELETE FROM dbo.f WHERE d >= @d;
INSERT dbo.f (d) SELECT d FROM stg.f WHERE d >= @d;

-- name: in short: MERGE INTO dbo.dim AS T USING (SELECT DISTINCT k FROM stg.x) AS S ON T
-- reads: stg.x
-- writes: dbo.dim
MERGE INTO dbo.dim AS T USING (SELECT DISTINCT k FROM stg.x) AS S ON T.k = S.k WHEN NOT MATCHED THEN INSERT (k) VALUES (S.k) OUTPUT inserted.k;

-- name: in short: IF NOT EXISTS (SELECT * FROM sys.tables WHERE name = 'a') CREATE TABLE
-- reads: dbo.b
-- writes: dbo.a
IF NOT EXISTS (SELECT * FROM sys.tables WHERE name = 'a')
CREATE TABLE dbo.a (id INT)
GO
INSERT INTO dbo.a SELECT id FROM dbo.b
GO

-- name: in short: SELECT * INTO #a FROM dbo.a; SELECT * INTO #b FROM #a JOIN dbo.b ON 1=
-- reads: dbo.a, dbo.b
-- writes: dbo.c
SELECT * INTO #a FROM dbo.a; SELECT * INTO #b FROM #a JOIN dbo.b ON 1=1; INSERT INTO dbo.c SELECT * FROM #b; DROP TABLE #a, #b;

-- name: in short: ALTER TABLE dbo.a ADD CONSTRAINT fk FOREIGN KEY (x) REFERENCES dbo.b
-- reads:
-- writes:
ALTER TABLE dbo.a ADD CONSTRAINT fk FOREIGN KEY (x) REFERENCES dbo.b (x) ON DELETE CASCADE;

-- name: in short: SELECT * FROM dbo.a WHERE x = 1 FOR JSON AUTO, INCLUDE_NULL_VALUES
-- reads: dbo.a
-- writes:
SELECT * FROM dbo.a WHERE x = 1 FOR JSON AUTO, INCLUDE_NULL_VALUES;

-- name: in short: EXEC ('INSERT INTO dbo.a SELECT * FROM dbo.b')
-- reads: dbo.b
-- writes: dbo.a
EXEC ('INSERT INTO dbo.a SELECT * FROM dbo.b');

-- name: in short: BEGIN TRANSACTION; SAVE TRANSACTION x; TRUNCATE TABLE dbo.a; ALTER TAB
-- reads: stg.a
-- writes: dbo.a
BEGIN TRANSACTION;
SAVE TRANSACTION x;
TRUNCATE TABLE dbo.a;
ALTER TABLE stg.a SWITCH TO dbo.a;
COMMIT;

-- name: in short: DELETE FROM a FROM dbo.a AS a JOIN dbo.b AS b ON a.id = b.id
-- reads: dbo.b
-- writes: dbo.a
DELETE FROM a FROM dbo.a AS a JOIN dbo.b AS b ON a.id = b.id;

-- name: in short: CREATE PROCEDURE p AS BEGIN INSERT INTO dbo.x SELECT * FROM dbo.y; END
-- reads:
-- writes:
CREATE PROCEDURE p AS BEGIN INSERT INTO dbo.x SELECT * FROM dbo.y; END;

-- name: in short: INSERT INTO dbo.a SELECT NEXT VALUE FOR dbo.seq, * FROM dbo.b
-- reads: dbo.b
-- writes: dbo.a
INSERT INTO dbo.a SELECT NEXT VALUE FOR dbo.seq, * FROM dbo.b;

-- name: in short: DROP VIEW IF EXISTS dbo.v GO CREATE VIEW dbo.v AS SELECT a.id FROM dbo
-- reads: dbo.a, lk.db.dbo.b
-- writes: dbo.v
DROP VIEW IF EXISTS dbo.v
GO
CREATE VIEW dbo.v AS SELECT a.id FROM dbo.a a LEFT JOIN lk.db.dbo.b b ON a.id = b.id
GO

-- name: in short: INSERT INTO dbo.a SELECT * FROM [$(db)].dbo.x JOIN dbo.b ON 1=1
-- reads: dbo.b
-- writes: dbo.a
INSERT INTO dbo.a SELECT * FROM [$(db)].dbo.x JOIN dbo.b ON 1=1;

-- name: in short: USE [Data Warehouse]; INSERT INTO dbo.a SELECT * FROM dbo.b
-- reads: [Data Warehouse].dbo.b
-- writes: [Data Warehouse].dbo.a
USE [Data Warehouse]; INSERT INTO dbo.a SELECT * FROM dbo.b;

-- name: in short: WITH d AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY id ORDER BY ts) r
-- reads:
-- writes: dbo.a
WITH d AS (SELECT *, ROW_NUMBER() OVER (PARTITION BY id ORDER BY ts) rn FROM dbo.a WITH (NOLOCK)) UPDATE d SET x = 1 WHERE rn = 1;

-- name: in short: WITH s AS (SELECT * FROM dbo.s) DELETE t FROM dbo.t AS t JOIN s ON s.i
-- reads: dbo.s
-- writes: dbo.t
WITH s AS (SELECT * FROM dbo.s) DELETE t FROM dbo.t AS t JOIN s ON s.id = t.id;

-- name: in short: UPDATE dbo.t SET x = s.x FROM dbo.t INNER JOIN dbo.s AS s ON s.id = db
-- reads: dbo.s
-- writes: dbo.t
UPDATE dbo.t SET x = s.x FROM dbo.t INNER JOIN dbo.s AS s ON s.id = dbo.t.id;

-- name: in short: UPDATE a SET x = b.x FROM (SELECT * FROM dbo.t) a JOIN dbo.s b ON 1=1
-- reads: dbo.s
-- writes: dbo.t
UPDATE a SET x = b.x FROM (SELECT * FROM dbo.t) a JOIN dbo.s b ON 1=1;

-- name: in short: UPDATE a SET x = b.x FROM (SELECT * FROM dbo.t) a JOIN dbo.s b ON 1=1 …
-- reads: dbo.s
-- writes: dbo.t
UPDATE a SET x = b.x FROM (SELECT * FROM dbo.t) a JOIN dbo.s b ON 1=1;

-- name: in short: SELECT a.id, b.x INTO dbo.c FROM dbo.a AS a LEFT OUTER JOIN dbo.b AS b
-- reads: dbo.a, dbo.b
-- writes: dbo.c
SELECT a.id, b.x INTO dbo.c FROM dbo.a AS a LEFT OUTER JOIN dbo.b AS b WITH (INDEX(i), NOLOCK) ON a.id = b.id;

-- name: in short: INSERT INTO dbo.a (id) VALUES (1), (2) INSERT INTO dbo.b SELECT id FRO
-- reads: dbo.c
-- writes: dbo.a, dbo.b
INSERT INTO dbo.a (id)
VALUES
(1),
(2)
INSERT INTO dbo.b
SELECT id
FROM dbo.c
ORDER BY id
OFFSET 10 ROWS
FETCH NEXT 5 ROWS ONLY
PRINT 'done';

-- name: in short: CREATE TABLE dbo.a (id INT IDENTITY(1,1) NOT NULL, d DATETIME2 DEFAULT
-- reads:
-- writes: dbo.a
CREATE TABLE dbo.a (id INT IDENTITY(1,1) NOT NULL, d DATETIME2 DEFAULT SYSUTCDATETIME(), CONSTRAINT pk PRIMARY KEY CLUSTERED (id)) WITH (DATA_COMPRESSION = PAGE);

-- name: in short: DECLARE @rows INT SELECT @rows = COUNT(*) FROM dbo.a IF @rows = 0 BEGI
-- reads: dbo.a
-- writes: dbo.b
DECLARE @rows INT
SELECT @rows = COUNT(*) FROM dbo.a
IF @rows = 0
BEGIN
  RAISERROR('x', 16, 1)
  RETURN
END
DELETE dbo.b WHERE id IN (SELECT id FROM dbo.a);

-- name: in short: SELECT * FROM dbo.a FOR SYSTEM_TIME BETWEEN '2026-01-01' AND '2026-02-
-- reads: dbo.a
-- writes:
SELECT * FROM dbo.a FOR SYSTEM_TIME BETWEEN '2026-01-01' AND '2026-02-01' WHERE x = 1;

-- name: in short: INSERT INTO dbo.a SELECT * FROM dbo.b EXCEPT SELECT * FROM dbo.c INTER
-- reads: dbo.b, dbo.c, dbo.d
-- writes: dbo.a
INSERT INTO dbo.a SELECT * FROM dbo.b EXCEPT SELECT * FROM dbo.c INTERSECT SELECT * FROM dbo.d;

-- name: in short: IF OBJECT_ID('tempdb..#t') IS NOT NULL DROP TABLE #t SELECT * INTO #t
-- reads: dbo.a
-- writes: dbo.b
IF OBJECT_ID('tempdb..#t') IS NOT NULL DROP TABLE #t
SELECT * INTO #t FROM dbo.a
CREATE CLUSTERED INDEX i ON #t (id)
MERGE dbo.b AS b
USING #t AS t
ON b.id = t.id
WHEN MATCHED THEN UPDATE SET b.x = t.x
WHEN NOT MATCHED BY TARGET THEN INSERT (id) VALUES (t.id);

-- name: in short: BEGIN TRY BEGIN TRAN; INSERT INTO dbo.a SELECT * FROM dbo.b; COMMIT; E
-- reads: dbo.b
-- writes: dbo.a
BEGIN TRY BEGIN TRAN; INSERT INTO dbo.a SELECT * FROM dbo.b; COMMIT; END TRY BEGIN CATCH ROLLBACK; THROW; END CATCH;

-- name: in short: WHILE EXISTS (SELECT 1 FROM dbo.q) BEGIN DELETE TOP (100) FROM dbo.q O
-- reads:
-- writes: dbo.q, dbo.r
WHILE EXISTS (SELECT 1 FROM dbo.q) BEGIN DELETE TOP (100) FROM dbo.q OUTPUT deleted.* INTO dbo.r; END;

-- name: condition and value that calculate with a query
-- reads: raw.orders, stage.orders, ref.vat
-- writes: mart.orders
SET @rate = ((SELECT MAX(rate) FROM ref.vat) + 1)
IF ((SELECT COUNT(*) FROM stage.orders) > 0) INSERT INTO mart.orders SELECT * FROM raw.orders

-- name: statements after types
-- reads: raw.orders
-- writes: mart.orders
CREATE TYPE dbo.phone FROM varchar(20)
CREATE TYPE dbo.ids AS TABLE (id int);
INSERT INTO mart.orders SELECT * FROM raw.orders
