CREATE TABLE address (
    address_id text PRIMARY KEY,
    user_id text NOT NULL REFERENCES account,
    -- Grows with every entry: orders those of one user by age, even when made at the same time.
    position bigint GENERATED ALWAYS AS IDENTITY,
    label text NOT NULL,
    recipient text NOT NULL,
    phone text NOT NULL,
    line1 text NOT NULL,
    line2 text NOT NULL,
    city text NOT NULL,
    region text NOT NULL,
    postal_code text NOT NULL,
    country_code text NOT NULL CHECK (country_code ~ '^[A-Z]{2}$'),
    is_default boolean NOT NULL,
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX address_user ON address (user_id, position);
CREATE UNIQUE INDEX address_default ON address (user_id) WHERE is_default;
