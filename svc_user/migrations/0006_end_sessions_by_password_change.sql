ALTER TABLE session DROP CONSTRAINT session_end_reason_check;
ALTER TABLE session ADD CONSTRAINT session_end_reason_check
    CHECK (end_reason IN ('SIGNED_OUT', 'TOKEN_REUSED', 'ROLE_LOST', 'PASSWORD_CHANGED')) NOT VALID;
ALTER TABLE session VALIDATE CONSTRAINT session_end_reason_check;
