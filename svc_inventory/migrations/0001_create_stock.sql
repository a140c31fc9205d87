CREATE TABLE stock (
    sku text NOT NULL,
    location_id text NOT NULL,
    on_hand int NOT NULL,
    allocated int NOT NULL DEFAULT 0,
    reserved int NOT NULL DEFAULT 0,
    safety_stock int NOT NULL DEFAULT 0,
    -- Counts the movements of this row: the optimistic lock, and the canary for a lost update.
    version bigint NOT NULL,
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sku, location_id),
    CHECK (on_hand >= 0 AND allocated >= 0 AND reserved >= 0 AND safety_stock >= 0),
    -- The last line against overselling: holds even if all code above it is wrong.
    CONSTRAINT never_oversold CHECK (allocated + reserved <= on_hand)
);

CREATE TABLE reservation (
    reservation_id text PRIMARY KEY,
    order_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('HELD', 'CONFIRMED', 'FULFILLED', 'RELEASED', 'EXPIRED')),
    expire_time timestamptz NOT NULL,
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX reservation_held ON reservation (expire_time) WHERE state = 'HELD';
CREATE INDEX reservation_order ON reservation (order_id);

CREATE TABLE allocation (
    reservation_id text NOT NULL REFERENCES reservation,
    sku text NOT NULL,
    location_id text NOT NULL,
    quantity int NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (reservation_id, sku, location_id),
    FOREIGN KEY (sku, location_id) REFERENCES stock
);
CREATE INDEX allocation_stock ON allocation (sku, location_id);

CREATE TABLE movement (
    movement_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sku text NOT NULL,
    location_id text NOT NULL,
    kind text NOT NULL,
    on_hand_delta int NOT NULL,
    allocated_delta int NOT NULL,
    reserved_delta int NOT NULL,
    safety_stock_delta int NOT NULL,
    reservation_id text NOT NULL DEFAULT '',
    actor text NOT NULL,
    reason text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX movement_stock ON movement (sku, movement_id);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END $$;
CREATE TRIGGER movement_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON movement
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
