-- Set by an operator: the consumer then gives the event to its handler again, and sets redrive_time when that succeeds.
ALTER TABLE dead_letter ADD COLUMN redrive_request_time timestamptz;
CREATE INDEX dead_letter_requested ON dead_letter (create_time)
    WHERE redrive_request_time IS NOT NULL AND redrive_time IS NULL;
-- For the purge of redriven ones.
CREATE INDEX dead_letter_redriven ON dead_letter (redrive_time) WHERE redrive_time IS NOT NULL;
