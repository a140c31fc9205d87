-- Something for tests to write.
CREATE TABLE note (id text PRIMARY KEY, body text NOT NULL DEFAULT '');
