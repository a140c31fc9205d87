CREATE TABLE category (
    category_id text PRIMARY KEY,
    parent_id text REFERENCES category CHECK (parent_id <> category_id),
    name text NOT NULL CHECK (name <> ''),
    position int NOT NULL,
    version bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX category_parent ON category (parent_id);

CREATE TABLE product (
    product_id text PRIMARY KEY,
    name text NOT NULL CHECK (name <> ''),
    description text NOT NULL,
    brand text NOT NULL,
    status text NOT NULL CHECK (status IN ('DRAFT', 'ACTIVE', 'ARCHIVED')),
    -- The least price of its variants, in minor units, to sort by.
    lowest_price bigint NOT NULL,
    version bigint NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    -- A deleted product stays, so that its SKUs stay taken.
    delete_time timestamptz,
    words tsvector NOT NULL GENERATED ALWAYS AS (
        setweight(to_tsvector('simple', name), 'A') || setweight(to_tsvector('simple', brand), 'B')
        || setweight(to_tsvector('simple', description), 'C')
    ) STORED
);
CREATE INDEX product_newest ON product (create_time DESC, product_id DESC) WHERE delete_time IS NULL;
CREATE INDEX product_words ON product USING gin (words);
CREATE INDEX product_brand ON product (brand) WHERE delete_time IS NULL;

CREATE TABLE variant (
    sku text PRIMARY KEY,
    product_id text NOT NULL REFERENCES product,
    position int NOT NULL,
    attributes jsonb NOT NULL,
    -- Tax included, in minor units of the currency.
    price bigint NOT NULL CHECK (price >= 0),
    currency char(3) NOT NULL,
    tax_rate_basis_points int NOT NULL CHECK (tax_rate_basis_points BETWEEN 0 AND 10000),
    weight_grams int NOT NULL CHECK (weight_grams >= 0)
);
CREATE INDEX variant_product ON variant (product_id);

CREATE TABLE product_category (
    product_id text NOT NULL REFERENCES product,
    category_id text NOT NULL REFERENCES category,
    position int NOT NULL,
    PRIMARY KEY (product_id, category_id)
);
CREATE INDEX product_category_category ON product_category (category_id);

-- The categories below one, itself included.
CREATE FUNCTION categories_below(top text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    WITH RECURSIVE below AS (
        SELECT category_id FROM category WHERE category_id = top
        UNION
        SELECT category.category_id FROM category JOIN below ON category.parent_id = below.category_id
    ) SELECT category_id FROM below
$$;

-- The products that a list asks for; an empty argument asks for nothing in particular.
CREATE FUNCTION matching_products(
    want_status text, want_category text, want_words text, want_brand text,
    want_currency text, want_least bigint, want_most bigint
) RETURNS SETOF product LANGUAGE sql STABLE AS $$
    SELECT * FROM product
    WHERE delete_time IS NULL AND status = want_status
        AND (want_words = '' OR words @@ websearch_to_tsquery('simple', want_words))
        AND (want_brand = '' OR brand = want_brand)
        AND (want_category = '' OR product_id IN (
            SELECT product_id FROM product_category WHERE category_id IN (SELECT categories_below(want_category))))
        AND (want_currency = '' OR EXISTS (
            SELECT FROM variant WHERE variant.product_id = product.product_id
                AND currency = want_currency AND price BETWEEN want_least AND want_most))
$$;
