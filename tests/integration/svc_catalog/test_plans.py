"""Lists of a catalog of 150,000 products read a page of it, not the whole: few buffers, by the service's own plans."""

import json
from pathlib import Path

import pytest

from chassis import Queries
from svc_catalog import store
from tests.integration.database_control import connected

PRODUCTS = 150_000
#: 8 KiB pages of tables and indexes that one list may touch; all products have more than 10,000.
BUFFERS = 600
#: The same for lists that are found by a filter, which matches some hundred products, and sorted then.
FILTERED_BUFFERS = 3_500
sql = Queries(Path(store.__file__).parent / "queries.sql")

#: A tree of categories: 'few' has 1 of 1,000 products; 'many', below 'top', every second one.
FILL = f"""
SET session_replication_role = replica;  -- no triggers: the listing is filled at once
SET synchronous_commit = off;
INSERT INTO category (category_id, parent_id, name, position, version)
VALUES ('top', NULL, 'top', 1, 1), ('many', 'top', 'many', 1, 1), ('few', 'top', 'few', 1, 1);
INSERT INTO product (product_id, name, description, brand, status, lowest_price, version, create_time)
SELECT 'p' || n, CASE WHEN n % 1000 = 7 THEN 'rare ' ELSE 'common ' END || n, '', 'brand' || n % 500,
    CASE WHEN n % 100 = 0 THEN 'DRAFT' ELSE 'ACTIVE' END, n, 1, now() - n * interval '1 second'
FROM generate_series(1, {PRODUCTS}) n;
INSERT INTO variant (sku, product_id, position, attributes, price, currency, tax_rate_basis_points, weight_grams)
SELECT 's' || n, 'p' || n, 1, '{{}}', n, 'THB', 0, 0 FROM generate_series(1, {PRODUCTS}) n;
INSERT INTO product_category (product_id, category_id, position)
SELECT 'p' || n, CASE WHEN n % 1000 = 1 THEN 'few' ELSE 'many' END, 1 FROM generate_series(1, {PRODUCTS}, 2) n;
DROP INDEX listing_create_time, listing_name, listing_price;
INSERT INTO listing SELECT * FROM listing_of_product;
CREATE INDEX listing_create_time ON listing (category_id, currency, status, create_time, product_id);
CREATE INDEX listing_name ON listing (category_id, currency, status, sort_name, product_id);
CREATE INDEX listing_price ON listing (category_id, currency, status, lowest_price, product_id) WHERE currency <> '';
ANALYZE;
RESET session_replication_role"""

ALL = ("", "", "ACTIVE", "", "", 0, 2**62)
FIRST = (None, "", 21)
THB = (ALL[0], "THB", *ALL[2:])

FILTERED = {"of a brand", "with a rare word", "within narrow prices", "of a small category within prices"}
#: The order, the filter and the position of each list.
LISTS = {
    "newest": ("create_time_desc", ALL, FIRST),
    "oldest": ("create_time_asc", ALL, FIRST),
    "by name": ("name_asc", ALL, FIRST),
    "a page in the middle by name": ("name_asc", ALL, ("common 5", "p5", 21)),
    "a page in the middle by price": ("price_desc", THB, (PRODUCTS // 2, "p1", 21)),
    "cheapest": ("price_asc", THB, FIRST),
    "of a large category": ("create_time_desc", ("many", *ALL[1:]), FIRST),
    "of a small category": ("create_time_desc", ("few", *ALL[1:]), FIRST),
    "of a category and those below": ("name_desc", ("top", *ALL[1:]), FIRST),
    "of a large category by price": ("price_asc", ("many", *THB[1:]), FIRST),
    "of a small category by price": ("price_desc", ("few", *THB[1:]), FIRST),
    "of no category": ("create_time_desc", ("none", *ALL[1:]), FIRST),
    "drafts": ("create_time_desc", ("", "", "DRAFT", *ALL[3:]), FIRST),
    "of a brand": ("create_time_desc", (*ALL[:4], "brand7", *ALL[5:]), FIRST),
    "with a rare word": ("create_time_desc", (*ALL[:3], "rare", *ALL[4:]), FIRST),
    "with a frequent word": ("create_time_desc", (*ALL[:3], "common", *ALL[4:]), FIRST),
    "within narrow prices": ("create_time_desc", (*THB[:5], 500, 600), FIRST),
    "within wide prices": ("create_time_desc", (*THB[:5], 1, 10**9), FIRST),
    "within no prices": ("create_time_desc", (*THB[:5], 10**9, 10**10), FIRST),
    "of a small category within prices": ("price_asc", ("few", *THB[1:5], 500, 9_000), FIRST),
}


async def explained(connection, order, wanted, position):
    """Return the plan of a list, executed as the service executes it."""
    async with connection.transaction():
        await connection.execute(sql.plan_with_arguments)
        query = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + getattr(sql, f"list_by_{order}")
        (plan,) = json.loads(await connection.fetchval(query, *wanted, *position))
    return plan["Plan"]


def sequential_scans(plan):
    """Return the tables of products that a plan reads as a whole."""
    own = [plan["Relation Name"]] if plan["Node Type"] == "Seq Scan" else []
    found = own + [table for part in plan.get("Plans", ()) for table in sequential_scans(part)]
    return [table for table in found if table != "category"]


@pytest.fixture
async def filled(fresh_database):
    async with fresh_database("svc_catalog") as url, connected(url) as connection:
        await connection.execute(FILL)
        yield connection


async def test_each_list_reads_few_pages_of_a_large_catalog(filled):
    wrong = {}
    for name, (order, wanted, position) in LISTS.items():
        plan = await explained(filled, order, wanted, position)
        buffers = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        if buffers > (FILTERED_BUFFERS if name in FILTERED else BUFFERS) or sequential_scans(plan):
            wrong[name] = (buffers, sequential_scans(plan))
    assert not wrong
