DROP TABLE IF EXISTS countries;
CREATE TABLE countries (country TEXT PRIMARY KEY, name TEXT, region TEXT);
INSERT INTO countries VALUES
  ('CH', 'Switzerland', 'Alps'), ('DE', 'Germany', 'West'), ('FR', 'France', 'West'),
  ('GB', 'United Kingdom', 'Islands'), ('SE', 'Sweden', 'North'), ('US', 'United States', 'Overseas');
