-- A SKU that its product drops stays, so that it stays taken, and orders can still ask about it.
ALTER TABLE variant ADD COLUMN dropped boolean NOT NULL DEFAULT false;

-- Names are sorted by as many characters as fit a page token.
CREATE INDEX product_name ON product (left(name, 60), product_id) WHERE delete_time IS NULL;
CREATE INDEX product_price ON product (lowest_price, product_id) WHERE delete_time IS NULL;

CREATE OR REPLACE FUNCTION matching_products(
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
            SELECT FROM variant WHERE variant.product_id = product.product_id AND NOT dropped
                AND currency = want_currency AND price BETWEEN want_least AND want_most))
$$;
