"""Modules that are copied into gen/shop, so that clients need nothing else; the generator fills in their tables."""
