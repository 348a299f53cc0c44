DROP TABLE IF EXISTS silent_days;
CREATE TABLE silent_days AS
SELECT day FROM revenue_daily WHERE orders = 0;
