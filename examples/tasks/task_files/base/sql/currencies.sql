DROP TABLE IF EXISTS currencies;
CREATE TABLE currencies (currency TEXT PRIMARY KEY, rate REAL);
INSERT INTO currencies VALUES ('EUR', 1.0), ('GBP', 1.16), ('USD', 0.92), ('CHF', 1.05), ('SEK', 0.088);
