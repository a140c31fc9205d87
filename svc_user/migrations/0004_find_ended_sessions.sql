CREATE INDEX session_ended ON session (end_time) WHERE end_time IS NOT NULL;
