-- always: product_has_variants
-- A product that is not deleted has a variant.
SELECT product_id, status FROM product
WHERE delete_time IS NULL AND NOT EXISTS (
    SELECT FROM variant WHERE variant.product_id = product.product_id AND NOT dropped);

-- always: lowest_price_is_lowest
-- The sort price of a product is the lowest price of its variants.
SELECT product_id, lowest_price, least FROM product
JOIN (SELECT product_id, min(price) AS least FROM variant WHERE NOT dropped GROUP BY product_id) AS variants USING (product_id)
WHERE delete_time IS NULL AND lowest_price <> least;
