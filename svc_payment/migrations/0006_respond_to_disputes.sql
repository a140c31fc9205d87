-- What the shop responds to a dispute is requested of the provider like its other operations.
ALTER TABLE entry DROP CONSTRAINT entry_kind_check;
ALTER TABLE entry ADD CONSTRAINT entry_kind_check CHECK (kind IN (
    'AUTHORIZATION', 'CHARGE', 'REFUND', 'CANCEL', 'CHARGEBACK', 'EXPIRY', 'EVIDENCE', 'ACCEPTANCE')) NOT VALID;
ALTER TABLE entry VALIDATE CONSTRAINT entry_kind_check;
