-- name: in short: CREATE EXTERNAL TABLE raw.a (x string) PARTITIONED BY (d string) ROW F
-- reads:
-- writes: raw.a
CREATE EXTERNAL TABLE raw.a (x string) PARTITIONED BY (d string) ROW FORMAT SERDE 'x' LOCATION 's3://y/' TBLPROPERTIES ('a'='b');

-- name: in short: CREATE TABLE mart.a WITH (format='PARQUET', external_location='s3://x'
-- reads: raw.a
-- writes: mart.a
CREATE TABLE mart.a WITH (format='PARQUET', external_location='s3://x') AS SELECT * FROM raw.a;

-- name: in short: MSCK REPAIR TABLE raw.a; OPTIMIZE mart.a REWRITE DATA USING BIN_PACK
-- reads:
-- writes:
MSCK REPAIR TABLE raw.a; OPTIMIZE mart.a REWRITE DATA USING BIN_PACK; VACUUM mart.a;
