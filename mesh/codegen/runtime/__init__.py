"""Modules that go into gen/shop as they are, so that clients need nothing else; the generator fills their tables."""
