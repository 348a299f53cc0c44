-- name: in short: insert into tab1 select * from tab2, tab3 where tab2.id = tab3.id
-- reads: tab2, tab3
-- writes: tab1
insert into tab1 select * from tab2, tab3 where tab2.id = tab3.id;

-- name: in short: create table tab1 as select * from tab2 union select * from tab3
-- reads: tab2, tab3
-- writes: tab1
create table tab1 as select * from tab2 union select * from tab3;

-- name: in short: INSERT OVERWRITE TABLE tab1 SELECT * FROM tab2
-- reads: tab2
-- writes: tab1
INSERT OVERWRITE TABLE tab1 SELECT * FROM tab2;

-- name: in short: CREATE TEMPORARY TABLE a AS SELECT * FROM b; DROP TABLE a; SELECT * FR
-- reads: a, b
-- writes:
CREATE TEMPORARY TABLE a AS SELECT * FROM b; DROP TABLE a; SELECT * FROM a;

-- name: in short: DECLARE GLOBAL TEMPORARY TABLE session.t AS (SELECT * FROM a) WITH DAT
-- reads: a
-- writes: b
DECLARE GLOBAL TEMPORARY TABLE session.t AS (SELECT * FROM a) WITH DATA; INSERT INTO b SELECT * FROM session.t;

-- name: in short: UPSERT INTO a SELECT * FROM b
-- reads: b
-- writes: a
UPSERT INTO a SELECT * FROM b;

-- name: in short: insert into a select * from b; insert into c select * from a
-- reads: b
-- writes: a, c
insert into a select * from b; insert into c select * from a;

-- name: in short: with a as (select * from b) select * into c from a
-- reads: b
-- writes: c
with a as (select * from b) select * into c from a;

-- name: in short: MERGE INTO a USING b ON (a.id = b.id) WHEN MATCHED THEN UPDATE SET x =
-- reads: b
-- writes: a
MERGE INTO a USING b ON (a.id = b.id) WHEN MATCHED THEN UPDATE SET x = b.x;

-- name: in short: grant select on a to b; revoke all on a from b
-- reads:
-- writes:
grant select on a to b; revoke all on a from b;
