DROP TABLE IF EXISTS quality_report;
CREATE TABLE quality_report AS
SELECT 'rejected' AS what, count(*) AS found FROM rejected_orders
UNION ALL SELECT 'doubled', count(*) FROM doubled_orders
UNION ALL SELECT 'silent days', count(*) FROM silent_days;
