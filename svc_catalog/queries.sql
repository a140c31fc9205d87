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
-- Hides a product for good.
UPDATE product SET delete_time = now(), update_time = now(), version = $2 WHERE product_id = $1;

-- name: read_products
-- Reads products that are not deleted.
SELECT * FROM product WHERE product_id = ANY($1::text[]) AND delete_time IS NULL;

-- name: lock_product
-- Reads one product that is not deleted and keeps others from changing it.
SELECT * FROM product WHERE product_id = $1 AND delete_time IS NULL FOR NO KEY UPDATE;

-- name: list_newest
-- Lists products from a position on, newest first.
SELECT product.*, to_char(create_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') AS sort_key
FROM matching_products($1, $2, $3, $4, $5, $6, $7) AS product
WHERE $8 = '' OR (create_time, product_id) < ($8::text::timestamp AT TIME ZONE 'UTC', $9)
ORDER BY create_time DESC, product_id DESC LIMIT $10;

-- name: list_ascending
-- Lists products from a position on, by a key that sorts as text.
SELECT * FROM (
    SELECT product.*, CASE $11 WHEN 'name' THEN name WHEN 'price' THEN lpad(lowest_price::text, 20, '0')
        ELSE to_char(create_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') END AS sort_key
    FROM matching_products($1, $2, $3, $4, $5, $6, $7) AS product) AS keyed
WHERE $8 = '' OR (sort_key, product_id) > ($8, $9)
ORDER BY sort_key, product_id LIMIT $10;

-- name: list_descending
-- Lists products from a position on, by a key that sorts as text, backwards.
SELECT * FROM (
    SELECT product.*, CASE $11 WHEN 'name' THEN name WHEN 'price' THEN lpad(lowest_price::text, 20, '0')
        ELSE to_char(create_time AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') END AS sort_key
    FROM matching_products($1, $2, $3, $4, $5, $6, $7) AS product) AS keyed
WHERE $8 = '' OR (sort_key, product_id) < ($8, $9)
ORDER BY sort_key DESC, product_id DESC LIMIT $10;

-- name: read_variants_of
-- Reads the variants of some products.
SELECT * FROM variant WHERE product_id = ANY($1::text[]) ORDER BY product_id, position;

-- name: read_categories_of
-- Reads in which categories some products are.
SELECT * FROM product_category WHERE product_id = ANY($1::text[]) ORDER BY product_id, position;

-- name: find_foreign_sku
-- Finds a SKU that belongs to another product, deleted ones included.
SELECT sku FROM variant WHERE sku = ANY($1::text[]) AND product_id <> $2 ORDER BY sku LIMIT 1;

-- name: delete_variants
-- Removes the variants of a product, before they are written anew.
DELETE FROM variant WHERE product_id = $1;

-- name: insert_variants
-- Inserts the variants of a product.
INSERT INTO variant (product_id, sku, position, attributes, price, currency, tax_rate_basis_points, weight_grams)
SELECT $1, sku, position, attributes::jsonb, price, currency, rate, weight
FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::int[], $7::int[]) WITH ORDINALITY
    AS one (sku, attributes, price, currency, rate, weight, position);

-- name: delete_categories_of
-- Takes a product out of its categories.
DELETE FROM product_category WHERE product_id = $1;

-- name: insert_categories_of
-- Puts a product into categories.
INSERT INTO product_category (product_id, category_id, position)
SELECT $1, category_id, position FROM unnest($2::text[]) WITH ORDINALITY AS one (category_id, position);

-- name: read_snapshots
-- Reads what an order copies of some SKUs.
SELECT variant.*, product.name, product.status, product.delete_time
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

-- name: lock_categories
-- Keeps the tree of categories as it is until this transaction ends: a move is checked against all of it.
SELECT pg_advisory_xact_lock(1667331956);

-- name: find_unknown_category
-- Finds a category that does not exist among some, and keeps the others from being deleted.
WITH known AS (SELECT category_id FROM category WHERE category_id = ANY($1::text[]) FOR KEY SHARE)
SELECT id FROM unnest($1::text[]) AS id WHERE id NOT IN (SELECT category_id FROM known) ORDER BY id LIMIT 1;

-- name: is_below
-- Tells whether one category is, or stands in, another.
SELECT $1::text IN (SELECT categories_below($2));

-- name: is_used
-- Tells whether a category has products or categories.
SELECT EXISTS (SELECT FROM category WHERE parent_id = $1)
    OR EXISTS (SELECT FROM product_category JOIN product USING (product_id)
        WHERE category_id = $1 AND delete_time IS NULL);

-- name: list_categories
-- Lists categories from a position on, in order of their parent, position and name.
SELECT * FROM category
WHERE ($1 = '' OR parent_id = $1)
    AND (coalesce(parent_id, ''), position, name, category_id) > ($2, $3, $4, $5)
ORDER BY coalesce(parent_id, ''), position, name, category_id LIMIT $6;
