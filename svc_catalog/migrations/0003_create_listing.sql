-- The read model of ListProducts: a product under each of its categories and under '', for all categories; each of them
-- in each of its currencies and under '', for all currencies. A page is a range of one index.
CREATE TABLE listing (
    product_id text NOT NULL REFERENCES product,
    category_id text NOT NULL,
    currency text NOT NULL,
    status text NOT NULL,
    create_time timestamptz NOT NULL,
    -- As much of the name as fits a page token.
    sort_name text NOT NULL,
    -- The least price of its variants in this currency.
    lowest_price bigint CHECK ((lowest_price IS NULL) = (currency = '')),
    PRIMARY KEY (product_id, category_id, currency)
);

CREATE VIEW listing_of_product AS
SELECT product.product_id, category_id, price.currency, status, create_time, left(name, 60) AS sort_name,
    price.lowest_price
FROM product
CROSS JOIN LATERAL (
    SELECT '' AS category_id
    UNION ALL
    SELECT category_id FROM product_category WHERE product_category.product_id = product.product_id
) AS category
CROSS JOIN LATERAL (
    SELECT '' AS currency, NULL::bigint AS lowest_price
    UNION ALL
    SELECT currency::text, min(price) FROM variant WHERE variant.product_id = product.product_id AND NOT dropped
    GROUP BY currency
) AS price
WHERE delete_time IS NULL;

INSERT INTO listing SELECT * FROM listing_of_product;
CREATE INDEX listing_create_time ON listing (category_id, currency, status, create_time, product_id);
CREATE INDEX listing_name ON listing (category_id, currency, status, sort_name, product_id);
CREATE INDEX listing_price ON listing (category_id, currency, status, lowest_price, product_id) WHERE currency <> '';
CREATE INDEX variant_price ON variant (currency, price) INCLUDE (product_id) WHERE NOT dropped;

-- Every change of a product writes its row; its listing follows when the change commits, whichever release makes it.
CREATE FUNCTION refresh_listing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM listing WHERE product_id = NEW.product_id;
    INSERT INTO listing SELECT * FROM listing_of_product WHERE product_id = NEW.product_id;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER product_listing AFTER INSERT OR UPDATE ON product DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refresh_listing();

-- The products of one category that a list shows. Planned with its arguments, a filter by an empty text vanishes; the
-- price is no subquery of an OR, which would be planned on its own, and read all variants.
CREATE FUNCTION listed_products(
    want_category text, want_currency text, want_status text, want_words text, want_brand text,
    want_least bigint, want_most bigint
) RETURNS SETOF listing LANGUAGE sql STABLE AS $$
    SELECT listing.* FROM listing JOIN product USING (product_id)
    WHERE category_id = want_category AND listing.currency = want_currency AND listing.status = want_status
        AND (want_words = '' OR words @@ websearch_to_tsquery('simple', want_words))
        AND (want_brand = '' OR brand = want_brand AND delete_time IS NULL)
        AND EXISTS (
            SELECT FROM variant WHERE variant.product_id = listing.product_id AND NOT dropped
                AND (want_currency = '' OR variant.currency = want_currency::char(3))
                AND price BETWEEN want_least AND want_most)
$$;

-- The category and those below it; '' for all categories.
CREATE FUNCTION listed_categories(top text) RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT '' WHERE top = '' UNION ALL SELECT categories_below(top)
$$;
