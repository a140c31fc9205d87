"""What the tests of the chassis keep beside its own tables."""
