DROP TABLE IF EXISTS board_report;
CREATE TABLE board_report AS
SELECT 'revenue of {{ dag.dag_id }}' AS what, round(sum(eur), 2) AS value FROM monthly_report
UNION ALL SELECT 'countries', count(*) FROM country_report
UNION ALL SELECT 'top twenty', round(eur, 2) FROM customer_report WHERE what = 'top twenty'
UNION ALL SELECT what, found FROM quality_report;
