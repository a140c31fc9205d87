-- name: insert_product
-- Inserts a product whose id is free.
INSERT INTO product (product_id, name, description, brand, status, lowest_price, version)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING *;

-- name: update_product
-- Replaces a product that this transaction has locked.
UPDATE product SET name = $2, description = $3, brand = $4, status = $5, lowest_price = $6, version = $7,
    update_time = now()
WHERE product_id = $1 RETURNING *;

-- name: delete_product
-- Marks a product as deleted.
UPDATE product SET delete_time = now(), update_time = now(), version = $2 WHERE product_id = $1;

-- name: read_products
-- Reads products that are not deleted.
SELECT * FROM product WHERE product_id = ANY($1::text[]) AND delete_time IS NULL;

-- name: lock_product
-- Locks one product that is not deleted.
SELECT * FROM product WHERE product_id = $1 AND delete_time IS NULL FOR NO KEY UPDATE;

-- name: plan_with_arguments
-- Plans the statements of this transaction with their arguments: a generic plan would keep every optional filter.
SET LOCAL plan_cache_mode = force_custom_plan;

-- name: list_by_create_time_asc
-- Lists products after a sort key, by time of creation, ascending.
SELECT product.*, sort_key FROM (
    SELECT DISTINCT sort_key, product_id FROM listed_categories($1) AS wanted (category_id) CROSS JOIN LATERAL (
        SELECT create_time AS sort_key, product_id
        FROM listed_products(wanted.category_id, $2, $3, $4, $5, $6, $7)
        WHERE ($8::timestamptz IS NULL OR (create_time, product_id) > ($8, $9))
        ORDER BY create_time, product_id LIMIT $10
    ) AS one ORDER BY sort_key, product_id LIMIT $10
) AS page JOIN product USING (product_id) ORDER BY sort_key, product_id;

-- name: list_by_create_time_desc
-- Lists products after a sort key, by time of creation, descending.
SELECT product.*, sort_key FROM (
    SELECT DISTINCT sort_key, product_id FROM listed_categories($1) AS wanted (category_id) CROSS JOIN LATERAL (
        SELECT create_time AS sort_key, product_id
        FROM listed_products(wanted.category_id, $2, $3, $4, $5, $6, $7)
        WHERE ($8::timestamptz IS NULL OR (create_time, product_id) < ($8, $9))
        ORDER BY create_time DESC, product_id DESC LIMIT $10
    ) AS one ORDER BY sort_key DESC, product_id DESC LIMIT $10
) AS page JOIN product USING (product_id) ORDER BY sort_key DESC, product_id DESC;

-- name: list_by_name_asc
-- Lists products after a sort key, by name, ascending.
SELECT product.*, sort_key FROM (
    SELECT DISTINCT sort_key, product_id FROM listed_categories($1) AS wanted (category_id) CROSS JOIN LATERAL (
        SELECT sort_name AS sort_key, product_id
        FROM listed_products(wanted.category_id, $2, $3, $4, $5, $6, $7)
        WHERE ($8::text IS NULL OR (sort_name, product_id) > ($8, $9))
        ORDER BY sort_name, product_id LIMIT $10
    ) AS one ORDER BY sort_key, product_id LIMIT $10
) AS page JOIN product USING (product_id) ORDER BY sort_key, product_id;

-- name: list_by_name_desc
-- Lists products after a sort key, by name, descending.
SELECT product.*, sort_key FROM (
    SELECT DISTINCT sort_key, product_id FROM listed_categories($1) AS wanted (category_id) CROSS JOIN LATERAL (
        SELECT sort_name AS sort_key, product_id
        FROM listed_products(wanted.category_id, $2, $3, $4, $5, $6, $7)
        WHERE ($8::text IS NULL OR (sort_name, product_id) < ($8, $9))
        ORDER BY sort_name DESC, product_id DESC LIMIT $10
    ) AS one ORDER BY sort_key DESC, product_id DESC LIMIT $10
) AS page JOIN product USING (product_id) ORDER BY sort_key DESC, product_id DESC;

-- name: list_by_price_asc
-- Lists products after a sort key, by lowest price in a currency, ascending.
SELECT product.*, sort_key FROM (
    SELECT DISTINCT sort_key, product_id FROM listed_categories($1) AS wanted (category_id) CROSS JOIN LATERAL (
        SELECT lowest_price AS sort_key, product_id
        FROM listed_products(wanted.category_id, $2, $3, $4, $5, $6, $7)
        WHERE ($8::bigint IS NULL OR (lowest_price, product_id) > ($8, $9)) AND currency <> ''
        ORDER BY lowest_price, product_id LIMIT $10
    ) AS one ORDER BY sort_key, product_id LIMIT $10
) AS page JOIN product USING (product_id) ORDER BY sort_key, product_id;

-- name: list_by_price_desc
-- Lists products after a sort key, by lowest price in a currency, descending.
SELECT product.*, sort_key FROM (
    SELECT DISTINCT sort_key, product_id FROM listed_categories($1) AS wanted (category_id) CROSS JOIN LATERAL (
        SELECT lowest_price AS sort_key, product_id
        FROM listed_products(wanted.category_id, $2, $3, $4, $5, $6, $7)
        WHERE ($8::bigint IS NULL OR (lowest_price, product_id) < ($8, $9)) AND currency <> ''
        ORDER BY lowest_price DESC, product_id DESC LIMIT $10
    ) AS one ORDER BY sort_key DESC, product_id DESC LIMIT $10
) AS page JOIN product USING (product_id) ORDER BY sort_key DESC, product_id DESC;

-- name: read_variants_of
-- Reads the variants of some products.
SELECT * FROM variant WHERE product_id = ANY($1::text[]) AND NOT dropped ORDER BY product_id, position;

-- name: read_categories_of
-- Reads the categories of some products.
SELECT * FROM product_category WHERE product_id = ANY($1::text[]) ORDER BY product_id, position;

-- name: drop_variants
-- Marks the variants of a product as dropped unless they are among some; their SKUs stay taken.
UPDATE variant SET dropped = true WHERE product_id = $1 AND sku <> ALL ($2::text[]);

-- name: write_variants
-- Upserts variants of a product and returns their SKUs; skips a SKU that belongs to another product.
INSERT INTO variant (product_id, sku, position, attributes, price, currency, tax_rate_basis_points, weight_grams)
SELECT $1, sku, position, attributes::jsonb, price, currency, rate, weight
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::int[], $7::int[]) WITH ORDINALITY
    AS one (sku, attributes, price, currency, rate, weight, position)
ORDER BY sku
ON CONFLICT (sku) DO UPDATE SET position = excluded.position, attributes = excluded.attributes,
    price = excluded.price, currency = excluded.currency, tax_rate_basis_points = excluded.tax_rate_basis_points,
    weight_grams = excluded.weight_grams, dropped = false
WHERE variant.product_id = excluded.product_id
RETURNING sku;

-- name: delete_categories_of
-- Removes a product from its categories.
DELETE FROM product_category WHERE product_id = $1;

-- name: insert_categories_of
-- Puts a product into categories.
INSERT INTO product_category (product_id, category_id, position)
SELECT $1, category_id, position FROM unnest($2::text[]) WITH ORDINALITY AS one (category_id, position);

-- name: read_snapshots
-- Reads the variants that an order copies, with the name of the product and whether they are on sale.
SELECT variant.*, product.name, product.status = 'ACTIVE' AND delete_time IS NULL AND NOT dropped AS active
FROM variant JOIN product USING (product_id) WHERE sku = ANY($1::text[]);

-- name: insert_category
-- Inserts a category whose id is free.
INSERT INTO category (category_id, parent_id, name, position, version) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING RETURNING *;

-- name: update_category
-- Replaces a category that this transaction has locked.
UPDATE category SET parent_id = $2, name = $3, position = $4, version = $5, update_time = now()
WHERE category_id = $1 RETURNING *;

-- name: delete_category
-- Deletes a category.
DELETE FROM category WHERE category_id = $1;

-- name: read_category
-- Reads one category.
SELECT * FROM category WHERE category_id = $1;

-- name: lock_category
-- Locks one category after the transactions that put something into it, and against new ones.
SELECT * FROM category WHERE category_id = $1 FOR UPDATE;

-- name: lock_tree
-- Locks the tree of categories against other moves: a move is checked against the whole tree.
SELECT pg_advisory_xact_lock(1667331956);

-- name: lock_and_find_unknown_category
-- Locks some categories against deletion, and returns the first that does not exist.
WITH known AS (SELECT category_id FROM category WHERE category_id = ANY($1::text[]) FOR KEY SHARE)
SELECT id FROM unnest($1::text[]) AS id WHERE id NOT IN (SELECT category_id FROM known) ORDER BY id LIMIT 1;

-- name: is_descendant
-- Returns whether one category is below another, or the same.
SELECT $1::text IN (SELECT categories_below($2));

-- name: has_contents
-- Returns whether a category has products or categories.
SELECT EXISTS (SELECT FROM category WHERE parent_id = $1)
    OR EXISTS (SELECT FROM product_category JOIN product USING (product_id)
        WHERE category_id = $1 AND delete_time IS NULL);

-- name: list_categories
-- Lists categories after a sort key: parent, position, as much of the name as fits a page token, and id.
SELECT *, left(name, 40) AS sort_name FROM category
WHERE ($1 = '' OR parent_id = $1)
    AND (coalesce(parent_id, ''), position, left(name, 40), category_id) > ($2, $3, $4, $5)
ORDER BY coalesce(parent_id, ''), position, left(name, 40), category_id LIMIT $6;
