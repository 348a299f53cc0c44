DROP TABLE IF EXISTS calendar;
CREATE TABLE calendar AS
WITH RECURSIVE days AS (
  SELECT '2026-01-01' AS day
  UNION ALL
  SELECT date(day, '+1 day') FROM days WHERE day < '2026-06-30'
)
SELECT day, substr(day, 1, 7) AS month, strftime('%w', day) IN ('0', '6') AS weekend FROM days;
