CREATE TABLE zone (
    zone_id text PRIMARY KEY,
    name text NOT NULL,
    country_code text NOT NULL,
    currency_code text NOT NULL,
    -- Integer minor units.
    base_fee bigint NOT NULL CHECK (base_fee >= 0),
    fee_per_kg bigint NOT NULL CHECK (fee_per_kg >= 0),
    tax_rate_basis_points int NOT NULL CHECK (tax_rate_basis_points BETWEEN 0 AND 10000),
    time_zone text NOT NULL
);

CREATE TABLE zone_prefix (
    country_code text NOT NULL,
    prefix text NOT NULL,
    zone_id text NOT NULL REFERENCES zone,
    -- A postal code has one longest prefix, and so one zone.
    PRIMARY KEY (country_code, prefix)
);
CREATE INDEX zone_prefix_zone ON zone_prefix (zone_id);

CREATE TABLE slot_rule (
    zone_id text NOT NULL REFERENCES zone,
    position int NOT NULL,
    -- As ISO 8601 counts: 1 is Monday.
    weekdays int[] NOT NULL,
    start_time time NOT NULL,
    end_time time NOT NULL,
    lead_time interval NOT NULL,
    capacity int NOT NULL CHECK (capacity > 0),
    PRIMARY KEY (zone_id, position),
    CHECK (start_time < end_time)
);

CREATE TABLE slot (
    slot_id text PRIMARY KEY DEFAULT gen_random_uuid()::text,
    zone_id text NOT NULL REFERENCES zone,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    cutoff_time timestamptz NOT NULL,
    capacity int NOT NULL,
    booked int NOT NULL DEFAULT 0,
    -- Grows by one with every change of `booked`: the optimistic lock.
    version bigint NOT NULL DEFAULT 1,
    UNIQUE (zone_id, start_time, end_time),
    CHECK (cutoff_time <= start_time AND start_time < end_time),
    -- The last line against overbooking: holds even if all code above it is wrong.
    CONSTRAINT never_overbooked CHECK (booked BETWEEN 0 AND capacity)
);

CREATE TABLE booking (
    order_id text PRIMARY KEY,
    -- Null in an order that was released before it had booked: it keeps a late request from booking.
    slot_id text REFERENCES slot,
    state text NOT NULL CHECK (state IN ('BOOKED', 'RELEASED')),
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL,
    CHECK (slot_id IS NOT NULL OR state = 'RELEASED')
);
CREATE INDEX booking_slot ON booking (slot_id) WHERE state = 'BOOKED';

CREATE TABLE shipment (
    shipment_id text PRIMARY KEY,
    order_id text NOT NULL UNIQUE,
    user_id text NOT NULL,
    state text NOT NULL CHECK (state IN ('CREATED', 'LABELLED', 'PICKED_UP', 'IN_TRANSIT', 'OUT_FOR_DELIVERY',
        'DELIVERED', 'FAILED', 'RETURNED')),
    -- A shop.type.v1.Address.
    shipping_address bytea NOT NULL,
    slot_id text NOT NULL,
    weight_grams int NOT NULL CHECK (weight_grams >= 0),
    consignment_id text NOT NULL DEFAULT '',
    tracking_number text NOT NULL DEFAULT '',
    -- The courier's count of moves as far as it was heard: what is not above it is old news.
    courier_version bigint NOT NULL DEFAULT 0,
    -- Counts the rows of shipment_update.
    version bigint NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX shipment_of_user ON shipment (user_id, create_time DESC, shipment_id DESC);
CREATE INDEX shipment_by_time ON shipment (create_time DESC, shipment_id DESC);

CREATE TABLE shipment_update (
    shipment_id text NOT NULL REFERENCES shipment,
    version bigint NOT NULL,
    state text NOT NULL,
    note text NOT NULL,
    actor text NOT NULL,
    create_time timestamptz NOT NULL,
    PRIMARY KEY (shipment_id, version)
);

-- The orders that staff wants to see shipped, until the courier has their parcel or refuses it.
CREATE TABLE dispatch (
    order_id text PRIMARY KEY,
    -- Who asked for it.
    actor text NOT NULL,
    attempts int NOT NULL,
    -- Not before this anybody else may try: whoever has tried last may still be at it.
    next_attempt_time timestamptz NOT NULL
);
CREATE INDEX dispatch_due ON dispatch (next_attempt_time);

CREATE TABLE courier_event (
    webhook_id text PRIMARY KEY,
    receive_time timestamptz NOT NULL DEFAULT now()
);
