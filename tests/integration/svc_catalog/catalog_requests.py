"""Requests of staff, by the ids that matter to a test."""

from google.protobuf.field_mask_pb2 import FieldMask

from chassis.types.money import money
from shop.catalog.v1 import catalog_service_pb2 as pb
from shop.catalog.v1 import category_service_pb2 as category_pb


def variant(sku, price=10_000):
    return pb.Variant(sku=sku, price=money(price, "THB"))


def create_request(product_id, *skus, **fields):
    product = pb.Product(product_id=product_id, name=product_id, variants=map(variant, skus), **fields)
    return pb.CreateProductRequest(product=product, request_id=f"create-{product_id}")


def update_request(product_id, *paths, request_id, **fields):
    product = pb.Product(product_id=product_id, **fields)
    return pb.UpdateProductRequest(product=product, update_mask=FieldMask(paths=paths), request_id=request_id)


def new_category(category_id, parent_id=""):
    category = category_pb.Category(category_id=category_id, name=category_id, parent_id=parent_id)
    return category_pb.CreateCategoryRequest(category=category, request_id=f"create-{category_id[:40]}")
