-- always: product_has_variants
-- A product that is not deleted has a variant.
SELECT product_id, status FROM product
WHERE delete_time IS NULL AND NOT EXISTS (
    SELECT FROM variant WHERE variant.product_id = product.product_id AND NOT dropped);

-- always: lowest_price_is_lowest I31
-- The sort price of a product is the lowest price of its variants.
SELECT product_id, lowest_price, least FROM product
JOIN (SELECT product_id, min(price) AS least FROM variant WHERE NOT dropped GROUP BY product_id) AS variants USING (product_id)
WHERE delete_time IS NULL AND lowest_price <> least;

-- always: listing_agrees_with_products I31
-- The read model of lists is what the products, their variants and categories say.
SELECT 'missing' AS what, missing.* FROM (SELECT * FROM listing_of_product EXCEPT SELECT * FROM listing) AS missing
UNION ALL
SELECT 'surplus', surplus.* FROM (SELECT * FROM listing EXCEPT SELECT * FROM listing_of_product) AS surplus;

-- always: categories_are_trees
-- Every category is a root or below one.
WITH RECURSIVE rooted AS (
    SELECT category_id FROM category WHERE parent_id IS NULL
    UNION
    SELECT category.category_id FROM category JOIN rooted ON category.parent_id = rooted.category_id
) SELECT category_id, parent_id FROM category WHERE category_id NOT IN (SELECT category_id FROM rooted);

-- history decode: price shop.catalog.v1.ProductUpdated variants
-- The prices of each version of a product. ProductCreated has the same fields.
SELECT extract(epoch FROM create_time)::float8 AS create_time, payload FROM outbox
WHERE type IN ('shop.catalog.v1.ProductCreated', 'shop.catalog.v1.ProductUpdated');
