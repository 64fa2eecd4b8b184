CREATE TABLE greeting (name text PRIMARY KEY, words text NOT NULL);
INSERT INTO greeting VALUES ('world', 'hello world');
